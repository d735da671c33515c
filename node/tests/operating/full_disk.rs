//! A node alone on a disk that is full: it starts, is read, says why it writes nothing, and goes on by itself.
//!
//! The disk is a small one in memory, which only the processes of this test see. A system that gives
//! nobody such a thing shows nothing here, and the test says so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Node, until};

/// Keeps the disk until it goes out of scope.
struct SmallDisk {
    holder: Child,
    enter: Vec<String>,
    seen: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        // As root, or as root of a world of one's own.
        let ways = [
            (vec!["-m"], vec!["-m"]),
            (vec!["-r", "-m"], vec!["-U", "-m", "--preserve-credentials"]),
        ];
        ways.into_iter().find_map(|(unshare, enter)| {
            let script = "mount -t tmpfs -o size=32m small \"$0\" && echo mounted && read -r _";
            let mut holder = Command::new("unshare");
            holder.args(unshare).args(["sh", "-c", script]).arg(at);
            holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut holder = holder.spawn().ok()?;
            let mut line = String::new();
            BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
            let pid = holder.id().to_string();
            let enter =
                ["nsenter", "-t", &pid].into_iter().chain(enter).map(str::to_owned).collect();
            let seen = Path::new("/proc").join(&pid).join("root").join(at.strip_prefix("/").ok()?);
            let mut disk = Self { holder, enter, seen };
            if line == "mounted\n" && fs::read_dir(&disk.seen).is_ok() {
                return Some(disk);
            }
            disk.end();
            std::mem::forget(disk);
            None
        })
    }

    fn start(&self, dir: &Path) -> Node {
        let enter: Vec<&str> = self.enter.iter().map(String::as_str).collect();
        let settings =
            ["--engine-log-segment-bytes", "1048576", "--engine-memtable-bytes", "262144"];
        Node::start_under(&enter, dir, &[&settings[..], &["--redis-allow-flush", "true"]].concat())
    }

    fn fill_up(&self) {
        let mut filler =
            File::options().create(true).append(true).open(self.seen.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            while filler.write(&vec![b'x'; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.seen.join("filler")).unwrap();
    }

    fn end(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn a_node_on_a_full_disk_is_read_and_writes_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("data")) else {
        return println!("not shown: this system gives nobody a disk of his own");
    };
    let mut node = disk.start(dir.path());
    let mut client = node.client();
    for i in 0..50 {
        assert_eq!(client.ask(&format!("SET k{i} v{i}")), "OK");
    }
    node.process.kill();
    disk.fill_up();
    // However often, and however it ended: a life takes no room.
    for clean in [false, true, false] {
        let mut node = disk.start(dir.path());
        let mut client = node.client();
        for i in 0..50 {
            assert_eq!(client.ask(&format!("GET k{i}")), format!("v{i}"));
        }
        assert!(client.ask("FLUSHDB").contains("no space left on this node's disk"));
        for command in ["SET k1 x", "INCR n", "DEL k1"] {
            let reply = client.ask(command);
            assert!(
                reply.starts_with("-UNAVAILABLE no space left on this node's disk. "),
                "{reply}"
            );
        }
        if clean {
            node.stop();
        } else {
            node.process.kill();
        }
    }
    let mut node = disk.start(dir.path());
    let mut client = node.client();
    assert!(client.ask("SET k1 x").starts_with("-UNAVAILABLE no space left"));
    disk.make_room();
    until("writes go on", || (client.ask("SET k1 anew") == "OK").then_some(()));
    assert_eq!(client.ask("INCR n"), "1");
    assert!(node.log().contains("there is room on the disk again"), "{}", node.log());
    node.process.kill();
    let mut node = disk.start(dir.path());
    let mut client = node.client();
    assert_eq!(client.ask("MGET k0 k1 n"), "[v0, anew, 1]");
    // It is noticed before the disk refuses anything, so that the node goes on.
    let told = |node: &Node| node.log().matches("the disk is full: nothing is written").count();
    let before = told(&node);
    disk.fill_up();
    until("it is noticed", || (told(&node) > before).then_some(()));
    assert!(client.ask("SET k2 x").starts_with("-UNAVAILABLE no space left"));
    assert_eq!(client.ask("GET k3"), "v3");
    node.stop();
}
