//! `checkpoint`: what a node keeps of its store as it was, for the day on which it is wanted back.
//!
//! Promise: nothing but a name goes to the node, which chooses the place; what is removed was meant.

use std::time::Duration;

use client::{AdminReply, AdminRequest, CheckpointFacts};

use crate::args::{Args, Checkpoint};
use crate::cluster::Cluster;
use crate::confirm::confirm;
use crate::failure::{Exit, Failure};
use crate::nodes::{named, wall_ms};
use crate::render::{Cell, Record, Report, Style, Table, human};
use crate::{show, style};

/// How long to wait for one that is made or removed: tables are linked, but the log is copied and synced.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: &Args, command: &Checkpoint) -> Result<Exit, Failure> {
    let cluster = Cluster::find(args)?;
    let (node, request, timeout) = match command {
        Checkpoint::Ls { node } => (node, AdminRequest::Checkpoints, args.timeout),
        Checkpoint::Create { node, name } => {
            cluster.check_writable("to make a checkpoint")?;
            let name = name.clone().unwrap_or_else(|| name_of(wall_ms()));
            (node, AdminRequest::MakeCheckpoint { name }, args.timeout.max(PATIENCE))
        }
        Checkpoint::Rm { node, name, yes } => {
            cluster.check_writable("to remove a checkpoint")?;
            confirm(*yes, &format!("remove the checkpoint {name} of {node}"))?;
            let request = AdminRequest::RemoveCheckpoint { name: name.clone() };
            (node, request, args.timeout.max(PATIENCE))
        }
    };
    let client = cluster.connect(None).await?;
    let status = client.status().await?;
    client.close().await;
    let node = named(&status, node)?;
    let asked = cluster.dial_aside(node.address.clone(), args.timeout).await?;
    let AdminReply::Checkpoints(all) = asked.administer(request, timeout).await? else {
        return Err(Failure::operation(
            "the node answered another question",
            &"it is of another version",
            "compare versions",
        ));
    };
    show(args, &report(&node.name, command, &all, style(args)));
    Ok(Exit::Fine)
}

/// The name of a checkpoint that was given none: when it was made.
fn name_of(ms: u64) -> String {
    human::rfc3339(ms).replace(':', "-")
}

fn report(node: &str, command: &Checkpoint, all: &[CheckpointFacts], style: Style) -> Report {
    let row = |c: &CheckpointFacts| {
        Record::new([
            ("node", node.into()),
            ("name", c.name.as_str().into()),
            ("at", human::rfc3339(c.at_ms).into()),
            ("bytes", c.bytes.into()),
            ("own_bytes", c.own_bytes.into()),
            ("freed_bytes", c.freed_bytes.into()),
            ("path", c.path.as_str().into()),
        ])
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let text = match (command, all) {
        (Checkpoint::Create { .. }, [made]) => format!(
            "checkpoint {} of {node}   {}, of which {} are not the store's   {}\n",
            made.name,
            human::bytes(made.bytes),
            human::bytes(made.own_bytes),
            made.path
        ),
        (Checkpoint::Rm { .. }, [gone]) => format!(
            "checkpoint {} of {node} is gone   {} are free again\n",
            gone.name,
            human::bytes(gone.freed_bytes)
        ),
        _ => {
            let mut table =
                Table::new(&["NAME", "MADE AT", ">SIZE", ">NOT THE STORE'S", ">RM FREES", "PATH"]);
            for c in all {
                table.row(vec![
                    Cell::text(c.name.as_str()),
                    Cell::text(human::rfc3339(c.at_ms)),
                    Cell::number(human::bytes(c.bytes)),
                    Cell::number(human::bytes(c.own_bytes)),
                    Cell::number(human::bytes(c.freed_bytes)),
                    Cell::text(c.path.as_str()),
                ]);
            }
            table.render(style.colour)
        }
    };
    Report { text, whole: Record::default().with("checkpoints", &rows), rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_without_a_name_is_called_by_its_time() {
        assert_eq!(name_of(1_790_000_000_123), "2026-09-21T14-13-20.123Z");
    }
}
