//! The Bloom filter of a table: one cache line a key.

use crate::checksum::xxph3;

const LINE_BYTES: usize = 64;
/// Marker, kind, probes, two zeros.
const TRAILER_BYTES: usize = 5;

/// The hash of a user key, computed once for all tables.
pub(crate) fn hash(key: &[u8]) -> u64 {
    xxph3(key)
}

/// Probes that serve `bits` per key best.
fn probes(bits: usize) -> u8 {
    let steps = [2080, 3580, 5100, 6640, 8300, 10070, 11720, 14001, 16050, 18300];
    1 + steps.iter().take_while(|step| bits * 1000 > **step).count() as u8
}

/// The filter block over keys with these hashes.
pub(crate) fn build(hashes: &[u64], bits: usize) -> Vec<u8> {
    let len = (hashes.len() * bits).div_ceil(8).next_multiple_of(LINE_BYTES);
    let probes = probes(bits);
    let mut filter = vec![0; len];
    for h in hashes {
        let line = line_of(*h, len);
        each_bit(*h, probes, |bit| {
            filter[line + bit / 8] |= 1 << (bit % 8);
            true
        });
    }
    filter.extend_from_slice(&[0xff, 0, probes, 0, 0]);
    filter
}

/// False: the key is surely not in the table.
pub(crate) fn may_contain(filter: &[u8], h: u64) -> bool {
    let Some(len) = filter.len().checked_sub(TRAILER_BYTES) else { return true };
    let trailer = &filter[len..];
    // A filter of another kind tells us nothing.
    if trailer[..2] != [0xff, 0] || len % LINE_BYTES != 0 || trailer[2] == 0 || trailer[2] > 30 {
        return true;
    }
    if len == 0 {
        return false;
    }
    let line = line_of(h, len);
    each_bit(h, trailer[2], |bit| filter[line + bit / 8] & 1 << (bit % 8) != 0)
}

fn line_of(h: u64, len: usize) -> usize {
    (((h & 0xffff_ffff) * (len / LINE_BYTES) as u64) >> 32) as usize * LINE_BYTES
}

fn each_bit(h: u64, probes: u8, mut visit: impl FnMut(usize) -> bool) -> bool {
    let mut g = (h >> 32) as u32;
    (0..probes).all(|_| {
        let bit = (g >> 23) as usize;
        g = g.wrapping_mul(0x9e37_79b9);
        visit(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_admits_its_keys_and_few_others() {
        let key = |i: u32| format!("key-{i}").into_bytes();
        let hashes: Vec<u64> = (0..10_000).map(|i| hash(&key(i))).collect();
        let filter = build(&hashes, 10);
        assert!(hashes.iter().all(|h| may_contain(&filter, *h)));
        let wrong = (10_000..110_000).filter(|i| may_contain(&filter, hash(&key(*i)))).count();
        assert!(wrong < 1_500, "{wrong} of 100,000 absent keys pass");
        assert_eq!(probes(10), 6);
    }
}
