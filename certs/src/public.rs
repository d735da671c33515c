//! Public: TLS for clients that are not the cluster's own, such as those of the Redis port.
//!
//! The certificate may be of any authority, and names the host as clients know it. Promise: a
//! configuration that exists works: certificate and key fit and are in their time, and whatever is wrong
//! is said when it is loaded, not to the first client.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring as ring_provider;
use rustls::pki_types::UnixTime;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::credentials::{certificates, in_its_time, private_key};
use crate::files::read;
use crate::gate::Gate;
use crate::{CertError, Fingerprint, OnRefused};

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCerts {
    /// None is asked for.
    #[default]
    No,
    /// One that is shown must be of the authority.
    Optional,
    /// Nobody comes in without.
    Required,
}

/// What a port for clients shows, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFiles {
    /// Its certificate, with those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authority of clients' certificates.
    pub ca: Option<PathBuf>,
    /// Whether clients show one.
    pub clients: ClientCerts,
}

/// Reads and checks the files. `on_refused` hears of clients' certificates that are refused.
///
/// # Errors
/// Every variant of [`CertError`] that speaks of loading.
///
/// # Panics
/// Never: an authority is asked for where clients show certificates.
pub fn public_config(
    files: &PublicFiles,
    on_refused: OnRefused,
) -> Result<ServerConfig, CertError> {
    let provider = Arc::new(ring_provider::default_provider());
    let chain = certificates(&files.cert, &read(&files.cert)?)?;
    let key = private_key(&files.key, &read(&files.key)?)?;
    in_its_time(&files.cert, &chain[0], UnixTime::now())?;
    CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => CertError::KeyMismatch {
            path: files.key.clone(),
            certificate: Fingerprint::of(&chain[0]),
        },
        other => CertError::tls(other),
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(CertError::tls)?;
    let builder = match (&files.ca, files.clients) {
        (_, ClientCerts::No) | (None, _) => builder.with_no_client_auth(),
        (Some(path), clients) => {
            let authorities = certificates(path, &read(path)?)?;
            in_its_time(path, &authorities[0], UnixTime::now())?;
            let authority = Fingerprint::of(&authorities[0]);
            let mut roots = RootCertStore::empty();
            for der in authorities {
                roots.add(der).map_err(CertError::tls)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                ClientCerts::Required => verifier,
                ClientCerts::Optional | ClientCerts::No => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(CertError::tls)?;
            let gate = Gate { verifier, authority, on_refused };
            builder.with_client_cert_verifier(Arc::new(gate))
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(CertError::tls)?;
    // A certificate that has expired must not return through a ticket.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}
