//! How big may a thing be. Bounds that depend on each other are checked here.

/// The longest key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// The largest batch, as encoded.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// A commit buffer that grows past this is written before the next batch.
pub const LOG_BUFFER_BYTES_MAX: usize = 1 << 20;
/// The largest payload of a log frame: the buffer before its last batch, and that batch.
pub const FRAME_BYTES_MAX: usize = 72 << 20;
/// A file that is made ready for the log is at most this large: the disk is kept busy for it at the
/// start, and most of what a synced put costs in the first seconds is the writing of its zeros.
pub const LOG_SPARE_BYTES_MAX: u64 = 4 << 20;
/// The largest payload of a manifest frame.
pub const EDIT_BYTES_MAX: usize = 256 << 20;
/// A memtable is asked to hold at most this much: places in it have 32 bits and count words of eight
/// bytes, and what is in a batch may go beyond what was asked for.
pub const MEMTABLE_BYTES_MAX: usize = 16 << 30;
/// Merge operands kept for one key in a memtable before they are folded among themselves.
pub const MERGE_CHAIN_MAX: usize = 32;
/// A merge is folded at once onto a value of at most this many bytes; onto a larger one operands
/// are gathered first, so that growing a value does not copy it for each step.
pub const EAGER_FOLD_BYTES_MAX: usize = 4 << 10;
/// The largest value or operand that a fold may leave behind; what would grow beyond it stays in
/// pieces. So whatever was accepted, and whatever came of it, fits a block.
pub const FOLDED_BYTES_MAX: usize = BATCH_BYTES_MAX;
/// The largest block that a table may claim to hold uncompressed.
pub const BLOCK_BYTES_MAX: usize = 96 << 20;
/// Memory of a shard, in memtables, at which its writes should be refused: the one that is written
/// and those that wait for their flush.
pub const MEMTABLES_MAX: f64 = 6.0;
/// Levels of tables.
pub const LEVELS: usize = 7;
/// Sequences fit the 56 bits that a table's key has for them.
pub const SEQUENCE_MAX: u64 = (1 << 56) - 1;
/// Content of the FORMAT file.
pub const FORMAT_LINE: &str = "ringdb storage 2";
/// What is read as well, and is this format from then on: its logs had wider frames.
pub const FORMAT_LINE_BEFORE: &str = "ringdb storage 1";

const _: () = assert!(FRAME_BYTES_MAX >= BATCH_BYTES_MAX + LOG_BUFFER_BYTES_MAX + 64);
const _: () = assert!(2 * MEMTABLE_BYTES_MAX <= 8 << 32);
const _: () = assert!(BLOCK_BYTES_MAX > BATCH_BYTES_MAX + KEY_BYTES_MAX + 64);
const _: () = assert!(BLOCK_BYTES_MAX > FOLDED_BYTES_MAX + KEY_BYTES_MAX + 64);
const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);

/// Bytes of background work after which others may have the processor: some tens of microseconds. A scheduler that
/// lets a thread have its slice to the end makes whoever shares the core wait for milliseconds.
pub const YIELD_BYTES: u64 = 16 << 10;

/// Why a writer refuses a block: no reader would take it, and here the rows are still where they came from.
pub(crate) fn too_large(bytes: usize) -> std::io::Error {
    let why = format!(
        "a block of {bytes} bytes is larger than readers take ({BLOCK_BYTES_MAX} bytes); nothing changed"
    );
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, why)
}
