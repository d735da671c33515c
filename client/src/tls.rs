//! Tls: who this client is, and which nodes it believes.
//!
//! A client knows addresses, not names. Promise: it talks to whoever holds a certificate of the
//! cluster's authority that says "node of this cluster", under whatever address, and to nobody
//! else: the name to verify is taken from the certificate and then verified with it.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use certs::{
    CertError, CertPair, Credentials, Fingerprint, Identity, Role, TlsFiles, identity_of,
    node_dns_name, provider,
};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::error::Told;

/// The certificate of a client or administrator and the authority of its cluster, checked.
#[derive(Clone, Debug)]
pub struct Tls {
    credentials: Credentials,
    roots: Arc<RootCertStore>,
}

impl Tls {
    /// Reads and checks the three files.
    ///
    /// # Errors
    /// [`CertError`] says in three lines which file does not do, and why.
    pub fn load(files: &TlsFiles) -> Result<Self, CertError> {
        let credentials = Credentials::load(files)?;
        let unreadable = |source| CertError::Unreadable { path: files.ca.clone(), source };
        Self::new(credentials, &fs::read_to_string(&files.ca).map_err(unreadable)?)
    }

    /// Checks a certificate that never was on disk.
    ///
    /// # Errors
    /// As [`Tls::load`], without those about files.
    pub fn from_pair(pair: &CertPair) -> Result<Self, CertError> {
        Self::new(Credentials::from_pair(pair)?, &pair.ca_pem)
    }

    fn new(credentials: Credentials, ca_pem: &str) -> Result<Self, CertError> {
        let identity = credentials.identity();
        if identity.role == Role::Node {
            let name = identity.name.clone();
            return Err(CertError::WrongRole { name, has: Role::Node, needs: Role::Client });
        }
        let tls = |e: &dyn core::fmt::Display| CertError::Tls { detail: e.to_string() };
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(der.map_err(|e| tls(&e))?).map_err(|e| tls(&e))?;
        }
        Ok(Self { credentials, roots: Arc::new(roots) })
    }

    /// Who this client is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.credentials.identity()
    }

    /// What to dial with, and what will tell whom this dial refused. The name to dial is
    /// [`Tls::name`].
    pub(crate) fn dial_config(&self) -> Result<(QuicClientConfig, Refused), CertError> {
        let tls = |e: &dyn core::fmt::Display| CertError::Tls { detail: e.to_string() };
        let inner = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|e| tls(&e))?;
        let refused = Refused::default();
        let verifier = AnyNode {
            inner,
            cluster: self.identity().cluster.clone(),
            authority: self.credentials.authority(),
            refused: refused.clone(),
        };
        let mut config = certs::client_config(&self.credentials)?;
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        Ok((QuicClientConfig::try_from(config).map_err(|e| tls(&e))?, refused))
    }

    /// The name to dial, whichever node it is.
    pub(crate) fn name(&self) -> String {
        node_dns_name(&self.identity().cluster, "any")
    }
}

/// The words about a certificate that a dial refused, once it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<Option<Told>>>);

impl Refused {
    pub(crate) fn take(&self) -> Option<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, told: Told) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }
}

/// Believes any node of the cluster.
#[derive(Debug)]
struct AnyNode {
    inner: Arc<WebPkiServerVerifier>,
    cluster: String,
    authority: Fingerprint,
    refused: Refused,
}

impl AnyNode {
    /// The name that the certificate's own identity gives; an error for what is no node of ours.
    fn name_of(&self, certificate: &CertificateDer<'_>) -> Result<ServerName<'static>, Error> {
        let identity = match identity_of(certificate) {
            Ok(identity) if identity.role == Role::Node && identity.cluster == self.cluster => {
                identity
            }
            Ok(_) | Err(_) => {
                return Err(CertificateError::ApplicationVerificationFailure.into());
            }
        };
        let name = node_dns_name(&identity.cluster, &identity.name);
        ServerName::try_from(name).map_err(|e| Error::General(e.to_string()))
    }

    fn tell(&self, certificate: &CertificateDer<'_>, error: &Error) {
        let (presented, authority) = (Fingerprint::of(certificate), self.authority);
        let claims = identity_of(certificate).ok();
        let whose = claims.as_ref().map_or("somebody without a role".into(), ToString::to_string);
        let why = format!("this client trusts CA {authority:#}, {whose} presented {presented:#}");
        let fix = "use ca, certificate and key of that cluster, or dial a node of this one";
        self.refused.set(match error {
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Told::new("its certificate is signed by another CA", why, fix),
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                Told::new(format!("it is no node of {}", self.cluster), why, fix)
            }
            other => Told::new(
                "its certificate is refused",
                format!("{whose} presented {presented:#}: {other}"),
                "issue that node a new certificate, and check both clocks",
            ),
        });
    }
}

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.name_of(end_entity).and_then(|name| {
            self.inner.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
        });
        verified.inspect_err(|error| self.tell(end_entity, error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
