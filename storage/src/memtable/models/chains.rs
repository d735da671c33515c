//! Changes of a key while its chain is read: a reader sees the one at its bound, whole.

use super::Step::Merge;
use super::*;

#[test]
fn an_overwritten_key_has_the_value_of_the_bound() {
    what_is_read_is_what_was_published(&[Put(1)], &[&[Put(1)], &[Put(1)]], Gets);
}

#[test]
fn a_key_that_is_deleted_and_put_again_is_there_as_the_bound_says() {
    what_is_read_is_what_was_published(&[Put(1)], &[&[Delete(1)], &[Put(1)]], Gets);
}

#[test]
fn a_batch_is_seen_as_a_whole() {
    let batches: &[&[Step]] = &[&[Put(1), Delete(2), Put(3)]];
    what_is_read_is_what_was_published(&[Put(1), Put(2)], batches, Gets);
}

#[test]
fn a_walk_has_the_values_of_the_bound() {
    let batches: &[&[Step]] = &[&[Put(1), Put(2)], &[Delete(1)]];
    what_is_read_is_what_was_published(&[Put(1), Put(2)], batches, Read::Scan(Forward));
}

#[test]
fn the_place_of_a_version_is_used_again_only_when_no_view_can_reach_it() {
    let batches: &[&[Step]] = &[&[Put(1), View], &[Put(1), View], &[Put(1)]];
    what_is_read_is_what_was_published(&[Put(1)], batches, Gets);
}

#[test]
fn operands_are_those_up_to_the_bound() {
    what_is_read_is_what_was_published(&[Merge(1)], &[&[Merge(1)], &[Merge(1)]], Gets);
}

#[test]
fn operands_upon_a_value_are_those_up_to_the_bound() {
    what_is_read_is_what_was_published(&[Put(1)], &[&[Merge(1)], &[Merge(1)]], Gets);
}

#[test]
fn operands_that_are_folded_below_a_reader_are_all_there() {
    let batches: &[&[Step]] = &[&[Merge(1), View], &[Merge(1), View], &[Merge(1)]];
    what_is_read_is_what_was_published(&[Merge(1)], batches, Gets);
}

#[test]
fn operands_that_are_folded_below_a_newer_one_are_all_there() {
    let batches: &[&[Step]] = &[&[Hold, Merge(1), View], &[Merge(1), LetGo, View], &[Merge(1)]];
    what_is_read_is_what_was_published(&[Merge(1)], batches, Gets);
}

#[test]
fn a_version_that_is_unlinked_below_a_newer_one_is_in_no_readers_way() {
    let batches: &[&[Step]] = &[&[Hold, Put(1), View], &[Put(1), LetGo, View], &[Put(1)]];
    what_is_read_is_what_was_published(&[Put(1)], batches, Gets);
}
