//! Glob: Redis's patterns: `*`, `?`, `[a-z]`, `[^x]` and `\` before a character meant as such.
//!
//! Takes time in proportion to pattern times text, whatever the pattern: after a failed try behind a
//! `*` only the last `*` is tried again, which suffices.

/// Whether the whole of `text` fits `pattern`; `fold` ignores the case of ASCII letters.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], fold: bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(c)) => one(&pattern[p..], *c, fold),
            (None, Some(_)) | (Some(_), None) => None,
        };
        if let Some(taken) = step {
            p += taken;
            t += 1;
            continue;
        }
        // Let the last star swallow one more.
        match retry {
            Some((after, from)) if from < text.len() => {
                retry = Some((after, from + 1));
                (p, t) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// If `c` fits the first element of `pattern`: how long that element is.
fn one(pattern: &[u8], c: u8, fold: bool) -> Option<usize> {
    let same = |a: u8, b: u8| if fold { a.eq_ignore_ascii_case(&b) } else { a == b };
    match pattern {
        [b'?', ..] => Some(1),
        [b'\\', wanted, ..] => same(*wanted, c).then_some(2),
        [b'[', ..] => {
            let (fits, length) = class(pattern, c, fold);
            fits.then_some(length)
        }
        [wanted, ..] => same(*wanted, c).then_some(1),
        [] => None,
    }
}

/// Whether `c` fits the class that `pattern` begins with, and how long the class is. A class that
/// does not end goes to the end of the pattern.
fn class(pattern: &[u8], c: u8, fold: bool) -> (bool, usize) {
    let lower = |b: u8| if fold { b.to_ascii_lowercase() } else { b };
    let c = lower(c);
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut fits = false;
    loop {
        match &pattern[at.min(pattern.len())..] {
            [] => return (fits != negated, pattern.len()),
            [b']', ..] => return (fits != negated, at + 1),
            [b'\\', wanted, ..] => {
                fits |= lower(*wanted) == c;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (lower(*from), lower(*to));
                fits |= (from.min(to)..=from.max(to)).contains(&c);
                at += 3;
            }
            [wanted, ..] => {
                fits |= lower(*wanted) == c;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_on_redis() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[\\]]", "]", true),
            ("[a", "a", true),
            ("user:*:name", "user:42:name", true),
            ("user:*:name", "user:42:names", false),
            ("*a*b", "xaybzb", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes(), false),
                wanted,
                "{pattern} {text}"
            );
        }
        assert!(matches(b"MaxMemory*", b"maxmemory-policy", true));
        assert!(!matches(b"MaxMemory*", b"maxmemory-policy", false));
    }

    #[test]
    fn a_spiteful_pattern_takes_no_longer_than_its_square() {
        let text = vec![b'a'; 20_000];
        let pattern = b"a*a*a*a*a*a*a*a*a*a*b".to_vec();
        assert!(!matches(&pattern, &text, false));
    }
}
