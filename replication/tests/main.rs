//! The public contract of replication: laws of joining and folding, and stories of a small cluster.

mod acks;
mod bare;
mod cluster;
mod generations;
mod laws;
mod listings;
mod named;
mod ranges;
mod room;
mod sessions;
mod shares;
mod siblings;
mod stories;
mod terms;
