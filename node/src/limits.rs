//! How big may anything in a node be? Bounds that depend on each other are checked here.

use core::time::Duration;

/// Files and sockets beside those of Redis clients.
pub const FILES_BESIDE_CLIENTS: u64 = 256;

/// A client that has been silent for so long is thought to stay so: its buffers are given back.
pub const REST_AFTER: Duration = Duration::from_secs(2);

/// Raises the number of files that this process may open as far as the system lets it; how many
/// that is.
pub fn raise_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If the system refuses, the old limit stays, and that is what is told.
    let now = setrlimit(Resource::Nofile, raised).map_or(limit.current, |()| limit.maximum);
    now.unwrap_or(u64::MAX)
}

/// Clients of the Redis port at a time, unless configured otherwise.
pub const MAXCLIENTS_DEFAULT: u32 = 10_000;

/// Bytes read from one client at a time, into a buffer that a core's clients share.
pub const READ_BYTES: usize = 64 << 10;

/// Who sends so much at a time has more to send: others are read before him.
pub const MUCH_BYTES: usize = READ_BYTES / 4;

/// Bytes of one client that are taken from its socket before they can be served: what lies in the
/// socket beyond them is older than is known.
pub const AHEAD_BYTES: usize = 256 << 10;

/// The same for all clients of a core together.
pub const AHEAD_BYTES_MAX: usize = 32 << 20;

/// How often that is done for one client: each time costs a system call.
pub const AHEAD_EVERY: Duration = Duration::from_millis(20);

/// After so many commands of one client it is asked how long the turn has been.
pub const FEED_COMMANDS: usize = 64;

/// Replies that a client has not taken: above this nothing more is read from it.
pub const OUTPUT_PAUSE_BYTES: usize = 1 << 20;

/// Replies that a client has not taken: above this it is disconnected.
pub const OUTPUT_BYTES_MAX: usize = 256 << 20;

/// How long a client may take nothing of its replies, while some wait.
pub const OUTPUT_STALL_MAX: Duration = Duration::from_secs(60);

/// A client's buffers above this size are given back when they are empty.
pub const BUFFER_KEPT_BYTES_MAX: usize = 16 << 10;

/// Messages of one frame to a peer stop here; the next go into another frame.
pub const PEER_FRAME_BYTES: usize = 1 << 20;

/// The most threads that merge tables.
pub const COMPACTION_THREADS_MAX: usize = 4;

/// The shortest time for which the acknowledgement of a write is held back while the engine is
/// behind: timers tell no shorter ones apart, and what is not held is held with the next.
pub const HOLD_US_MIN: u64 = 1_000;

/// Deltas of one answer from the retained log.
pub const LOG_FOUND_BYTES: usize = 256 << 10;

/// How often the log is synced for writes that did not ask for it.
pub const BACKGROUND_SYNC: Duration = Duration::from_millis(500);

/// How long a drain may take before the process ends without it.
pub const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How often a drain says what it waits for.
pub const DRAIN_TOLD: Duration = Duration::from_secs(1);

/// How long a request may take unless its client says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Native clients name a deadline so much before their own, so that they still hear why there is no answer.
pub const KEPT_BACK: Duration = Duration::from_millis(200);

/// What would leave so long after the deadline, a quarter of that, might not come in time: a node may be kept from running
/// for some tens of milliseconds before its words are on their way, and another few before they are read.
pub const GIVEN_UP_AFTER: Duration = Duration::from_millis(50);

/// Who has less than a second names one a fifth of it before: then a quarter of that is this part of what was named.
pub const GIVEN_UP_PART: u32 = 16;

/// A turn that lasts longer is ended before more is read from clients, so that what it did leaves.
pub const TURN_MAX: Duration = Duration::from_millis(10);

/// How far beyond the wall clock the ceiling of the hybrid clock is put at a start; as far as the
/// machines put it later.
pub const CEILING_AHEAD_MS: u64 = 20_000;

/// With less room than this on its disk a node takes on no writes; where it already does, with less than twice
/// this. What is under way has to fit, and flushes and compactions go on: one file of the log, but no more than a
/// twentieth of a small disk.
#[must_use]
pub const fn full_below(log_segment_bytes: u64, disk_bytes: u64, is_full: bool) -> u64 {
    let part = disk_bytes / 20;
    let below = if log_segment_bytes < part { log_segment_bytes } else { part };
    if is_full { 2 * below } else { below }
}

/// The most characters of the name of a checkpoint: some file systems take no more than 255 of a path's part.
pub const CHECKPOINT_NAME_MAX: usize = 64;

/// The most cores: groups of slots are not divided.
pub const CORES_MAX: usize = ring::GROUPS as usize;

/// The most connections of one core: 24 bits of a request's number name the connection's place.
pub const CORE_CONNECTIONS_MAX: usize = 1 << 20;

/// How long the demo waits for its nodes to become ready.
pub const DEMO_READY_MAX: Duration = Duration::from_secs(30);

/// The most nodes of a demo.
pub const DEMO_NODES_MAX: u16 = 32;

const _: () = assert!(GIVEN_UP_AFTER.as_millis() * 4 == KEPT_BACK.as_millis());
const _: () = assert!(READ_BYTES < AHEAD_BYTES && AHEAD_BYTES < AHEAD_BYTES_MAX);
const _: () = assert!(OUTPUT_PAUSE_BYTES < OUTPUT_BYTES_MAX);
const _: () = assert!(PEER_FRAME_BYTES < wire::limits::FRAME_BODY_BYTES_MAX as usize);
const _: () = assert!(LOG_FOUND_BYTES < PEER_FRAME_BYTES);

/// Whoever has closed a keyspace to change its copies has so long to look through all stores and to open
/// it again, in milliseconds.
pub const CLOSED_BY_MS: u64 = 45_000;

/// Others open it only after so long, so that the two never meet: clocks that coordinate differ by half
/// a second at most.
pub const CLOSED_OTHERS_MS: u64 = 60_000;

const _: () = assert!(CLOSED_OTHERS_MS > CLOSED_BY_MS + 10_000);

/// Databases are numbered from 0 to below this, as SELECT knows them.
pub const DATABASES: u16 = 16;

/// A client that leaves more replies than this unread hears of writes through their coordinators alone.
pub const ACKS_QUEUED_MAX: usize = 64 << 10;

/// How long it may take until all that only the log told before a rotation is in rows.
pub const SAVE_MAX: Duration = Duration::from_millis(500);

/// If so many requests are in flight on a core, clients hear of writes through their coordinators: batches are large
/// then, and a second word for each write costs more than the way that it saves (decision 32).
pub const DIRECT_IN_FLIGHT_MAX: usize = 128;
