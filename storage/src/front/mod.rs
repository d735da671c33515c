//! The front: a store for many threads, over shards that have one writer each.

mod crew;
mod group;
#[cfg(all(test, any(loom, shuttle)))]
mod models;
mod store;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod throttle;

pub use store::Store;
pub use throttle::Time;
