//! The Bloom filter of a table: one cache line a key.

use crate::checksum::xxph3;
use crate::prefetch::prefetch;

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

/// A line of the filter, at the boundary of a cache line, so that a question touches one.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line([u64; 8]);

/// A filter in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    lines: Vec<Line>,
    /// 0: nothing is known, every key may be there.
    probes: u8,
}

impl Filter {
    /// The filter over keys with these hashes.
    pub(crate) fn build(hashes: &[u64], bits: usize) -> Self {
        let lines = lines_for(hashes.len(), bits);
        let mut filter = Self { lines: vec![Line::default(); lines], probes: probes(bits) };
        for h in hashes {
            let line = &mut filter.lines[line_of(*h, lines)];
            let mut g = (*h >> 32) as u32;
            for _ in 0..filter.probes {
                line.0[(g >> 29) as usize] |= 1 << ((g >> 23) & 63);
                g = g.wrapping_mul(0x9e37_79b9);
            }
        }
        filter
    }

    /// Size of the filter over so many keys, as a table holds it.
    pub(crate) fn bytes(keys: usize, bits: usize) -> usize {
        lines_for(keys, bits).saturating_mul(LINE_BYTES).saturating_add(TRAILER_BYTES)
    }

    /// As a table holds it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.lines.len() * LINE_BYTES + TRAILER_BYTES);
        for word in self.lines.iter().flat_map(|line| line.0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[0xff, 0, self.probes, 0, 0]);
        out
    }

    /// The filter of a table. One of another kind than we write tells us nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        // What a later version says in the last two bytes may change how the bits are meant.
        let Some((lines, [0xff, 0, probes, 0, 0])) = bytes.split_last_chunk::<TRAILER_BYTES>()
        else {
            return Self::default();
        };
        if lines.len() % LINE_BYTES != 0 || *probes == 0 || *probes > 30 {
            return Self::default();
        }
        let mut filter = Self { lines: Vec::new(), probes: *probes };
        filter.lines.reserve_exact(lines.len() / LINE_BYTES);
        for bytes in lines.chunks_exact(LINE_BYTES) {
            let mut line = Line::default();
            for (word, bytes) in line.0.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_le_bytes(bytes.try_into().expect("a chunk of 8"));
            }
            filter.lines.push(line);
        }
        filter
    }

    /// False: the key is surely not in the table. Without branches between the probes, so that the
    /// questions to several tables wait for memory at the same time.
    pub(crate) fn may_contain(&self, h: u64) -> bool {
        if self.probes == 0 {
            return true;
        }
        let Some(line) = self.lines.get(line_of(h, self.lines.len())) else { return false };
        let mut g = (h >> 32) as u32;
        let mut all = 1;
        for _ in 0..self.probes {
            all &= line.0[(g >> 29) as usize] >> ((g >> 23) & 63);
            g = g.wrapping_mul(0x9e37_79b9);
        }
        all & 1 != 0
    }

    /// Asks for the memory that a question for this hash will look at.
    #[inline]
    pub(crate) fn prefetch(&self, h: u64) {
        if let Some(line) = self.lines.get(line_of(h, self.lines.len())) {
            prefetch(line);
        }
    }
}

fn lines_for(keys: usize, bits: usize) -> usize {
    keys.saturating_mul(bits).div_ceil(8).div_ceil(LINE_BYTES)
}

fn line_of(h: u64, lines: usize) -> usize {
    (((h & 0xffff_ffff) * lines as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_admits_its_keys_and_few_others_before_and_after_the_disk() {
        let key = |i: u32| format!("key-{i}").into_bytes();
        let hashes: Vec<u64> = (0..10_000).map(|i| hash(&key(i))).collect();
        let built = Filter::build(&hashes, 10);
        let read = Filter::decode(&built.encode());
        for filter in [built, read] {
            assert!(hashes.iter().all(|h| filter.may_contain(*h)));
            let wrong = (10_000..110_000).filter(|i| filter.may_contain(hash(&key(*i)))).count();
            assert!(wrong < 1_500, "{wrong} of 100,000 absent keys pass");
        }
        assert_eq!(probes(10), 6);
    }

    #[test]
    fn a_filter_of_another_kind_denies_nothing_and_an_empty_one_everything() {
        for bytes in [&b""[..], b"abc", &[7; 69], &[0, 0, 0, 0, 6, 1, 0, 0, 0]] {
            assert!(Filter::decode(bytes).may_contain(hash(b"key")), "{bytes:?}");
        }
        // No bit is set, so it would deny every key if it were of our kind.
        for reserved in [[0, 1], [1, 0], [0xff, 0xff]] {
            let bytes = [&[0; LINE_BYTES][..], &[0xff, 0, 6], &reserved].concat();
            assert!(Filter::decode(&bytes).may_contain(hash(b"key")), "{reserved:?}");
        }
        assert!(!Filter::decode(&Filter::build(&[], 10).encode()).may_contain(hash(b"key")));
    }
}
