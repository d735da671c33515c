//! Range deletions that are added while keys in them are read.

use super::*;

#[test]
fn a_key_is_there_before_a_range_deletion_and_after_the_next_put() {
    let batches: &[&[Step]] = &[&[DeleteRange(1, 2)], &[Put(1)]];
    what_is_read_is_what_was_published(&[Put(1), Put(2)], batches, Gets);
}

#[test]
fn range_deletions_that_are_put_together_all_count() {
    let batches: &[&[Step]] = &[&[DeleteRange(1, 2)], &[DeleteRange(2, 4)], &[Put(3)]];
    what_is_read_is_what_was_published(&[Put(1), Put(2)], batches, Gets);
}

/// More rows in a row than a scan looks at one by one before it passes over the rest.
const MANY: &[Step] = &[Put(1), Put(2), Put(3), Put(4), Put(5), Put(6)];

#[test]
fn a_scan_that_passes_over_deleted_rows_stops_at_a_newer_one() {
    let batches: &[&[Step]] = &[&[DeleteRange(1, 7)], &[Put(5)]];
    what_is_read_is_what_was_published(MANY, batches, Read::Scan(Forward));
}

#[test]
fn a_backward_scan_that_passes_over_deleted_rows_stops_at_a_newer_one() {
    let batches: &[&[Step]] = &[&[DeleteRange(1, 7)], &[Put(2)]];
    what_is_read_is_what_was_published(MANY, batches, Read::Scan(Backward));
}

#[test]
fn a_range_deletion_and_what_is_put_upon_it_are_seen_together() {
    let batches: &[&[Step]] = &[&[DeleteRange(1, 7), Put(3)]];
    what_is_read_is_what_was_published(MANY, batches, Read::Scan(Forward));
}
