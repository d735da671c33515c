//! The fence: a replica that has adopted a layout does nothing for a request of an older one on a
//! slot that changed between them.

use replication::{Effect, Message};
use ring::{Actor, Slot};

use super::truth::Truth;

/// A stale request was looked at, and these effects came of it.
pub fn check(truth: &mut Truth, me: Actor, slot: Slot, effects: &[Effect]) {
    let acts = |e: &&Effect| match e {
        Effect::Send { message, .. } => !matches!(message, Message::Refused { .. }),
        Effect::Apply { .. }
        | Effect::Acknowledge { .. }
        | Effect::Load { .. }
        | Effect::List { .. }
        | Effect::ReadSpan { .. } => true,
        _ => false,
    };
    // Housekeeping may fall into the same turn: only what is done without a refusal counts.
    let refused =
        effects.iter().any(|e| matches!(e, Effect::Send { message: Message::Refused { .. }, .. }));
    let told = effects.iter().find(|e| matches!(e, Effect::Acknowledge { .. }));
    let done = effects.iter().find(acts).filter(|_| !refused);
    if let Some(effect) = told.or(done) {
        let text = format!("{me} on {slot:?}: {effect:?}");
        truth.breaks("an older layout's requests are refused", text);
    }
}
