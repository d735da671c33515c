//! Report: what a bench has to say.

use serde_json::{Value, json};

use super::drive::{Seen, Tally};
use super::mix::KINDS;
use crate::render::{Cell, Paint, Record, Report, Style, Table, human};

/// What one workload at one level came to.
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) level: String,
    pub(crate) offered: Option<u32>,
    pub(crate) seconds: f64,
    pub(crate) tally: Tally,
    /// Processor time in microseconds of each that was watched.
    pub(crate) cpu_us: Vec<(String, Option<u64>)>,
}

impl Run {
    fn done(&self) -> u64 {
        self.tally.all().latencies.len()
    }

    fn cpu_per_op(&self, cpu_us: Option<u64>) -> Option<f64> {
        let done = self.done();
        cpu_us.filter(|_| done > 0).map(|us| us as f64 / done as f64)
    }

    fn cpu_of_all(&self) -> Option<f64> {
        let all: Option<u64> = self.cpu_us.iter().map(|(_, us)| *us).sum();
        self.cpu_per_op(all.filter(|_| !self.cpu_us.is_empty()))
    }
}

fn ms(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2}") } else { format!("{ms:.1}") }
}

fn rounded(x: f64) -> Value {
    json!((x * 1000.0).round() / 1000.0)
}

fn one_decimal(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), |x| format!("{x:.1}"))
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds).round() as u64
}

fn latencies(seen: &Seen) -> [f64; 4] {
    let max = seen.latencies.max() as f64 / 1e6;
    [seen.quantile_ms(0.5), seen.quantile_ms(0.99), seen.quantile_ms(0.999), max]
}

fn fields(seen: &Seen, seconds: f64) -> Vec<(&'static str, Value)> {
    let [p50, p99, p999, max] = latencies(seen);
    vec![
        ("operations", seen.latencies.len().into()),
        ("ops_per_second", rounded(seen.latencies.len() as f64 / seconds)),
        ("errors", seen.errors.into()),
        ("p50_ms", rounded(p50)),
        ("p99_ms", rounded(p99)),
        ("p999_ms", rounded(p999)),
        ("max_ms", rounded(max)),
        ("mean_ms", rounded(seen.latencies.mean() / 1e6)),
    ]
}

fn cells(seen: &Seen, seconds: f64) -> Vec<Cell> {
    let errors = Cell::number(thousands(seen.errors));
    let errors = if seen.errors > 0 { errors.painted(Paint::Bad) } else { errors };
    let mut cells = vec![Cell::number(thousands(per_second(seen.latencies.len(), seconds)))];
    cells.extend(latencies(seen).map(|x| Cell::number(ms(x))));
    cells.push(errors);
    cells
}

/// The report; `about` is what was measured and how, for people and for programs.
pub(crate) fn report(about: (String, Record), runs: &[Run], style: Style) -> Report {
    let mut headings = vec!["WORKLOAD", "LEVEL"];
    let open = runs.iter().any(|run| run.offered.is_some());
    if open {
        headings.push(">OFFERED");
    }
    headings.extend([">OPS/S", ">P50 ms", ">P99 ms", ">P99.9 ms", ">MAX ms", ">ERRORS"]);
    if open {
        headings.push(">UNSENT");
    }
    headings.extend([">CPU µs/OP", "OF EACH"]);
    let mut table = Table::new(&headings);
    let mut rows = Vec::new();
    let mut remarks = String::new();
    for run in runs {
        let all = run.tally.all();
        let mut row = vec![Cell::text(run.workload.as_str()), Cell::text(run.level.as_str())];
        if open {
            let offered = run.offered.map(u64::from).map_or_else(|| "-".into(), thousands);
            row.push(Cell::number(offered));
        }
        row.extend(cells(&all, run.seconds));
        if open {
            row.push(Cell::number(thousands(run.tally.unsent)));
        }
        let each = run
            .cpu_us
            .iter()
            .map(|(name, us)| format!("{name} {}", one_decimal(run.cpu_per_op(*us))));
        row.push(Cell::number(one_decimal(run.cpu_of_all())));
        row.push(Cell::text(each.collect::<Vec<_>>().join("  ")));
        table.row(row);
        let kinds: Vec<_> = KINDS
            .iter()
            .zip(&run.tally.kinds)
            .filter(|(_, seen)| !seen.latencies.is_empty() || seen.errors > 0)
            .collect();
        if style.wide {
            for (kind, seen) in &kinds {
                let mut row = vec![Cell::text(format!("  {kind}")), Cell::text("")];
                if open {
                    row.push(Cell::text(""));
                }
                row.extend(cells(seen, run.seconds));
                table.row(row);
            }
        }
        for (what, count) in &run.tally.errors {
            let times = human::things(*count as usize, "time", "times");
            remarks += &format!("errors: {} {}: {times}: {what}\n", run.workload, run.level);
        }
        rows.push(row_of(run, &all, &kinds));
    }
    let text = format!("{}\n{}{remarks}", about.0, table.render(style.colour));
    Report { text, whole: about.1.with("runs", &rows), rows }
}

fn row_of(run: &Run, all: &Seen, kinds: &[(&&str, &Seen)]) -> Record {
    let mut row = vec![
        ("workload", run.workload.as_str().into()),
        ("level", run.level.as_str().into()),
        ("offered_per_second", run.offered.into()),
        ("seconds", rounded(run.seconds)),
    ];
    row.extend(fields(all, run.seconds));
    row.push(("unsent", run.tally.unsent.into()));
    row.push(("cpu_us_per_op", run.cpu_of_all().map_or(Value::Null, rounded)));
    let of_each = run.cpu_us.iter().map(|(name, us)| {
        json!({ "name": name, "cpu_us": us, "cpu_us_per_op": run.cpu_per_op(*us).map(rounded) })
    });
    row.push(("cpu_of_each", of_each.collect()));
    let kind = |(kind, seen): &(&&str, &Seen)| {
        let mut fields = fields(seen, run.seconds);
        fields.insert(0, ("kind", Value::from(**kind)));
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Value>()
    };
    row.push(("kinds", kinds.iter().map(kind).collect()));
    row.push(("errors_by_kind", json!(run.tally.errors)));
    Record::new(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_read_in_groups() {
        assert_eq!(
            [7, 999, 1_000, 123_456, 1_000_000].map(thousands),
            ["7", "999", "1,000", "123,456", "1,000,000"]
        );
    }
}
