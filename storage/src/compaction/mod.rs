//! Compaction: fewer tables, fewer dead rows.
//!
//! Choosing what to work on, how large levels should be, and where new tables may begin is pure
//! (`choose`, `levels`, `split`, `place`);
//! `run` moves bytes; `pace` says how fast; `filter` asks the layer above what may go.

pub(crate) mod around;
pub(crate) mod choose;
pub(crate) mod filter;
#[cfg(test)]
mod laws;
pub(crate) mod levels;
pub(crate) mod merging;
pub(crate) mod pace;
pub(crate) mod place;
pub(crate) mod run;
pub(crate) mod split;
