//! What the stories share: a merge that appends, a seeded chance, a store on a memory disk.

use ringdb_storage::{
    Batch, Direction, Disk, Durability, Engine, Error, Export, Folded, Job, MemoryDisk, Merge,
    OpenError, Options, Shard,
};
use std::sync::Arc;

/// Rows as a scan gives them.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Appends operands; `!` cannot be parsed and is carried; a value that ends with `-` is dropped.
pub(crate) struct Append;

impl Merge for Append {
    fn full(&self, _: &[u8], base: Option<&[u8]>, operands: &[&[u8]], out: &mut Vec<u8>) -> Folded {
        if operands.contains(&&b"!"[..]) {
            return Folded::Carry;
        }
        out.extend_from_slice(base.unwrap_or_default());
        for operand in operands {
            out.extend_from_slice(operand);
        }
        if out.ends_with(b"-") { Folded::Deleted } else { Folded::Value }
    }

    fn partial(&self, _: &[u8], operands: &[&[u8]], out: &mut Vec<u8>) -> bool {
        if operands.iter().any(|o| *o == b"!" || o.ends_with(b"-")) {
            return false;
        }
        operands.iter().for_each(|o| out.extend_from_slice(o));
        true
    }
}

/// A seeded source of chance.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(crate) fn key(&mut self, n: u64) -> Vec<u8> {
        format!("k{:03}", self.below(n)).into_bytes()
    }
}

pub(crate) struct Store {
    pub(crate) engine: Arc<Engine>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) options: Options,
}

pub(crate) fn options(shards: usize) -> Options {
    let split = |i: usize| format!("k{:03}", i * 100 / shards).into_bytes();
    Options {
        splits: (1..shards).map(split).collect(),
        memtable_bytes: 4 << 10,
        log_segment_bytes: 3 << 10,
        log_retain_bytes: 4 << 10,
        table_bytes: 2 << 10,
        level1_bytes: 1500,
        level0_tables: 3,
        ..Options::small()
    }
}

impl Store {
    pub(crate) fn open(disk: &MemoryDisk, options: Options) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(disk.clone()), options)
    }

    pub(crate) fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let (engine, shards) = Engine::open(disk, options.clone(), Arc::new(Append), &mut |_| {})?;
        Ok(Self { engine, shards, options })
    }

    pub(crate) fn shard(&mut self, key: &[u8]) -> &mut Shard {
        let shard = self.options.shard_of(key);
        &mut self.shards[shard]
    }

    pub(crate) fn run_jobs(&self) -> Result<(), Error> {
        while let Some(job) = self.engine.next_job() {
            Job::run(job)?;
        }
        Ok(())
    }

    /// Takes several jobs at once and ends them in any order, one or the other untouched.
    pub(crate) fn some_jobs(&self, chance: &mut Chance) -> Result<(), Error> {
        let wanted = 1 + chance.below(4) as usize;
        let mut open: Vec<Job> =
            std::iter::from_fn(|| self.engine.next_job()).take(wanted).collect();
        while !open.is_empty() {
            let job = open.swap_remove(chance.below(open.len() as u64) as usize);
            if chance.below(8) > 0 {
                job.run()?;
            }
        }
        Ok(())
    }

    pub(crate) fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.shard(key).get(key, None)?.map(|v| v.to_vec()))
    }
}

/// All rows of all shards.
pub(crate) fn all_rows(store: &Store) -> Rows {
    let scan = |shard: &Shard| {
        let rows = shard.scan(b"", None, Direction::Forward, None).unwrap();
        rows.map(Result::unwrap).collect::<Vec<_>>()
    };
    store.shards.iter().flat_map(scan).collect()
}

pub(crate) fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value);
    batch
}

/// Table files that hold these rows, as another store would export them.
pub(crate) fn external<'a>(
    rows: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) -> (MemoryDisk, Vec<String>) {
    let mut other = Store::open(&MemoryDisk::new(1), options(1)).unwrap();
    let mut batch = Batch::new();
    rows.for_each(|(key, value)| batch.put(key, value));
    other.shards[0].apply(&batch, Durability::Buffered).unwrap();
    let files = MemoryDisk::new(2);
    let how = Export { first_number: 1, file_bytes: 1 << 10, whole_prefix_bytes: 0 };
    let exported = other.shards[0].export(b"", None, None, &files, &how).unwrap();
    (files, exported.into_iter().map(|file| file.name).collect())
}
