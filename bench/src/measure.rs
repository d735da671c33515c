//! Measure: time, processor time, bytes written and memory of this process.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// What one run of one workload showed. Times in µs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Operations done.
    pub ops: u64,
    /// Seconds until the last of them was answered.
    pub seconds: f64,
    /// Operations a second.
    pub ops_per_second: f64,
    /// The middle, as a caller waited.
    pub p50: f64,
    /// One in a hundred waits longer.
    pub p99: f64,
    /// One in ten thousand waits longer.
    pub p9999: f64,
    /// The longest wait.
    pub max: f64,
    /// Processor time of the whole process for one operation, until its background work is done.
    pub cpu: f64,
    /// Processor time of the calling threads alone for one operation.
    pub cpu_callers: f64,
    /// Most memory that the process held at a time, in MiB.
    pub peak_mib: f64,
    /// Bytes given to write calls, or written without one, for each byte of user data, background work
    /// included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_amplification: Option<f64>,
    /// Bytes on disk for each byte of live user data, once settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space_amplification: Option<f64>,
    /// What is worth saying beside the numbers.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

/// Waits of one thread.
pub struct Waits {
    histogram: Histogram<u64>,
    last: Instant,
}

impl Waits {
    /// No waits yet; the first begins now.
    #[must_use]
    pub fn start() -> Self {
        let histogram = Histogram::new(3).expect("3 digits are allowed");
        Self { histogram, last: Instant::now() }
    }

    /// An operation is done: it took since the one before.
    pub fn lap(&mut self) {
        let now = Instant::now();
        let ns = (now - self.last).as_nanos();
        let ns = u64::try_from(ns).unwrap_or(u64::MAX);
        self.histogram.record(ns).expect("the histogram grows with what it is given");
        self.last = now;
    }

    /// The next operation begins now.
    pub fn begin(&mut self) {
        self.last = Instant::now();
    }

    fn us(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Sums up from here on.
pub struct Meter {
    began: Instant,
    cpu: Duration,
    written: u64,
}

impl Meter {
    /// Counts from now on.
    #[must_use]
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu(libc::RUSAGE_SELF), written: written() }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The callers are done: figures without background work.
    #[must_use]
    pub fn callers_done(&self, ops: u64, waits: Vec<Waits>, callers: Duration) -> Figures {
        let seconds = self.began.elapsed().as_secs_f64();
        let mut all = Waits::start();
        for one in waits {
            all.histogram.add(one.histogram).expect("histograms of one shape");
        }
        Figures {
            ops,
            seconds,
            ops_per_second: ops as f64 / seconds,
            p50: all.us(0.5),
            p99: all.us(0.99),
            p9999: all.us(0.9999),
            max: all.us(1.0),
            cpu_callers: callers.as_secs_f64() * 1e6 / ops as f64,
            ..Figures::default()
        }
    }

    /// The background is done too.
    pub fn settled(&self, figures: &mut Figures) {
        let cpu = cpu(libc::RUSAGE_SELF).saturating_sub(self.cpu);
        figures.cpu = cpu.as_secs_f64() * 1e6 / figures.ops as f64;
        figures.peak_mib = peak_mib();
    }

    /// Bytes written since the start for each of `user_bytes`; of them `uncalled` without a call.
    #[must_use]
    pub fn write_amplification(&self, user_bytes: u64, uncalled: u64) -> f64 {
        (written() - self.written + uncalled) as f64 / user_bytes as f64
    }
}

/// Processor time of this thread.
#[must_use]
pub fn thread_cpu() -> Duration {
    cpu(libc::RUSAGE_THREAD)
}

/// How the system calls this thread.
#[must_use]
#[allow(unsafe_code, reason = "gettid has no safe wrapper in the standard library")]
pub fn thread_id() -> u64 {
    // SAFETY: takes nothing, cannot fail.
    u64::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

#[allow(unsafe_code, reason = "getrusage has no safe wrapper in the standard library")]
fn cpu(who: libc::c_int) -> Duration {
    // SAFETY: rusage is plain numbers, and the call writes one through a valid pointer.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| {
        let s = u64::try_from(t.tv_sec).unwrap_or(0);
        Duration::from_secs(s) + Duration::from_micros(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The number behind `name` in a file of `/proc`.
fn proc_number(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn written() -> u64 {
    proc_number("/proc/self/io", "wchar:")
}

fn peak_mib() -> f64 {
    proc_number("/proc/self/status", "VmHWM:") as f64 / 1024.0
}

/// Bytes that the files below `directory` take on disk, but for logs: some engines keep those for
/// reuse, and their size says nothing about the data.
#[must_use]
pub fn disk_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => sum += disk_bytes(&entry.path()),
            Ok(meta) if !is_log(&entry.path()) => sum += meta.blocks() * 512,
            _ => {}
        }
    }
    sum
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "log" || e == "jnl" || e == "spare")
}
