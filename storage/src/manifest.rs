//! Manifest: the durable story of versions.
//!
//! A row of edits in frames like the log's (kind of file: `MANIFEST-<number>`); CURRENT names the
//! manifest in force and is swapped atomically. Each open writes a new manifest whose first edit is
//! the whole state (on a full disk once there is room, before any other edit), and so does one that has grown far
//! beyond what it has to tell. An edit counts once it is durable; a mark frame written after it tells a later
//! reader that it was.

use crate::blob::{blob_name, parse_blob_name};
use crate::codec::{bytes, put_bytes, put_varint, take, varint};
use crate::disk::{Disk, DiskFile, read_all};
use crate::error::{Damage, Error, Place, is_full, is_unreadable};
use crate::flushed::Flushed;
use crate::key::KeyRange;
use crate::limits::{LEVELS, SEQUENCE_MAX};
use crate::log::{FRAME_HEADER_BYTES, Frames, Mark, encode_frame, next_frame};
use crate::poison::Poison;
use crate::table::{TableBounds, parse_table_name, table_name};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Names the manifest in force.
pub(crate) const CURRENT: &str = "CURRENT";

/// What the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Story {
    pub(crate) tables: BTreeMap<u64, (usize, TableBounds)>,
    pub(crate) flushed: Flushed,
    /// Numbers above all used so far.
    pub(crate) next_table: u64,
    pub(crate) next_stream: u64,
    /// Log damage that was found and not yet repaired; and what was repaired.
    pub(crate) damage: BTreeSet<Damage>,
    pub(crate) repaired: BTreeSet<Damage>,
    /// Where the streams of earlier runs end: up to there they were written anew and synced, so what
    /// is missing before is damage and no torn tail.
    pub(crate) ends: BTreeMap<u64, Mark>,
    /// Blob files and their sizes. What of them is live, the tables say.
    pub(crate) blobs: BTreeMap<u64, u64>,
}

/// A change of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    AddTable { level: usize, number: u64, bounds: TableBounds },
    RemoveTable { number: u64 },
    Flushed { range: KeyRange, sequence: u64 },
    Numbers { next_table: u64, next_stream: u64 },
    Damaged { damage: Damage },
    Repaired { damage: Damage },
    StreamEnds { stream: u64, end: Mark },
    AddBlob { number: u64, bytes: u64 },
    RemoveBlob { number: u64 },
}

impl Story {
    pub(crate) fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::AddTable { level, number, bounds } => {
                self.tables.insert(*number, (*level, bounds.clone()));
                self.next_table = self.next_table.max(number + 1);
            }
            Edit::RemoveTable { number } => {
                self.tables.remove(number);
                // What was repaired of it went with it.
                self.repaired
                    .retain(|d| !matches!(d.place, Place::Table { number: n, .. } if n == *number));
            }
            Edit::Flushed { range, sequence } => self.flushed.raise(range, *sequence),
            Edit::Numbers { next_table, next_stream } => {
                self.next_table = self.next_table.max(*next_table);
                self.next_stream = self.next_stream.max(*next_stream);
            }
            Edit::Damaged { damage } => drop(self.damage.insert(damage.clone())),
            Edit::Repaired { damage } => {
                self.damage.remove(damage);
                self.repaired.insert(damage.clone());
            }
            Edit::StreamEnds { stream, end } => drop(self.ends.insert(*stream, *end)),
            Edit::AddBlob { number, bytes } => {
                self.blobs.insert(*number, *bytes);
                self.next_table = self.next_table.max(number + 1);
            }
            Edit::RemoveBlob { number } => {
                self.blobs.remove(number);
                self.repaired
                    .retain(|d| !matches!(d.place, Place::Blob { number: n, .. } if n == *number));
            }
        }
    }

    /// Edits that tell the whole story from nothing.
    pub(crate) fn retell(&self) -> Vec<Edit> {
        let mut edits =
            vec![Edit::Numbers { next_table: self.next_table, next_stream: self.next_stream }];
        for (number, (level, bounds)) in &self.tables {
            edits.push(Edit::AddTable { level: *level, number: *number, bounds: bounds.clone() });
        }
        for (range, sequence) in &self.flushed.pieces {
            edits.push(Edit::Flushed { range: range.clone(), sequence: *sequence });
        }
        edits.extend(self.damage.iter().cloned().map(|damage| Edit::Damaged { damage }));
        edits.extend(self.repaired.iter().cloned().map(|damage| Edit::Repaired { damage }));
        let ends = self.ends.iter();
        edits.extend(ends.map(|(stream, end)| Edit::StreamEnds { stream: *stream, end: *end }));
        let blobs = self.blobs.iter();
        edits.extend(blobs.map(|(number, bytes)| Edit::AddBlob { number: *number, bytes: *bytes }));
        edits
    }

    /// The blob files into which no table points once `edits` are made.
    pub(crate) fn dead_blobs(&self, edits: &[Edit]) -> Vec<u64> {
        let mut numbers: BTreeSet<u64> = self.blobs.keys().copied().collect();
        let mut tables: BTreeMap<u64, &TableBounds> = BTreeMap::new();
        tables.extend(self.tables.iter().map(|(number, (_, bounds))| (*number, bounds)));
        for edit in edits {
            match edit {
                Edit::AddTable { number, bounds, .. } => drop(tables.insert(*number, bounds)),
                Edit::RemoveTable { number } => drop(tables.remove(number)),
                Edit::AddBlob { number, .. } => drop(numbers.insert(*number)),
                _ => {}
            }
        }
        for (number, _) in tables.values().flat_map(|bounds| &bounds.blobs) {
            numbers.remove(number);
        }
        numbers.into_iter().collect()
    }

    /// True when every change in `range` up to `sequence` is in a table.
    pub(crate) fn is_flushed(&self, range: &KeyRange, sequence: u64) -> bool {
        self.flushed.lowest(range) >= sequence
    }
}

/// The manifest, open for appending.
pub(crate) struct Manifest {
    file: Arc<dyn DiskFile>,
    number: u64,
    id: u64,
    offset: u64,
    /// Bytes of the frame that tells the whole state, or where writing anew was last tried.
    told: u64,
    poison: Arc<Poison>,
    pub(crate) story: Story,
    /// What has to be written before anything else is.
    unwritten: Option<Begin>,
}

/// Writes what a start had no space for, and makes a manifest of the story.
pub(crate) type Begin = Box<dyn FnMut(&Story) -> Result<Manifest, Error> + Send>;

impl Manifest {
    /// Starts manifest `number` with `story` and puts it in force.
    pub(crate) fn create(
        disk: &dyn Disk,
        number: u64,
        story: Story,
        poison: Arc<Poison>,
    ) -> Result<Self, Error> {
        let told = Self::tell(disk, number, story, poison).map_err(|e| (e, false));
        let done = told.and_then(|told| put_in_force(disk, number).map(|()| told));
        done.map_err(|(e, in_doubt)| {
            if !in_doubt {
                // Its space may be what is missing.
                let _ = disk.remove(&manifest_name(number));
            }
            e
        })
    }

    /// A manifest that is still to be written, by `begin`; meanwhile manifest `found` stays in force.
    pub(crate) fn unwritten(
        disk: &dyn Disk,
        found: u64,
        story: Story,
        poison: Arc<Poison>,
        begin: Begin,
    ) -> Result<Self, Error> {
        let file = disk.open(&manifest_name(found));
        let file = file.map_err(|e| Error::io(&format!("opening {}", manifest_name(found)), &e))?;
        let (id, unwritten) = (manifest_id(found), Some(begin));
        Ok(Self { file, number: found, id, offset: 0, told: 0, poison, story, unwritten })
    }

    /// True while there was no space for what a start has to write.
    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten.is_some()
    }

    /// Writes what a start had no space for, if that is so.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        self.poison.check()?;
        if let Some(begin) = &mut self.unwritten {
            *self = begin(&self.story)?;
            tracing::info!("there is space again: the store is written again");
        }
        Ok(())
    }

    /// Writes manifest `number`, durable but not in force.
    fn tell(
        disk: &dyn Disk,
        number: u64,
        story: Story,
        poison: Arc<Poison>,
    ) -> Result<Self, Error> {
        let io = |e: io::Error| Error::io(&format!("writing {}", manifest_name(number)), &e);
        let file = disk.create(&manifest_name(number)).map_err(io)?;
        let id = manifest_id(number);
        let mut manifest =
            Self { file, number, id, offset: 0, told: 0, poison, story, unwritten: None };
        let edits = manifest.story.retell();
        let frame = manifest.frame(&edits);
        manifest.file.write_at(&frame, 0).map_err(io)?;
        manifest.file.sync().map_err(io)?;
        manifest.offset = frame.len() as u64;
        manifest.told = manifest.offset;
        manifest.mark();
        disk.sync_dir().map_err(io)?;
        Ok(manifest)
    }

    /// Writes the manifest anew once it is larger than `bytes_min` and four times what it has to
    /// tell. Where that fails the old one goes on; only when it cannot be known which of them is in
    /// force the store is poisoned. What was committed stays committed in any case.
    pub(crate) fn renew(&mut self, disk: &dyn Disk, bytes_min: u64) {
        if self.offset <= bytes_min.max(self.told.saturating_mul(4)) {
            return;
        }
        let old = self.number;
        let new = Self::tell(disk, old + 1, self.story.clone(), self.poison.clone());
        let done = new.map_err(|e| (e, false)).and_then(|new| {
            put_in_force(disk, new.number)?;
            *self = new;
            Ok(())
        });
        let useless = match done {
            Ok(()) => old,
            Err((e, true)) => {
                self.poison.set(&format!("swapping the manifest: {e}"));
                return;
            }
            Err((e, false)) => {
                tracing::warn!(error = %e, "the manifest could not be written anew; it goes on growing");
                // Not again for every edit.
                self.told = self.offset / 2;
                old + 1
            }
        };
        if let Err(e) = disk.remove(&manifest_name(useless)) {
            tracing::debug!(error = %e, "a manifest out of force stays until the next start");
        }
    }

    /// Makes `edits` durable, all or none, then part of the story.
    pub(crate) fn commit(&mut self, edits: &[Edit]) -> Result<(), Error> {
        self.begin()?;
        if edits.is_empty() {
            // A frame without edits would pass for the mark that ends the story.
            return Ok(());
        }
        let frame = self.frame(edits);
        if let Err(e) = self.file.write_at(&frame, self.offset) {
            return Err(if is_full(&e) {
                self.take_back()
            } else {
                self.poison.set(&format!("manifest: {e}"))
            });
        }
        self.file.sync().map_err(|e| self.poison.set(&format!("sync of the manifest: {e}")))?;
        self.offset += frame.len() as u64;
        self.mark();
        edits.iter().for_each(|edit| self.story.apply(edit));
        Ok(())
    }

    /// The last write found no space. All that counts of it may have got there all the same, so it is cut
    /// off before its caller removes the files that it speaks of; then nothing is in doubt.
    fn take_back(&self) -> Error {
        match self.file.truncate(self.offset).and_then(|()| self.file.sync()) {
            Ok(()) => {
                self.mark();
                Error::NoSpace
            }
            Err(e) => self.poison.set(&format!("cutting an edit off the manifest: {e}")),
        }
    }

    fn frame(&self, edits: &[Edit]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        edits.iter().for_each(|edit| encode_edit(edit, &mut frame));
        let durable = Mark { segment: 0, offset: self.offset };
        encode_frame(&mut frame, self.id, self.offset, 0, edits.len() as u32, durable);
        frame
    }

    /// Says behind the last edit that it is durable. Overwritten by the next edit; when it cannot
    /// be written nothing is lost but the chance to notice rot.
    fn mark(&self) {
        let frame = self.frame(&[]);
        if let Err(e) = self.file.write_at(&frame, self.offset) {
            tracing::warn!(error = %e, "no mark behind the manifest's last edit");
        }
    }
}

/// Makes CURRENT name manifest `number`. With the error: whether it cannot be known which manifest
/// CURRENT will name after a crash.
fn put_in_force(disk: &dyn Disk, number: u64) -> Result<(), (Error, bool)> {
    let told = |in_doubt: bool| {
        let what = format!("making {CURRENT} name {}", manifest_name(number));
        move |e: io::Error| (Error::io(&what, &e), in_doubt)
    };
    let name = manifest_name(number);
    let current = format!("{name} {:08x}\n", crc32fast::hash(name.as_bytes()));
    let tmp = format!("{CURRENT}.tmp");
    let file = disk.create(&tmp).map_err(told(false))?;
    file.write_at(current.as_bytes(), 0).map_err(told(false))?;
    file.sync().map_err(told(false))?;
    disk.rename(&tmp, CURRENT).map_err(|e| {
        // One for which there is no room did not happen, and CURRENT bears it out. Of one that failed
        // otherwise nobody knows what the disk will have.
        let named = disk.open(CURRENT).and_then(|file| read_all(file.as_ref()));
        let other = named.ok().and_then(|named| parse_current(&named)).filter(|n| *n != number);
        told(!is_full(&e) || other.is_none())(e)
    })?;
    disk.sync_dir().map_err(told(true))
}

/// Writes manifest `number` once more as it is, so that all that can be read of it is durable: also what
/// stands in the page cache behind a sync that failed.
pub(crate) fn write_again(disk: &dyn Disk, number: u64) -> Result<(), Error> {
    let done = disk.open(&manifest_name(number)).and_then(|file| {
        file.write_at(&read_all(file.as_ref())?, 0)?;
        file.sync()
    });
    done.map_err(|e| Error::io(&format!("rewriting {}", manifest_name(number)), &e))
}

/// Why the manifest could not be read.
pub(crate) enum LoadError {
    Damaged,
    /// The disk does not give some of its bytes.
    Unreadable(Error),
    Disk(Error),
}

/// The story in force and its manifest's number; none in a directory that never had one.
pub(crate) fn load(disk: &dyn Disk) -> Result<Option<(Story, u64)>, LoadError> {
    let failed = |name: &str, e: io::Error| {
        let error = Error::io(&format!("reading {name}"), &e);
        if is_unreadable(&e) { LoadError::Unreadable(error) } else { LoadError::Disk(error) }
    };
    let io = |e: io::Error| failed(CURRENT, e);
    let current = match disk.open(CURRENT) {
        Ok(file) => read_all(file.as_ref()).map_err(io)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let number = parse_current(&current).ok_or(LoadError::Damaged)?;
    let io = |e: io::Error| failed(&manifest_name(number), e);
    let file = match disk.open(&manifest_name(number)) {
        Ok(file) => read_all(file.as_ref()).map_err(io)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(LoadError::Damaged),
        Err(e) => return Err(io(e)),
    };
    let story = read(&file, manifest_id(number)).ok_or(LoadError::Damaged)?;
    Ok(Some((story, number)))
}

/// The story of a directory whose CURRENT is lost or damaged, and its manifest's number: of the manifests that
/// prove themselves, and whose files are all there, the one that tells most. None where CURRENT is sound: then
/// the manifest that it names is not, and any other is older. None, too, where a manifest with a greater number
/// does not prove itself, or a file is there with a number that it does not know: it may be one that was left
/// over, and what it does not know would pass for left-overs.
pub(crate) fn load_without_current(
    disk: &dyn Disk,
    names: &[String],
) -> Result<Option<(Story, u64)>, Error> {
    let whole = |name: &str| -> Result<Option<Vec<u8>>, Error> {
        match disk.open(name).and_then(|file| read_all(file.as_ref())) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound || is_unreadable(&e) => Ok(None),
            Err(e) => Err(Error::io("reading the manifest", &e)),
        }
    };
    if whole(CURRENT)?.is_some_and(|current| parse_current(&current).is_some()) {
        return Ok(None);
    }
    let is_there = |story: &Story| {
        let tables = story.tables.keys().map(|number| table_name(*number));
        let mut files = tables.chain(story.blobs.keys().map(|number| blob_name(*number)));
        files.all(|file| names.contains(&file))
    };
    let mut found: Option<(u64, Story)> = None;
    let mut bad = 0;
    for number in names.iter().filter_map(|name| parse_manifest_name(name)) {
        let file = whole(&manifest_name(number))?;
        let Some(story) = file.and_then(|file| read(&file, manifest_id(number))) else {
            bad = bad.max(number);
            continue;
        };
        if !is_there(&story) {
            continue;
        }
        // One that was written and not put in force may have the greater number.
        let told = |number: u64, story: &Story| (story.next_table, story.next_stream, number);
        if found.as_ref().is_none_or(|(n, best)| told(*n, best) < told(number, &story)) {
            found = Some((number, story));
        }
    }
    let files = names.iter().filter_map(|name| parse_table_name(name).or(parse_blob_name(name)));
    let newest = files.max().unwrap_or(0);
    let is_newest = |number: u64, story: &Story| number > bad && newest < story.next_table;
    Ok(found.filter(|(number, story)| is_newest(*number, story)).map(|(n, story)| (story, n)))
}

fn read(file: &[u8], id: u64) -> Option<Story> {
    let mut story = Story::default();
    let mut frames = Frames { file, id, offset: 0 };
    let mut edits_seen = 0;
    for frame in &mut frames {
        let mut rest = frame.payload;
        let edits = frame.batches?;
        for _ in 0..edits {
            story.apply(&decode_edit(&mut rest)?);
        }
        edits_seen += edits;
        rest.is_empty().then_some(())?;
        if edits == 0 {
            break;
        }
    }
    let end = frames.offset;
    // CURRENT names a manifest only once its first edit is durable.
    (edits_seen > 0).then_some(())?;
    let mut at = end;
    while let Some(frame) = next_frame(file, at, id) {
        // A later frame that knows of bytes behind the hole: they were promised. (A stale mark
        // frame behind an edit that was torn knows of less.)
        if frame.durable.offset > end {
            return None;
        }
        at = frame.offset + 8;
    }
    Some(story)
}

fn parse_current(current: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(current).ok()?.strip_suffix('\n')?;
    let (name, crc) = line.split_once(' ')?;
    (format!("{:08x}", crc32fast::hash(name.as_bytes())) == crc).then_some(())?;
    parse_manifest_name(name)
}

fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:010}")
}

/// Number of a file name, if it names a manifest.
pub(crate) fn parse_manifest_name(name: &str) -> Option<u64> {
    name.strip_prefix("MANIFEST-")?.parse().ok()
}

fn manifest_id(number: u64) -> u64 {
    crate::codec::scatter(number ^ 0x4d41_4e49_4645_5354)
}

fn encode_edit(edit: &Edit, out: &mut Vec<u8>) {
    match edit {
        Edit::AddTable { level, number, bounds } => {
            // Who does not know of narrowed tables must not take one for whole.
            out.push(match bounds.narrowed {
                Some(_) => 23,
                None if bounds.blobs.is_empty() => 1,
                None => 20,
            });
            for v in [*level as u64, *number, bounds.bytes, bounds.last_sequence] {
                put_varint(out, v);
            }
            put_bytes(out, &bounds.smallest);
            put_bytes(out, &bounds.largest);
            out.push(u8::from(bounds.largest_excluded));
            if !bounds.blobs.is_empty() || bounds.narrowed.is_some() {
                put_varint(out, bounds.blobs.len() as u64);
                for (number, bytes) in &bounds.blobs {
                    put_varint(out, *number);
                    put_varint(out, *bytes);
                }
            }
            bounds.narrowed.iter().for_each(|within| put_varint(out, *within));
        }
        Edit::RemoveTable { number } => {
            out.push(2);
            put_varint(out, *number);
        }
        Edit::Flushed { range, sequence } => {
            out.push(3);
            put_varint(out, *sequence);
            put_bytes(out, &range.lower);
            put_upper(out, range.upper.as_deref());
        }
        Edit::Numbers { next_table, next_stream } => {
            out.push(4);
            put_varint(out, *next_table);
            put_varint(out, *next_stream);
        }
        Edit::Damaged { damage } => {
            out.push(5);
            encode_damage(damage, out);
        }
        Edit::Repaired { damage } => {
            out.push(6);
            encode_damage(damage, out);
        }
        Edit::StreamEnds { stream, end } => {
            out.push(7);
            [*stream, end.segment, end.offset].iter().for_each(|v| put_varint(out, *v));
        }
        Edit::AddBlob { number, bytes } => {
            out.push(21);
            [*number, *bytes].iter().for_each(|v| put_varint(out, *v));
        }
        Edit::RemoveBlob { number } => {
            out.push(22);
            put_varint(out, *number);
        }
    }
}

fn decode_edit(rest: &mut &[u8]) -> Option<Edit> {
    Some(match take(rest, 1)?[0] {
        kind @ (1 | 20 | 23) => {
            let level = usize::try_from(varint(rest)?).ok().filter(|level| *level < LEVELS)?;
            let number = count(rest)?;
            let (bytes_, last_sequence) = (count(rest)?, count(rest)?);
            let (smallest, largest) = (bytes(rest)?.to_vec(), bytes(rest)?.to_vec());
            (smallest <= largest).then_some(())?;
            let largest_excluded = take(rest, 1)? == [1];
            let mut blobs = Vec::new();
            for _ in 0..if kind == 1 { 0 } else { varint(rest)? } {
                blobs.push((varint(rest)?, varint(rest)?));
            }
            let narrowed = if kind == 23 { Some(varint(rest)?) } else { None };
            let bytes = bytes_;
            let bounds = TableBounds {
                bytes,
                smallest,
                largest,
                largest_excluded,
                last_sequence,
                blobs,
                narrowed,
            };
            Edit::AddTable { level, number, bounds }
        }
        2 => Edit::RemoveTable { number: count(rest)? },
        3 => {
            let sequence = count(rest)?;
            let range = KeyRange { lower: bytes(rest)?.to_vec(), upper: upper(rest)? };
            Edit::Flushed { range, sequence }
        }
        4 => Edit::Numbers { next_table: count(rest)?, next_stream: count(rest)? },
        5 => Edit::Damaged { damage: decode_damage(rest)? },
        6 => Edit::Repaired { damage: decode_damage(rest)? },
        7 => {
            let stream = count(rest)?;
            let end = Mark { segment: count(rest)?, offset: count(rest)? };
            Edit::StreamEnds { stream, end }
        }
        21 => Edit::AddBlob { number: varint(rest)?, bytes: varint(rest)? },
        22 => Edit::RemoveBlob { number: varint(rest)? },
        _ => return None,
    })
}

/// A number that is counted on from: what leaves no room for that was never written.
fn count(rest: &mut &[u8]) -> Option<u64> {
    varint(rest).filter(|n| *n <= SEQUENCE_MAX)
}

fn put_upper(out: &mut Vec<u8>, upper: Option<&[u8]>) {
    out.push(u8::from(upper.is_some()));
    put_bytes(out, upper.unwrap_or_default());
}

/// The bound itself may be absent, so this is an option in an option.
#[allow(clippy::option_option, reason = "malformed, unbounded, bounded are three things")]
fn upper(rest: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let present = take(rest, 1)? == [1];
    let upper = bytes(rest)?.to_vec();
    Some(present.then_some(upper))
}

fn encode_damage(damage: &Damage, out: &mut Vec<u8>) {
    match &damage.place {
        Place::Log { stream, segment, offset, first, last } => {
            out.push(1);
            [stream, segment, offset, first, last].iter().for_each(|v| put_varint(out, **v));
        }
        Place::Table { number, offset } => {
            out.push(2);
            put_varint(out, *number);
            put_varint(out, offset.map_or(0, |offset| offset + 1));
        }
        Place::Manifest => out.push(3),
        Place::Blob { number, offset } => {
            out.push(4);
            put_varint(out, *number);
            put_varint(out, offset.map_or(0, |offset| offset + 1));
        }
    }
    put_bytes(out, &damage.lower);
    put_upper(out, damage.upper.as_deref());
}

fn decode_damage(rest: &mut &[u8]) -> Option<Damage> {
    let place = match take(rest, 1)?[0] {
        1 => Place::Log {
            stream: varint(rest)?,
            segment: varint(rest)?,
            offset: varint(rest)?,
            first: varint(rest)?,
            last: varint(rest)?,
        },
        2 => Place::Table { number: varint(rest)?, offset: varint(rest)?.checked_sub(1) },
        3 => Place::Manifest,
        4 => Place::Blob { number: varint(rest)?, offset: varint(rest)?.checked_sub(1) },
        _ => return None,
    };
    Some(Damage { place, lower: bytes(rest)?.to_vec(), upper: upper(rest)? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::disk::{Crash, MemoryDisk, Survival};

    fn churn(manifest: &mut Manifest, disk: &MemoryDisk, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let bounds = TableBounds {
                smallest: b"a".into(),
                largest: b"a".into(),
                ..TableBounds::default()
            };
            let add = Edit::AddTable { level: 0, number, bounds };
            let edits = [add, Edit::RemoveTable { number: number.saturating_sub(3) }];
            if manifest.commit(&edits).is_ok() {
                manifest.renew(disk, 500);
            }
        }
    }

    #[test]
    fn a_manifest_that_grows_is_written_anew_and_tells_the_same_after_any_crash() {
        let disk = MemoryDisk::new(1);
        let mut manifest =
            Manifest::create(&disk, 1, Story::default(), Arc::default()).map_err(|_| ()).unwrap();
        churn(&mut manifest, &disk, 10..200);
        assert!(manifest.number > 5 && disk.used() < 2000, "{} bytes", disk.used());
        let Ok(Some((story, _))) = load(&disk) else { panic!("one is in force") };
        assert_eq!(story, manifest.story);
        // At each sync of the next renewals, whatever survives: what was committed is there.
        for at in 0.. {
            let fork = disk.fork(at);
            let mut manifest = Manifest::create(&fork, 100, story.clone(), Arc::default())
                .map_err(|_| ())
                .unwrap();
            fork.power_fails_at_sync(fork.syncs() + at);
            churn(&mut manifest, &fork, 200..240);
            let over = !fork.power_is_off();
            for (i, survival) in
                [Survival::None, Survival::All, Survival::Subset, Survival::Torn].iter().enumerate()
            {
                let fate = fork.fork(at * 10 + i as u64);
                fate.crash(Crash::PowerLoss(*survival));
                let Ok(Some((found, _))) = load(&fate) else { panic!("sync {at}: none in force") };
                // The edit that was being committed may be there.
                let told = manifest.story.tables.keys().next_back();
                assert!(found.tables.keys().next_back() >= told, "sync {at}, {survival:?}");
            }
            if over {
                assert!(at > 50, "only {at} crash points");
                break;
            }
        }
    }

    #[test]
    fn a_full_disk_keeps_the_old_manifest_in_force() {
        let disk = MemoryDisk::new(1);
        let mut manifest =
            Manifest::create(&disk, 1, Story::default(), Arc::default()).map_err(|_| ()).unwrap();
        for number in 0..40 {
            let bounds = TableBounds {
                smallest: vec![b'a'; 40],
                largest: vec![b'b'],
                ..TableBounds::default()
            };
            manifest.commit(&[Edit::AddTable { level: 0, number, bounds }]).unwrap();
        }
        disk.set_capacity(Some(disk.used() + 100));
        manifest.renew(&disk, 500);
        assert_eq!(manifest.number, 1);
        assert!(!manifest.poison.is_set());
        manifest.commit(&[Edit::RemoveTable { number: 7 }]).unwrap();
        let Ok(Some((story, 1))) = load(&disk) else { panic!("manifest 1 is in force") };
        assert_eq!(story, manifest.story);
        disk.set_capacity(None);
        for number in 0..100 {
            manifest.commit(&[Edit::RemoveTable { number }]).unwrap();
            manifest.renew(&disk, 500);
        }
        assert!(manifest.number > 1, "tried again once it has grown more");
    }

    #[test]
    fn a_story_told_again_is_the_same_story() {
        let disk = MemoryDisk::new(1);
        let mut manifest =
            Manifest::create(&disk, 1, Story::default(), Arc::default()).map_err(|_| ()).unwrap();
        let bounds = TableBounds {
            bytes: 9,
            smallest: b"a".into(),
            largest: b"z".into(),
            blobs: vec![(9, 1_000), (11, 20)],
            ..TableBounds::default()
        };
        let range = KeyRange { lower: b"".into(), upper: Some(b"m".into()) };
        let place = Place::Log { stream: 1, segment: 2, offset: 3, first: 4, last: u64::MAX };
        let damage = Damage { place, lower: b"k".into(), upper: None };
        manifest.commit(&[Edit::AddTable { level: 1, number: 7, bounds: bounds.clone() }]).unwrap();
        manifest
            .commit(&[Edit::Flushed { range, sequence: 12 }, Edit::Damaged { damage }])
            .unwrap();
        let end = Mark { segment: 4, offset: 77 };
        manifest.commit(&[Edit::StreamEnds { stream: 3, end }]).unwrap();
        let blobs = [9, 11, 12].map(|number| Edit::AddBlob { number, bytes: number * 1_000 });
        assert_eq!(manifest.story.dead_blobs(&blobs), [12], "the others are pointed into");
        manifest.commit(&blobs).unwrap();
        manifest.commit(&[Edit::RemoveBlob { number: 12 }]).unwrap();
        assert_eq!(manifest.story.dead_blobs(&[Edit::RemoveTable { number: 7 }]), [9, 11]);
        manifest
            .commit(&[
                Edit::AddTable { level: 0, number: 8, bounds: bounds.clone() },
                Edit::RemoveTable { number: 7 },
            ])
            .unwrap();
        for (number, blobs) in [(13, vec![]), (14, vec![(9, 0)])] {
            let bounds = TableBounds { blobs, narrowed: Some(5), ..bounds.clone() };
            manifest.commit(&[Edit::AddTable { level: 6, number, bounds }]).unwrap();
        }
        let Ok(Some((story, 1))) = load(&disk) else { panic!("manifest 1 is in force") };
        assert_eq!(story, manifest.story);
        let again =
            Manifest::create(&disk, 2, story.clone(), Arc::default()).map_err(|_| ()).unwrap();
        assert_eq!(again.story, story);
        let Ok(Some((story, 2))) = load(&disk) else { panic!("manifest 2 is in force") };
        assert_eq!(story, again.story);
    }

    #[test]
    fn only_a_narrowed_table_is_told_so_that_an_older_version_refuses() {
        let kind = |narrowed, blobs| {
            let bounds = TableBounds { blobs, narrowed, ..TableBounds::default() };
            let mut bytes = Vec::new();
            encode_edit(&Edit::AddTable { level: 0, number: 1, bounds }, &mut bytes);
            bytes[0]
        };
        assert_eq!((kind(None, vec![]), kind(None, vec![(1, 1)])), (1, 20));
        // Those before know of no edit 23, and take a manifest with one for damaged.
        assert_eq!((kind(Some(0), vec![]), kind(Some(0), vec![(1, 1)])), (23, 23));
        assert!(decode_edit(&mut &[24, 0, 0, 0][..]).is_none());
    }
}
