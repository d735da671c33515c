//! The gate: verifies whoever connects, and says what was presented when it refuses.
//!
//! TLS tells the refused side no more than "unknown authority". An operator needs the fingerprints
//! of both authorities side by side, in the log of the node that refused.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Fingerprint, Identity, Role, identity_of};

/// A certificate that was presented and refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The cluster's authority.
    pub authority: Fingerprint,
    /// The certificate that was presented.
    pub presented: Fingerprint,
    /// Whom it names. Not verified: anybody may claim anything here.
    pub claims: Option<Identity>,
    /// What the verifier said.
    pub detail: String,
    /// If it is of the cluster's authority, and only its time is over: when it ended, as it says itself.
    pub expired: Option<String>,
}

/// Told of every certificate that is refused, in the thread of the handshake.
pub type OnRefused = Arc<dyn Fn(&Refused) + Send + Sync>;

pub(crate) struct Gate {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    pub(crate) authority: Fingerprint,
    pub(crate) on_refused: OnRefused,
}

impl Gate {
    /// When it ended, if nothing else is wrong with it. The time is looked at before the signature, so
    /// that strangers' certificates are told to have expired too.
    fn expired(
        &self,
        error: &Error,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Option<String> {
        let is_late = |e: &CertificateError| {
            matches!(e, CertificateError::Expired | CertificateError::ExpiredContext { .. })
        };
        if !matches!(error, Error::InvalidCertificate(e) if is_late(e)) {
            return None;
        }
        let (_, parsed) = X509Certificate::from_der(end_entity).ok()?;
        let not_after = parsed.validity().not_after;
        let last = u64::try_from(not_after.timestamp()).ok()?;
        let last = UnixTime::since_unix_epoch(Duration::from_secs(last));
        self.verifier.verify_client_cert(end_entity, intermediates, last).ok()?;
        Some(not_after.to_string())
    }
}

impl ClientCertVerifier for Gate {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now);
        if let Err(error) = &verified {
            (self.on_refused)(&Refused {
                authority: self.authority,
                presented: Fingerprint::of(end_entity),
                claims: identity_of(end_entity).ok(),
                detail: error.to_string(),
                expired: self.expired(error, end_entity, intermediates),
            });
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, presented, claims, detail, expired } = self;
        match claims {
            Some(identity) => write!(f, "{identity} presented a certificate that is refused")?,
            None => f.write_str("a certificate that names nobody is refused")?,
        }
        if let Some(not_after) = expired {
            let issue = match claims {
                Some(Identity { role: Role::Node, name, node: Some(node), .. }) => {
                    format!("ringctl cert issue {name} --node-id {}", node.0)
                }
                Some(Identity { role, name, .. }) => {
                    format!("ringctl cert issue {name} --role {role}")
                }
                None => "ringctl cert issue NAME".to_owned(),
            };
            return write!(
                f,
                "\n  why: it has expired: {presented} of CA {authority} was valid until {not_after}\n  \
                 fix: issue it again: {issue}"
            );
        }
        write!(
            f,
            "\n  why: cluster CA {authority}, presented {presented} ({detail})\n  \
             fix: issue it with this cluster's CA: ringctl cert issue NAME"
        )
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate(CA {:#})", self.authority)
    }
}
