//! Bounds of replication: how big, how many, how long.

use core::time::Duration;

/// Requests in flight on one core; beyond it new ones are refused as overload.
pub const JOBS_MAX: usize = 65_536;

/// The longest encoded value.
pub const VALUE_BYTES_MAX: usize = 8 << 20;

/// The longest row, that is a key with its escapes (a tagged key counts its tag twice).
pub const ROW_BYTES_MAX: usize = 64 << 10;

/// The most that one task may write, keys and values together: it travels in one message.
pub const TASK_BYTES_MAX: usize = 10 << 20;

const _: () = assert!(TASK_BYTES_MAX > VALUE_BYTES_MAX + ROW_BYTES_MAX);

/// Concurrent values of a key; a write that replaces none of them is refused beyond it.
pub const SIBLINGS_MAX: usize = 128;

/// From so many on, each write that leaves others beside it is counted: nobody seems to resolve them.
pub const SIBLINGS_MANY: usize = 16;

const _: () = assert!(SIBLINGS_MANY < SIBLINGS_MAX);

/// Pages of 256 requests known by name, so that a retry is not minted twice; beyond it forwarded
/// writes are refused as overload, never forgotten early. Front nodes number their requests one by
/// one, so a page holds one request in a large cluster and 256 in a small one; 26 MB at most.
pub const KNOWN_PAGES_MAX: usize = 1 << 18;

/// Requests that were refused, kept so that another copy of one is refused too.
pub const CLOSED_MAX: usize = 1 << 20;

/// How long a request's name is kept, and so the longest a client may retry under it.
pub const KNOWN_FOR: Duration = Duration::from_secs(30);

/// A forwarded request older than this is refused: its name may be forgotten already.
pub const RETRY_FOR: Duration = Duration::from_secs(20);

const _: () = assert!(KNOWN_FOR.as_secs() > RETRY_FOR.as_secs());

/// How long a coordinator waits for a replica's read before it asks another one too.
pub const HEDGE_AFTER: Duration = Duration::from_millis(15);

/// How long before a request that must have seen more than the replicas have looks again.
pub const BEHIND_AGAIN_AFTER: Duration = Duration::from_millis(25);

/// How long before an unanswered message is sent again.
pub const RESEND_AFTER: Duration = Duration::from_millis(250);

/// How long the acknowledgement of a write may wait for other messages to its coordinator, if its client is
/// told by the replica itself.
pub const ACK_DELAY: Duration = Duration::from_millis(20);

const _: () = assert!(ACK_DELAY.as_millis() * 5 < RESEND_AFTER.as_millis());

/// How long a client may wait to be told of a write by a replica of which that is not asked at once.
pub const TELL_DELAY: Duration = Duration::from_millis(5);

/// A write with less time than this is acknowledged through its coordinator alone: an acknowledgement that waits
/// could come too late.
pub const DIRECT_TIME_MIN: Duration = Duration::from_millis(100);

const _: () = assert!(ACK_DELAY.as_millis() * 5 <= DIRECT_TIME_MIN.as_millis());

/// When whoever asks for a keyspace that takes no requests should come back, in milliseconds: its number of
/// copies is being changed, which takes as long as its members need to look through their stores.
pub const CLOSED_RETRY_MS: u32 = 200;

/// How often requests in flight are looked over for those two.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a pull may stay without a word before it is begun again.
pub const PULL_PATIENCE: Duration = Duration::from_secs(2);

/// How long a restarted replica that lost nothing waits for a peer to pull from before it serves
/// what it has.
pub const LONELY_AFTER: Duration = Duration::from_secs(10);

/// How far the hybrid clock's ceiling is kept ahead of the wall clock.
pub const CEILING_AHEAD: Duration = Duration::from_secs(20);

/// Below this distance the ceiling is raised again.
pub const CEILING_LOW: Duration = Duration::from_secs(10);

const _: () = assert!(CEILING_LOW.as_secs() < CEILING_AHEAD.as_secs());

/// Bytes of deltas or rows in one message of a pull.
pub const PULL_PART_BYTES: usize = 256 << 10;

/// Keys deleted by one batch of a flush.
pub const FLUSH_BATCH: usize = 512;

/// Rows that a replica reads for one page of a range, at most.
pub const SPAN_ROWS_MAX: u32 = 4_096;

/// Bytes that a replica reads for one page of a range, at most (and one row more).
pub const SPAN_BYTES_MAX: u32 = 1 << 20;

// The rows of a page are deleted by one task: all that differ between seven replicas fit in it.
const _: () = assert!(TASK_BYTES_MAX > 7 * (SPAN_BYTES_MAX as usize + ROW_BYTES_MAX));

/// Finished writes whose acknowledgements are remembered for those who ask later.
pub const SETTLED_MAX: usize = 4_096;
