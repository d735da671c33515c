//! TLS: one provider, one version, both sides with certificates.
//!
//! Promise: every configuration names its provider, so that it works whatever other provider some
//! other crate has linked; TLS 1.3 only; AES-128-GCM first, the cheapest on machines with AES
//! instructions; no tickets and no resumption, since connections live long and a certificate that
//! has expired must not return through a ticket.

use std::sync::Arc;

use rustls::crypto::tls13::OkmBlock;
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, ServerConfig, Tls13CipherSuite};

use crate::gate::Gate;
use crate::{CertError, Credentials, OnRefused};

/// What both sides must offer, so that a stray HTTP/3 client is turned away in the handshake.
pub const ALPN: &[u8] = b"ringdb/1";

/// The cryptography of every connection.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring_provider::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => 0,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        _ => 2,
    });
    Arc::new(provider)
}

/// For a node that accepts: whoever comes must have a certificate of the cluster.
///
/// # Errors
/// [`CertError::Tls`]; checked credentials should never cause it.
pub fn server_config(credentials: &Credentials) -> Result<ServerConfig, CertError> {
    server_config_reporting(credentials, Arc::new(|_| ()))
}

/// As [`server_config`], and `on_refused` hears of every certificate that is refused.
///
/// # Errors
/// As [`server_config`].
pub fn server_config_reporting(
    credentials: &Credentials,
    on_refused: OnRefused,
) -> Result<ServerConfig, CertError> {
    let roots = credentials.roots.clone();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(CertError::tls)?;
    let authority = credentials.authority();
    let verifier = Arc::new(Gate { verifier, authority, on_refused });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CertError::tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(CertError::tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// For whoever dials: presents its certificate, trusts the cluster's authority alone. The name to
/// verify is [`crate::node_dns_name`].
///
/// # Errors
/// [`CertError::Tls`]; checked credentials should never cause it.
pub fn client_config(credentials: &Credentials) -> Result<ClientConfig, CertError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(CertError::tls)?
        .with_root_certificates(credentials.roots.clone())
        .with_client_auth_cert(credentials.chain.clone(), credentials.key.clone_key())
        .map_err(CertError::tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// What a TLS alert means between members of a cluster, in words; `None` for one that certificates
/// have nothing to do with. `alert` is the number of RFC 8446, section 6.
#[must_use]
pub fn explain_alert(alert: u8) -> Option<&'static str> {
    match alert {
        42 | 43 | 46 => Some("the other side could not use the certificate"),
        44 => Some("the certificate was revoked"),
        45 => Some("the certificate has expired, or the other side's clock is wrong"),
        48 => Some("the certificate is signed by another CA"),
        49 => Some("the other side denied access"),
        51 => Some("a signature did not fit its certificate"),
        116 => Some("a certificate is required and none was presented"),
        120 => Some("the other side speaks no ringdb/1"),
        _ => None,
    }
}

fn suite() -> &'static Tls13CipherSuite {
    ring_provider::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("a suite named TLS13 is one of TLS 1.3")
}

/// The SHA-256 of some bytes.
///
/// # Panics
/// Never: the hash has 32 bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = suite().common.hash_provider.hash(bytes);
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

pub(crate) fn hmac_sha256(secret: &[u8], message: &[u8]) -> [u8; 32] {
    let key = OkmBlock::new(&sha256(secret));
    let tag = suite().hkdf_provider.hmac_sign(&key, message);
    tag.as_ref().try_into().expect("HMAC with SHA-256 has 32 bytes")
}
