//! Shares: what replicas say to a client that gathers a read by itself, and when they refuse to.

use bytes::Bytes;
use ring::keyspace::Level;
use ring::{Agreement, NodeId, Slot, Verdict};
use ringdb_replication::{Answer, Digest, Message, Op, Outcome, Request, Share, TaskError, row};

use crate::cluster::{Cluster, set};

fn share(c: &Cluster, key: &str, whole: bool) -> Share {
    Share {
        slot: Slot::of_key(key.as_bytes()),
        keyspace: 0,
        row: row::of_key(0, key.as_bytes()),
        op: Op::Siblings,
        level: None,
        of: 2,
        epoch: c.layout().epoch.0,
        whole,
        after: None,
    }
}

fn told(c: &mut Cluster, at: NodeId, share: Share) -> Result<(Digest, Option<Outcome>), TaskError> {
    match c.ask(at, Request::Share(Box::new(share))) {
        Answer::Share { digest, outcome } => Ok((digest, outcome)),
        Answer::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// What a client makes of the shares of two replicas.
fn gathered(c: &mut Cluster, key: &str, from: [NodeId; 2]) -> Verdict<Outcome> {
    let mut agreement = Agreement::of(2);
    let asked = [share(c, key, true), share(c, key, false)];
    let mut verdict = Verdict::Open;
    for (node, share) in from.into_iter().zip(asked) {
        let (digest, outcome) = told(c, node, share).expect("a replica that serves");
        verdict = agreement.said(digest, outcome);
    }
    verdict
}

#[test]
fn shares_of_replicas_that_hold_the_same_make_up_what_a_coordinator_answers() {
    let mut c = Cluster::new(5);
    let &[a, b, d] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    for from in [[a, b], [b, d], [d, a]] {
        let Verdict::Agreed(Outcome::Siblings { values, .. }) = gathered(&mut c, "k", from) else {
            panic!("they hold nothing, all of them")
        };
        assert!(values.is_empty());
    }
    c.set(a, "k", "v").expect("a quorum");
    c.settle();
    let plain = c.op(d, "k", Op::Siblings).expect("a read");
    for from in [[a, b], [b, d], [d, a]] {
        let gathered = gathered(&mut c, "k", from);
        let Verdict::Agreed(outcome) = gathered else { panic!("{gathered:?}") };
        let (Outcome::Siblings { values, .. }, Outcome::Siblings { values: same, .. }) =
            (&outcome, &plain)
        else {
            panic!("{outcome:?}, {plain:?}")
        };
        assert_eq!(values, same);
        // Its context replaces what it came with, wherever that is written.
        let Outcome::Siblings { context, .. } = outcome else { unreachable!("seen above") };
        let value = Some(Bytes::from_static(b"v"));
        c.op(b, "k", Op::SetWithContext { value, context }).expect("a quorum");
        c.settle();
        let Outcome::Siblings { values, .. } = c.op(a, "k", Op::Siblings).expect("a read") else {
            panic!("siblings")
        };
        assert_eq!(values.len(), 1, "nothing stays beside it");
    }
}

#[test]
fn whoever_lags_differs_and_does_not_answer_for_others() {
    let mut c = Cluster::new(3);
    let &[a, b, d] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    c.lose = Box::new(move |_, to, m| to == d && matches!(m, Message::Replicate { .. }));
    c.set(a, "k", "v").expect("two of three");
    assert!(matches!(gathered(&mut c, "k", [a, b]), Verdict::Agreed(_)));
    assert_eq!(gathered(&mut c, "k", [a, d]), Verdict::Differs);
    assert_eq!(gathered(&mut c, "k", [d, b]), Verdict::Differs);
    // The read that is asked for then repairs, and they agree.
    c.get(d, "k");
    assert!(matches!(gathered(&mut c, "k", [d, b]), Verdict::Agreed(_)));
}

#[test]
fn no_share_is_given_for_what_shares_cannot_make_up() {
    let mut c = Cluster::new(5);
    let slot = Slot::of_key(b"k");
    let replicas = c.layout().replicas(slot).to_vec();
    let at = replicas[0];
    let good = share(&c, "k", true);
    assert!(told(&mut c, at, good.clone()).is_ok());
    let mut invalid = |share: Share| {
        let refused = told(&mut c, at, share);
        assert!(matches!(refused, Err(TaskError::Invalid(_))), "{refused:?}");
    };
    invalid(Share { of: 3, ..good.clone() });
    invalid(Share { of: 1, ..good.clone() });
    invalid(Share { of: u8::MAX, ..good.clone() });
    // One of three need not meet a later quorum.
    invalid(Share { of: 1, level: Some(Level::One), ..good.clone() });
    invalid(Share { op: set("v"), ..good.clone() });
    invalid(Share { slot: Slot((slot.0 + 1) % ring::SLOTS), ..good.clone() });
    invalid(Share { after: Some(Bytes::from_static(b"\xff\xff\xff")), ..good.clone() });
    let all = Share { of: 3, level: Some(Level::All), ..good.clone() };
    assert!(told(&mut c, at, all).is_ok());
    let other = c.layout().members.keys().copied().find(|n| !replicas.contains(n)).expect("five");
    assert_eq!(told(&mut c, other, good), Err(TaskError::NotReady));
}

#[test]
fn who_has_seen_more_than_a_replica_gets_no_share_of_it() {
    let mut c = Cluster::new(3);
    let &[a, b, d] = c.layout().replicas(Slot::of_key(b"k")) else { panic!("three") };
    c.lose = Box::new(move |_, to, m| to == d && matches!(m, Message::Replicate { .. }));
    c.set(a, "k", "v").expect("two of three");
    let (_, outcome) = {
        let s = share(&c, "k", true);
        told(&mut c, b, s)
    }
    .expect("a replica");
    let Some(Outcome::Siblings { context, .. }) = outcome else { panic!("{outcome:?}") };
    let after = |c: &Cluster| Share { after: Some(context.clone()), ..share(c, "k", true) };
    let asked = after(&c);
    assert!(told(&mut c, a, asked).is_ok());
    let asked = after(&c);
    assert_eq!(told(&mut c, d, asked), Err(TaskError::Behind { missing: vec![] }));
}
