//! Span: the bounds of a range of sort keys, as Rust writes ranges.

use core::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use bytes::Bytes;

/// From the first key on, and up to before the second; all of them where there is none.
pub type HalfOpen = (Option<Bytes>, Option<Bytes>);

/// A range of sort keys: `"a".."b"`, `"a"..="b"`, `"a"..`, `.."b"`, `..`, or a pair of bounds.
pub trait SortRange {
    /// As half-open bounds.
    fn half_open(self) -> HalfOpen;
}

fn at(sort: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(sort.as_ref())
}

/// The least key that is greater.
fn behind(sort: impl AsRef<[u8]>) -> Bytes {
    [sort.as_ref(), &[0]].concat().into()
}

impl<S: AsRef<[u8]>> SortRange for Range<S> {
    fn half_open(self) -> HalfOpen {
        (Some(at(self.start)), Some(at(self.end)))
    }
}

impl<S: AsRef<[u8]>> SortRange for RangeInclusive<S> {
    fn half_open(self) -> HalfOpen {
        let (start, end) = self.into_inner();
        (Some(at(start)), Some(behind(end)))
    }
}

impl<S: AsRef<[u8]>> SortRange for RangeFrom<S> {
    fn half_open(self) -> HalfOpen {
        (Some(at(self.start)), None)
    }
}

impl<S: AsRef<[u8]>> SortRange for RangeTo<S> {
    fn half_open(self) -> HalfOpen {
        (None, Some(at(self.end)))
    }
}

impl<S: AsRef<[u8]>> SortRange for RangeToInclusive<S> {
    fn half_open(self) -> HalfOpen {
        (None, Some(behind(self.end)))
    }
}

impl SortRange for RangeFull {
    fn half_open(self) -> HalfOpen {
        (None, None)
    }
}

impl<S: AsRef<[u8]>> SortRange for (Bound<S>, Bound<S>) {
    fn half_open(self) -> HalfOpen {
        let from = match self.0 {
            Bound::Included(sort) => Some(at(sort)),
            Bound::Excluded(sort) => Some(behind(sort)),
            Bound::Unbounded => None,
        };
        let to = match self.1 {
            Bound::Included(sort) => Some(behind(sort)),
            Bound::Excluded(sort) => Some(at(sort)),
            Bound::Unbounded => None,
        };
        (from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_range_is_half_open() {
        let said = |range: HalfOpen| {
            let text = |b: Bytes| b.escape_ascii().to_string();
            (range.0.map_or("-".to_owned(), text), range.1.map_or("-".to_owned(), text))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(said(("a".."b").half_open()), pair("a", "b"));
        assert_eq!(said(("a"..="b").half_open()), pair("a", "b\\x00"));
        assert_eq!(said(("a"..).half_open()), pair("a", "-"));
        assert_eq!(said((.."b").half_open()), pair("-", "b"));
        assert_eq!(said((..="b").half_open()), pair("-", "b\\x00"));
        assert_eq!(said((..).half_open()), pair("-", "-"));
        let bounds = (Bound::Excluded("a"), Bound::Included("b"));
        assert_eq!(said(bounds.half_open()), pair("a\\x00", "b\\x00"));
    }
}
