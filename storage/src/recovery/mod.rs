//! Recovery: from files on disk back to an engine.
//!
//! A hole in the log is a torn tail when nobody was promised what stood there: then the stream ends
//! at the hole. It is damage when a later frame says that the stream was durable beyond it: then the
//! store opens only if it may, and says what is lost.
//!
//! `logs` reads the streams into memtables, `trail` is what is known of one stream meanwhile, `rewrite`
//! makes durable what was read, and `start` is the order in which the disk is changed.

mod dropped;
mod logs;
mod rewrite;
mod start;
mod trail;

use crate::batch::LogBatch;
use crate::blob::{Blobs, parse_blob_name};
use crate::disk::{Disk, Patience, read_all, swap_file};
use crate::engine::{Engine, Parts};
use crate::error::{Damage, Error, OpenError, Place};
use crate::fold::Merge;
use crate::key::KeyRange;
use crate::limits::{FORMAT_LINE, FORMAT_LINE_BEFORE};
use crate::log::{LogWriter, Mark, Planted, Spares, Stream, new_streams, parse_segment_name};
use crate::manifest::{self, Edit, LoadError, Story, parse_manifest_name};
use crate::options::{Options, PlantedBug};
use crate::poison::Poison;
use crate::shard::Shard;
use crate::shelf::Shelf;
use crate::table::{Table, parse_table_name, part, table_name};
use crate::version::Version;
pub use dropped::LogCut;
use logs::{Logs, Recovered};
use start::{Start, Waiting};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

const FORMAT: &str = "FORMAT";

/// There from the beginning of a repair to its end.
pub(crate) const REPAIR: &str = "REPAIR";

/// Ends the name of what a repair moved aside.
pub(crate) const ASIDE: &str = ".bad";

/// Who opens a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    Anybody,
    /// A repair; with a manifest that it made anew nobody knows how far the logs are in tables.
    Repair {
        manifest_made_anew: bool,
    },
}

pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    merge: Arc<dyn Merge>,
    replay: &mut dyn FnMut(LogBatch<'_>),
    opener: Opener,
) -> Result<(Arc<Engine>, Vec<Shard>), OpenError> {
    options.check()?;
    let lock = disk.lock().map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => OpenError::Locked,
        _ => Error::io("locking the directory", &e).into(),
    })?;
    let names = start::list(disk.as_ref())?;
    if opener == Opener::Anybody && names.iter().any(|name| name == REPAIR) {
        return Err(OpenError::RepairBegun);
    }
    let format_is_old = check_format(disk.as_ref(), &names)?;
    // The log asks what of it cannot be read; all others only that it is damaged.
    let plain = disk.clone();
    let disk: Arc<dyn Disk> = if options.tolerate_damage { Arc::new(Patience(disk)) } else { disk };
    let (mut story, manifest_number) = load_story(plain.as_ref(), &names)?;
    let blobs = Blobs::new(disk.clone(), options.planted(PlantedBug::BlobUnchecked));
    let shelf = Arc::new(Shelf::new(options.block_cache_bytes, blobs));
    let tables = open_tables(disk.as_ref(), &story, &shelf)?;
    let mut damage: Vec<Damage> = shelf.damage_found().iter().cloned().collect();
    damage.retain(|d| !story.repaired.contains(d));

    let mut logs = Logs::new(&plain, &options, merge.as_ref(), &story, opener);
    for (stream, segments) in streams(&names) {
        logs.recover(stream, &segments, replay)?;
    }
    let Recovered {
        memtables,
        damage: log_damage,
        cuts,
        dropped: log_cuts,
        old_segments,
        replayed,
        last_sequence,
    } = logs.done;
    damage.extend(log_damage.iter().filter(|d| !story.repaired.contains(d)).cloned());
    if !damage.is_empty() && !options.tolerate_damage {
        return Err(OpenError::Damaged { damage });
    }

    // From here on the disk is changed. What was lost is remembered before its traces are cut.
    let table_sequences = story.tables.values().map(|(_, bounds)| bounds.last_sequence);
    let seen = table_sequences.max().unwrap_or(0).max(last_sequence);
    let next_sequence = seen.max(story.flushed.highest()) + 1;
    let known = story.damage.len();
    story.damage.extend(log_damage.into_iter().filter(|d| !story.repaired.contains(d)));
    let ranges = KeyRange::of_splits(&options.splits);
    let stream_numbers = new_streams(story.next_stream, ranges.len(), &mut || disk.random());
    let stream_numbers =
        stream_numbers.map_err(|e| Error::io("numbering the streams of the log by chance", &e))?;
    story.next_stream = stream_numbers.last().map_or(story.next_stream, |last| last + 1);
    story.next_table = next_table(&story, &names);
    let present = streams(&names);
    story.ends.retain(|stream, _| present.contains_key(stream));
    let mut ends: BTreeMap<u64, Mark> = BTreeMap::new();
    for segment in &replayed {
        let end = ends.entry(segment.stream).or_default();
        *end = (*end).max(Mark { segment: segment.number, offset: segment.bytes });
    }
    // Where nothing was replayed, all there is is in tables. Only said once the tails are cut: what
    // stood behind them must never count as flushed.
    let settled = ranges.iter().zip(&memtables).filter(|(_, memtable)| memtable.is_empty());
    let sequence = next_sequence - 1;
    let settled = settled.map(|(range, _)| Edit::Flushed { range: range.clone(), sequence });
    let ends = ends.into_iter().map(|(stream, end)| Edit::StreamEnds { stream, end });
    let poison = Arc::new(Poison::default());
    let mut start = Start {
        disk: plain,
        poison: poison.clone(),
        found: manifest_number,
        number: manifest_number,
        format_is_old,
        tells_damage: story.damage.len() > known,
        cuts,
        replayed,
        edits: settled.chain(ends).collect(),
    };
    let manifest = match start.carry_out(&story) {
        // What is made anew has nothing that could be read.
        Err(Error::NoSpace) if names.iter().any(|name| name == manifest::CURRENT) => {
            start.carry_out_without_space(story)
        }
        done => done,
    }?;
    let names = start::list(disk.as_ref())?;
    let leftovers = names.iter().filter(|name| start::is_orphan(name, &manifest.story)).cloned();
    let leftovers = leftovers.collect();
    let waits = manifest.is_unwritten();
    if !waits {
        let tables = manifest.story.tables.iter();
        for (number, (_, bounds)) in tables.filter(|(_, (_, bounds))| bounds.narrowed.is_some()) {
            part::say(disk.as_ref(), *number, bounds);
        }
    }
    let manifest = Arc::new(Mutex::new(manifest));
    let log_disk: Arc<dyn Disk> = if waits {
        Arc::new(Waiting { disk: disk.clone(), manifest: manifest.clone() })
    } else {
        disk.clone()
    };

    let planted = Planted {
        missing_fsync: options.planted(PlantedBug::MissingFsync),
        one_segment_id: options.planted(PlantedBug::OneSegmentId),
    };
    let spares = Arc::new(Spares::open(&disk, &options, &names));
    let streams: Vec<Arc<Stream>> = ranges
        .iter()
        .zip(stream_numbers)
        .map(|(range, id)| {
            let (disk, poison) = (log_disk.clone(), poison.clone());
            Stream::new(id, range.clone(), disk, poison, spares.clone(), planted)
        })
        .collect();
    let version = Version::new(tables, vec![0; ranges.len()]);
    let log_segment_bytes = options.log_segment_bytes;
    let parts = Parts {
        manifest,
        version,
        poison,
        shelf,
        old_segments,
        log_cuts,
        leftovers,
        streams: streams.clone(),
        spares,
        lock,
    };
    let engine = Engine::assemble(disk, options, merge, parts);
    let shards = ranges.into_iter().zip(memtables).zip(streams).enumerate();
    let shards = shards
        .map(|(number, ((range, memtable), stream))| {
            let log = LogWriter::new(stream, next_sequence, log_segment_bytes);
            Shard::new(engine.shared.clone(), number, range, log, memtable)
        })
        .collect();
    Ok((engine, shards))
}

/// True when the store is of the format before this one.
fn check_format(disk: &dyn Disk, names: &[String]) -> Result<bool, OpenError> {
    let io = |e: io::Error| OpenError::from(Error::io("reading FORMAT", &e));
    match disk.open(FORMAT) {
        Ok(file) => {
            let content = read_all(file.as_ref()).map_err(io)?;
            for (line, old) in [(FORMAT_LINE, false), (FORMAT_LINE_BEFORE, true)] {
                if content == format!("{line}\n").as_bytes() {
                    return Ok(old);
                }
            }
            let text = String::from_utf8_lossy(&content);
            Err(OpenError::Format { found: text.lines().next().unwrap_or_default().to_owned() })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            if names.iter().any(|name| is_ours(name)) {
                return Err(OpenError::Format { found: "(no FORMAT file)".to_owned() });
            }
            let content = format!("{FORMAT_LINE}\n");
            swap_file(disk, FORMAT, content.as_bytes()).map_err(io)?;
            Ok(false)
        }
        Err(e) => Err(io(e)),
    }
}

fn is_ours(name: &str) -> bool {
    parse_table_name(name).is_some()
        || parse_segment_name(name).is_some()
        || parse_manifest_name(name).is_some()
        || parse_blob_name(name).is_some()
        || name == "CURRENT"
}

fn load_story(disk: &dyn Disk, names: &[String]) -> Result<(Story, u64), OpenError> {
    let lost = || {
        let damage = Damage { place: Place::Manifest, lower: Vec::new(), upper: None };
        OpenError::Damaged { damage: vec![damage] }
    };
    match manifest::load(disk) {
        Ok(Some(loaded)) => Ok(loaded),
        Ok(None) => {
            // The first start may have died before CURRENT; then there is nothing else.
            let data = |name: &String| {
                parse_table_name(name).is_some()
                    || parse_segment_name(name).is_some()
                    || parse_blob_name(name).is_some()
            };
            if names.iter().any(data) {
                return Err(lost());
            }
            let number = names.iter().filter_map(|name| parse_manifest_name(name)).max();
            Ok((Story::default(), number.unwrap_or(0)))
        }
        Err(LoadError::Damaged) => Err(lost()),
        Err(LoadError::Unreadable(e) | LoadError::Disk(e)) => Err(e.into()),
    }
}

fn open_tables(
    disk: &dyn Disk,
    story: &Story,
    shelf: &Arc<Shelf>,
) -> Result<Vec<(usize, Arc<Table>)>, OpenError> {
    for damage in &story.repaired {
        if let Place::Blob { number, offset } = damage.place {
            shelf.blobs.forgive(number, offset);
        }
    }
    let mut tables = Vec::new();
    for (number, (level, bounds)) in &story.tables {
        let table = match disk.open(&table_name(*number)) {
            Ok(file) => match Table::open(*number, bounds.clone(), file, shelf.clone()) {
                Ok(table) => table,
                Err(Error::Damaged(_)) => Table::damaged(*number, bounds.clone(), shelf.clone()),
                Err(e) => return Err(e.into()),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let table = Table::damaged(*number, bounds.clone(), shelf.clone());
                table.damage(None);
                table
            }
            Err(e) => {
                return Err(Error::io(&format!("opening {}", table_name(*number)), &e).into());
            }
        };
        for damage in &story.repaired {
            if let Place::Table { number: n, offset: Some(offset) } = damage.place
                && n == *number
            {
                table.forgive(offset);
            }
        }
        table.report_missing_blobs();
        tables.push((*level, Arc::new(table)));
    }
    Ok(tables)
}

/// The numbers of the segments of each stream, ascending.
fn streams(names: &[String]) -> BTreeMap<u64, Vec<u64>> {
    let mut streams: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (stream, segment) in names.iter().filter_map(|name| parse_segment_name(name)) {
        streams.entry(stream).or_default().push(segment);
    }
    streams.values_mut().for_each(|segments| segments.sort_unstable());
    streams
}

/// The number in the name of a table, of a blob file, or of what stands beside a table; also of one that was
/// moved aside, so that no other takes its name there.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let name = name.strip_suffix(ASIDE).unwrap_or(name);
    parse_table_name(name).or_else(|| parse_blob_name(name)).or_else(|| part::parse_part_name(name))
}

fn next_table(story: &Story, names: &[String]) -> u64 {
    let used = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0);
    story.next_table.max(used + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::disk::{Crash, MemoryDisk, Survival};
    use crate::fold::NoMerge;
    use crate::manifest::Manifest;
    use crate::shard::Durability;

    /// A store with a row in each of two streams, numbered as versions did that counted from one.
    fn counted(disk: &MemoryDisk) {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        swap_file(disk, FORMAT, format!("{FORMAT_LINE}\n").as_bytes()).unwrap();
        let story = Story { next_stream: 3, ..Story::default() };
        let poison = Arc::new(Poison::default());
        drop(Manifest::create(disk, 1, story, poison.clone()).unwrap());
        let spares = Arc::new(Spares::open(&shared, &Options::small(), &[]));
        let planted = Planted { missing_fsync: false, one_segment_id: false };
        let all = KeyRange { lower: Vec::new(), upper: None };
        for id in [1, 2] {
            let (shared, spares) = (shared.clone(), spares.clone());
            let stream = Stream::new(id, all.clone(), shared, poison.clone(), spares, planted);
            let mut log = LogWriter::new(stream, id, 1 << 20);
            log.append(&put(&[id as u8]));
            log.commit().unwrap();
            log.sync_handle().sync().unwrap();
        }
    }

    fn put(key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(key, b"value");
        batch
    }

    #[test]
    fn a_store_whose_streams_were_counted_goes_on_with_such_as_cannot_be_guessed() {
        let disk = MemoryDisk::new(5);
        counted(&disk);
        let mut all = std::collections::BTreeSet::new();
        for run in 0..4u8 {
            disk.crash(Crash::PowerLoss(Survival::None));
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let opened =
                open(shared, Options::small(), Arc::new(NoMerge), &mut |_| {}, Opener::Anybody);
            let (engine, mut shards) = opened.unwrap();
            let shard = &mut shards[0];
            for key in (1..3).chain(10..10 + run) {
                assert!(shard.get(&[key], None).unwrap().is_some(), "row {key} in run {run}");
            }
            shard.apply(&put(&[10 + run]), Durability::Sync).unwrap();
            let stream = shard.position().stream;
            assert_eq!(stream >> 32, u64::from(run) + 1);
            all.insert(stream & u64::from(u32::MAX));
            // What is read of the log comes in the order in which it was written.
            let mut sequences = Vec::new();
            let mut each = |position: crate::LogPosition, _: LogBatch<'_>| {
                sequences.push(position.sequence);
                std::ops::ControlFlow::Continue(())
            };
            engine.read_log(None, &mut each).unwrap();
            assert_eq!(sequences, (1..=u64::from(run) + 3).collect::<Vec<_>>());
        }
        assert_eq!(all.len(), 4);
    }
}
