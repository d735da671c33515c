//! Minima: a value for each of many places, or none, and the least of all without looking at each.
//!
//! Promise: the least one and the next place with a value are found by looking at one entry for each [`CHUNK`]
//! places, and a change looks at no more than the places of one chunk.

/// So many places share one entry.
const CHUNK: usize = 64;

/// Values by place.
pub(super) struct Minima<T> {
    values: Vec<Option<T>>,
    /// The least of each chunk.
    least: Vec<Option<T>>,
}

impl<T: Ord + Copy> Minima<T> {
    /// So many places without values.
    pub(super) fn new(places: usize) -> Self {
        Self { values: vec![None; places], least: vec![None; places.div_ceil(CHUNK)] }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn get(&self, place: usize) -> Option<T> {
        self.values[place]
    }

    /// Gives a place a value, or none; returns the one that it had.
    pub(super) fn set(&mut self, place: usize, value: Option<T>) -> Option<T> {
        let before = std::mem::replace(&mut self.values[place], value);
        let chunk = place / CHUNK;
        let least = self.least[chunk];
        if value.is_some() && (least.is_none() || value < least) {
            self.least[chunk] = value;
        } else if before.is_some() && before == least && value != before {
            let end = self.values.len().min((chunk + 1) * CHUNK);
            self.least[chunk] = self.values[chunk * CHUNK..end].iter().flatten().min().copied();
        }
        before
    }

    /// The least value.
    pub(super) fn min(&self) -> Option<T> {
        self.least.iter().flatten().min().copied()
    }

    /// The first place with a value from this one on, and then from the beginning.
    pub(super) fn next(&self, from: usize) -> Option<usize> {
        self.between(from, self.len()).or_else(|| self.between(0, from))
    }

    fn between(&self, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        while at < end {
            let chunk_end = end.min((at / CHUNK + 1) * CHUNK);
            if self.least[at / CHUNK].is_some()
                && let Some(found) = self.values[at..chunk_end].iter().position(Option::is_some)
            {
                return Some(at + found);
            }
            at = chunk_end;
        }
        None
    }

    /// The first place whose value is no more than `most`.
    pub(super) fn first_up_to(&self, most: T) -> Option<usize> {
        let is_due = |value: &Option<T>| value.is_some_and(|value| value <= most);
        let chunk = self.least.iter().position(is_due)?;
        let within = self.values[chunk * CHUNK..].iter().position(is_due)?;
        Some(chunk * CHUNK + within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_looking_at_each_place_does() {
        let places = 3 * CHUNK + 7;
        let mut minima = Minima::new(places);
        let mut plain: Vec<Option<u64>> = vec![None; places];
        let mut state = 1_u64;
        let mut any = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..20_000 {
            let place = any(places as u64) as usize;
            let value = (any(3 + round / 5_000) == 0).then(|| any(50));
            assert_eq!(minima.set(place, value), std::mem::replace(&mut plain[place], value));
            assert_eq!(minima.min(), plain.iter().flatten().min().copied());
            let (from, most) = (any(places as u64) as usize, any(50));
            let wrapped = (from..places).chain(0..from).find(|at| plain[*at].is_some());
            assert_eq!(minima.next(from), wrapped);
            let due = plain.iter().position(|value| value.is_some_and(|value| value <= most));
            assert_eq!(minima.first_up_to(most), due);
        }
    }
}
