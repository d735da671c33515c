//! The front: a store for many threads, over shards that have one writer each.

mod crew;
mod group;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod store;

pub use store::Store;
