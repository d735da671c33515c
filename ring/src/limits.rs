//! How big may anything in a layout be? Every bound, checked against the others at compile time.

use crate::slot::SLOTS;

/// Members of one cluster. The table then holds whole shares of at least 16 slots a member.
pub const MEMBERS_MAX: usize = 1_024;

/// Copies of a slot (N). Seven survives three losses at QUORUM; nobody has asked for more.
pub const COPIES_MAX: u8 = 7;

/// Copies of a slot unless the operator says otherwise.
pub const COPIES_DEFAULT: u8 = 3;

/// Failure domains (a zone inside a region) of one cluster.
pub const ZONES_MAX: usize = 256;

/// Regions of one cluster.
pub const REGIONS_MAX: usize = 32;

/// Bytes in the name of a member, a zone or a region.
pub const NAME_BYTES_MAX: usize = 64;

/// Bytes in an address `host:port`: a DNS name of 253 bytes, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 259;

/// The greatest relative weight of a member; loads then stay exact in a double.
pub const CAPACITY_MAX: u32 = 1_000_000;

/// The weight of a member that does not state one.
pub const CAPACITY_DEFAULT: u32 = 100;

/// The share above its fair share that no member may own, in percent, unless zones force it or one
/// slot is already more than that.
pub const OVERLOAD_PERCENT_MAX: u32 = 5;

/// How long a keyspace may let its keys live, in milliseconds: a hundred years, so that a deadline is far
/// from the end of any clock.
pub const TTL_MS_MAX: u64 = 36_525 * 86_400_000;

/// Bytes in the name of whoever changed a keyspace.
pub const AUTHOR_BYTES_MAX: usize = 64;

/// Changes of keyspaces that one node has under way.
pub const CHANGES_MAX: usize = 16;

const _: () = assert!(MEMBERS_MAX * 16 <= SLOTS as usize, "a member must own whole slots");
const _: () = assert!(ZONES_MAX <= MEMBERS_MAX && REGIONS_MAX <= ZONES_MAX);
const _: () = assert!(COPIES_DEFAULT <= COPIES_MAX && COPIES_DEFAULT % 2 == 1);
const _: () = assert!((COPIES_MAX as usize) < MEMBERS_MAX && COPIES_MAX <= 8, "a set fits a byte");
const _: () = assert!(CAPACITY_DEFAULT > 0 && CAPACITY_DEFAULT <= CAPACITY_MAX);
