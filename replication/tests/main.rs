//! The public contract of replication: laws of joining and folding, and stories of a small cluster.

mod cluster;
mod laws;
mod stories;
