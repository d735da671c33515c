//! Operating a node: who comes in, what they may do, and what the operator is told of it.

mod checkpoints;
mod draining;
mod full_disk;
mod keyspaces;
mod metrics;
mod roles;
mod running;
mod tls;
mod users;

use crate::support::{Node, http};

/// The value of a metric with these labels.
fn metric(node: &Node, line: &str) -> Option<f64> {
    let (_, body) = http(node.http, "/metrics")?;
    let found = body.lines().find_map(|l| l.strip_prefix(line))?;
    found.trim().parse().ok()
}
