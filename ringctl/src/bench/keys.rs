//! Keys: which record is next, as YCSB chooses it, reproducibly.
//!
//! Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), section 3.2,
//! for the skew; Cooper et al., "Benchmarking Cloud Serving Systems with YCSB" (SoCC 2010) for its use.

use crate::args::Distribution;

/// A generator of numbers that look drawn; the same seed gives the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias is one in 2^64 divided by the bound.
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Spreads whatever is near over everything.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The exponent that YCSB takes.
const THETA: f64 = 0.99;

/// Ranks of which the first are far more frequent than the later ones.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: u64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Over so many ranks, at least one. Takes time in proportion to them.
    pub(crate) fn new(count: u64) -> Self {
        let zeta_of = |count: u64| (1..=count).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let zeta = zeta_of(count);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_of(2) / zeta);
        Self { count, zeta, eta }
    }

    /// A rank from 0, the most frequent one.
    pub(crate) fn rank(&self, draw: &mut Draw) -> u64 {
        let u = draw.fraction();
        let uz = u * self.zeta;
        if uz < 1.0 || self.count == 1 {
            return 0;
        }
        if uz < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.count as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.count - 1)
    }
}

/// Chooses records.
#[derive(Clone, Debug)]
pub(crate) struct Chooser {
    how: Distribution,
    zipf: Zipf,
}

impl Chooser {
    /// Among so many records at the beginning.
    pub(crate) fn new(how: Distribution, records: u64) -> Self {
        // Whoever asks for uniform keys needs no ranks.
        let ranks = if how == Distribution::Uniform { 1 } else { records };
        Self { how, zipf: Zipf::new(ranks) }
    }

    /// One of `records`, which have become no fewer.
    pub(crate) fn choose(&self, draw: &mut Draw, records: u64) -> u64 {
        match self.how {
            Distribution::Uniform => draw.below(records),
            // Strewn, so that popular records are no neighbours.
            Distribution::Zipfian => mix(self.zipf.rank(draw) + 1) % records,
            Distribution::Latest => records - 1 - self.zipf.rank(draw).min(records - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(how: Distribution, records: u64) -> Vec<u64> {
        let (chooser, mut draw) = (Chooser::new(how, records), Draw::new(7));
        let mut counts = vec![0; records as usize];
        for _ in 0..100_000 {
            counts[chooser.choose(&mut draw, records) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipfian_ranks_are_as_frequent_as_their_law_says() {
        let (zipf, mut draw) = (Zipf::new(1_000), Draw::new(3));
        let mut seen = [0_u64; 1_000];
        for _ in 0..200_000 {
            seen[zipf.rank(&mut draw) as usize] += 1;
        }
        let expected = |rank: usize| 200_000.0 * (rank as f64 + 1.0).powf(-THETA) / zipf.zeta;
        for rank in [0, 1] {
            let ratio = seen[rank] as f64 / expected(rank);
            assert!((0.95..1.05).contains(&ratio), "rank {rank}: {ratio}");
        }
        let tail = seen[100..].iter().sum::<u64>() as f64;
        let ratio = tail / (100..1_000).map(expected).sum::<f64>();
        assert!((0.9..1.1).contains(&ratio), "tail: {ratio}");
    }

    #[test]
    fn each_distribution_prefers_what_it_says() {
        let uniform = counts(Distribution::Uniform, 100);
        assert!(uniform.iter().all(|n| (800..1_200).contains(n)), "{uniform:?}");
        let latest = counts(Distribution::Latest, 100);
        assert!(latest[99] > latest[98] && latest[98] > latest[50], "{latest:?}");
        let zipfian = counts(Distribution::Zipfian, 100);
        let mut sorted = zipfian.clone();
        sorted.sort_unstable();
        assert!(sorted[99] > 10 * sorted[10], "{zipfian:?}");
        let most = zipfian.iter().position(|n| *n == sorted[99]).expect("one is the greatest");
        let next = zipfian.iter().position(|n| *n == sorted[98]).expect("one is the second");
        assert!(most.abs_diff(next) > 1 && most > 0, "they are strewn: {zipfian:?}");
    }

    #[test]
    fn the_same_seed_chooses_the_same() {
        let run = || {
            let (chooser, mut draw) = (Chooser::new(Distribution::Zipfian, 50), Draw::new(9));
            (0..100).map(|_| chooser.choose(&mut draw, 50)).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }
}
