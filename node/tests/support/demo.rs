//! A demo cluster of real processes, for tests that talk to one.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Client, Process, RINGD, free_base, pid_of, signal};

/// A cluster of three nodes; its processes end with it.
pub(crate) struct Demo {
    pub(crate) process: Process,
    pub(crate) base: u16,
    pub(crate) dir: PathBuf,
    lines: Receiver<String>,
}

pub(crate) fn command(dir: &Path, base: u16) -> Command {
    let mut command = Command::new(RINGD);
    command.args(["demo", "--base-port", &base.to_string(), "--data-dir"]).arg(dir);
    command.stdin(Stdio::null());
    command
}

impl Demo {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_in(dir, &[])
    }

    /// With these in the environment of its nodes.
    pub(crate) fn start_in(dir: &Path, environment: &[(&str, &str)]) -> Self {
        let base = free_base(3);
        let begun = Instant::now();
        let mut command = command(dir, base);
        command.envs(environment.iter().copied());
        let mut process = Process::spawn(command.stdout(Stdio::piped()));
        let out = process.stdout().unwrap();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let demo = Self { process, base, dir: dir.to_owned(), lines };
        let ready = demo.hears("ready");
        assert!(ready.starts_with("ready: 3 nodes"), "{ready}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        demo
    }

    /// The next line of the demo with this word.
    pub(crate) fn hears(&self, word: &str) -> String {
        let patience = Duration::from_secs(30);
        loop {
            let line = self.lines.recv_timeout(patience).expect("the demo says something");
            if line.contains(word) {
                return line;
            }
        }
    }

    pub(crate) fn client(&self, node: u16) -> Client {
        Client::ready(self.base + node)
    }

    pub(crate) fn config(&self, node: u16) -> PathBuf {
        self.dir.join(format!("n{node}/ringd.toml"))
    }

    pub(crate) fn kill(&self, node: u16) {
        let pid = pid_of(self.config(node).to_str().unwrap()).expect("the node runs");
        signal("KILL", pid);
        let line = self.hears("killed by signal 9");
        assert!(line.starts_with(&format!("n{node} ")), "{line}");
        let restart = format!("start --config {}", self.config(node).display());
        assert!(line.ends_with(&restart), "{line}");
    }

    /// Brings a node back as the demo's text says.
    pub(crate) fn restart(&self, node: u16) -> Process {
        let mut command = Command::new(RINGD);
        command.args(["start", "--config"]).arg(self.config(node));
        Process::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()))
    }

    pub(crate) fn stop(&mut self) {
        signal("INT", self.process.id());
        let status = self.process.wait();
        assert!(status.success(), "{status}");
        for node in 1..=3 {
            assert_eq!(pid_of(self.config(node).to_str().unwrap()), None, "n{node} is left");
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 1..=3 {
                let log = std::fs::read_to_string(self.dir.join(format!("n{node}/ringd.log")));
                println!("--- log of n{node}:\n{}", log.unwrap_or_default());
            }
        }
    }
}
