//! Curve: how many good answers there are for how much is offered, and where there are the most.
//!
//! All its points are of open loops, as the overload is: a peak is that of the same load. What a closed loop does is
//! shown beside it.

use std::fmt;

use super::phase::{Moment, Phase, quantile};
use super::{Clients, Loop, Options, Outcome};

/// While the last point is the best, and all but so little of it was good, more is offered.
const RISES: f64 = 0.97;

/// How much more, and how often at most.
const MORE: f64 = 1.2;
const MORE_MAX: usize = 4;

/// What became of an offer.
#[derive(Clone)]
pub(super) struct Point {
    /// Requests a second, as was wanted, and as it became.
    pub(super) offered: f64,
    pub(super) came: f64,
    /// Good answers a second.
    pub(super) good: f64,
    /// Good answers a second of the servers' processor time, if it is known who they are.
    pub(super) per_cpu: Option<f64>,
    /// Answers that came too late.
    pub(super) beyond: u64,
    refused: f64,
    lost: f64,
    late: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Point {
    /// What became of so many requests a second, in these phases together.
    pub(super) fn new(offered: f64, phases: &[&Phase]) -> Self {
        let (mut seconds, mut cpu_s, mut sum, mut beyond) = (0.0, Some(0.0), Moment::default(), 0);
        for phase in phases {
            let (lasted, used) = phase.lasted();
            seconds += lasted;
            cpu_s = cpu_s.zip(used).map(|(all, used)| all + used);
            phase.counted().iter().for_each(|moment| sum.add(moment));
            beyond += phase.beyond;
        }
        let per_second = |count: u64| count as f64 / seconds;
        Self {
            offered,
            came: per_second(sum.offered),
            good: per_second(sum.good),
            per_cpu: cpu_s.map(|cpu_s| sum.good as f64 / cpu_s),
            beyond,
            refused: per_second(sum.refused),
            lost: per_second(sum.lost),
            late: per_second(sum.late),
            p50_ms: quantile(&mut sum.took_us, 0.5),
            p99_ms: quantile(&mut sum.took_us, 0.99),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offered/s={:7.0} good/s={:7.0} by_cpu={:7.0} refused/s={:6.0} lost/s={:6.0} late/s={:5.0} \
             p50_ms={:.1} p99_ms={:.1}",
            self.offered,
            self.good,
            self.per_cpu.unwrap_or(f64::NAN),
            self.refused,
            self.lost,
            self.late,
            self.p50_ms,
            self.p99_ms,
        )
    }
}

/// Where the peak is.
pub(super) struct Curve {
    /// What a closed loop does, if one was tried.
    pub(super) closed: Option<Point>,
    /// The offer with the most good answers, in requests a second.
    pub(super) peak: f64,
    /// Answers that came too late while it was sought.
    pub(super) beyond: u64,
}

impl Curve {
    /// A peak that is known, or claimed.
    pub(super) const fn known(peak: f64) -> Self {
        Self { closed: None, peak, beyond: 0 }
    }

    /// Seeks the peak, and prints what was tried.
    pub(super) fn find(options: &Options, clients: &mut Clients) -> Outcome<Self> {
        let seconds = options.step_seconds;
        let mut phase = clients.run(options, Loop::Closed(options.window), seconds)?;
        phase.show("closed");
        let mut closed = Point::new(0.0, &[&phase]);
        closed.offered = closed.good;
        println!("closed    {closed}");
        let mut at = |offered: f64| {
            let phase = clients.run(options, Loop::Open(offered), seconds)?;
            let point = Point::new(offered, &[&phase]);
            println!("curve     {point}");
            Outcome::Ok(point)
        };
        let mut points = Vec::new();
        for share in &options.curve {
            points.push(at(closed.good * share)?);
        }
        for _ in 0..MORE_MAX {
            let Some(last) = points.last().filter(|last| last.good >= last.offered * RISES) else {
                break;
            };
            points.push(at(last.offered * MORE)?);
        }
        let beyond = closed.beyond + points.iter().map(|point| point.beyond).sum::<u64>();
        let best = points.iter().max_by(|a, b| a.good.total_cmp(&b.good));
        let peak = best.ok_or("nothing was offered")?.offered;
        Ok(Self { closed: Some(closed), peak, beyond })
    }
}
