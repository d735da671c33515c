//! The authority: makes a cluster's root certificate and signs the others.
//!
//! Keys are ECDSA P-256. A node's certificate serves and dials; those of clients and administrators
//! only dial, so that a stolen client key can never pose as a node.

use core::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use ring::NodeId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::check_name;
use crate::{CertError, Fingerprint, Identity, Role, node_dns_name};

/// Certificates begin this long before their issue, since clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// How long a new authority lives: replacing it means replacing every certificate.
const AUTHORITY_DAYS: u32 = 3650;

/// A cluster's root certificate together with its private key. Whoever has it can add nodes.
#[derive(Clone)]
pub struct CaPair {
    /// The cluster's name, as the certificate says it.
    pub cluster: String,
    /// The certificate; every member and client needs it.
    pub cert_pem: String,
    /// The private key; only the issuer needs it.
    pub key_pem: String,
}

/// A certificate with its private key, and the root that signed it.
#[derive(Clone)]
pub struct CertPair {
    /// Who it says its holder is.
    pub identity: Identity,
    /// The root certificate of the cluster.
    pub ca_pem: String,
    /// The certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Lower-case letters, digits, inner hyphens; at most [`crate::NAME_BYTES_MAX`].
    pub name: String,
    /// What the holder may do.
    pub role: Role,
    /// The node's number, if it is a node and has one; ignored for other roles.
    pub node: Option<NodeId>,
    /// Further DNS names or addresses, for tools that insist on them; nodes do not.
    pub hosts: Vec<String>,
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// First moment.
    pub not_before: SystemTime,
    /// Last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From an hour ago (clocks differ) until `days` from now.
    #[must_use]
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        let life = Duration::from_secs(u64::from(days) * 24 * 3600);
        Self { not_before: now - BACKDATED, not_after: now + life }
    }
}

impl Subject {
    /// A node that has its number.
    #[must_use]
    pub fn node(name: impl Into<String>, node: NodeId) -> Self {
        Self { name: name.into(), role: Role::Node, node: Some(node), hosts: Vec::new() }
    }

    /// A client or an administrator.
    #[must_use]
    pub fn of_role(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), role, node: None, hosts: Vec::new() }
    }
}

/// A new authority for the cluster of that name, valid for ten years.
///
/// # Errors
/// [`CertError::BadName`] for a name that cannot be part of a DNS name.
pub fn ca_init(cluster: &str) -> Result<CaPair, CertError> {
    check_name(cluster)?;
    let key = KeyPair::generate().map_err(CertError::tls)?;
    // Part of the key stands in the name, so that two authorities of one cluster name are told
    // apart as "another CA" and not as "bad signature".
    let Fingerprint([a, b, c, d, ..]) = Fingerprint::of(key.public_key_raw());
    let mark = format!("{a:02x}{b:02x}{c:02x}{d:02x}");
    let common_name = format!("{cluster} ringdb CA {mark}");
    let mut params = blank(cluster, &common_name, Validity::days(AUTHORITY_DAYS));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&key).map_err(CertError::tls)?;
    Ok(CaPair { cluster: cluster.into(), cert_pem: cert.pem(), key_pem: key.serialize_pem() })
}

/// A new key and a certificate for `subject`, signed by `ca`.
///
/// # Errors
/// [`CertError::BadName`] for a name or host that cannot stand in a certificate;
/// [`CertError::Tls`] if the authority's files are not what they claim to be.
pub fn issue(ca: &CaPair, subject: &Subject, validity: Validity) -> Result<CertPair, CertError> {
    check_name(&subject.name)?;
    let node = subject.node.filter(|_| subject.role == Role::Node);
    let identity = Identity {
        cluster: ca.cluster.clone(),
        role: subject.role,
        name: subject.name.clone(),
        node,
    };
    let ca_key = KeyPair::from_pem(&ca.key_pem).map_err(CertError::tls)?;
    let issuer = Issuer::from_ca_cert_pem(&ca.cert_pem, ca_key).map_err(CertError::tls)?;
    let mut params = blank(&ca.cluster, &subject.name, validity);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject.role {
        Role::Node => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Role::Client | Role::Admin => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.subject_alt_names = alternative_names(&identity, &subject.hosts)?;
    let key = KeyPair::generate().map_err(CertError::tls)?;
    let cert = params.signed_by(&key, &issuer).map_err(CertError::tls)?;
    let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
    Ok(CertPair { identity, ca_pem: ca.cert_pem.clone(), cert_pem, key_pem })
}

fn blank(cluster: &str, common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn alternative_names(identity: &Identity, hosts: &[String]) -> Result<Vec<SanType>, CertError> {
    let text = |text: &str| {
        let bad = |_| CertError::BadName { name: text.into(), rule: "a host is plain ASCII" };
        text.to_owned().try_into().map_err(bad)
    };
    let mut names = vec![SanType::URI(text(&identity.uri())?)];
    if identity.role == Role::Node {
        names.push(SanType::DnsName(text(&node_dns_name(&identity.cluster, &identity.name))?));
    }
    for host in hosts {
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(text(host)?),
        });
    }
    Ok(names)
}

impl CaPair {
    /// An authority from its two PEM texts. The cluster's name is read from the certificate.
    ///
    /// # Errors
    /// [`CertError::Tls`] if either text is not what it should be.
    pub fn from_pem(cert_pem: String, key_pem: String) -> Result<Self, CertError> {
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(CertError::tls)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(CertError::tls)?;
        let cluster = parsed.subject().iter_organization().next().and_then(|o| o.as_str().ok());
        let cluster = cluster.ok_or_else(|| CertError::NoIdentity {
            fingerprint: Fingerprint::of(&der),
            detail: "the CA names no cluster as its organisation".into(),
        })?;
        check_name(cluster)?;
        let key = KeyPair::from_pem(&key_pem).map_err(CertError::tls)?;
        if key.public_key_raw() != parsed.public_key().subject_public_key.as_ref() {
            let certificate = Fingerprint::of(&der);
            return Err(CertError::KeyMismatch { path: "the CA's key".into(), certificate });
        }
        Ok(Self { cluster: cluster.into(), cert_pem, key_pem })
    }

    /// The fingerprint of the root certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of_pem(&self.cert_pem)
    }
}

impl CertPair {
    /// The fingerprint of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of_pem(&self.cert_pem)
    }
}

fn fingerprint_of_pem(pem: &str) -> Fingerprint {
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    Fingerprint::of(&der.expect("a pair holds a certificate that was made or parsed before"))
}

// The private keys stay out of every log.
impl fmt::Debug for CaPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPair({} {:#})", self.cluster, self.fingerprint())
    }
}

impl fmt::Debug for CertPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertPair({} {:#})", self.identity, self.fingerprint())
    }
}
