//! Every interleaving of a writer and a reader of the tree, as far as a model checker can say.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p ringdb-storage --lib --release --target-dir target/loom models::
//! RUSTFLAGS="--cfg shuttle" cargo test -p ringdb-storage --lib --release --target-dir target/shuttle models::
//! ```

use super::*;
use crate::fold::NoMerge;
use crate::sync::atomic;

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

/// Loom: every interleaving with at most three forced switches, under the weak memory model.
/// Shuttle: many schedules by chance, with sequential consistency, of larger cases.
fn model(f: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.max_branches = 100_000;
        model.check(f);
    }
    #[cfg(shuttle)]
    shuttle::check_random(f, 20_000);
}

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
        let published = std::sync::Arc::new(atomic::AtomicU64::new(sequence));
        let writer = thread::spawn({
            let published = published.clone();
            move || {
                for number in added {
                    sequence += 1;
                    put(&mut active, *number, sequence);
                    published.store(sequence, atomic::Ordering::Release);
                }
                active
            }
        });
        let bound = published.load(atomic::Ordering::Acquire) as usize;
        let there = before.iter().chain(added).take(bound);
        for number in there.clone().skip(bound.saturating_sub(4)) {
            assert!(memtable.get(&number.to_be_bytes()).next().is_some(), "{number} at {bound}");
        }
        let mut walked = Vec::new();
        let mut cursor = Cursor::new(&memtable, b"", None, crate::merge::Direction::Forward);
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
