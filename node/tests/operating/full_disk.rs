//! A node on a disk that is full: it starts, says why it writes nothing, and goes on by itself. Alone it is read.
//!
//! The disk is a small one in memory, which only the processes of this test see. A system that gives
//! nobody such a thing shows nothing here, and the test says so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use client::AdminRequest;

use crate::support::demo::Demo;
use crate::support::{Node, Process, RINGD, http, until};

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

fn not_shown() {
    let must = std::env::var_os("RINGDB_REQUIRE_NAMESPACES").is_some();
    assert!(
        !must,
        "this system gives nobody a disk of his own, and RINGDB_REQUIRE_NAMESPACES is set"
    );
    println!("not shown: this system gives nobody a disk of his own");
}

#[test]
fn a_node_on_a_full_disk_is_read_and_writes_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("data")) else { return not_shown() };
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

#[test]
fn a_node_with_peers_waits_on_a_full_disk_and_pulls_what_it_missed_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("small")) else { return not_shown() };
    let mut demo = Demo::start(&dir.path().join("demo"));
    assert_eq!(demo.client(1).ask("WITH ALL SET old v"), "OK");
    demo.kill(3);
    copy(&demo.dir.join("n3/data"), &disk.seen);
    disk.fill_up();
    let mut command = Command::new(&disk.enter[0]);
    command.args(&disk.enter[1..]).args([RINGD, "start", "--config"]).arg(demo.config(3));
    command.arg("--node-data-dir").arg(dir.path().join("small"));
    command.args(["--engine-log-segment-bytes", "1048576"]).stdin(Stdio::null());
    let mut three = Process::spawn(command.stderr(File::create(dir.path().join("log")).unwrap()));
    let is_ready = || {
        let log = fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("\n  fix: "), "it ended: {log}");
        http(demo.base + 203, "/readyz")
    };
    until("it says so", || {
        is_ready().filter(|(code, body)| *code == 503 && body.contains("its disk is full"))
    });
    // A checkpoint would take what is left, and of one that is refused nothing is left.
    let wish = AdminRequest::MakeCheckpoint { name: "then".into() };
    let refused = super::checkpoints::ask(&demo, 3, wish).unwrap_err().told();
    assert!(refused.why.contains(" bytes are free under ") && refused.fix.contains("make room"));
    assert!(!disk.seen.join("checkpoints").exists());
    // Its peers do without it, and what they send it is not written.
    write(&demo, "v", 1);
    // More than could be squeezed in somewhere.
    let large = "x".repeat(500_000);
    for i in 0..12 {
        assert_eq!(demo.client(1).ask(&format!("SET large{i} {large}")), "OK");
    }
    // Its word that it has no room is heard: what cannot be held by enough is refused, and does not time out.
    demo.kill(2);
    let mut one = demo.client(1);
    until("it is refused", || one.ask("SET old x").starts_with("-UNAVAILABLE").then_some(()));
    let mut two = demo.restart(2);
    assert_eq!(is_ready().map(|(code, _)| code), Some(503), "it waits");
    disk.make_room();
    until("it is ready", || is_ready().filter(|(code, _)| *code == 200));
    has_all(&demo, "v", 1);
    // It fills up as it runs.
    disk.fill_up();
    until("it is not ready", || is_ready().filter(|(code, _)| *code == 503));
    write(&demo, "w", 2);
    disk.make_room();
    until("it is ready again", || is_ready().filter(|(code, _)| *code == 200));
    has_all(&demo, "w", 2);
    let mut client = demo.client(3);
    assert_eq!(client.ask("WITH ALL SET old w"), "OK");
    for node in [&mut two, &mut three] {
        node.terminate();
        assert!(node.wait().success());
    }
    demo.stop();
}

/// Writes in which n3 has no part.
fn write(demo: &Demo, value: &str, counted: u32) {
    for i in 0..50 {
        assert_eq!(demo.client(1 + i % 2).ask(&format!("SET k{i} {value}{i}")), "OK");
        assert_eq!(demo.client(1 + i % 2).ask(&format!("INCR n{i}")), counted.to_string());
    }
}

/// At once, and at the level at which nobody else is asked.
fn has_all(demo: &Demo, value: &str, counted: u32) {
    let mut client = demo.client(3);
    for i in 0..50 {
        assert_eq!(client.ask(&format!("WITH ONE GET k{i}")), format!("{value}{i}"));
        assert_eq!(client.ask(&format!("WITH ONE GET n{i}")), counted.to_string());
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            let content = fs::read(entry.path()).unwrap();
            // Zeros at the end, as of a file of the log that is not full, take no room.
            let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let mut file = File::create(&to).unwrap();
            file.write_all(&content[..end]).unwrap();
            file.set_len(content.len() as u64).unwrap();
        }
    }
}
