//! What the stories share: a directory with a context, nodes, and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use certs::{CaPair, Role};
use tempfile::TempDir;
use wire::admin::NodeState;
use wire::reply::{Held, Owner};
use wire::{ClientReply, ClientRequest, ClusterStatus, NodeStatus};

use crate::fake::*;
use crate::told;

/// How a run of the program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A cluster of three and a directory to run in.
pub(crate) struct Stage {
    pub(crate) dir: TempDir,
    pub(crate) ca: CaPair,
    pub(crate) status: Arc<Mutex<ClusterStatus>>,
    pub(crate) nodes: Vec<FakeNode>,
}

impl Stage {
    /// Three nodes that are up, and the context that a demo writes.
    pub(crate) fn three() -> Self {
        let ca = authority();
        let status = Arc::new(Mutex::new(healthy()));
        let nodes = (1..=3).map(|id| speaker(&ca, id, status.clone())).collect::<Vec<_>>();
        for (node, row) in nodes.iter().zip(&mut status.lock().unwrap().nodes) {
            row.address = node.address();
        }
        let stage = Self { dir: tempfile::tempdir().unwrap(), ca, status, nodes };
        stage.write_context(&stage.ca);
        stage
    }

    /// Writes `ringdb-demo/ringctl.toml`, with an administrator's certificate of `ca`.
    pub(crate) fn write_context(&self, ca: &CaPair) {
        let demo = self.dir.path().join("ringdb-demo");
        let certs = demo.join("certs");
        drop(fs::remove_dir_all(&certs));
        visitor(ca, Role::Admin).write(&certs).unwrap();
        let nodes: Vec<_> = self.nodes.iter().map(FakeNode::address).collect();
        let text = format!(
            "current = \"demo\"\n\n[contexts.demo]\ncluster = \"demo\"\nnodes = {nodes:?}\n\
             ca = \"certs/ca.pem\"\ncert = \"certs/admin.pem\"\nkey = \"certs/admin.key\"\n"
        );
        fs::write(demo.join("ringctl.toml"), text).unwrap();
    }

    /// Changes what all nodes say.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ClusterStatus)) {
        change(&mut self.status.lock().unwrap());
    }

    /// A command to be run in the directory, in a clean environment.
    pub(crate) fn command(&self, line: &str) -> Command {
        command_in(self.dir.path(), line)
    }

    /// Runs a command line.
    pub(crate) fn run(&self, line: &str) -> Ran {
        ran(self.command(line), self)
    }
}

pub(crate) fn command_in(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringctl"));
    command.args(line.split_whitespace()).current_dir(dir).env_clear().env("HOME", dir);
    command
}

/// Runs it; addresses, which the system chooses, are written as 127.0.0.1:N1 and so on.
pub(crate) fn ran(mut command: Command, stage: &Stage) -> Ran {
    let output = command.output().unwrap();
    let plain = |bytes: Vec<u8>| {
        let mut text = String::from_utf8(bytes).unwrap();
        for (place, node) in stage.nodes.iter().enumerate() {
            // As long as the longest port, so that columns stay where they are.
            let port = node.address.port().to_string();
            let name = format!("{:0<width$}", format!("N{}", place + 1), width = port.len());
            text = text.replace(&format!(":{port}"), &format!(":{name}"));
        }
        text
    };
    let code = output.status.code().unwrap();
    Ran { code, out: plain(output.stdout), err: plain(output.stderr) }
}

/// Runs a line where there is no cluster.
pub(crate) fn alone(dir: &Path, line: &str) -> Ran {
    let output = command_in(dir, line).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A page of a range, which has no more.
fn page() -> ClientReply {
    ClientReply::Page { rows: Vec::new(), next: None, context: "seen".into() }
}

/// A node that says the shared status, and of itself what only it knows.
fn speaker(ca: &CaPair, id: u32, status: Arc<Mutex<ClusterStatus>>) -> FakeNode {
    let asked = AtomicU64::new(0);
    FakeNode::start_mapped(&node(ca, id), id, move |_, request| {
        let mut status = status.lock().unwrap().clone();
        status.reporter = format!("n{id}");
        let own = &mut status.nodes[id as usize - 1];
        own.load_bytes = 1_000_000 * u64::from(id);
        own.keys = 18_442 * u64::from(id);
        own.keys_age_ms = Some(1_200);
        own.version = "0.1.0".into();
        Answer::Say(match request {
            ClientRequest::Status => ClientReply::Status(status),
            ClientRequest::Owners { key } => ClientReply::Owners {
                slot: ring::Slot::of_key(key).0,
                nodes: [2, 3, 1].map(|id| owner(&status.nodes[id - 1])).into(),
            },
            ClientRequest::Layout => layout(&status),
            ClientRequest::In { keyspace, request } => {
                assert!(request.is_about_keys());
                match **request {
                    ClientRequest::Put { .. } => {
                        return Answer::Say(ClientReply::Done { context: "seen".into() });
                    }
                    ClientRequest::Range { .. } => return Answer::Say(page()),
                    _ => {}
                }
                let value = format!("apples of database {keyspace}");
                ClientReply::Value { values: vec![value.into()], context: "seen".into() }
            }
            ClientRequest::Range { .. } => page(),
            ClientRequest::Cancel { .. } => return Answer::Silence,
            ClientRequest::Ping => ClientReply::Pong,
            ClientRequest::Get { .. } => {
                ClientReply::Value { values: vec!["two apples".into()], context: "seen".into() }
            }
            ClientRequest::Share { whole, .. } => {
                let held =
                    Held::Value { values: vec!["two apples".into()], context: "seen".into() };
                ClientReply::Share { digest: (1, 2), held: whole.then_some(held) }
            }
            ClientRequest::Put { .. } | ClientRequest::Delete { .. } => {
                ClientReply::Done { context: "seen".into() }
            }
            ClientRequest::Add { .. } => {
                ClientReply::Number { value: 1, context: Vec::new().into() }
            }
            ClientRequest::Admin(request) => {
                let asked = asked.fetch_add(1, Ordering::Relaxed);
                match told::refusal(request) {
                    Some(refusal) => ClientReply::Error(refusal),
                    None => ClientReply::Admin(told::admin(id, asked, request)),
                }
            }
            other => panic!("{other:?}"),
        })
    })
}

/// The layout that the members make.
fn layout(status: &ClusterStatus) -> ClientReply {
    let members = status.nodes.iter().map(|node| ring::Member {
        zone: node.zone.clone(),
        ..ring::Member::new(node.name.as_str(), node.address.as_str())
    });
    let layout = ring::Layout::genesis(ring::ClusterId(0xc1), 3, members).unwrap();
    let down = status.nodes.iter().filter(|node| !node.up).map(|node| node.id).collect();
    ClientReply::Layout { layout: Box::new(layout), down }
}

fn owner(node: &NodeStatus) -> Owner {
    let NodeStatus { id, name, zone, address, up, .. } = node.clone();
    Owner { id, name, address, zone, up }
}

fn healthy() -> ClusterStatus {
    let node = |id: u32| NodeStatus {
        id,
        name: format!("n{id}"),
        zone: ["a", "b", "c"][id as usize - 1].into(),
        state: NodeState::Normal,
        up: true,
        ready: true,
        owns: 1.0 / 3.0,
        incarnation: 1,
        ..NodeStatus::default()
    };
    ClusterStatus {
        cluster: "000000000000000000000000000000c1".into(),
        name: "demo".into(),
        epoch: 1,
        n: 3,
        r: 2,
        w: 2,
        wire_version: 1,
        nodes: [1, 2, 3].map(node).into(),
        slots_quorum_readable: 1.0,
        slots_quorum_writable: 1.0,
        reporter: String::new(),
    }
}

/// Marks nodes as not heard of for six minutes and twelve seconds.
pub(crate) fn lose(status: &mut ClusterStatus, names: &[&str]) {
    for node in status.nodes.iter_mut().filter(|node| names.contains(&node.name.as_str())) {
        node.up = false;
        node.ready = false;
        node.last_seen_ms = 372_000;
    }
}

pub(crate) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(name)
}
