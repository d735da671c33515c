//! Limits of the client: how long it waits, how much it holds.

use core::time::Duration;

/// How long a request may take unless it says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address may take to accept a connection and answer the hello.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// The next address is tried after so long without an answer; the earlier ones are waited for on.
pub const DIAL_STAGGER: Duration = Duration::from_millis(200);

/// The addresses of one client.
pub const ADDRESSES_MAX: usize = 64;

/// Requests of one connection that wait for their answers; more are refused as overload.
pub const PENDING_MAX: usize = 16_384;

/// Frames that wait to be written; a request that finds no room waits for it.
pub const QUEUE_FRAMES_MAX: usize = 256;

/// What to wait after a refusal of our own for too many pending requests.
pub const PENDING_RETRY_AFTER: Duration = Duration::from_millis(20);

/// A request that waits for its way to a node longer than this part of its time is not sent.
pub const WAY_OUT: u32 = 4;

/// A write of which its replicas have told nothing for such a part of its time is asked for again, for an answer of its
/// coordinator, if one of them has said nothing at all meanwhile: its word may be lost.
pub const ACKS_PATIENCE: u32 = 4;

/// What goes out as one, at most, beside a single larger request.
pub const BATCH_BYTES: usize = 16 << 10;

/// How far apart two requests leave of which a node hears when.
pub const MOMENTS_APART: Duration = Duration::from_millis(1);

/// How much is read at once.
pub const READ_BYTES: usize = 64 << 10;

/// A node hears of a deadline this much earlier than the caller set it, or a fifth of it if that is
/// less, so that its own account of a failure still arrives in time, also from a busy one.
pub const ANSWER_MARGIN_MAX: Duration = Duration::from_millis(200);

/// How often a quiet connection proves that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// How long nothing may be heard; a node's own limit counts if it is shorter.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The round trip to assume before one was measured: a lost first datagram is repeated after three.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);

/// The largest datagram on one machine, where ten of them still are one send; elsewhere the path is measured up to
/// what an Ethernet carries.
pub const MTU_LOOPBACK: u16 = 6_500;

/// How many datagrams a node may leave without an acknowledgement of their own: most are acknowledged with the
/// answer.
pub const UNACKNOWLEDGED: u32 = 10;

/// A node that could not be reached, or was lost, is not dialled again for so long.
pub const SHUN_FOR: Duration = Duration::from_secs(1);

/// A second node is never asked sooner than this after the first.
pub const HEDGE_DELAY_MIN: Duration = Duration::from_millis(1);

/// How many reads in a thousand may be asked of a second node because the first is slow.
pub const HEDGES_PER_THOUSAND: i64 = 50;

/// How many reads may be asked of a second node in a row, when none was for long.
pub const HEDGE_RESERVE: i64 = 10;

/// How many reads in a thousand may be tried in vain without a coordinator.
pub const UNDECIDED_PER_THOUSAND: i64 = 200;

/// How many may be tried in vain in a row, when none was for long.
pub const UNDECIDED_RESERVE: i64 = 50;

/// A keyspace of which no shares could be had is not asked for them for so long.
pub const NO_SHARES_FOR: Duration = Duration::from_secs(10);

/// How many requests in a thousand may be asked again.
pub const RETRIES_PER_THOUSAND: i64 = 100;

/// How many may be asked again before any share was earned.
pub const RETRY_RESERVE: i64 = 10;

/// How long before a write whose answer was lost is asked for again; twice as long each time.
pub const NAMED_PAUSE: Duration = Duration::from_millis(50);

/// How long, after an answer was lost, a write is asked for again while nobody knows of it.
pub const NAMED_PATIENCE: Duration = Duration::from_secs(1);

/// How often one request is sent at most, whatever the budget allows.
pub const TRIES_MAX: usize = 16;

/// The rows of one page of a range, unless the program says otherwise.
pub const PAGE_ROWS: u32 = 512;

/// How long connections to the nodes of a key are waited for that is not asked for yet.
pub const REACH_TIMEOUT: Duration = Duration::from_millis(500);

/// How often it is looked whether they stand.
pub const REACH_PAUSE: Duration = Duration::from_millis(5);

/// How long a farewell may take.
pub const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

const _: () = assert!(DIAL_STAGGER.as_millis() < DIAL_TIMEOUT.as_millis());
const _: () = assert!(IDLE_TIMEOUT.as_millis() >= 2 * KEEP_ALIVE.as_millis());
const _: () = assert!(READ_BYTES > wire::hello::LENGTH_BYTES);

/// So many requests of a link that were asked for anew, or whose replicas have told, are remembered: most of them are
/// never answered.
pub(crate) const SUPERSEDED_MAX: usize = 4_096;

/// So many sockets are kept for addresses that are dialled again, beside those that are in use.
pub(crate) const SOCKETS_MAX: usize = 256;

/// After so many dials in a row that came to nothing an address gets another socket.
pub(crate) const SOCKET_FAILURES_MAX: u32 = 8;
