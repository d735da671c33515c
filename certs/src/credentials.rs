//! Credentials: what one process presents and whom it trusts, checked before it is used.
//!
//! Promise: credentials that exist are sound. The certificate is in its time, signed by the
//! authority beside it, fits its key and names a role; whatever is wrong is said at load time in
//! words, not at the first handshake in a TLS alert.

use core::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::files::read;
use crate::tls::provider;
use crate::{CertError, CertPair, Fingerprint, Identity, identity_of};

/// The three files that a process needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's root certificate.
    pub ca: PathBuf,
    /// The process's own certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Checked certificates and a key, ready for [`crate::server_config`] and
/// [`crate::client_config`].
pub struct Credentials {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    identity: Identity,
    authority: Fingerprint,
    own: Fingerprint,
}

impl Credentials {
    /// Reads and checks the three files.
    ///
    /// # Errors
    /// Every variant of [`CertError`] that speaks of loading.
    pub fn load(files: &TlsFiles) -> Result<Self, CertError> {
        let (ca, cert, key) = (read(&files.ca)?, read(&files.cert)?, read(&files.key)?);
        Self::check(files, &ca, &cert, &key)
    }

    /// Checks a pair that never was on disk.
    ///
    /// # Errors
    /// As [`Credentials::load`], without those about files.
    pub fn from_pair(pair: &CertPair) -> Result<Self, CertError> {
        let name = &pair.identity.name;
        let files = TlsFiles {
            ca: "ca.pem".into(),
            cert: format!("{name}.pem").into(),
            key: format!("{name}.key").into(),
        };
        Self::check(&files, &pair.ca_pem, &pair.cert_pem, &pair.key_pem)
    }

    fn check(files: &TlsFiles, ca: &str, cert: &str, key: &str) -> Result<Self, CertError> {
        let authorities = certificates(&files.ca, ca)?;
        let chain = certificates(&files.cert, cert)?;
        let key = private_key(&files.key, key)?;
        let (authority, own) = (Fingerprint::of(&authorities[0]), Fingerprint::of(&chain[0]));
        let now = UnixTime::now();
        in_its_time(&files.ca, &authorities[0], now)?;
        in_its_time(&files.cert, &chain[0], now)?;
        let mut roots = RootCertStore::empty();
        for der in authorities {
            roots.add(der).map_err(CertError::tls)?;
        }
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(CertError::tls)?;
        verifier.verify_client_cert(&chain[0], &chain[1..], now).map_err(|e| {
            let (path, detail) = (files.cert.clone(), e.to_string());
            CertError::WrongAuthority { path, authority, presented: own, detail }
        })?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(
            |e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    CertError::KeyMismatch { path: files.key.clone(), certificate: own }
                }
                other => CertError::tls(other),
            },
        )?;
        let identity = identity_of(&chain[0])?;
        Ok(Self { roots, chain, key, identity, authority, own })
    }

    /// Who the holder of these credentials is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The fingerprint of the cluster's authority.
    #[must_use]
    pub fn authority(&self) -> Fingerprint {
        self.authority
    }

    /// The fingerprint of the own certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.own
    }

    /// Thirty-two secret bytes for `purpose` and `context`, the same after every restart with the
    /// same key and of no use for finding the key.
    #[must_use]
    pub fn derive_secret(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        let purpose = crate::tls::hmac_sha256(self.key.secret_der(), purpose.as_bytes());
        crate::tls::hmac_sha256(&purpose, context)
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            roots: self.roots.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            identity: self.identity.clone(),
            authority: self.authority,
            own: self.own,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} {:#}, CA {:#})", self.identity, self.own, self.authority)
    }
}

pub(crate) fn certificates(
    path: &Path,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let not_pem =
        |detail: String| CertError::NotPem { path: path.to_owned(), wanted: "certificate", detail };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => Err(not_pem("no CERTIFICATE section in it".into())),
        Ok(found) => Ok(found),
        Err(e) => Err(not_pem(e.to_string())),
    }
}

pub(crate) fn private_key(path: &Path, pem: &str) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| CertError::NotPem {
        path: path.to_owned(),
        wanted: "private key",
        detail: e.to_string(),
    })
}

pub(crate) fn in_its_time(path: &Path, der: &[u8], now: UnixTime) -> Result<(), CertError> {
    let fingerprint = Fingerprint::of(der);
    let (_, parsed) = X509Certificate::from_der(der)
        .map_err(|e| CertError::NoIdentity { fingerprint, detail: e.to_string() })?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let path = path.to_owned();
    if now > validity.not_after.timestamp() {
        let not_after = validity.not_after.to_string();
        return Err(CertError::Expired { path, fingerprint, not_after });
    }
    if now < validity.not_before.timestamp() {
        let not_before = validity.not_before.to_string();
        return Err(CertError::NotYetValid { path, fingerprint, not_before });
    }
    Ok(())
}
