//! Keys that are added: to a leaf, to a leaf that is parted for it, with the nodes above it; and
//! nodes that are used again.

use super::*;
use crate::fold::NoMerge;

fn put(active: &mut Active, number: u64, sequence: u64) {
    let range = KeyRange { lower: Vec::new(), upper: None };
    let (key, value) = (number.to_be_bytes(), sequence.to_be_bytes());
    let op = Op::Put { key: &key, value: &value };
    active.apply(op, sequence, 0, &range, &NoMerge, &|_| false);
}

/// `before` are there; one thread adds `added` in turn and publishes each; another must find all
/// that were published before it looks, by look-up and by a walk.
fn added_keys_are_found(before: &'static [u64], added: &'static [u64]) {
    model(move || {
        let mut active = Active::new(4 << 10);
        active.share(0);
        let mut sequence = 0;
        for number in before {
            sequence += 1;
            put(&mut active, *number, sequence);
        }
        let memtable = active.memtable().clone();
        let published = Counted::new(AtomicU64::new(sequence));
        let writer = thread::spawn({
            let published = published.clone();
            move || {
                for number in added {
                    sequence += 1;
                    put(&mut active, *number, sequence);
                    published.store(sequence, Ordering::Release);
                }
                active
            }
        });
        let bound = published.load(Ordering::Acquire) as usize;
        let there = before.iter().chain(added).take(bound);
        for number in there.clone().skip(bound.saturating_sub(4)) {
            assert!(memtable.get(&number.to_be_bytes()).next().is_some(), "{number} at {bound}");
        }
        let mut walked = Vec::new();
        let mut cursor = Cursor::new(&memtable, b"", None, Forward);
        while let Some(key) = cursor.key() {
            walked.push(u64::from_be_bytes(key.try_into().expect("eight bytes")));
            cursor.advance();
        }
        assert!(walked.is_sorted_by(|a, b| a < b), "{walked:?}");
        for number in there {
            assert!(walked.contains(number), "{number} at {bound} in {walked:?}");
        }
        drop(writer.join());
    });
}

#[test]
fn keys_added_to_a_leaf_are_found() {
    added_keys_are_found(&[50], &[20, 70]);
}

#[test]
fn keys_are_found_while_the_first_leaf_is_parted() {
    added_keys_are_found(&[20, 40, 60], &[50]);
}

#[test]
fn keys_are_found_while_a_leaf_below_a_root_is_parted() {
    added_keys_are_found(&[20, 40, 60, 80], &[30, 10]);
}

#[test]
fn keys_are_found_while_inner_nodes_are_parted() {
    // Ascending keys fill leaves and the root; the last one parts both.
    added_keys_are_found(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], &[13]);
}

#[test]
fn a_cursor_goes_on_forward_from_a_leaf_that_is_parted() {
    let (before, read) = (&[Put(20), Put(40), Put(60)], Read::Scan(Forward));
    what_is_read_is_what_was_published(before, &[&[Put(50)], &[Put(30), Put(35)]], read);
}

#[test]
fn a_cursor_goes_on_backward_from_a_leaf_that_is_parted() {
    let (before, read) = (&[Put(20), Put(40), Put(60)], Read::Scan(Backward));
    what_is_read_is_what_was_published(before, &[&[Put(50)], &[Put(30), Put(35)]], read);
}

/// Ascending, as many as fill leaves and the root.
const FULL: &[Step] = &[
    Put(1),
    Put(2),
    Put(3),
    Put(4),
    Put(5),
    Put(6),
    Put(7),
    Put(8),
    Put(9),
    Put(10),
    Put(11),
    Put(12),
];

#[test]
fn a_cursor_goes_on_backward_while_inner_nodes_are_parted() {
    what_is_read_is_what_was_published(FULL, &[&[Put(13)]], Read::Scan(Backward));
}

const PARTED_AND_USED_AGAIN: &[&[Step]] = &[&[Put(50), View], &[Put(55)], &[Put(57)]];

#[test]
fn a_node_is_used_again_only_when_no_look_up_can_be_in_it() {
    let before = &[Put(20), Put(40), Put(60)];
    what_is_read_is_what_was_published(before, PARTED_AND_USED_AGAIN, Gets);
}

#[test]
fn a_node_is_used_again_only_when_no_cursor_can_be_in_it() {
    let before = &[Put(20), Put(40), Put(60)];
    what_is_read_is_what_was_published(before, PARTED_AND_USED_AGAIN, Read::Scan(Forward));
}
