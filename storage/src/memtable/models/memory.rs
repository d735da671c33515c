//! Memory that is new while a reader reads, and memory of a memtable that goes: never while
//! somebody holds the memtable.

use super::*;

#[test]
fn what_stands_in_a_block_that_is_new_is_found() {
    let batches: &[&[Step]] = &[&[PutLarge(2)], &[PutLarge(1)]];
    what_is_read_is_what_was_published(&[Put(1)], batches, Gets);
}

/// A memtable of pages is replaced by another one while a reader holds it: its pages go to the next
/// only when that reader is gone, and what they hold is whole until then.
#[test]
fn pages_go_to_the_next_memtable_only_when_the_last_reader_is_gone() {
    model(|| {
        // As long as it is there, pages that are given back wait for the next one.
        let mut other = Shard::new(HUGE_FROM);
        other.write(&[PutLarge(1)]);
        let mut shard = Shard::new(HUGE_FROM);
        shard.write(&[Put(1), PutLarge(2)]);
        let (memtable, bound) = (shard.active.memtable().clone(), shard.sequence);
        let reader = thread::spawn(move || {
            let rows = expected([Put(1), PutLarge(2)].iter(), bound);
            Gets.sees(&memtable, bound, &rows, &[1, 2]);
        });
        drop(shard);
        let mut next = Shard::new(HUGE_FROM);
        next.write(&[PutLarge(1), PutLarge(3)]);
        let rows = expected([PutLarge(1), PutLarge(3)].iter(), next.sequence);
        Gets.sees(next.active.memtable(), next.sequence, &rows, &[1, 3]);
        reader.join().expect("the reader did not fail");
        Gets.sees(next.active.memtable(), next.sequence, &rows, &[1, 3]);
    });
}
