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

/// The table, as Markdown.
#[must_use]
pub fn table(rounds: &Rounds) -> String {
    let mut out = String::from(
        "| row | engine | ops/s | p50 | p99 | p99.99 | max | CPU | callers | MiB | WA | SA | × ops/s | × p50 | × CPU | goal |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (row, engines) in rounds {
        let all: BTreeMap<Name, Figures> =
            engines.iter().map(|(name, rounds)| (*name, summary(rounds))).collect();
        let peers: Vec<&Figures> =
            [Name::Rocksdb, Name::Fjall].iter().filter_map(|name| all.get(name)).collect();
        for (name, f) in &all {
            let ratios =
                if *name == Name::Ours { ratios(f, &peers, *row) } else { " | | |".to_owned() };
            let amplification = |a: Option<f64>| a.map(|a| format!("{a:.2}")).unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {} | {} | {ratios} |{}",
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

/// How often better than the better of the peers, by rate, wait and processor time.
fn ratios(ours: &Figures, peers: &[&Figures], row: Row) -> String {
    if peers.is_empty() {
        return format!(" | | | {}", row.goal());
    }
    let least = |f: fn(&Figures) -> f64| peers.iter().map(|p| f(p)).fold(f64::INFINITY, f64::min);
    let rate = ours.ops_per_second / -least(|f| -f.ops_per_second);
    let wait = least(|f| f.p50) / ours.p50;
    let cpu = least(|f| f.cpu) / ours.cpu;
    format!("**{rate:.2}** | {wait:.2} | {cpu:.2} | {}", row.goal())
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
