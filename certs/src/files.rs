//! Files: pairs on disk, as PEM, private keys readable by their owner alone.
//!
//! Promise: a file that exists is never overwritten, and a private key is never, not even for a
//! moment, readable by others: the file is created with mode 0600.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{CaPair, CertError, CertPair, TlsFiles};

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

impl CaPair {
    /// Writes `ca.pem` and `ca.key` into `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// [`CertError::Unwritable`], also when either file exists.
    pub fn write(&self, dir: &Path) -> Result<(), CertError> {
        make_dir(dir)?;
        write_new(&dir.join("ca.key"), &self.key_pem, PRIVATE)?;
        write_new(&dir.join("ca.pem"), &self.cert_pem, PUBLIC)
    }

    /// Reads what [`CaPair::write`] wrote.
    ///
    /// # Errors
    /// [`CertError::Unreadable`], or that the texts are no authority.
    pub fn load(dir: &Path) -> Result<Self, CertError> {
        Self::from_pem(read(&dir.join("ca.pem"))?, read(&dir.join("ca.key"))?)
    }
}

impl CertPair {
    /// Writes `NAME.pem` and `NAME.key` into `dir`, and `ca.pem` unless it is there already.
    ///
    /// # Errors
    /// [`CertError::Unwritable`], also when certificate or key exist, or when the `ca.pem` of
    /// another cluster lies there.
    pub fn write(&self, dir: &Path) -> Result<TlsFiles, CertError> {
        make_dir(dir)?;
        let at = |suffix| -> PathBuf { dir.join(format!("{}.{suffix}", self.identity.name)) };
        let files = TlsFiles { ca: dir.join("ca.pem"), cert: at("pem"), key: at("key") };
        match fs::read_to_string(&files.ca) {
            Ok(present) if present == self.ca_pem => {}
            Ok(_) => {
                let exists = std::io::ErrorKind::AlreadyExists.into();
                return Err(CertError::unwritable(&files.ca, exists));
            }
            Err(_) => write_new(&files.ca, &self.ca_pem, PUBLIC)?,
        }
        write_new(&files.key, &self.key_pem, PRIVATE)?;
        write_new(&files.cert, &self.cert_pem, PUBLIC)?;
        Ok(files)
    }
}

pub(crate) fn read(path: &Path) -> Result<String, CertError> {
    fs::read_to_string(path).map_err(|e| CertError::unreadable(path, e))
}

fn make_dir(dir: &Path) -> Result<(), CertError> {
    fs::create_dir_all(dir).map_err(|e| CertError::unwritable(dir, e))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    let fault = |e| CertError::unwritable(path, e);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)?;
    file.sync_all().map_err(fault)
}
