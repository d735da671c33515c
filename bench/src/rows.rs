//! Rows: what is measured, and how. Each runs in a process of its own, on a store of its own or on
//! the base store that the first row leaves behind.

use crate::engines::{Setup, Store};
use crate::measure::{Figures, Meter, Waits, disk_bytes, thread_cpu};
use crate::workload::{Chance, KEY_BYTES, Key, Values, key};
use std::path::Path;
use std::time::Duration;

/// A row of the table.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[allow(missing_docs, reason = "Row::text says what each is")]
pub enum Row {
    Fill,
    Get,
    GetSmall,
    Missing,
    MissingSmall,
    GetMany,
    Seek,
    SeekSmall,
    SeekBack,
    SeekBackSmall,
    Scan,
    ScanSmall,
    ScanBack,
    ScanBackSmall,
    Overwrite,
    DeleteRange,
    ScanDeleted,
    ScanAgain,
    #[value(name = "fill-1k")]
    Fill1k,
    Fill2,
    Fill16,
    Sync1,
    Sync16,
    Recovery,
}

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Rows of the base store.
    pub keys: u64,
    /// Size at which a memtable is flushed.
    pub memtable_bytes: usize,
    /// Most seconds of a synced row.
    pub seconds: f64,
}

const VALUE_BYTES: usize = 100;
const LARGE_BYTES: usize = 1024;
const BACKGROUND: usize = 2;
const MANY: usize = 64;
const SEEK_ROWS: usize = 10;
/// A tenth of the key space.
const DELETED: (u64, u64) = (1 << 62, (1 << 62) + u64::MAX / 10);

impl Row {
    /// As printed.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Fill => "fill random, 100 B",
            Self::Get => "get, cached",
            Self::GetSmall => "get, data 5× the cache",
            Self::Missing => "get missing, cached",
            Self::MissingSmall => "get missing, 5×",
            Self::GetMany => "get_many of 64, cached (each)",
            Self::Seek => "seek + 10 rows, cached",
            Self::SeekSmall => "seek + 10 rows, 5×",
            Self::SeekBack => "seek + 10 rows backward, cached",
            Self::SeekBackSmall => "seek + 10 rows backward, 5×",
            Self::ScanBack => "scan of all backward, cached (each row)",
            Self::ScanBackSmall => "scan of all backward, 5× (each row)",
            Self::Scan => "scan of all, cached (each row)",
            Self::ScanSmall => "scan of all, 5× (each row)",
            Self::Overwrite => "overwrite, 3 times all",
            Self::DeleteRange => "delete 10 % as a range (once)",
            Self::ScanDeleted => "… scan right after (each row)",
            Self::ScanAgain => "… and again, settled (each row)",
            Self::Fill1k => "fill random, 1 KiB",
            Self::Fill2 => "fill, 2 threads",
            Self::Fill16 => "fill, 16 threads",
            Self::Sync1 => "put, synced, 1 thread",
            Self::Sync16 => "put, synced, 16 threads",
            Self::Recovery => "open after a kill (each row)",
        }
    }

    /// By how much the engine wants to be ahead of the better of RocksDB and fjall.
    #[must_use]
    pub fn goal(self) -> f64 {
        match self {
            Self::Fill | Self::Fill1k | Self::Overwrite => 2.5,
            Self::Fill2 | Self::Fill16 => 3.0,
            Self::Sync1 => 1.8,
            Self::Sync16 | Self::Recovery => 4.0,
            Self::Get | Self::GetMany => 2.4,
            Self::GetSmall | Self::Missing | Self::MissingSmall => 2.0,
            Self::Seek | Self::SeekSmall | Self::Scan | Self::ScanSmall => 3.5,
            Self::SeekBack | Self::SeekBackSmall | Self::ScanBack | Self::ScanBackSmall => 3.5,
            Self::DeleteRange => 1.0,
            Self::ScanDeleted | Self::ScanAgain => 3.5,
        }
    }

    /// True when it wants the base store.
    #[must_use]
    pub fn reads_base(self) -> bool {
        !matches!(
            self,
            Self::Fill
                | Self::Fill1k
                | Self::Fill2
                | Self::Fill16
                | Self::Sync1
                | Self::Sync16
                | Self::Recovery
        )
    }

    /// The row whose process measures it too.
    #[must_use]
    pub fn process(self) -> Self {
        match self {
            Self::ScanDeleted | Self::ScanAgain => Self::DeleteRange,
            other => other,
        }
    }
}

/// Runs `row` on the store in `directory` and says what it and the rows of its process showed.
pub fn run<S: Store>(row: Row, directory: &Path, scale: Scale) -> Vec<(Row, Figures)> {
    let raw = usize::try_from(scale.keys).expect("keys fit in memory") * (KEY_BYTES + VALUE_BYTES);
    let small = matches!(
        row,
        Row::GetSmall
            | Row::MissingSmall
            | Row::SeekSmall
            | Row::SeekBackSmall
            | Row::ScanSmall
            | Row::ScanBackSmall
    );
    let cache_bytes = if small { raw / 5 } else { (4 * raw).max(64 << 20) };
    let setup = Setup {
        directory,
        memtable_bytes: scale.memtable_bytes,
        cache_bytes,
        background: BACKGROUND,
    };
    if row == Row::Recovery {
        return vec![(row, recover::<S>(setup, scale))];
    }
    let store = S::open(setup);
    let n = scale.keys;
    let written = match row {
        Row::Fill => Some(fill(&store, setup, n, 1, VALUE_BYTES, None)),
        Row::Fill1k => Some(fill(&store, setup, large_rows(n), 1, LARGE_BYTES, None)),
        Row::Fill2 => Some(fill(&store, setup, n, 2, VALUE_BYTES, None)),
        Row::Fill16 => Some(fill(&store, setup, n, 16, VALUE_BYTES, None)),
        Row::Sync1 => Some(fill(&store, setup, n, 1, VALUE_BYTES, Some(scale.seconds))),
        Row::Sync16 => Some(fill(&store, setup, n, 16, VALUE_BYTES, Some(scale.seconds))),
        Row::Overwrite => Some(overwrite(&store, setup, n)),
        Row::DeleteRange => return delete_range(&store, n),
        _ => None,
    };
    vec![(row, written.unwrap_or_else(|| read(&store, row, n)))]
}

/// Rows of the 1 KiB fills.
fn large_rows(keys: u64) -> u64 {
    keys * 3 / 10
}

fn fill<S: Store>(
    store: &S,
    setup: Setup<'_>,
    keys: u64,
    threads: u64,
    value_bytes: usize,
    synced_seconds: Option<f64>,
) -> Figures {
    let meter = Meter::start();
    let limit = synced_seconds.map(Duration::from_secs_f64);
    let (mut waits, mut cpu, mut ops) = (Vec::new(), Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let writer = |thread: u64| {
            let before = thread_cpu();
            let mut values = Values::new(value_bytes);
            let mut waits = Waits::start();
            let mut done = 0;
            for i in (thread..keys).step_by(usize::try_from(threads).expect("few threads")) {
                store.put(&key(i), values.get(i, 0), limit.is_some());
                waits.lap();
                done += 1;
                if limit.is_some_and(|limit| meter.elapsed() > limit) {
                    break;
                }
            }
            (waits, thread_cpu() - before, done)
        };
        let all: Vec<_> = (0..threads).map(|t| scope.spawn(move || writer(t))).collect();
        for thread in all {
            let (w, c, done) = thread.join().expect("no writer panics");
            waits.push(w);
            cpu += c;
            ops += done;
        }
    });
    let mut figures = meter.callers_done(ops, waits, cpu);
    store.settle();
    meter.settled(&mut figures);
    let user = ops * (KEY_BYTES + value_bytes) as u64;
    if limit.is_none() {
        figures.write_amplification = Some(meter.write_amplification(user, store.uncalled_bytes()));
        figures.space_amplification = Some(disk_bytes(setup.directory) as f64 / user as f64);
    }
    figures
}

fn overwrite<S: Store>(store: &S, setup: Setup<'_>, keys: u64) -> Figures {
    store.settle();
    let meter = Meter::start();
    let before = thread_cpu();
    let mut values = Values::new(VALUE_BYTES);
    let mut chance = Chance::new(3);
    let mut waits = Waits::start();
    for pass in 1..=3 {
        for _ in 0..keys {
            let i = chance.below(keys);
            store.put(&key(i), values.get(i, pass), false);
            waits.lap();
        }
    }
    let ops = 3 * keys;
    let mut figures = meter.callers_done(ops, vec![waits], thread_cpu() - before);
    store.settle();
    meter.settled(&mut figures);
    let row_bytes = (KEY_BYTES + VALUE_BYTES) as u64;
    figures.write_amplification =
        Some(meter.write_amplification(ops * row_bytes, store.uncalled_bytes()));
    let live = (keys * row_bytes) as f64;
    figures.space_amplification = Some(disk_bytes(setup.directory) as f64 / live);
    figures
}

/// Rows that only read: warm, then measured.
fn read<S: Store>(store: &S, row: Row, keys: u64) -> Figures {
    store.settle();
    let (rows, _) = store.scan(&[], usize::MAX);
    assert_eq!(rows as u64, keys, "the base store has all rows");
    let mut chance = Chance::new(1);
    for _ in 0..keys / 10 {
        store.get(&key(chance.below(keys)));
    }
    let missing = matches!(row, Row::Missing | Row::MissingSmall);
    let ops = match row {
        Row::Seek | Row::SeekSmall | Row::SeekBack | Row::SeekBackSmall => keys / 10,
        Row::Scan | Row::ScanSmall | Row::ScanBack | Row::ScanBackSmall => 3 * keys,
        _ => keys / 2,
    };
    let mut waits = Waits::start();
    let meter = Meter::start();
    let before = thread_cpu();
    match row {
        Row::GetMany => {
            for _ in 0..ops / MANY as u64 {
                let keys: Vec<Key> = (0..MANY).map(|_| key(chance.below(keys))).collect();
                waits.begin();
                assert_eq!(store.get_many(&keys), MANY, "all are there");
                waits.lap();
            }
        }
        Row::Seek | Row::SeekSmall => {
            for _ in 0..ops {
                let start = key(keys + chance.below(keys));
                store.scan(&start, SEEK_ROWS);
                waits.lap();
            }
        }
        Row::SeekBack | Row::SeekBackSmall => {
            for _ in 0..ops {
                let from = key(keys + chance.below(keys));
                store.scan_back(&from, SEEK_ROWS);
                waits.lap();
            }
        }
        Row::ScanBack | Row::ScanBackSmall => {
            let from = [0xff; KEY_BYTES + 1];
            for _ in 0..3 {
                assert_eq!(store.scan_back(&from, usize::MAX).0 as u64, keys, "all rows");
                waits.lap();
            }
        }
        Row::Scan | Row::ScanSmall => {
            for _ in 0..3 {
                assert_eq!(store.scan(&[], usize::MAX).0 as u64, keys, "all rows");
                waits.lap();
            }
        }
        _ => {
            let offset = if missing { keys } else { 0 };
            for i in 0..ops {
                let key = key(offset + chance.below(keys));
                // A look at the clock costs as much as a look into a filter: one in 16 is timed.
                let timed = i % 16 == 0;
                if timed {
                    waits.begin();
                }
                assert_eq!(store.get(&key).is_none(), missing, "the key is there or not");
                if timed {
                    waits.lap();
                }
            }
        }
    }
    let mut figures = meter.callers_done(ops, vec![waits], thread_cpu() - before);
    meter.settled(&mut figures);
    figures
}

fn delete_range<S: Store>(store: &S, keys: u64) -> Vec<(Row, Figures)> {
    store.settle();
    store.scan(&[], usize::MAX);
    let one = |row: Row, f: &dyn Fn() -> u64| {
        let meter = Meter::start();
        let before = thread_cpu();
        let mut waits = Waits::start();
        let ops = f();
        waits.lap();
        let mut figures = meter.callers_done(ops, vec![waits], thread_cpu() - before);
        meter.settled(&mut figures);
        (row, figures)
    };
    let bounds = (DELETED.0.to_be_bytes(), DELETED.1.to_be_bytes());
    let deleted = one(Row::DeleteRange, &|| {
        store.delete_range(&bounds.0, &bounds.1);
        1
    });
    let scan = || store.scan(&[], usize::MAX).0 as u64;
    let right_after = one(Row::ScanDeleted, &scan);
    store.settle();
    let again = one(Row::ScanAgain, &scan);
    let left = right_after.1.ops as f64 / keys as f64;
    assert!((0.88..0.92).contains(&left), "nine tenths are left, not {left}");
    assert_eq!(right_after.1.ops, again.1.ops, "both scans see the same rows");
    vec![deleted, right_after, again]
}

/// Writes rows, un-synced, and dies without a word.
pub fn fill_and_die<S: Store>(directory: &Path, scale: Scale) {
    let memtable_bytes = scale.memtable_bytes;
    let store =
        S::open(Setup { directory, memtable_bytes, cache_bytes: 64 << 20, background: BACKGROUND });
    let mut values = Values::new(LARGE_BYTES);
    for i in 0..large_rows(scale.keys) {
        store.put(&key(i), values.get(i, 0), false);
    }
    die();
}

#[allow(unsafe_code, reason = "there is no other way to die like that")]
fn die() {
    // SAFETY: signals this process alone.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

fn recover<S: Store>(setup: Setup<'_>, scale: Scale) -> Figures {
    let rows = large_rows(scale.keys);
    let meter = Meter::start();
    let before = thread_cpu();
    let mut waits = Waits::start();
    let store = S::open(setup);
    waits.lap();
    let mut figures = meter.callers_done(rows, vec![waits], thread_cpu() - before);
    meter.settled(&mut figures);
    let there = (0..rows).filter(|i| store.get(&key(*i)).is_some()).count();
    if there as u64 != rows {
        figures.note = format!("{there} of {rows} rows survived the kill");
    }
    figures
}
