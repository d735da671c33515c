//! The front: a store for many threads, over shards that have one writer each.

mod crew;
mod group;
mod store;

pub use store::Store;
