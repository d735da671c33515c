//! Report: the rounds of all engines as one table, with ratios to the better of RocksDB and fjall.

use crate::engines::Name;
use crate::measure::Figures;
use crate::rows::Row;
use std::collections::BTreeMap;
use std::fmt::Write;

/// All rounds of every row and engine.
pub type Rounds = BTreeMap<Row, BTreeMap<Name, Vec<Figures>>>;

/// One figure out of many rounds: the machine is shared, so that the best round says most about the
/// engine; of the rare long waits the middle round is taken.
#[must_use]
pub fn summary(rounds: &[Figures]) -> Figures {
    let least = |f: fn(&Figures) -> f64| rounds.iter().map(f).fold(f64::INFINITY, f64::min);
    let middle = |f: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(f).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let first = rounds.first().cloned().unwrap_or_default();
    Figures {
        ops: first.ops,
        seconds: least(|f| f.seconds),
        ops_per_second: -least(|f| -f.ops_per_second),
        p50: least(|f| f.p50),
        p99: least(|f| f.p99),
        p9999: middle(|f| f.p9999),
        max: middle(|f| f.max),
        cpu: least(|f| f.cpu),
        cpu_callers: least(|f| f.cpu_callers),
        peak_mib: least(|f| f.peak_mib),
        write_amplification: first
            .write_amplification
            .map(|_| middle(|f| f.write_amplification.unwrap_or(0.0))),
        space_amplification: first
            .space_amplification
            .map(|_| middle(|f| f.space_amplification.unwrap_or(0.0))),
        note: first.note,
    }
}

/// A line a row, as Markdown: processor time for one operation, and how often the engine is better
/// than the better of RocksDB and fjall.
#[must_use]
pub fn ratios_table(rounds: &Rounds) -> String {
    let mut out = String::from(
        "| row | CPU-µs/op: ours | RocksDB | fjall | redb | × CPU | × p50 | × ops/s | goal |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for (row, engines) in rounds {
        let all: BTreeMap<Name, Figures> =
            engines.iter().map(|(name, rounds)| (*name, summary(rounds))).collect();
        let cpu = |name: Name| all.get(&name).map(|f| short(f.cpu)).unwrap_or_default();
        let ratios = all.get(&Name::Ours).and_then(|ours| Ratios::of(ours, &peers(&all)));
        let ratios = ratios.map_or(" | | ".to_owned(), |r| {
            format!("**{:.2}** | {:.2} | {:.2}", r.cpu, r.wait, r.rate)
        });
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {ratios} | {} |",
            row.text(),
            cpu(Name::Ours),
            cpu(Name::Rocksdb),
            cpu(Name::Fjall),
            cpu(Name::Redb),
            row.goal()
        );
    }
    out
}

fn peers(all: &BTreeMap<Name, Figures>) -> Vec<&Figures> {
    [Name::Rocksdb, Name::Fjall].iter().filter_map(|name| all.get(name)).collect()
}

/// How often better than the better of the peers.
struct Ratios {
    rate: f64,
    wait: f64,
    cpu: f64,
}

impl Ratios {
    fn of(ours: &Figures, peers: &[&Figures]) -> Option<Self> {
        let least = |f: fn(&Figures) -> f64| peers.iter().map(|p| f(p)).reduce(f64::min);
        Some(Self {
            rate: ours.ops_per_second / -least(|f| -f.ops_per_second)?,
            wait: least(|f| f.p50)? / ours.p50,
            cpu: least(|f| f.cpu)? / ours.cpu,
        })
    }
}

/// Every figure of every engine, as Markdown. Times in µs.
#[must_use]
pub fn table(rounds: &Rounds) -> String {
    let mut out = String::from(
        "| row | engine | ops/s | p50 | p99 | p99.99 | max | CPU | callers | MiB | WA | SA |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (row, engines) in rounds {
        let all: BTreeMap<Name, Figures> =
            engines.iter().map(|(name, rounds)| (*name, summary(rounds))).collect();
        for (name, f) in &all {
            let amplification = |a: Option<f64>| a.map(|a| format!("{a:.2}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {} | {} |{}",
                if *name == *all.keys().next().unwrap_or(name) { row.text() } else { "" },
                name.text(),
                thousands(f.ops_per_second),
                short(f.p50),
                short(f.p99),
                short(f.p9999),
                short(f.max),
                short(f.cpu),
                short(f.cpu_callers),
                f.peak_mib,
                amplification(f.write_amplification),
                amplification(f.space_amplification),
                if f.note.is_empty() { String::new() } else { format!(" {}", f.note) },
            );
        }
    }
    out
}

fn short(x: f64) -> String {
    match x {
        x if x >= 100.0 => thousands(x),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

fn thousands(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
