//! Share: what one replica says to a client that reads a quorum by itself.
//!
//! The client asks R replicas of a key at once, one of them for the whole and the others for the digest
//! of what they hold. If all hold the same, that is what a coordinator would have answered, two messages
//! earlier: as many replicas hold it as a later quorum cannot avoid. If not, the client asks for an
//! ordinary read, which joins and repairs.
//!
//! Promises: no share is given for a level that shares cannot make up, by a replica that is not ready or
//! is none of the key's, to an asker whose layout is older than the last change of the slot, or by one that lacks what
//! the asker has seen; and what is shown with the whole was seen no later than its record was read.
//!
//! Source: client-driven coordination, in G. DeCandia et al., "Dynamo: Amazon's Highly Available
//! Key-value Store", SOSP 2007, section 6.4.

use ring::{Instant, Now};
use smallvec::smallvec;

use crate::bugs::Bug;
use crate::causality::DotSet;
use crate::coordinator::{Body, Flow, Job, Origin, decode_after, no_token};
use crate::decide;
use crate::event::{Effect, Outbox};
use crate::op::{Answer, Share, TaskError};
use crate::peer::Peer;
use crate::record::{Record, Summary, live_dots_into};
use crate::row;
use crate::slab::Token;

/// A share that waits for our disk.
#[derive(Debug)]
pub(crate) struct ShareJob {
    share: Box<Share>,
    /// Our clock as it was before the record was asked for.
    clock: DotSet,
}

impl Peer {
    /// Begins a share, or refuses it.
    pub(crate) fn start_share(
        &mut self,
        now: Now,
        origin: Origin,
        share: Box<Share>,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let after = match self.share_refusal(&share) {
            Ok(after) => after,
            Err(error) => return self.answer(origin, Answer::Failed(error), out),
        };
        if !self.has_seen(share.slot, after.as_ref()) {
            let error = TaskError::Behind { missing: Vec::new() };
            return self.answer(origin, Answer::Failed(error), out);
        }
        let rows = smallvec![share.row.clone()];
        let clock = if share.whole { self.slots.clock(share.slot).clone() } else { DotSet::new() };
        let body = Body::Share(Box::new(ShareJob { share, clock }));
        let job = Job { origin, started: now.mono, deadline, last_sent: now.mono, body };
        let key = self.jobs.insert(job);
        out.push(Effect::Load { token: Token::Job(key).to_u64(), rows });
    }

    /// What the asker has seen; or why it must not have a share.
    fn share_refusal(&self, share: &Share) -> Result<Option<DotSet>, TaskError> {
        let invalid = |text: &str| Err(TaskError::Invalid(text.to_owned()));
        if row::slot_of(&share.row) != Some(share.slot) || !self.slots.owns(share.slot) {
            return invalid("a share of a key of another slot");
        }
        if !share.op.is_read() {
            return invalid("a share of what is no read");
        }
        let replicas = self.replicas(share.slot, share.keyspace);
        let level = share.level.unwrap_or(self.policy(share.keyspace).read);
        let needs = self.wanted(level, &replicas)?.needs;
        // More than half: no other quorum can avoid all of them. `of` is what somebody says: not to be counted with.
        let meets = usize::from(needs.total) * 2 > replicas.len();
        if share.of != needs.total || !needs.per_region.is_empty() || !meets {
            return invalid(
                "shares do not make up that level: so many of them are not what it needs",
            );
        }
        let stale = share.epoch < self.last_change(share.slot);
        if stale && !self.has_bug(Bug::AcceptsStaleEpoch) || !replicas.contains(&self.me()) {
            return Err(TaskError::NotReady);
        }
        decode_after(share.after.as_ref()).ok_or_else(no_token)
    }

    /// Our own record came.
    pub(crate) fn share_loaded(
        &mut self,
        now: Now,
        job: &mut Job,
        records: &[bytes::Bytes],
        out: &mut Outbox,
    ) -> Flow {
        let Body::Share(s) = &mut job.body else { return Flow::Waits };
        let bytes = records.first().cloned().unwrap_or_default();
        let Some(summary) = Summary::of(&bytes) else { return self.damaged(job, out) };
        if summary.has_pending {
            self.strip(&s.share.row, &bytes, out);
        }
        let outcome = if s.share.whole {
            let Some(record) = Record::decode(&bytes) else { return self.damaged(job, out) };
            let mut seen = core::mem::take(&mut s.clock);
            live_dots_into(&bytes, &mut seen);
            let wall = self.judged_now(now);
            Some(decide::decide(&s.share.op, &record, &seen, wall, None).0)
        } else {
            None
        };
        self.answer(job.origin, Answer::Share { digest: summary.digest, outcome }, out);
        Flow::Over
    }

    /// Our own disk cannot read the record: whoever asks goes elsewhere.
    pub(crate) fn share_load_failed(&mut self, job: &Job, out: &mut Outbox) -> Flow {
        self.stats.failed_loads += 1;
        self.damaged(job, out)
    }

    /// Time passed without a word of our own disk.
    pub(crate) fn look_over_share(&mut self, now: Now, job: &Job, out: &mut Outbox) -> Flow {
        if now.mono < job.deadline {
            return Flow::Waits;
        }
        let error = TaskError::Overloaded { retry_after_ms: 20 };
        self.answer(job.origin, Answer::Failed(error), out);
        Flow::Over
    }
}
