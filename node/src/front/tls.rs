//! TLS on a client's connection: sealed bytes on the side of the socket, plain ones on the side of the
//! session, and nothing that waits.
//!
//! rustls is a machine as our own are: bytes go in and come out, and the connection moves them.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use certs::{CertError, PublicFiles, Role};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};

/// What new connections are offered: certificates and authorities, which may be read again from
/// their files. Connections that stand keep what they began with.
pub struct Offered {
    files: PublicFiles,
    config: Mutex<Arc<ServerConfig>>,
}

impl Offered {
    /// As the files say now.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn load(files: PublicFiles) -> Result<Self, CertError> {
        let config = Mutex::new(Arc::new(read(&files)?));
        Ok(Self { files, config })
    }

    /// What the next connection is offered.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        // Replaced as a whole, so that a panic elsewhere leaves nothing half done.
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again. If they are wrong, all stays as it was.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn reload(&self) -> Result<(), CertError> {
        let config = Arc::new(read(&self.files)?);
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

fn read(files: &PublicFiles) -> Result<ServerConfig, CertError> {
    let tell = |refused: &certs::Refused| tracing::warn!("{refused}");
    certs::public_config(files, Arc::new(tell))
}

/// One side of a connection: ours.
pub struct Tls {
    session: ServerConnection,
    told: bool,
}

impl Tls {
    /// A new connection, of which nothing has been heard.
    ///
    /// # Errors
    /// What rustls says of the configuration.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut session = ServerConnection::new(config)?;
        // Replies are bounded by the connection, which reads no more while many wait.
        session.set_buffer_limit(None);
        Ok(Self { session, told: false })
    }

    /// Takes sealed bytes; what they hold is added to `plain`. False once the client has said that
    /// nothing more follows.
    ///
    /// # Errors
    /// Why they cannot be opened; what the client should hear of it is given by [`Tls::seal`].
    pub fn open(&mut self, mut sealed: &[u8], plain: &mut Vec<u8>) -> Result<bool, String> {
        let mut open = true;
        while !sealed.is_empty() && open {
            let taken = self.session.read_tls(&mut sealed).map_err(|e| e.to_string())?;
            let state = self.session.process_new_packets().map_err(|e| e.to_string())?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.session.reader().read_exact(&mut plain[start..]).map_err(|e| e.to_string())?;
            open = !state.peer_has_closed() && taken > 0;
        }
        Ok(open)
    }

    /// Seals `plain`, and whatever else the other side must hear, behind what `sealed` holds.
    pub fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) {
        self.session.writer().write_all(plain).expect("its buffer has no limit");
        while self.session.wants_write() {
            self.session.write_tls(sealed).expect("a vector takes all");
        }
    }

    /// Says goodbye behind what `sealed` holds.
    pub fn close(&mut self, sealed: &mut Vec<u8>) {
        self.session.send_close_notify();
        self.seal(&[], sealed);
    }

    /// Once, as soon as the handshake is done: whom the client's certificate names, if it showed one.
    pub fn take_peer(&mut self) -> Option<Peer> {
        if self.told || self.session.is_handshaking() {
            return None;
        }
        self.told = true;
        self.session.peer_certificates()?.first().map(Peer::of)
    }
}

/// Whom a client's certificate names. It was verified by the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user: the name in a `ringdb://` URI of a client or an administrator, or the common name.
    pub user: Option<String>,
    /// The certificate's fingerprint.
    pub fingerprint: String,
}

impl Peer {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = String::new();
        let shown = certs::Fingerprint::of(certificate);
        write!(fingerprint, "{shown}").expect("a string takes any text");
        let user = match certs::identity_of(certificate) {
            // A node is a peer, and no user.
            Ok(identity) if identity.role == Role::Node => None,
            Ok(identity) => Some(identity.name),
            Err(_) => certs::common_name(certificate),
        };
        Self { user, fingerprint }
    }
}
