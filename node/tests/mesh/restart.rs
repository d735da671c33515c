//! Peers that die, return and move.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use certs::CaPair;
use ringdb_node::mesh::{Ending, Lane, Refusal, SendError};
use tokio::runtime::LocalRuntime;
use tokio::sync::oneshot;

use crate::story::*;

/// A node n2 in a thread of its own, which can be killed: its runtime is dropped, and nothing is
/// said to anybody.
struct Doomed {
    kill: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Doomed {
    fn start(ca: &CaPair, at: SocketAddr, other: SocketAddr) -> Self {
        let config = config(ca, N2, at, vec![peer(N1, other)]);
        let (kill, killed) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = LocalRuntime::new().unwrap();
            runtime.block_on(async {
                let _node = Node::start(config);
                ready.send(()).unwrap();
                let _ = killed.await;
            });
        });
        started.recv().unwrap();
        Self { kill, thread }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_peer_that_was_killed_and_returns_is_connected_again_at_once() {
    tell(async {
        let ca = authority();
        let (a, b) = (free_address(), free_address());
        let n1 = Node::start(config(&ca, N1, a, vec![peer(N2, b)]));
        let mut n2 = Doomed::start(&ca, b, a);
        until("connected", || n1.sees(N2)).await;
        for round in 1..=3 {
            n2.kill();
            n2 = Doomed::start(&ca, b, a);
            let back = Instant::now();
            let connected = |e: &Event| matches!(e, Event::Connected(N2, 1));
            until("connected again", || n1.memory.count(connected) == round + 1).await;
            let took = back.elapsed();
            assert!(took < Duration::from_millis(1_500), "it took {took:?}");
            let closed = |e: &Event| matches!(e, Event::Closed(N2, _));
            assert_eq!(n1.memory.count(closed), round, "every end is reported");
            n1.memory.frames.borrow_mut().clear();
            n1.mesh.send(N2, Lane::Fast, |buf| buf.extend(b"?are you there")).unwrap();
            n1.mesh.flush();
            until("answered", || n1.memory.frames.borrow().len() == 1).await;
        }
        let because = n1.memory.has(|e| matches!(e, Event::Closed(N2, Ending::Restarted)));
        assert!(because, "{:?}", n1.memory.events.borrow());
        n2.kill();
    });
}

#[test]
fn a_second_process_under_a_name_is_refused_while_the_first_one_lives() {
    tell(async {
        let ca = authority();
        let (a, b) = (free_address(), free_address());
        let n1 = Node::start(config(&ca, N1, a, vec![peer(N2, b)]));
        let n2 = Doomed::start(&ca, b, a);
        until("connected", || n1.sees(N2)).await;
        let second = Node::start(config(&ca, N2, free_address(), vec![peer(N1, a)]));
        until("told why", || second.memory.count(|e| matches!(e, Event::Second(N1))) >= 2).await;
        assert!(!second.sees(N1) && n1.sees(N2));
        assert_eq!(n1.memory.count(|e| matches!(e, Event::Closed(..))), 0, "the first stays");
        assert!(n1.mesh.counters().refused_second >= 2);
        // Once the first one is dead, nobody can tell a second one from its next start.
        n2.kill();
        until("accepted", || second.sees(N1)).await;
        second.mesh.shutdown().await;
    });
}

#[test]
fn a_peer_that_was_killed_and_returns_at_another_address_is_accepted() {
    tell(async {
        let ca = authority();
        let (a, b) = (free_address(), free_address());
        let n1 = Node::start(config(&ca, N1, a, vec![peer(N2, b)]));
        let n2 = Doomed::start(&ca, b, a);
        until("connected", || n1.sees(N2)).await;
        n2.kill();
        let elsewhere = Node::start(config(&ca, N2, free_address(), vec![peer(N1, a)]));
        let back = Instant::now();
        until("accepted", || elsewhere.sees(N1)).await;
        let took = back.elapsed();
        assert!(took < Duration::from_millis(2_500), "it took {took:?}");
        assert!(!elsewhere.memory.has(|e| matches!(e, Event::Second(_))));
    });
}

#[test]
fn a_peer_that_dies_in_silence_is_found_out_by_the_idle_time_out() {
    tell(async {
        let ca = authority();
        let (a, b) = (free_address(), free_address());
        let n1 = Node::start(config(&ca, N1, a, vec![peer(N2, b)]));
        let n2 = Doomed::start(&ca, b, a);
        until("connected", || n1.sees(N2)).await;
        n2.kill();
        let died = Instant::now();
        until("found out", || !n1.sees(N2)).await;
        assert!(died.elapsed() < Duration::from_secs(4), "it took {:?}", died.elapsed());
        assert!(n1.memory.has(|e| matches!(e, Event::Closed(N2, Ending::Silent))));
        assert_eq!(n1.mesh.send(N2, Lane::Fast, |_| ()), Err(SendError::NotConnected));
    });
}

#[test]
fn a_peer_that_stops_says_so() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        n2.mesh.send(N1, Lane::Fast, |buf| buf.extend(b"last words")).unwrap();
        n2.mesh.flush();
        until("heard", || n1.memory.frames.borrow().len() == 1).await;
        n2.mesh.shutdown().await;
        until("told", || {
            n1.memory.has(|e| match e {
                Event::Closed(N2, Ending::Refused { refusal, .. }) => {
                    *refusal == Some(Refusal::Closing)
                }
                _ => false,
            })
        })
        .await;
        assert_eq!(n2.mesh.status(N1), None);
    });
}

#[test]
fn a_peer_that_moves_is_found_at_its_new_address() {
    tell(async {
        let ca = authority();
        let (a, old, new) = (free_address(), free_address(), free_address());
        // Nobody is at the old address, and n2 does not know where n1 is.
        let n1 = Node::start(config(&ca, N1, a, vec![peer(N2, old)]));
        let mut two = config(&ca, N2, new, vec![peer(N1, free_address())]);
        two.tuning.backoff_max = Duration::from_secs(1);
        let n2 = Node::start(two);
        n1.mesh.set_peer(peer(N2, new));
        until("connected", || n1.sees(N2)).await;
        n2.mesh.set_peer(peer(N1, a));
        until("both ways", || n2.sees(N1)).await;
        n1.mesh.remove_peer(N2);
        until("gone", || !n2.sees(N1)).await;
        assert_eq!(n1.mesh.status(N2), None);
    });
}
