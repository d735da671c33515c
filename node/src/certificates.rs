//! Certificates: those that a node shows, opened and looked at before anything else is touched.
//!
//! Promise: what `ringd config check` finds right here is what `ringd start` takes.

use std::sync::Arc;

use certs::Credentials;

use crate::config::Config;
use crate::error::Fault;
use crate::front::tls::Offered;
use crate::mesh;

/// What a node shows to its peers and to its clients.
pub struct Certificates {
    /// To peers and native clients, if there may be any.
    pub own: Option<Credentials>,
    /// To Redis clients that come with TLS, if they may.
    pub offered: Option<Arc<Offered>>,
}

impl Certificates {
    /// Reads all files that the configuration names.
    ///
    /// # Errors
    /// A [`Fault`]: a file is missing or no certificate, out of its time or another's, or does not
    /// fit its key.
    pub fn load(config: &Config) -> Result<Self, Fault> {
        let own = config.tls.as_ref().map(Credentials::load).transpose()?;
        if let Some(own) = &own {
            is_ours(config, own)?;
        }
        let offered = config.redis.tls.as_ref();
        let offered = offered.map(|(_, files)| Offered::load(files.clone())).transpose()?;
        Ok(Self { own, offered: offered.map(Arc::new) })
    }
}

fn is_ours(config: &Config, own: &Credentials) -> Result<(), Fault> {
    let others = config.members.iter().map(|member| (member.id, member.name.as_str()));
    let Some(why) = mesh::why_not_own(config.node, own.identity(), others) else { return Ok(()) };
    let shown = config.tls.as_ref().map(|files| files.cert.display().to_string());
    Err(Fault::new(
        format!("the certificate in {} is not this node's own", shown.unwrap_or_default()),
        why,
        format!("ringctl cert issue {} --node-id {}", config.name, config.node.0),
    ))
}
