//! Identities: who a certificate says its holder is.
//!
//! The identity stands in the certificate as one URI, `ringdb://CLUSTER/ROLE/NAME` or, for a node
//! that already has its number, `ringdb://CLUSTER/node/NAME/7`. Promise: a certificate without
//! exactly one such URI has no identity and is refused.

use core::fmt;
use core::str::FromStr;

use ring::NodeId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CertError, Fingerprint};

/// Longest name of a cluster, node or client: one label of a DNS name.
pub const NAME_BYTES_MAX: usize = 63;

const SCHEME: &str = "ringdb://";

/// What the holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Be a member: send and answer peer frames.
    Node,
    /// Read and write keys.
    Client,
    /// Read and write keys, and change the cluster.
    Admin,
}

/// Who a certificate says its holder is. It may be trusted once TLS has verified the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster's name.
    pub cluster: String,
    /// What the holder may do.
    pub role: Role,
    /// The holder's name, unique in the cluster among its role.
    pub name: String,
    /// The node's number, when it was known at the time of issue; always `None` for other roles.
    pub node: Option<NodeId>,
}

impl Identity {
    /// The URI that stands in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        let Self { cluster, role, name, node } = self;
        match node {
            Some(NodeId(number)) => format!("{SCHEME}{cluster}/{role}/{name}/{number}"),
            None => format!("{SCHEME}{cluster}/{role}/{name}"),
        }
    }

    fn parse(uri: &str) -> Result<Self, String> {
        let malformed = || format!("malformed identity {uri:?}");
        let path = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = path.split('/');
        let mut next = || parts.next().ok_or_else(malformed);
        let (cluster, role, name) = (next()?, next()?, next()?);
        let role = role.parse::<Role>().map_err(|()| malformed())?;
        for label in [cluster, name] {
            check_name(label).map_err(|_| malformed())?;
        }
        let node = match (role, parts.next()) {
            (_, None) => None,
            (Role::Node, Some(number)) => Some(NodeId(number.parse().map_err(|_| malformed())?)),
            (Role::Client | Role::Admin, Some(_)) => return Err(malformed()),
        };
        match parts.next() {
            None => Ok(Self { cluster: cluster.into(), role, name: name.into(), node }),
            Some(_) => Err(malformed()),
        }
    }
}

/// The name by which a node is verified, whatever its address: a DNS name that no resolver knows.
#[must_use]
pub fn node_dns_name(cluster: &str, name: &str) -> String {
    format!("{name}.{cluster}.ringdb.internal")
}

/// Who the certificate in `der` says its holder is. Does not verify the certificate.
///
/// # Errors
/// [`CertError::NoIdentity`] if it is no certificate, or names no role, or more than one.
pub fn identity_of(der: &[u8]) -> Result<Identity, CertError> {
    let no = |detail: String| CertError::NoIdentity { fingerprint: Fingerprint::of(der), detail };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| no(e.to_string()))?;
    let names = certificate.subject_alternative_name().map_err(|e| no(e.to_string()))?;
    let mut uris =
        names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Identity::parse(uri).map_err(no),
        (None, _) => Err(no("it has no ringdb:// URI".into())),
        (Some(_), Some(_)) => Err(no("it has more than one ringdb:// URI".into())),
    }
}

/// The common name of the subject of the certificate in `der`, if it has exactly one. Does not verify the
/// certificate.
#[must_use]
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

/// Whether `name` can name a cluster, a node or a client.
///
/// # Errors
/// [`CertError::BadName`] with the rule that it breaks.
pub fn check_name(name: &str) -> Result<(), CertError> {
    let bad = |rule| Err(CertError::BadName { name: name.into(), rule });
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return bad("a name has between 1 and 63 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return bad("a name consists of lower-case letters, digits and hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return bad("a name neither begins nor ends with a hyphen");
    }
    Ok(())
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "node" => Ok(Self::Node),
            "client" => Ok(Self::Client),
            "admin" => Ok(Self::Admin),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.role, self.name, self.cluster)
    }
}
