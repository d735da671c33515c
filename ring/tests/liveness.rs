//! The failure detector on quiet, busy and stalling machines.

use core::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringdb_ring::liveness::{Effect, Event, HEARTBEAT, Liveness, NodeState, Status};
use ringdb_ring::{Incarnation, Instant, NodeId};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);

const fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

/// Node 1 watching nodes 2 and 3.
struct Story {
    machine: Liveness,
    now: Instant,
    changes: Vec<(Instant, NodeId, Status)>,
    heartbeats: usize,
}

impl Story {
    fn new() -> Self {
        let mut machine = Liveness::new(at(0), ME);
        machine.set_members(at(0), [ME, PEER, OTHER].map(|n| (n, Incarnation(1))));
        Self { machine, now: at(0), changes: Vec::new(), heartbeats: 0 }
    }

    fn event(&mut self, event: Event) {
        let mut out = Vec::new();
        self.machine.on_event(self.now, event, &mut out);
        for effect in out {
            match effect {
                Effect::SendHeartbeat { .. } => self.heartbeats += 1,
                Effect::Changed { peer, to, .. } => self.changes.push((self.now, peer, to)),
            }
        }
    }

    /// Lets time pass, ticking exactly when the machine asks.
    fn until(&mut self, then: Instant) {
        while self.machine.next_deadline() <= then {
            self.now = self.now.max(self.machine.next_deadline());
            self.event(Event::Tick);
        }
        self.now = self.now.max(then);
    }

    fn hear(&mut self, from: NodeId) {
        self.hear_as(from, 1, NodeState::Ready);
    }

    fn hear_as(&mut self, from: NodeId, incarnation: u32, state: NodeState) {
        let incarnation = Incarnation(incarnation);
        self.event(Event::Heard { from, incarnation, state });
    }

    /// Both peers beat punctually from now to `end`.
    fn quiet_until(&mut self, end: Instant) {
        while self.now < end {
            self.hear(PEER);
            self.hear(OTHER);
            self.until((self.now + HEARTBEAT).min(end));
        }
    }

    fn downs(&self) -> Vec<(Instant, NodeId)> {
        let downs = self.changes.iter().filter(|(_, _, status)| !status.up);
        downs.map(|(when, node, _)| (*when, *node)).collect()
    }
}

#[test]
fn a_silent_peer_is_down_within_a_second_on_a_quiet_machine() {
    // At once, while we do not know it yet, and after minutes of punctuality.
    for (quiet_ms, most_ms) in [(1_000, 1_000), (300_000, 760)] {
        let mut story = Story::new();
        story.quiet_until(at(quiet_ms));
        story.hear(PEER);
        let last = story.now;
        for _ in 0..20 {
            story.hear(OTHER);
            story.until(story.now + HEARTBEAT);
        }
        let downs = story.downs();
        assert_eq!(downs.len(), 1, "{downs:?}");
        let (when, node) = downs[0];
        assert_eq!(node, PEER);
        let took = when.since(last);
        assert!(took <= Duration::from_millis(most_ms), "it took {took:?}");
        assert!(took >= Duration::from_millis(750), "it took only {took:?}");
        assert!(!story.machine.is_up(PEER) && story.machine.is_up(OTHER));
        assert_eq!(story.machine.since(PEER), Some(when));

        story.hear(PEER);
        assert!(story.machine.is_ready(PEER), "up with the first message");
    }
}

#[test]
fn a_peer_is_down_until_it_is_first_heard_and_strangers_are_ignored() {
    let mut story = Story::new();
    assert!(!story.machine.is_up(PEER) && story.machine.is_up(ME));
    story.hear_as(PEER, 1, NodeState::CatchingUp);
    assert!(story.machine.is_up(PEER) && !story.machine.is_ready(PEER));
    story.hear(NodeId(9));
    story.hear(ME);
    assert_eq!(story.changes.len(), 1, "{:?}", story.changes);
    assert!(!story.machine.is_ready(ME));
    story.machine.set_state(NodeState::Ready);
    assert!(story.machine.is_ready(ME));
}

#[test]
fn every_peer_gets_four_heartbeats_a_second_up_or_down() {
    let mut story = Story::new();
    story.until(at(9_999));
    assert_eq!(story.heartbeats, 2 * 40);
}

#[test]
fn a_jittery_peer_does_not_flap_but_is_still_found_dead() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut story = Story::new();
        let mut arrived = 0;
        for beat in 0..4 * 600 {
            let delay = match rng.random_range(0..100) {
                0..5 => rng.random_range(0..=600),
                _ => rng.random_range(0..30),
            };
            // One stream: no message overtakes another.
            arrived = (beat * 250 + delay).max(arrived);
            story.until(at(arrived));
            story.hear(PEER);
        }
        assert_eq!(story.downs(), [], "seed {seed}");
        let last = story.now;
        story.until(last + Duration::from_secs(5));
        let took = story.downs()[0].0.since(last);
        assert!(took <= Duration::from_millis(1_500), "seed {seed}: it took {took:?}");
    }
}

#[test]
fn our_own_stall_blames_nobody() {
    let mut story = Story::new();
    story.quiet_until(at(300_000));
    // We do not run for three seconds; our peers' messages wait in the socket meanwhile.
    story.now = story.now + Duration::from_secs(3);
    story.event(Event::Tick);
    assert_eq!(story.downs(), []);
    story.hear(PEER);
    // Up to one heartbeat of the stall, before we were due to run, looks like lateness of the peer.
    let allowed = story.machine.silence_allowed(PEER).expect("a peer");
    assert!(
        allowed <= Duration::from_secs(1),
        "it was us who were late, not the peer: {allowed:?}"
    );
    // The other one did die meanwhile: it has only the rest of its time.
    let woke = story.now;
    for _ in 0..8 {
        story.until(story.now + HEARTBEAT);
        story.hear(PEER);
    }
    let downs = story.downs();
    assert_eq!(downs.len(), 1, "{downs:?}");
    assert_eq!(downs[0].1, OTHER);
    assert!(downs[0].0.since(woke) <= Duration::from_millis(750), "{downs:?}");
}

#[test]
fn a_stall_is_forgiven_also_if_a_message_is_what_wakes_us() {
    let mut story = Story::new();
    story.quiet_until(at(300_000));
    story.now = story.now + Duration::from_secs(3);
    story.hear(PEER);
    story.hear(OTHER);
    assert_eq!(story.downs(), []);
}

#[test]
fn messages_from_others_do_not_stretch_the_time_of_a_dead_peer() {
    let mut story = Story::new();
    story.quiet_until(at(300_000));
    let start = story.now;
    // A busy loop that handles messages all the time and never gets to an explicit tick.
    for ms in 1..1_000 {
        story.now = start + Duration::from_millis(ms);
        story.hear(OTHER);
    }
    assert_eq!(story.downs().len(), 1);
}

#[test]
fn a_closed_connection_is_believed_after_a_short_grace() {
    let mut story = Story::new();
    story.quiet_until(at(300_000));
    story.hear(PEER);
    let closed = story.now;
    story.event(Event::Closed { from: PEER });
    story.event(Event::Closed { from: OTHER });
    assert!(story.machine.is_up(PEER), "not at once");
    story.until(closed + Duration::from_millis(400));
    story.hear(OTHER);
    story.event(Event::Closed { from: PEER });
    story.until(closed + Duration::from_millis(600));
    assert_eq!(story.downs(), [(closed + Duration::from_millis(500), PEER)]);
    assert!(story.machine.is_up(OTHER), "it was only a connection");
}

#[test]
fn a_restart_is_noticed_and_the_past_life_is_not_heard_any_more() {
    let mut story = Story::new();
    story.quiet_until(at(300_000));
    let before = story.machine.status(PEER).expect("a peer");
    let mut out = Vec::new();
    let [incarnation, state] = [2, 1].map(Incarnation).map(|incarnation| Event::Heard {
        from: PEER,
        incarnation,
        state: NodeState::Starting,
    });
    story.machine.on_event(story.now, incarnation, &mut out);
    let after = Status { up: true, incarnation: Incarnation(2), state: NodeState::Starting };
    assert_eq!(out, [Effect::Changed { peer: PEER, from: before, to: after }]);
    assert!(!story.machine.is_ready(PEER));
    out.clear();
    story.machine.on_event(story.now, state, &mut out);
    assert_eq!(out, [], "a late message of the life before");
}

#[test]
fn a_restart_and_a_long_absence_teach_no_lateness() {
    let mut story = Story::new();
    story.quiet_until(at(600_000));
    let quiet = story.machine.silence_allowed(PEER);
    story.until(story.now + Duration::from_secs(3));
    story.hear_as(PEER, 2, NodeState::Ready);
    assert_eq!(story.machine.silence_allowed(PEER), quiet, "a new life");
    story.until(story.now + Duration::from_secs(60));
    story.hear_as(PEER, 2, NodeState::Ready);
    assert_eq!(story.machine.silence_allowed(PEER), quiet, "a minute away is not jitter");
    story.until(story.now + Duration::from_secs(2));
    story.hear_as(PEER, 2, NodeState::Ready);
    assert!(story.machine.silence_allowed(PEER) > quiet, "two seconds are");
}

#[test]
fn a_member_that_leaves_is_forgotten_and_those_who_stay_keep_their_status() {
    let mut story = Story::new();
    story.quiet_until(at(10_000));
    let now = story.now;
    story.machine.set_members(now, [ME, PEER].map(|n| (n, Incarnation(1))));
    assert!(story.machine.is_ready(PEER));
    assert_eq!(story.machine.status(OTHER), None);
}
