//! Levels: how many replicas, and how durable, where a request or a connection says so itself.

use ring::keyspace::{Durability, Level};
use ring::limits::COPIES_MAX;

/// What was asked for; `None` leaves it to the next wider scope: request, connection, keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// How many replicas a read asks.
    pub read: Option<Level>,
    /// How many replicas a write waits for.
    pub write: Option<Level>,
    /// When a write counts as there.
    pub durability: Option<Durability>,
}

impl Levels {
    /// These, and where they say nothing, those.
    #[must_use]
    pub fn or(self, wider: Self) -> Self {
        Self {
            read: self.read.or(wider.read),
            write: self.write.or(wider.write),
            durability: self.durability.or(wider.durability),
        }
    }

    /// Takes one option: a level for reads and writes, `r=LEVEL`, `w=LEVEL` or `d=sync|os`.
    ///
    /// False if the word is none of these; then nothing has changed.
    ///
    /// # Errors
    /// The text for a word that is one of these with an impossible value.
    pub fn take(&mut self, word: &[u8]) -> Result<bool, String> {
        let Ok(word) = core::str::from_utf8(word) else { return Ok(false) };
        let Some((name, value)) = word.split_once('=') else {
            if word.parse::<Level>().is_err() {
                return Ok(false);
            }
            let level = level(word)?;
            (self.read, self.write) = (Some(level), Some(level));
            return Ok(true);
        };
        match name {
            "r" | "R" => self.read = Some(level(value)?),
            "w" | "W" => self.write = Some(level(value)?),
            "d" | "D" => {
                self.durability = Some(value.parse::<Durability>().map_err(|e| e.to_string())?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The level that a text names, if this version can serve it for any number of copies.
fn level(text: &str) -> Result<Level, String> {
    let level = text.parse::<Level>().map_err(|why| why.to_string())?;
    level.needed(COPIES_MAX).map_err(|why| why.to_string())?;
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_changes_what_it_names_and_nothing_else() {
        let mut levels = Levels::default();
        assert_eq!(levels.take(b"quorum"), Ok(true));
        assert_eq!(levels.take(b"r=1"), Ok(true));
        assert_eq!(levels.take(b"d=sync"), Ok(true));
        assert_eq!(
            levels,
            Levels {
                read: Some(Level::Count(1)),
                write: Some(Level::Quorum),
                durability: Some(Durability::Sync)
            }
        );
        assert_eq!(levels.take(b"get"), Ok(false));
        assert!(levels.take(b"w=nine").is_err());
        assert!(levels.take(b"any").is_err() && levels.take(b"r=serial").is_err());
        assert!(levels.take(b"d=never").is_err());
    }
}
