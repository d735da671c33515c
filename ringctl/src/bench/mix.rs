//! Mix: the operations of a workload, one after the other.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::keys::{Chooser, Draw};
use crate::args::{Distribution, Workload};

/// The most keys of a range.
const RANGE_MAX: u64 = 100;

/// Records of one partition key, where ranges are read: a range ends with them.
const PARTITION: u64 = 1_000;

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read(Bytes),
    Update(Bytes, Bytes),
    Insert(Bytes, Bytes),
    Range(Span),
    ReadModifyWrite(Bytes, Bytes),
    Increment(Bytes),
}

/// Keys that follow each other in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The partition key: all its keys begin with it, in braces.
    pub(crate) partition: String,
    /// Their sort keys.
    pub(crate) sort: Vec<String>,
}

impl Span {
    /// The keys as a Redis client names them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.sort.iter().map(|sort| format!("{{{}}}{sort}", self.partition))
    }
}

/// The kinds of operations, as they are reported.
pub(crate) const KINDS: [&str; 6] =
    ["read", "update", "insert", "range", "read-modify-write", "increment"];

impl Operation {
    /// Its place in [`KINDS`].
    pub(crate) const fn kind(&self) -> usize {
        match self {
            Self::Read(_) => 0,
            Self::Update(..) => 1,
            Self::Insert(..) => 2,
            Self::Range(_) => 3,
            Self::ReadModifyWrite(..) => 4,
            Self::Increment(_) => 5,
        }
    }
}

/// What a workload does, shared by all who do it.
#[derive(Debug)]
pub(crate) struct Mix {
    /// None while records are loaded.
    workload: Option<Workload>,
    /// Keys are those of partitions, so that ranges of them can be read.
    sorted: bool,
    chooser: Chooser,
    prefix: String,
    /// Values are pieces of it.
    text: Bytes,
    value_bytes: usize,
    /// Records that are there, or are being loaded.
    records: AtomicU64,
    load: u64,
}

/// Whether a workload reads ranges.
pub(crate) const fn is_sorted(workload: Workload) -> bool {
    matches!(workload, Workload::E)
}

fn sort_key(record: u64) -> String {
    format!("user{record:010}")
}

/// How YCSB chooses the keys of a workload.
pub(crate) const fn usual(workload: Workload) -> Distribution {
    match workload {
        Workload::D => Distribution::Latest,
        _ => Distribution::Zipfian,
    }
}

impl Mix {
    /// The operations of `workload` on `records` records.
    pub(crate) fn new(
        workload: Workload,
        distribution: Distribution,
        records: u64,
        value_bytes: usize,
        prefix: &str,
    ) -> Self {
        Self {
            workload: Some(workload),
            sorted: is_sorted(workload),
            chooser: Chooser::new(distribution, records),
            prefix: prefix.to_owned(),
            text: text(value_bytes),
            value_bytes,
            records: AtomicU64::new(records),
            load: 0,
        }
    }

    /// The insertion of all records, each once; with the keys of workload e if they are to be `sorted`.
    pub(crate) fn load(records: u64, value_bytes: usize, prefix: &str, sorted: bool) -> Self {
        let uniform = Distribution::Uniform;
        let mix = Self::new(Workload::C, uniform, 1, value_bytes, prefix);
        Self { workload: None, sorted, records: AtomicU64::new(0), load: records, ..mix }
    }

    fn key(&self, record: u64) -> Bytes {
        if self.sorted {
            return format!("{{{}}}{}", self.partition(record), sort_key(record)).into();
        }
        format!("{}user{record:010}", self.prefix).into()
    }

    fn partition(&self, record: u64) -> String {
        format!("{}{:07}", self.prefix, record / PARTITION)
    }

    fn value(&self, draw: &mut Draw) -> Bytes {
        let room = (self.text.len() - self.value_bytes) as u64;
        let at = draw.below(room + 1) as usize;
        self.text.slice(at..at + self.value_bytes)
    }

    fn insert(&self, draw: &mut Draw) -> Operation {
        let record = self.records.fetch_add(1, Ordering::Relaxed);
        Operation::Insert(self.key(record), self.value(draw))
    }

    /// The next operation; none if all is done.
    pub(crate) fn next(&self, draw: &mut Draw) -> Option<Operation> {
        let Some(workload) = self.workload else {
            // Loading: what is beyond the last record is not inserted.
            let record = self.records.fetch_add(1, Ordering::Relaxed);
            let inserts = || Operation::Insert(self.key(record), self.value(draw));
            return (record < self.load).then(inserts);
        };
        let records = self.records.load(Ordering::Relaxed);
        let chance = draw.below(100);
        let record = self.chooser.choose(draw, records);
        let key = self.key(record);
        Some(match workload {
            Workload::A if chance < 50 => Operation::Update(key, self.value(draw)),
            Workload::W => Operation::Update(key, self.value(draw)),
            Workload::B if chance < 5 => Operation::Update(key, self.value(draw)),
            Workload::D | Workload::E if chance < 5 => self.insert(draw),
            Workload::F if chance < 50 => Operation::ReadModifyWrite(key, self.value(draw)),
            Workload::E => {
                let end = (record / PARTITION + 1) * PARTITION;
                let last = (record + 1 + draw.below(RANGE_MAX)).min(records).min(end);
                let sort = (record..last).map(sort_key).collect();
                Operation::Range(Span { partition: self.partition(record), sort })
            }
            Workload::Counters => {
                Operation::Increment(format!("{}counter{record:010}", self.prefix).into())
            }
            Workload::A | Workload::B | Workload::C | Workload::D | Workload::F => {
                Operation::Read(key)
            }
        })
    }
}

/// Text of which values are pieces: compressible about as much as text is.
fn text(value_bytes: usize) -> Bytes {
    const LETTERS: &[u8; 32] = b"etaoinshrdlucmfwypvbgkqjxz, .1eE";
    let mut draw = Draw::new(0x7e57);
    let byte = |_| LETTERS[draw.below(32) as usize];
    (0..value_bytes + 4096).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(workload: Workload) -> [usize; 6] {
        let mix = Mix::new(workload, usual(workload), 1_000, 10, "b:");
        let mut draw = Draw::new(5);
        let mut counts = [0; 6];
        for _ in 0..10_000 {
            let op = mix.next(&mut draw).expect("a workload has no end");
            if let Operation::Range(span) = &op {
                assert!((1..=100).contains(&span.sort.len()));
                assert!(span.sort.is_sorted(), "they follow each other");
            }
            counts[op.kind()] += 1;
        }
        counts.map(|n| (n + 50) / 100)
    }

    #[test]
    fn workloads_are_mixed_as_ycsb_says() {
        let near = |shares: [usize; 6], wanted: [usize; 6]| {
            shares.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 2 && (*a == 0) == (b == 0))
        };
        for (workload, wanted) in [
            (Workload::A, [50, 50, 0, 0, 0, 0]),
            (Workload::B, [95, 5, 0, 0, 0, 0]),
            (Workload::C, [100, 0, 0, 0, 0, 0]),
            (Workload::D, [95, 0, 5, 0, 0, 0]),
            (Workload::E, [0, 0, 5, 95, 0, 0]),
            (Workload::F, [50, 0, 0, 0, 50, 0]),
            (Workload::Counters, [0, 0, 0, 0, 0, 100]),
        ] {
            let shares = shares(workload);
            assert!(near(shares, wanted), "{workload:?}: {shares:?}");
        }
    }

    #[test]
    fn loading_inserts_every_record_once() {
        let mix = Mix::load(3, 10, "b:", false);
        let mut draw = Draw::new(1);
        let mut keys = Vec::new();
        while let Some(Operation::Insert(key, value)) = mix.next(&mut draw) {
            assert_eq!(value.len(), 10);
            keys.push(key);
        }
        assert_eq!(keys, ["b:user0000000000", "b:user0000000001", "b:user0000000002"]);
        assert_eq!(mix.next(&mut draw), None);
    }

    #[test]
    fn ranges_are_of_records_that_were_loaded_and_of_one_partition() {
        let load = Mix::load(2_500, 10, "b:", true);
        let mut draw = Draw::new(1);
        let mut loaded = std::collections::BTreeSet::new();
        while let Some(Operation::Insert(key, _)) = load.next(&mut draw) {
            loaded.insert(key);
        }
        assert!(loaded.contains(&b"{b:0000002}user0000002499"[..]), "{:?}", loaded.last());
        let mix = Mix::new(Workload::E, Distribution::Uniform, 2_500, 10, "b:");
        for _ in 0..2_000 {
            match mix.next(&mut draw) {
                Some(Operation::Range(span)) => {
                    assert!(span.keys().all(|key| loaded.contains(key.as_bytes())), "{span:?}");
                }
                Some(Operation::Insert(key, _)) => assert!(loaded.insert(key), "it is new"),
                other => panic!("{other:?}"),
            }
        }
    }
}
