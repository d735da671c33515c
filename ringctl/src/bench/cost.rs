//! Cost: the processor time of those that are measured.
//!
//! Nodes of a cluster tell their own; of other processes of this machine the system tells it, in
//! steps of 10 ms.

use client::{AdminReply, AdminRequest, Client};

use crate::cluster::Cluster;

/// Whose processor time is counted.
pub(crate) enum Payer {
    Node { name: String, client: Client },
    Process { pid: u32 },
}

impl Payer {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Node { name, .. } => name.clone(),
            Self::Process { pid } => format!("pid {pid}"),
        }
    }

    /// Microseconds so far; none if it cannot be told any more.
    pub(crate) async fn cpu_us(&self, cluster: Option<&Cluster>) -> Option<u64> {
        match self {
            Self::Process { pid } => process_cpu_us(*pid),
            Self::Node { client, .. } => {
                let asked = client.administer(AdminRequest::Facts, cluster?.timeout());
                match asked.await {
                    Ok(AdminReply::Facts(facts)) => Some(facts.cpu_us),
                    _ => None,
                }
            }
        }
    }
}

/// Processor time of a process, user and system, in microseconds.
pub(crate) fn process_cpu_us(pid: u32) -> Option<u64> {
    /// How many times a second the system counts, for programs: fixed on Linux.
    const TICKS: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses; the last parenthesis ends it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some((next()? + next()?) * (1_000_000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_price_and_none_that_is_not_there() {
        assert!(process_cpu_us(std::process::id()).is_some());
        assert_eq!(process_cpu_us(u32::MAX), None);
    }
}
