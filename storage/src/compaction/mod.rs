//! Compaction: fewer tables, fewer dead rows. Choosing what to merge is pure; running moves bytes.

pub(crate) mod choose;
pub(crate) mod run;
