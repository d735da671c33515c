//! Sessions: writes of one connection follow each other.

use super::truth::Truth;

/// Request `op` set a key that `first` had set before through the same process: where both were minted
/// by one node, the second replaced the first. One that was minted elsewhere may not know of it.
pub fn replaces(truth: &mut Truth, row: &[u8], first: u64, op: u64) {
    let of = |truth: &Truth, op| -> Vec<usize> {
        truth.of_op(op).into_iter().filter(|i| truth.get(*i).row == row).collect()
    };
    let of_second: Vec<_> = of(truth, op).iter().map(|i| truth.get(*i).dot.actor).collect();
    let mut of_first = of(truth, first);
    of_first.retain(|i| of_second.contains(&truth.get(*i).dot.actor));
    let replaced = of_first.iter().any(|i| !truth.get(*i).replaced_by.is_empty());
    if !of_first.is_empty() && !replaced {
        let text = format!("request {op} did not replace request {first}");
        truth.breaks("a session's writes replace its earlier ones", text);
    }
}
