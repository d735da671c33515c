//! Limits: how big anything on the wire may be.
//!
//! They are checked against each other here, so that no write can be accepted from a client and
//! then prove too large to be sent to a replica.

/// The largest frame: its header and its body, and also its body once decompressed.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;

/// A frame's header.
pub const FRAME_HEADER_BYTES: u32 = 40;

/// The largest body, compressed or not.
pub const FRAME_BODY_BYTES_MAX: u32 = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

/// Bodies shorter than this are never compressed: the time is worth more than the bytes.
pub const LZ4_THRESHOLD: usize = 64 << 10;

/// LZ4 cannot expand a byte into more than this many.
pub const LZ4_RATIO_MAX: usize = 255;

/// The largest value or argument that can be configured; a frame holds it with its record.
pub const VALUE_BYTES_MAX: u32 = 12 << 20;

/// The largest key.
pub const KEY_BYTES_MAX: u32 = 512 << 10;

/// The most keys of one native request.
pub const KEYS_MAX: usize = 4096;

/// What a record carries beside key and value: clocks, siblings' heads, field names.
pub const RECORD_OVERHEAD_BYTES_MAX: u32 = 1 << 20;

/// The largest record: one key with its value and its causality.
pub const RECORD_BYTES_MAX: u32 = KEY_BYTES_MAX + VALUE_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;

/// The largest bulk string of a RESP request unless configured otherwise.
pub const RESP_BULK_BYTES_DEFAULT: u32 = 8 << 20;

/// The most arguments of one RESP command, its name included.
pub const RESP_ARGS_MAX: u32 = 1 << 20;

/// The largest RESP command: all its arguments with their headers.
pub const RESP_COMMAND_BYTES_MAX: u32 = 64 << 20;

/// The longest inline command, and the longest line that announces a length.
pub const RESP_INLINE_BYTES_MAX: u32 = 64 << 10;

/// The most arguments of a command from a client that must still authenticate.
pub const RESP_UNAUTHENTICATED_ARGS_MAX: u32 = 10;

/// The largest argument from a client that must still authenticate.
pub const RESP_UNAUTHENTICATED_BULK_BYTES_MAX: u32 = 16 << 10;

/// How much room may be made for announced bytes before they arrive (a reader may also double what
/// has arrived).
pub const RESERVE_BYTES_MAX: usize = 64 << 10;

/// A decoder that has grown beyond this many slots or bytes for one large message gives them back.
pub const SCRATCH_KEPT_MAX: usize = 1 << 20;

/// How deeply a RESP reply may nest.
pub const REPLY_DEPTH_MAX: usize = 32;

/// The longest line in a RESP reply: a status, an error, a number.
pub const REPLY_LINE_BYTES_MAX: usize = 64 << 10;

/// The largest RESP reply that a client of ours takes, all its parts together.
pub const REPLY_BYTES_MAX: usize = 256 << 20;

/// How deeply a MessagePack value may nest.
pub const CODEC_DEPTH_MAX: usize = 32;

const _: () = assert!(FRAME_BYTES_MAX >= RECORD_BYTES_MAX + FRAME_HEADER_BYTES);
const _: () = assert!(RESP_BULK_BYTES_DEFAULT <= VALUE_BYTES_MAX);
const _: () = assert!(RESP_COMMAND_BYTES_MAX >= 2 * VALUE_BYTES_MAX);
const _: () = assert!(RESP_UNAUTHENTICATED_BULK_BYTES_MAX <= RESP_INLINE_BYTES_MAX);
const _: () = assert!(LZ4_THRESHOLD > FRAME_HEADER_BYTES as usize);
