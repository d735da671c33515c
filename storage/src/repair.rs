//! Repair: of a damaged directory, a store of what can still be read.
//!
//! Promises: what proves itself is kept, what does not is moved aside under a name that ends with
//! `.bad` and never thrown away, and every range of keys that lost something is said. The new
//! manifest is in force before the first file is moved, and it tells what was lost, so that a repair that is
//! cut short can be begun again; until one has ended nobody else opens the store (see `begun`).
//!
//! What the disk cannot read, also when asked once more, is lost like what does not prove itself.
//!
//! What was lost of a key is its change in the damaged place: an older value in a deeper table may
//! show again. Whoever has replicas rather fetches the data anew.

mod begun;

use crate::blob::{Blobs, Stored, parse_blob_name, stored};
use crate::disk::{Disk, MemoryDisk, Patience, read_all, swap_file};
use crate::engine::Engine;
use crate::error::{Damage, Error, OpenError, Place};
use crate::fold::Merge;
use crate::key::{KeyRange, Kind};
use crate::limits::{FORMAT_LINE, FORMAT_LINE_BEFORE};
use crate::log::parse_segment_name;
use crate::manifest::{self, LoadError, Manifest, Story, parse_manifest_name};
use crate::options::Options;
use crate::poison::Poison;
use crate::recovery::{self, ASIDE, LogCut, Opener, number_of};
use crate::shelf::Shelf;
use crate::table::part::{self, Part, parse_part_name, part_name};
use crate::table::{Salvaged, Table, TableBounds, TableWriter, parse_table_name, table_name};
use begun::Begun;
use std::io::ErrorKind;
use std::sync::Arc;

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Tables that were whole.
    pub kept: usize,
    /// Damaged tables of which the good blocks were written anew: old and new number.
    pub rewritten: Vec<(u64, u64)>,
    /// Files that were moved aside; `.bad` was appended to their names.
    pub aside: Vec<String>,
    /// What is lost, and of which keys.
    pub lost: Vec<Damage>,
    /// The manifest was damaged, too: made anew from the tables that are there, and the log was
    /// read again in whole. Rows that were deleted shortly before may be back, and operands of the
    /// log may count twice where they are not made to bear that.
    pub manifest_made_anew: bool,
    /// Tables whose deletions of ranges cannot be read any more, or of which only a part counted and nobody
    /// knows which: of these keys some that were deleted may be back.
    pub undeleted: Vec<Damage>,
    /// CURRENT or FORMAT, where they were damaged or missing and are written anew; nothing is lost with
    /// them.
    pub mended: Vec<String>,
    /// Where the log was cut before good frames that nobody was promised.
    pub log_cuts: Vec<LogCut>,
    /// Rows in the store at the end.
    pub rows: u64,
}

/// Makes a store of what can be read on `disk`, which nobody may have open. A store that is whole
/// stays as it is.
///
/// # Errors
/// [`OpenError::Locked`], [`OpenError::Format`] for a store of another version, and what the disk
/// says; repeat it then.
pub fn repair(disk: &Arc<dyn Disk>, merge: Arc<dyn Merge>) -> Result<Repair, OpenError> {
    let mut repair = Repair::default();
    {
        let plain = disk;
        let patient: Arc<dyn Disk> = Arc::new(Patience(disk.clone()));
        let disk = &patient;
        let _lock = disk.lock().map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => OpenError::Locked,
            _ => OpenError::Disk(Error::io("locking the directory", &e)),
        })?;
        let names = disk.list().map_err(|e| failed(&e))?;
        if mend_format(disk.as_ref(), &names)? {
            repair.mended.push("FORMAT".to_owned());
        }
        let begun = Begun::load(disk.as_ref())?;
        // What of a manifest cannot be read may be its newest edits: zeros there would pass for its end.
        let loaded = match manifest::load(plain.as_ref()) {
            Ok(Some(loaded)) => Some(loaded),
            Ok(None) | Err(LoadError::Damaged | LoadError::Unreadable(_)) => {
                let found = manifest::load_without_current(plain.as_ref(), &names)?;
                repair.mended.extend(found.iter().map(|_| manifest::CURRENT.to_owned()));
                found
            }
            Err(LoadError::Disk(e)) => return Err(e.into()),
        };
        let found = loaded.as_ref().map(|(_, number)| *number);
        repair.manifest_made_anew = begun.as_ref().is_some_and(|begun| begun.is_anew(found));
        let (story, mut aside) = match loaded {
            Some((story, _)) => mend_tables(disk, story, &names, &mut repair)?,
            // The first start ended before it had anything.
            None if !names.iter().any(|name| is_data(name)) => (Story::default(), Vec::new()),
            None => collect_tables(disk, &names, &mut repair)?,
        };
        let changed = !repair.lost.is_empty() || !aside.is_empty() || !repair.mended.is_empty();
        if let Some(begun) = &begun {
            let more = begun.aside_of(&story, found);
            let more = more.into_iter().filter(|name| !aside.contains(name)).collect::<Vec<_>>();
            aside.extend(more);
        }
        if changed {
            let number = next_manifest(&names);
            let earlier =
                begun.and_then(|begun| begun.made_anew).filter(|anew| Some(*anew) <= found);
            let made_anew = repair.manifest_made_anew.then(|| earlier.unwrap_or(number));
            Begun { made_anew, aside: aside.clone() }.save(disk.as_ref())?;
            put_in_force(disk.as_ref(), number, story, &names, &repair.lost)?;
        }
        if !aside.is_empty() {
            for name in aside {
                set_aside(disk.as_ref(), &name, &names, &mut repair)?;
            }
            disk.sync_dir().map_err(|e| failed(&e))?;
        }
    }
    let again = Arc::clone(&merge);
    settle(disk, merge, &mut repair)?;
    note_what_was_behind(disk, &again, &mut repair)?;
    Begun::remove(disk.as_ref())?;
    say_once(&mut repair.lost);
    Ok(repair)
}

/// Numbers above all that are in use.
fn next_number(names: &[String]) -> u64 {
    names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0) + 1
}

/// The number of a manifest above all that are there or were moved aside.
fn next_manifest(names: &[String]) -> u64 {
    let names = names.iter().map(|name| name.strip_suffix(ASIDE).unwrap_or(name));
    names.filter_map(parse_manifest_name).max().unwrap_or(0) + 1
}

/// Writes a manifest that tells `story`, and of what is `lost`, and makes it the one in force.
fn put_in_force(
    disk: &dyn Disk,
    number: u64,
    mut story: Story,
    names: &[String],
    lost: &[Damage],
) -> Result<(), Error> {
    story.damage.extend(lost.iter().cloned());
    let streams = names.iter().filter_map(|name| parse_segment_name(name));
    let stream = streams.map(|(stream, _)| stream).max().unwrap_or(0);
    story.next_stream = story.next_stream.max(stream + 1);
    for number in story.dead_blobs(&[]) {
        story.blobs.remove(&number);
    }
    Manifest::create(disk, number, story, Arc::new(Poison::default())).map(drop)
}

fn failed(e: &std::io::Error) -> Error {
    Error::io("repairing the store", e)
}

/// `names`: what was there when the repair began; one before it may have moved the file.
fn set_aside(
    disk: &dyn Disk,
    name: &str,
    names: &[String],
    repair: &mut Repair,
) -> Result<(), Error> {
    let moved = move_aside(disk, name)? || names.contains(&format!("{name}{ASIDE}"));
    // Which part of a narrowed table counted goes with it.
    if let Some(number) = parse_table_name(name) {
        move_aside(disk, &part_name(number))?;
    }
    if moved {
        repair.aside.push(name.to_owned());
    }
    Ok(())
}

/// False when there is no such file.
fn move_aside(disk: &dyn Disk, name: &str) -> Result<bool, Error> {
    match disk.rename(name, &format!("{name}{ASIDE}")) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(&e)),
    }
}

/// True for the name of a file that a store has only once a manifest is in force.
fn is_data(name: &str) -> bool {
    parse_table_name(name).is_some()
        || parse_segment_name(name).is_some()
        || parse_blob_name(name).is_some()
}

/// A FORMAT that rotted is written anew, which is true then; one of another version is refused.
fn mend_format(disk: &dyn Disk, names: &[String]) -> Result<bool, OpenError> {
    let ours = format!("{FORMAT_LINE}\n");
    let found = match disk.open("FORMAT") {
        Ok(file) => read_all(file.as_ref()).map_err(|e| failed(&e))?,
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(failed(&e).into()),
    };
    if [ours.clone(), format!("{FORMAT_LINE_BEFORE}\n")].iter().any(|line| line.as_bytes() == found)
    {
        return Ok(false);
    }
    let text = String::from_utf8_lossy(&found);
    let line = text.lines().next().unwrap_or_default();
    let version = line.strip_prefix("ringdb storage ").and_then(|v| v.parse::<u32>().ok());
    let is_ours = |name: &String| {
        is_data(name) || parse_manifest_name(name).is_some() || name == manifest::CURRENT
    };
    if version.is_some() || !names.iter().any(is_ours) {
        return Err(OpenError::Format { found: line.to_owned() });
    }
    swap_file(disk, "FORMAT", ours.as_bytes()).map_err(|e| failed(&e))?;
    Ok(true)
}

fn shelf(disk: &Arc<dyn Disk>) -> Arc<Shelf> {
    Arc::new(Shelf::new(0, Blobs::new(disk.clone(), false)))
}

/// The story without what cannot be read, and the names of the files to be moved aside.
fn mend_tables(
    disk: &Arc<dyn Disk>,
    mut story: Story,
    names: &[String],
    repair: &mut Repair,
) -> Result<(Story, Vec<String>), OpenError> {
    let mut aside = Vec::new();
    let mut next = story.next_table.max(next_number(names));
    for (number, (level, bounds)) in story.tables.clone() {
        let shelf = shelf(disk);
        for damage in &story.repaired {
            if let Place::Blob { number, offset } = damage.place {
                shelf.blobs.forgive(number, offset);
            }
        }
        let table = match disk.open(&table_name(number)) {
            Ok(file) => Table::open(number, bounds.clone(), file, shelf.clone()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let lost = Table::damaged(number, bounds.clone(), shelf.clone());
                Err(lost.damage(None))
            }
            Err(e) => return Err(failed(&e).into()),
        };
        match table {
            Ok(table) => {
                forgive(&table, &story);
                let (bad, lost) = check(&table, &shelf)?;
                if lost.is_empty() {
                    repair.kept += 1;
                    continue;
                }
                repair.lost.extend(lost);
                story.tables.remove(&number);
                if let Some(bounds) = salvage(disk.as_ref(), &table, &shelf, &bad, next)? {
                    story.tables.insert(next, (level, bounds));
                    repair.rewritten.push((number, next));
                    next += 1;
                }
            }
            Err(Error::Damaged(damage)) => {
                story.tables.remove(&number);
                if let Some(bounds) = rescue(disk, (number, bounds), *damage, next, repair)? {
                    story.tables.insert(next, (level, bounds));
                    next += 1;
                }
            }
            Err(e) => return Err(e.into()),
        }
        aside.push(table_name(number));
    }
    story.next_table = next;
    Ok((story, aside))
}

/// What of `table` was repaired elsewhere is no loss of today.
fn forgive(table: &Table, story: &Story) {
    for damage in &story.repaired {
        if let Place::Table { number, offset: Some(offset) } = damage.place
            && number == table.number
        {
            table.forgive(offset);
        }
    }
}

/// Writes what can be read of a table that does not open to table `next`; none when that is nothing.
/// `damage`: what is lost if there is no such file.
fn rescue(
    disk: &Arc<dyn Disk>,
    (number, bounds): (u64, TableBounds),
    damage: Damage,
    next: u64,
    repair: &mut Repair,
) -> Result<Option<TableBounds>, OpenError> {
    let file = match disk.open(&table_name(number)) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            repair.lost.push(damage);
            return Ok(None);
        }
        Err(e) => return Err(failed(&e).into()),
    };
    let shelf = shelf(disk);
    let inside = bounds.clone();
    let Salvaged { table, lost, ranges_lost } =
        Table::salvage(number, bounds, file, shelf.clone())?;
    let (bad, more) = check(&table, &shelf)?;
    repair.lost.extend(lost.into_iter().chain(more).filter_map(|lost| within(lost, &inside)));
    if ranges_lost {
        let place = Place::Table { number, offset: None };
        repair.undeleted.push(Damage { place, lower: damage.lower, upper: damage.upper });
    }
    let written = salvage(disk.as_ref(), &table, &shelf, &bad, next)?;
    if written.is_some() {
        repair.rewritten.push((number, next));
    }
    Ok(written)
}

/// What of `damage` is within the bounds of its table, where they are known: what is outside of those of a narrowed one
/// stands elsewhere and is not lost.
fn within(damage: Damage, bounds: &TableBounds) -> Option<Damage> {
    if bounds.largest.is_empty() {
        return Some(damage);
    }
    let end = bounds.upper();
    let lower = damage.lower.max(bounds.smallest.clone());
    let upper = damage.upper.map_or_else(|| end.clone(), |upper| upper.min(end.clone()));
    (lower < upper).then_some(Damage { place: damage.place, lower, upper: Some(upper) })
}

/// The numbers of the blocks of `table` that cannot be read, and what is lost with them and with
/// large values that cannot be read.
fn check(table: &Table, shelf: &Shelf) -> Result<(Vec<usize>, Vec<Damage>), Error> {
    let (mut bad, mut lost) = (Vec::new(), Vec::new());
    for i in 0..table.blocks()? {
        match table.check_block(i) {
            Ok((block, _)) => {
                for row in 0..block.rows() {
                    let value = &block.bytes()[block.value(row)];
                    if block.tag(row).kind() == Some(Kind::Put)
                        && let Stored::Elsewhere(pointer) = stored(value)
                    {
                        match shelf.load(pointer, &block.key(row)) {
                            Err(Error::Damaged(damage)) => lost.push(of_file(*damage, shelf)?),
                            Err(e) => return Err(e),
                            Ok(_) => {}
                        }
                    }
                }
            }
            Err(Error::Damaged(damage)) => {
                bad.push(i);
                lost.push(*damage);
            }
            Err(e) => return Err(e),
        }
    }
    Ok((bad, lost))
}

/// `damage`, or where the whole blob file is not there, that.
fn of_file(mut damage: Damage, shelf: &Shelf) -> Result<Damage, Error> {
    if let Place::Blob { number, offset } = &mut damage.place
        && shelf.blobs.hold(*number).map_err(|e| failed(&e))?.is_missing()
    {
        *offset = None;
    }
    Ok(damage)
}

/// Makes one of all that is lost with a blob file that is not there.
fn say_once(lost: &mut Vec<Damage>) {
    let mut said: Vec<Damage> = Vec::new();
    for damage in lost.drain(..) {
        let whole = matches!(damage.place, Place::Blob { offset: None, .. });
        match said.iter_mut().find(|said| whole && said.place == damage.place) {
            Some(said) => {
                said.lower = damage.lower.min(std::mem::take(&mut said.lower));
                let upper = said.upper.take();
                said.upper = upper.zip(damage.upper).map(|(a, b)| a.max(b));
            }
            None => said.push(damage),
        }
    }
    *lost = said;
}

/// Writes the rows of `table` that can be read to table `number`; none when there are none.
fn salvage(
    disk: &dyn Disk,
    table: &Table,
    shelf: &Shelf,
    bad: &[usize],
    number: u64,
) -> Result<Option<TableBounds>, Error> {
    let options = Options::default();
    let file = disk.create(&table_name(number)).map_err(|e| failed(&e))?;
    let mut writer = TableWriter::new(file, options.block_bytes, options.bloom_bits);
    // What of a file is outside of the bounds, where these are known, was written elsewhere: see
    // `compaction::around`.
    let bounds = (!table.bounds.largest.is_empty())
        .then(|| KeyRange { lower: table.bounds.smallest.clone(), upper: Some(table.upper()) });
    for i in (0..table.blocks()?).filter(|i| !bad.contains(i)) {
        let (block, _) = table.check_block(i)?;
        for row in 0..block.rows() {
            let (key, tag) = (block.key(row), block.tag(row));
            if bounds.as_ref().is_some_and(|bounds| !bounds.contains(&key)) {
                continue;
            }
            let Some(kind) = tag.kind() else { continue };
            let value = &block.bytes()[block.value(row)];
            if kind == Kind::Put
                && let Stored::Elsewhere(pointer) = stored(value)
                && shelf.load(pointer, &key).is_err()
            {
                continue;
            }
            writer.add(&key, tag.sequence(), kind, value).map_err(|e| failed(&e))?;
        }
    }
    writer.add_ranges(table.tombstones()?.iter().filter_map(|(start, end, sequence)| {
        let clipped = bounds.as_ref().map_or(Some((start, end)), |bounds| bounds.clip(start, end));
        clipped.map(|(start, end)| (start, end, sequence))
    }));
    if writer.is_empty() {
        disk.remove(&table_name(number)).map_err(|e| failed(&e))?;
        return Ok(None);
    }
    Ok(Some(writer.finish().map_err(|e| failed(&e))?))
}

/// A story of all tables that are there, for want of a manifest; and the names of the files to be
/// moved aside.
fn collect_tables(
    disk: &Arc<dyn Disk>,
    names: &[String],
    repair: &mut Repair,
) -> Result<(Story, Vec<String>), OpenError> {
    repair.manifest_made_anew = true;
    repair.lost.push(Damage { place: Place::Manifest, lower: Vec::new(), upper: None });
    let mut aside: Vec<String> =
        names.iter().filter(|name| parse_manifest_name(name).is_some()).cloned().collect();
    let mut story = Story::default();
    for name in names {
        if let Some(number) = parse_blob_name(name) {
            let bytes = disk.open(name).and_then(|file| file.len()).map_err(|e| failed(&e))?;
            story.blobs.insert(number, bytes);
        }
    }
    let mut next = next_number(names);
    for name in names {
        let Some(number) = parse_table_name(name) else { continue };
        let shelf = shelf(disk);
        let file = disk.open(name).map_err(|e| failed(&e))?;
        let bytes = file.len().map_err(|e| failed(&e))?;
        let part = part::said(disk.as_ref(), number).map_err(|e| failed(&e))?;
        let known = match &part {
            Part::Within(bounds) => TableBounds { bytes, ..bounds.clone() },
            Part::Whole | Part::Unknown => TableBounds { bytes, ..TableBounds::default() },
        };
        let opened = Table::open(number, known.clone(), file, shelf.clone())
            .and_then(|table| Ok((check(&table, &shelf)?, table)));
        match opened {
            // Of one that was narrowed what counts is written anew, so that nobody has to remember it.
            Ok(((_, lost), table)) if lost.is_empty() && matches!(part, Part::Whole) => {
                // What it covers is known once all of it was written somewhere.
                let scratch = MemoryDisk::new(0);
                if let Some(bounds) = salvage(&scratch, &table, &shelf, &[], number)? {
                    story.tables.insert(number, (0, TableBounds { bytes, ..bounds }));
                }
                repair.kept += 1;
            }
            Ok(((bad, lost), table)) => {
                // The last block of a table whose last key is not known.
                let open = |upper: Option<Vec<u8>>| upper.filter(|upper| upper != b"\0");
                let lost = lost.into_iter().map(|d| Damage { upper: open(d.upper), ..d });
                repair.lost.extend(lost);
                if let Some(bounds) = salvage(disk.as_ref(), &table, &shelf, &bad, next)? {
                    story.tables.insert(next, (0, bounds));
                    repair.rewritten.push((number, next));
                    next += 1;
                }
                aside.push(name.clone());
            }
            Err(Error::Damaged(damage)) => {
                let damage = match &part {
                    Part::Within(_) => *damage,
                    // Nobody knows any more which keys it held.
                    Part::Whole | Part::Unknown => {
                        Damage { lower: Vec::new(), upper: None, ..*damage }
                    }
                };
                if let Some(bounds) = rescue(disk, (number, known), damage, next, repair)? {
                    story.tables.insert(next, (0, bounds));
                    next += 1;
                }
                aside.push(name.clone());
            }
            Err(e) => return Err(e.into()),
        }
        if let (Part::Unknown, Some((old, new))) = (part, repair.rewritten.last())
            && let Some((_, bounds)) = story.tables.get(new).filter(|_| *old == number)
        {
            let place = Place::Table { number, offset: None };
            let upper = Some([&bounds.largest[..], &[0]].concat());
            repair.undeleted.push(Damage { place, lower: bounds.smallest.clone(), upper });
        }
    }
    aside.extend(names.iter().filter(|name| parse_part_name(name).is_some()).cloned());
    if story.tables.is_empty() {
        // Nothing says what is in them, and the next start would take them for leftovers.
        aside.extend(names.iter().filter(|name| parse_blob_name(name).is_some()).cloned());
    }
    story.next_table = next;
    Ok((story, aside))
}

/// Opens the store with whatever damage its log has, remembers that as dealt with, and counts rows.
fn settle(
    disk: &Arc<dyn Disk>,
    merge: Arc<dyn Merge>,
    repair: &mut Repair,
) -> Result<(), OpenError> {
    let options = Options { tolerate_damage: true, log_spares: 0, ..Options::default() };
    let opener = Opener::Repair { manifest_made_anew: repair.manifest_made_anew };
    let (engine, mut shards) = recovery::open(disk.clone(), options, merge, &mut |_| {}, opener)?;
    repair.log_cuts = engine.log_cuts();
    if repair.manifest_made_anew {
        // Tables of all levels stand in one now, so only a merge of them all reads right.
        for shard in &mut shards {
            shard.flush_all()?;
        }
        engine.shared.merge_level0()?;
    }
    while let Some(job) = engine.next_job() {
        job.run()?;
    }
    for shard in &mut shards {
        shard.refresh();
        let mut scan = shard.scan(b"", None, crate::merge::Direction::Forward, None)?;
        while scan.next_row()?.is_some() {
            repair.rows += 1;
        }
    }
    note(&engine, &mut repair.lost, false)?;
    Ok(())
}

/// Adds to `lost` what is damaged, and remembers that of the log as dealt with, at the end of a repair all: until
/// then the next repair would have to say it. True when any of the log was damaged.
fn note(engine: &Engine, lost: &mut Vec<Damage>, at_end: bool) -> Result<bool, Error> {
    let mut any = false;
    for damage in engine.damage() {
        let of_log = matches!(damage.place, Place::Log { .. });
        if of_log || at_end {
            engine.repaired(&damage)?;
        }
        any |= of_log;
        if !lost.contains(&damage) {
            lost.push(damage);
        }
    }
    Ok(any)
}

/// A start names the first hole of a stretch that is lost; when the files before a further hole are
/// gone, that is the first. None may be left that the next start would refuse.
fn note_what_was_behind(
    disk: &Arc<dyn Disk>,
    merge: &Arc<dyn Merge>,
    repair: &mut Repair,
) -> Result<(), OpenError> {
    let options = Options { tolerate_damage: true, log_spares: 0, ..Options::default() };
    let opener = Opener::Repair { manifest_made_anew: repair.manifest_made_anew };
    loop {
        let (engine, _shards) =
            recovery::open(disk.clone(), options.clone(), merge.clone(), &mut |_| {}, opener)?;
        if !note(&engine, &mut repair.lost, false)? {
            note(&engine, &mut repair.lost, true)?;
            return Ok(());
        }
    }
}
