//! The properties of a table: what of them changes how it is read.

use super::index::IndexForm;
use super::raw::RawBlock;
use crate::codec::{u32_at, varint};

/// What the properties of a table say to its reader.
#[derive(Debug, Clone)]
pub(crate) struct Properties {
    pub(crate) index: IndexForm,
    /// The filter is one of whole keys.
    pub(crate) filters_keys: bool,
    /// Something that this reader does not know, in words for a person.
    pub(crate) unreadable: Option<String>,
}

impl Properties {
    /// None when the block is malformed.
    pub(crate) fn parse(block: &RawBlock<'_>) -> Option<Self> {
        let mut found = Self {
            index: IndexForm { delta_encoded: false, user_keys: false },
            filters_keys: true,
            unreadable: None,
        };
        block.each(|name, value| {
            let number = || varint(&mut &value[..]);
            match name {
                b"rocksdb.index.value.is.delta.encoded" => {
                    found.index.delta_encoded = number()? != 0;
                }
                b"rocksdb.index.key.is.user.key" => found.index.user_keys = number()? != 0,
                b"rocksdb.block.based.table.whole.key.filtering" => {
                    found.filters_keys = value != b"0";
                }
                b"rocksdb.block.based.table.index.type" => {
                    // Hash indexes (1) stand beside a plain one; others are of several blocks.
                    let kind = u32_at(value, 0)?;
                    if kind > 1 {
                        found.unreadable = Some(format!("an index of kind {kind}"));
                    }
                }
                b"rocksdb.comparator" if value != b"leveldb.BytewiseComparator" => {
                    let order = String::from_utf8_lossy(value);
                    found.unreadable = Some(format!("keys in the order {order:?}"));
                }
                _ => {}
            }
            Some(())
        })?;
        Some(found)
    }
}
