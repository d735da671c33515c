//! The hashes of a table: XXH3 (or CRC32c) for blocks, XXH3's frozen preview for the Bloom filter.
//!
//! The filter's hash is the one that the 0.7.2 preview of XXH3 computed; the final XXH3 gives other
//! numbers, and a filter built from them denies keys that are there.

/// How the blocks of a table are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// What RocksDB wrote before it had XXH3. We only read it.
    Crc32c,
    /// What we write.
    Xxh3,
}

impl Checksum {
    /// The number for it in a footer.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Crc32c => 1,
            Self::Xxh3 => 4,
        }
    }

    pub(crate) fn of_number(number: u8) -> Option<Self> {
        [Self::Crc32c, Self::Xxh3].into_iter().find(|c| c.number() == number)
    }

    /// Checksum of a block: its payload and its type byte.
    pub(crate) fn of(self, payload: &[u8], kind: u8) -> u32 {
        match self {
            Self::Crc32c => {
                let sum = crc32c::crc32c_append(crc32c::crc32c(payload), &[kind]);
                sum.rotate_right(15).wrapping_add(0xa282_ead8)
            }
            Self::Xxh3 => {
                let hash = xxhash_rust::xxh3::xxh3_64(payload) as u32;
                hash ^ u32::from(kind).wrapping_mul(0x6b90_83d9)
            }
        }
    }
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;
const Q1: u64 = 0x9E37_79B1;
const Q2: u64 = 0x85EB_CA77;
const Q3: u64 = 0xC2B2_AE3D;

#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

fn r64(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("a slice of 8"))
}

fn r32(b: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(b[at..at + 4].try_into().expect("a slice of 4")))
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn avalanche(mut h: u64) -> u64 {
    h ^= h >> 37;
    h = h.wrapping_mul(P3);
    h ^ (h >> 32)
}

fn mix16(b: &[u8], at: usize, secret: usize) -> u64 {
    fold(r64(b, at) ^ r64(&SECRET, secret), r64(b, at + 8) ^ r64(&SECRET, secret + 8))
}

/// The hash that a table's Bloom filter is built from.
pub(crate) fn xxph3(b: &[u8]) -> u64 {
    let n = b.len();
    let len = n as u64;
    match n {
        0 => fold(r64(&SECRET, 0), P2),
        1..=3 => {
            let v =
                u64::from(b[0]) | u64::from(b[n / 2]) << 8 | u64::from(b[n - 1]) << 16 | len << 24;
            avalanche((v ^ r32(&SECRET, 0)).wrapping_mul(P1))
        }
        4..=8 => {
            let k = (r32(b, 0) | r32(b, n - 4) << 32) ^ r64(&SECRET, 0);
            let m = len.wrapping_add((k ^ (k >> 51)).wrapping_mul(Q1));
            avalanche((m ^ (m >> 47)).wrapping_mul(P2))
        }
        9..=16 => {
            let lo = r64(b, 0) ^ r64(&SECRET, 0);
            let hi = r64(b, n - 8) ^ r64(&SECRET, 8);
            avalanche(len.wrapping_add(lo).wrapping_add(hi).wrapping_add(fold(lo, hi)))
        }
        17..=128 => {
            let mut acc = len.wrapping_mul(P1);
            for i in 0..n.div_ceil(32) {
                acc = acc.wrapping_add(mix16(b, 16 * i, 32 * i));
                acc = acc.wrapping_add(mix16(b, n - 16 * (i + 1), 32 * i + 16));
            }
            avalanche(acc)
        }
        129..=240 => {
            let mut acc = len.wrapping_mul(P1);
            for i in 0..8 {
                acc = acc.wrapping_add(mix16(b, 16 * i, 16 * i));
            }
            acc = avalanche(acc);
            for i in 8..n / 16 {
                acc = acc.wrapping_add(mix16(b, 16 * i, 16 * (i - 8) + 3));
            }
            avalanche(acc.wrapping_add(mix16(b, n - 16, 136 - 17)))
        }
        _ => long(b),
    }
}

fn long(b: &[u8]) -> u64 {
    let n = b.len();
    let mut acc = [Q3, P1, P2, P3, P4, Q2, P5, Q1];
    let stripe = |acc: &mut [u64; 8], at: usize, secret: usize| {
        for (i, lane) in acc.iter_mut().enumerate() {
            let data = r64(b, at + 8 * i);
            let key = data ^ r64(&SECRET, secret + 8 * i);
            let product = (key & 0xffff_ffff).wrapping_mul(key >> 32);
            *lane = lane.wrapping_add(data).wrapping_add(product);
        }
    };
    for block in 0..n / 1024 {
        for s in 0..16 {
            stripe(&mut acc, block * 1024 + s * 64, s * 8);
        }
        for (i, lane) in acc.iter_mut().enumerate() {
            *lane = (*lane ^ (*lane >> 47) ^ r64(&SECRET, 128 + 8 * i)).wrapping_mul(Q1);
        }
    }
    for s in 0..n % 1024 / 64 {
        stripe(&mut acc, n / 1024 * 1024 + s * 64, s * 8);
    }
    if !n.is_multiple_of(64) {
        stripe(&mut acc, n - 64, 192 - 64 - 7);
    }
    let mut result = (n as u64).wrapping_mul(P1);
    for i in 0..4 {
        let (a, b) = (r64(&SECRET, 11 + 16 * i), r64(&SECRET, 11 + 16 * i + 8));
        result = result.wrapping_add(fold(acc[2 * i] ^ a, acc[2 * i + 1] ^ b));
    }
    avalanche(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    #[test]
    fn xxph3_gives_the_preview_s_numbers_on_every_branch() {
        let golden = "0:5342c3010fe1dd04 1:81b78b21c2ce4f18 3:6731a716813ee5f1 4:3a5afd967acaf5c3 \
            8:bcb56b6f8d4b12da 9:03787b4eec57bf4b 16:81720cc0702edd73 17:0b515520f462e96f \
            64:c71b2c5a712e7f61 128:8ea76d838ce7563f 129:3992d120c8c4677a 200:4ddc3e63692b0196 \
            240:df41bc5fea3a61e8 241:91d10f0682af4ac3 1024:7d54b94e043675ba 1500:886cbee786d45e1c \
            2048:e4223e0c6dc3503c";
        for pair in golden.split_whitespace() {
            let (n, want) = pair.split_once(':').unwrap();
            let input: Vec<u8> =
                (0..n.parse().unwrap()).map(|i: usize| ((7 * i + 3) % 256) as u8).collect();
            assert_eq!(format!("{:016x}", super::xxph3(&input)), want, "length {n}");
        }
    }
}
