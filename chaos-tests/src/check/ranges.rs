//! Ranges: a page shows of each key what a read of it would, no key twice, none of another range, in
//! order; and a deletion of a page deletes whatever was sure to stand in it.

use bytes::Bytes;
use replication::op::{PageRow, Span};

use super::reads;
use super::truth::Truth;
use crate::history::Asked;

/// Copies of each key.
const COPIES: u8 = 3;

/// A page came, with the row at which it ends.
pub fn page(
    truth: &mut Truth,
    asked: &Asked,
    (span, shown, next): (&Span, &[PageRow], &Bytes),
    now: u64,
) {
    let in_order = |pair: &[PageRow]| (pair[0].row < pair[1].row) != span.reverse;
    let sound = shown.windows(2).all(|pair| pair[0].row != pair[1].row && in_order(pair))
        && shown.iter().all(|found| is_in(span, next, &found.row));
    if !sound {
        let rows: Vec<&Bytes> = shown.iter().map(|found| &found.row).collect();
        let text = format!("{asked:?} showed {rows:?} and ended at {next:?}");
        truth.breaks("a page shows the rows of its range in their order", text);
        return;
    }
    for row in rows_of(truth, span, next) {
        let found = shown.iter().find(|found| found.row == row);
        let values = found.map(|found| found.values.as_slice()).unwrap_or_default();
        let values: Vec<Bytes> = values.iter().map(|v| v.value.clone()).collect();
        let asked = Asked { rows: vec![row], ..asked.clone() };
        reads::siblings(truth, &asked, now, &values);
    }
}

/// The rows of a page were deleted.
pub fn deleted(truth: &mut Truth, asked: &Asked, (span, next): (&Span, &Bytes), now: u64) {
    // Which of them were there is not told, so that less is sure than of a DEL.
    if asked.at < truth.reads_void_before || asked.read < 2 {
        return;
    }
    let write = asked.write.min(COPIES + 1 - asked.read);
    for row in rows_of(truth, span, next) {
        let asked = Asked { rows: vec![row], write, ..asked.clone() };
        reads::deleted(truth, &asked, now, true);
    }
}

fn is_in(span: &Span, next: &Bytes, row: &Bytes) -> bool {
    let before = next.is_empty() || if span.reverse { row >= next } else { row < next };
    *row >= span.start && *row < span.end && before
}

/// The rows of a page that were ever written.
fn rows_of(truth: &Truth, span: &Span, next: &Bytes) -> Vec<Bytes> {
    truth.rows().filter(|row| is_in(span, next, row)).cloned().collect()
}
