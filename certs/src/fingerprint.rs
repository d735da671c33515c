//! Fingerprints: how two people compare certificates over the telephone.

use core::fmt;

use crate::tls::sha256;

/// SHA-256 of a certificate in DER form, written `SHA256:1f3c…` with all 64 hexadecimal digits.
/// The alternate form (`{:#}`) keeps the first and last two bytes only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER form.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        f.write_str("SHA256:")?;
        if !f.alternate() {
            return hex(f, &self.0);
        }
        hex(f, &self.0[..2])?;
        f.write_str("…")?;
        hex(f, &self.0[31..])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
