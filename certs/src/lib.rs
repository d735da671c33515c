//! certs: the cluster's own certificate authority, and what its certificates say.
//!
//! One authority per cluster. Nothing talks to a node without a certificate of that authority, and
//! the certificate says what its holder may do: be a node, be a client, or administer. A node is
//! verified by a name derived from its cluster ([`node_dns_name`]), never by its address, so that
//! addresses may change without new certificates.
//!
//! Everything here is synchronous and small: `ringctl` issues, `ringd` and the clients load. TLS
//! configurations always name their cryptography ([`provider`]); no process-wide default is ever
//! installed or consulted.
//!
//! Reading order: [`Identity`], [`CaPair`] and [`issue`], [`Credentials`], [`server_config`].

mod authority;
mod credentials;
mod error;
mod files;
mod fingerprint;
mod gate;
mod identity;
mod public;
mod tls;

pub use authority::{CaPair, CertPair, Subject, Validity, ca_init, issue};
pub use credentials::{Credentials, TlsFiles};
pub use error::CertError;
pub use fingerprint::Fingerprint;
pub use gate::{OnRefused, Refused};
pub use identity::{
    Identity, NAME_BYTES_MAX, Role, check_name, common_name, identity_of, node_dns_name,
};
pub use public::{ClientCerts, PublicFiles, public_config};
pub use tls::{
    ALPN, client_config, explain_alert, provider, server_config, server_config_reporting, sha256,
};
