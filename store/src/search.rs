//! Search: deltas that the retained log still holds, for replicas that missed them.

use std::ops::ControlFlow;

use replication::{Dot, delta, fold};
use ring::Slot;
use storage::{Engine, Error, Op};

/// Calls `f` with the slot, the dot and the bytes of every delta in the retained log, oldest first.
///
/// # Errors
/// What the engine says: the log cannot be read to its end.
pub fn each_delta(engine: &Engine, f: &mut dyn FnMut(Slot, Dot, &[u8])) -> Result<(), Error> {
    engine.read_log(None, &mut |_, batch| {
        for op in batch.ops() {
            let Op::Merge { operand, .. } = op else { continue };
            let Some(raw) = fold::delta_of(operand) else { continue };
            if let Some((slot, dot)) = delta::name_of(raw) {
                f(slot, dot, raw);
            }
        }
        ControlFlow::Continue(())
    })
}
