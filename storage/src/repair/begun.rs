//! Begun: what a repair has to know of one before it that was cut short.
//!
//! Promises: from before the first change that a reader could see until the repair has ended there is a file
//! REPAIR, and while it is there only a repair opens the store: tables of all levels may stand in one, so that
//! deleted rows would show, and what is to be moved aside would be removed as left over.

use crate::disk::{Disk, read_all, swap_file};
use crate::error::Error;
use crate::manifest::parse_manifest_name;
use crate::recovery::REPAIR;
use crate::table::parse_table_name;
use crate::{blob::parse_blob_name, manifest::Story};
use std::io::ErrorKind;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Begun {
    /// The manifest that was made anew; those after it tell of its tables too.
    pub(super) made_anew: Option<u64>,
    /// The files that are to be moved aside.
    pub(super) aside: Vec<String>,
}

impl Begun {
    /// What stands on `disk`; none where no repair was cut short.
    pub(super) fn load(disk: &dyn Disk) -> Result<Option<Self>, Error> {
        let bytes = match disk.open(REPAIR).and_then(|file| read_all(file.as_ref())) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("reading REPAIR", &e)),
        };
        // Where it rotted all of level 0 is merged again, which costs time alone.
        let unknown = Self { made_anew: Some(0), aside: Vec::new() };
        Ok(Some(parse(&bytes).unwrap_or(unknown)))
    }

    pub(super) fn save(&self, disk: &dyn Disk) -> Result<(), Error> {
        let mut text = String::new();
        if let Some(number) = self.made_anew {
            text.push_str(&format!("anew {number}\n"));
        }
        self.aside.iter().for_each(|name| text.push_str(&format!("aside {name}\n")));
        let text = format!("{text}{:08x}\n", crc32fast::hash(text.as_bytes()));
        swap_file(disk, REPAIR, text.as_bytes()).map_err(|e| Error::io("writing REPAIR", &e))
    }

    /// The repair has ended.
    pub(super) fn remove(disk: &dyn Disk) -> Result<(), Error> {
        let done = match disk.remove(REPAIR) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            done => done.and_then(|()| disk.sync_dir()),
        };
        done.map_err(|e| Error::io("removing REPAIR", &e))
    }

    /// True when manifest `number` tells of tables without their levels.
    pub(super) fn is_anew(&self, number: Option<u64>) -> bool {
        self.made_anew.zip(number).is_some_and(|(anew, number)| anew <= number)
    }

    /// The files that `story`, told by manifest `number`, does not refer to.
    pub(super) fn aside_of(&self, story: &Story, number: Option<u64>) -> Vec<String> {
        let refers = |name: &str| {
            parse_table_name(name).is_some_and(|n| story.tables.contains_key(&n))
                || parse_blob_name(name).is_some_and(|n| story.blobs.contains_key(&n))
                || parse_manifest_name(name).is_some_and(|n| Some(n) == number)
        };
        self.aside.iter().filter(|name| !refers(name)).cloned().collect()
    }
}

fn parse(bytes: &[u8]) -> Option<Begun> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (text, crc) = text.split_at_checked(text.rfind('\n').map_or(0, |at| at + 1))?;
    (format!("{:08x}", crc32fast::hash(text.as_bytes())) == crc).then_some(())?;
    let mut begun = Begun::default();
    for line in text.lines() {
        match line.split_once(' ')? {
            ("anew", number) => begun.made_anew = Some(number.parse().ok()?),
            ("aside", name) => begun.aside.push(name.to_owned()),
            _ => return None,
        }
    }
    Some(begun)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn what_was_saved_is_loaded_and_what_rotted_counts_as_made_anew() {
        let disk = MemoryDisk::new(1);
        assert_eq!(Begun::load(&disk).unwrap(), None);
        let aside = vec!["0000000007.sst".to_owned(), "MANIFEST-0000000003".to_owned()];
        for begun in [
            Begun::default(),
            Begun { made_anew: Some(4), aside: Vec::new() },
            Begun { made_anew: Some(4), aside: aside.clone() },
            Begun { made_anew: None, aside },
        ] {
            begun.save(&disk).unwrap();
            assert_eq!(Begun::load(&disk).unwrap().as_ref(), Some(&begun));
            let len = disk.open(REPAIR).unwrap().len().unwrap();
            for offset in 0..len {
                let fork = disk.fork(offset);
                assert!(fork.rot(REPAIR, offset, 4));
                let found = Begun::load(&fork).unwrap().unwrap();
                assert!(found.is_anew(Some(1)), "{begun:?} with rot at {offset}: {found:?}");
            }
        }
        Begun::remove(&disk).unwrap();
        assert_eq!(Begun::load(&disk).unwrap(), None);
        Begun::remove(&disk).unwrap();
    }
}
