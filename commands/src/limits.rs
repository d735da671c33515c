//! Limits: how much one connection may have in flight, hold back or ask for at once.

/// Commands of one connection that are not answered yet; beyond it the node stops reading.
pub const UNFINISHED_MAX: usize = 1_024;

/// The same for a connection that has not been answered yet: its replies may be large.
pub const UNFINISHED_FIRST: usize = 64;

/// Bytes of replies that one connection may await, by the size of its latest replies.
pub const REPLY_BYTES_MAX: usize = 4 << 20;

/// Bytes of arguments and replies that one connection may hold back before the node stops reading.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// Requests that one command keeps in flight (a MGET over many slots, a FLUSHDB).
pub const IN_FLIGHT_MAX: usize = 256;

/// Groups of slots that a sweep over the whole keyspace asks at the same time.
pub const SWEEP_WINDOW_MAX: u32 = 16;

/// Bytes of values that one command collects from several slots before it refuses.
pub const GATHERED_BYTES_MAX: usize = 256 << 20;

/// Commands that MULTI may queue.
pub const QUEUED_MAX: usize = 65_536;

/// Bytes of arguments that MULTI may queue.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Of these, commands that take several steps: each may ask every group of slots, and the requests of
/// one EXEC are numbered with 24 bits.
pub const QUEUED_WHOLE_MAX: usize = 64;

/// Keys that one connection may watch.
pub const WATCHED_MAX: usize = 4_096;

/// Milliseconds that WAIT waits when it is told to wait for ever.
pub const WAIT_MS_MAX: u32 = 60_000;

/// Writes of one command that WAIT remembers; a command that touched more slots waits for these.
pub const WAITED_WRITES_MAX: usize = 1_024;

/// The largest COUNT of SCAN that is honoured; more is taken as this.
pub const SCAN_COUNT_MAX: u32 = 100_000;

/// Keys asked for in one request while KEYS sweeps a group.
pub const SWEEP_PAGE_KEYS: u32 = 4_096;

/// Bytes of keys that KEYS collects before it refuses and points at SCAN.
pub const KEYS_BYTES_MAX: usize = 64 << 20;

/// How often MSETNX starts again when a key changed between its look and its write.
pub const OPTIMISTIC_ATTEMPTS_MAX: u32 = 8;

/// Distinct error codes that INFO counts.
pub const ERROR_CODES_MAX: usize = 128;

/// Bytes of an unknown command's arguments that its error repeats, as Redis does.
pub const ECHOED_ARGS_BYTES_MAX: usize = 128;

/// The longest command name.
pub const NAME_BYTES_MAX: usize = 24;

const _: () = assert!(IN_FLIGHT_MAX >= ring::GROUPS as usize, "a count asks all groups at once");
const _: () = assert!(QUEUED_BYTES_MAX <= HELD_BYTES_MAX);
const _: () = assert!(KEYS_BYTES_MAX <= HELD_BYTES_MAX);
