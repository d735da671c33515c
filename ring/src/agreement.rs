//! Agreement: whether the replicas that somebody reads by himself hold the same.
//!
//! Of R replicas one tells the whole and the others tell a digest. Promise: a verdict is given once, after R
//! of them have spoken; it is for the whole only if all of them hold what the whole was read from. Which
//! replicas are asked, and that no two of the R are the same one, is up to the asker.

/// What became of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<V> {
    /// Not enough have spoken.
    Open,
    /// All hold this.
    Agreed(V),
    /// They differ: somebody has to join what they hold.
    Differs,
}

/// What has been said so far.
#[derive(Clone, Debug)]
pub struct Agreement<D, V> {
    needed: usize,
    digests: Vec<D>,
    whole: Option<V>,
    over: bool,
}

impl<D: Eq, V> Agreement<D, V> {
    /// So many replicas have to hold the same.
    #[must_use]
    pub const fn of(needed: usize) -> Self {
        Self { needed, digests: Vec::new(), whole: None, over: false }
    }

    /// Another replica holds something of this digest, and perhaps tells it.
    pub fn said(&mut self, digest: D, whole: Option<V>) -> Verdict<V> {
        if self.over {
            return Verdict::Open;
        }
        if self.digests.first().is_some_and(|first| *first != digest) {
            self.over = true;
            return Verdict::Differs;
        }
        self.digests.push(digest);
        // All are the same so far, and so are the wholes.
        self.whole = self.whole.take().or(whole);
        if self.digests.len() < self.needed {
            return Verdict::Open;
        }
        match self.whole.take() {
            Some(whole) => {
                self.over = true;
                Verdict::Agreed(whole)
            }
            None => Verdict::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_counts_once_enough_hold_it_in_whichever_order_they_speak() {
        for whole_at in 0..3 {
            let mut a = Agreement::of(3);
            for place in 0..3 {
                let whole = (place == whole_at).then_some("v");
                let expected = if place == 2 { Verdict::Agreed("v") } else { Verdict::Open };
                assert_eq!(a.said(7, whole), expected, "{place}, {whole_at}");
            }
            assert_eq!(a.said(8, None), Verdict::Open, "a verdict is given once");
        }
    }

    #[test]
    fn whoever_holds_something_else_ends_it() {
        let mut a = Agreement::of(2);
        assert_eq!(a.said(7, Some("v")), Verdict::Open);
        assert_eq!(a.said(8, Some("w")), Verdict::Differs);
        assert_eq!(a.said(7, None), Verdict::Open, "a verdict is given once");
    }

    #[test]
    fn digests_alone_are_no_answer() {
        let mut a = Agreement::of(2);
        assert_eq!(a.said(7, None), Verdict::Open);
        assert_eq!(a.said(7, None), Verdict::Open);
        assert_eq!(a.said(7, Some("v")), Verdict::Agreed("v"));
    }
}
