//! Limits of the mesh: how much is buffered, how big a frame may be, what the network may be asked.
//!
//! The numbers on datagrams were measured; each stands beside the fault that it avoids.

use core::time::Duration;

/// The largest frame of the mesh, without its length. Checked before a byte of it is buffered. It
/// holds the largest frame of the wire's format, or several small ones together.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// What stands before each frame: its length.
pub const LENGTH_BYTES: usize = 4;

/// How much one lane to one peer, or the replies to one client, may hold unsent by default.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;

/// How much a lane reads at once, at most: all frames of a read are handled in one turn.
pub const READ_BYTES: usize = 256 << 10;

/// The same of a client: some hundred requests, which keep a core for some milliseconds.
pub const CLIENT_READ_BYTES: usize = 32 << 10;

/// What a client may have sent that the node has not read, and a peer before it is known as one: some
/// thousand requests, or what a path of 100 ms carries at 5 MB/s.
pub const CLIENT_WINDOW_BYTES: u32 = 512 << 10;

/// The same while there is too much to do: a hundred requests.
pub const CLIENT_WINDOW_BYTES_MIN: u32 = 16 << 10;

/// A buffer that grew beyond this for a large frame gives the memory back once it is empty.
pub const BUFFER_KEPT_BYTES_MAX: usize = 1 << 20;

/// Datagrams are never larger. Segmentation offload sends ten at once, and beyond 65,500 bytes the
/// system refuses such a call; the QUIC library then drops it and the connection stalls in silence.
pub const MTU_MAX: u16 = 6_500;

/// What every path of the Internet carries, and what QUIC insists on.
pub const MTU_MIN: u16 = 1_200;

/// Beyond this first guess the handshake never finishes, since the first congestion window holds
/// too few datagrams.
pub const INITIAL_MTU_MAX: u16 = 12_000;

/// The smallest window that still keeps a local network busy.
pub const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// Connections accepted at a time, of peers and clients together.
pub const CONNECTIONS_MAX: usize = 1_024;

/// Whoever connects must have said who it is by then.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last words of a process that has ended may still arrive.
pub const LAST_WORDS: Duration = Duration::from_millis(300);

/// Whoever lives says something within this time: a few heartbeats.
pub const LIVES_WITHIN: Duration = Duration::from_millis(800);

/// A dial that hears from its peer by other means is begun anew if it is older than this.
pub const DIAL_STALE_AFTER: Duration = Duration::from_millis(200);

/// A connection that lived this long was a good one: the next dial begins without waiting longer.
pub const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Refusals remembered, so that the same one is not logged a thousand times.
pub const REFUSALS_REMEMBERED_MAX: usize = 256;

/// The longest text in a close frame, so that it fits a datagram.
pub const REASON_BYTES_MAX: usize = 512;

const _: () =
    assert!(LAST_WORDS.as_millis() + LIVES_WITHIN.as_millis() < HELLO_TIMEOUT.as_millis());
const _: () = assert!(FRAME_BYTES_MAX >= wire::limits::FRAME_BYTES_MAX as usize);
const _: () = assert!(MTU_MAX as usize * 10 <= 65_500);
const _: () = assert!(MTU_MAX < INITIAL_MTU_MAX && MTU_MIN < MTU_MAX);
const _: () = assert!(QUEUE_BYTES_MAX >= FRAME_BYTES_MAX + LENGTH_BYTES);
const _: () = assert!(FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(REASON_BYTES_MAX < MTU_MIN as usize / 2);
const _: () = assert!(READ_BYTES <= BUFFER_KEPT_BYTES_MAX);
