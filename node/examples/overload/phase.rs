//! Phase: what happened while clients did the same, moment by moment, and what the servers used.

use std::fs;
use std::time::{Duration, Instant};

/// What one printed line covers.
const MOMENT: Duration = Duration::from_millis(500);

/// So many moments at the beginning do not count.
const WARM_UP: usize = 2;

/// What happened in a moment.
#[derive(Clone, Default)]
pub(super) struct Moment {
    pub(super) offered: u64,
    pub(super) good: u64,
    pub(super) refused: u64,
    pub(super) late: u64,
    pub(super) lost: u64,
    /// Requests whose time was over some while before their client could look.
    pub(super) overslept: u64,
    pub(super) errors: u64,
    pub(super) took_us: Vec<u32>,
}

impl Moment {
    /// What happened in another one, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.good += other.good;
        self.refused += other.refused;
        self.late += other.late;
        self.lost += other.lost;
        self.overslept += other.overslept;
        self.errors += other.errors;
        self.took_us.extend_from_slice(&other.took_us);
    }
}

/// What happened in a phase.
pub(super) struct Phase {
    pub(super) moments: Vec<Moment>,
    /// Memory of the servers when each moment began.
    pub(super) rss: Vec<u64>,
    /// When each moment was begun, and the processor time of the servers then, in seconds; and at the end.
    samples: Vec<(Instant, f64)>,
    pids: Vec<u32>,
    moments_max: usize,
    /// Answered too late: by the node's own deadline, counted from when the request was sent, to a
    /// Redis client; by the request's deadline to a native one.
    pub(super) beyond: u64,
    pub(super) first_error: Option<String>,
}

impl Phase {
    /// One that takes so long, of servers that are these processes.
    pub(super) fn new(pids: &[u32], seconds: f64) -> Self {
        let moments_max = (seconds / MOMENT.as_secs_f64()).ceil().max(1.0) as usize;
        let mut phase = Self {
            moments: Vec::new(),
            rss: Vec::new(),
            samples: Vec::new(),
            pids: pids.to_vec(),
            moments_max,
            beyond: 0,
            first_error: None,
        };
        phase.moment(Duration::ZERO);
        phase
    }

    /// The moment that this is, after the phase has lasted for `since`.
    pub(super) fn moment(&mut self, since: Duration) -> usize {
        let moment = (since.as_nanos() / MOMENT.as_nanos()) as usize;
        let moment = moment.min(self.moments_max - 1);
        while self.moments.len() <= moment {
            self.moments.push(Moment::default());
            self.rss.push(self.pids.iter().map(rss).sum());
            self.sample();
        }
        moment
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        self.sample();
    }

    fn sample(&mut self) {
        self.samples.push((Instant::now(), self.pids.iter().map(cpu_s).sum()));
    }

    /// The moments that count.
    pub(super) fn counted(&self) -> &[Moment] {
        &self.moments[WARM_UP.min(self.moments.len() - 1)..]
    }

    /// How long those lasted, and what the servers used in them, in seconds; nothing if it is not known
    /// who they are.
    pub(super) fn lasted(&self) -> (f64, Option<f64>) {
        let from = self.samples[WARM_UP.min(self.moments.len() - 1)];
        let to = self.samples[self.samples.len() - 1];
        let cpu_s = (to.1 - from.1).max(0.01);
        (to.0.duration_since(from.0).as_secs_f64(), (!self.pids.is_empty()).then_some(cpu_s))
    }

    /// The most memory that the servers used.
    pub(super) fn rss_most(&self) -> u64 {
        self.rss.iter().copied().max().unwrap_or(0)
    }

    /// When nearly all that is offered is good for the rest of the phase.
    pub(super) fn recovery(&self) -> f64 {
        let whole = &self.moments[..self.moments.len() - 1];
        let well = |m: &Moment| m.good as f64 >= 0.98 * m.offered as f64 && m.refused == 0;
        let last_bad = whole.iter().rposition(|m| !well(m));
        last_bad.map_or(0.0, |i| (i + 1) as f64 * MOMENT.as_secs_f64())
    }

    /// Answers that came when nobody waited for them any more; but for so many as were awaited by a client that
    /// was not run when their time was over, in the same moment or the one before: that one is late itself.
    pub(super) fn unwanted(&self) -> u64 {
        let slept = |i: usize| self.moments.get(i).map_or(0, |moment| moment.overslept);
        let of = |(i, moment): (usize, &Moment)| {
            moment.late.saturating_sub(slept(i) + i.checked_sub(1).map_or(0, slept))
        };
        self.moments.iter().enumerate().map(of).sum()
    }

    /// Prints it, a line a moment.
    pub(super) fn show(&mut self, name: &str) {
        let a_second = 1.0 / MOMENT.as_secs_f64();
        for (i, (moment, rss)) in self.moments.iter_mut().zip(&self.rss).enumerate() {
            let per = |count: u64| count as f64 * a_second;
            println!(
                "{name:9} {:5.1}s offered/s={:7.0} good/s={:7.0} refused/s={:7.0} late/s={:6.0} \
                 lost/s={:6.0} overslept={} errors={} p50_ms={:.1} p99_ms={:.1} rss_mib={:.0}",
                i as f64 * MOMENT.as_secs_f64(),
                per(moment.offered),
                per(moment.good),
                per(moment.refused),
                per(moment.late),
                per(moment.lost),
                moment.overslept,
                moment.errors,
                quantile(&mut moment.took_us, 0.5),
                quantile(&mut moment.took_us, 0.99),
                *rss as f64 / f64::from(1 << 20),
            );
        }
        if let Some(error) = &self.first_error {
            println!("first error: {error}");
        }
    }
}

/// What this share took at most, in milliseconds.
pub(super) fn quantile(took: &mut [u32], share: f64) -> f64 {
    took.sort_unstable();
    let at = ((took.len() as f64 * share).ceil() as usize).clamp(1, took.len().max(1)) - 1;
    took.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
}

fn rss(pid: &u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|f| f.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// Processor time of a process. The scheduler counts it for each thread in nanoseconds; where it does not tell,
/// the kernel counts in hundredths of a second.
fn cpu_s(pid: &u32) -> f64 {
    let ns: u64 = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |threads| {
        let of = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
        };
        threads.flatten().map(of).sum()
    });
    if ns > 0 {
        return ns as f64 / 1e9;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
