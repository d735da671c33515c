//! Frames flow: in order, in large and small, and never more than the limits allow.

use std::time::Duration;

use ringdb_node::mesh::limits::{FRAME_BYTES_MAX, MTU_MAX};
use ringdb_node::mesh::{HELLO_BYTES, Hello, Lane, Purpose, SendError, Tuning};
use rustls::crypto::CryptoProvider;

use crate::story::*;

#[test]
fn a_hundred_thousand_frames_arrive_in_order_on_both_lanes() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        for number in 0..100_000_u32 {
            let frame = |buf: &mut Vec<u8>| {
                buf.push(b'#');
                buf.extend(number.to_le_bytes());
                buf.resize(buf.len() + number as usize % 97, number as u8);
            };
            n1.mesh.send(N2, Lane::Fast, frame).unwrap();
            if number % 10 == 0 {
                n1.mesh.send(N2, Lane::Bulk, frame).unwrap();
            }
            if number % 1_000 == 0 {
                n1.mesh.flush();
                tokio::task::yield_now().await;
            }
        }
        n1.mesh.flush();
        until("all arrived", || n2.memory.frames.borrow().len() == 110_000).await;
        let frames = n2.memory.frames.borrow();
        for (lane, step) in [(Lane::Fast, 1), (Lane::Bulk, 10)] {
            let numbers = frames.iter().filter(|(_, l, _)| *l == lane).map(|(from, _, frame)| {
                let number = u32::from_le_bytes(frame[1..5].try_into().unwrap());
                assert_eq!((*from, frame.len()), (N1, 5 + number as usize % 97));
                number
            });
            assert!(numbers.eq((0..100_000).step_by(step)), "{lane:?}");
        }
        let (sent, got) = (n1.mesh.counters(), n2.mesh.counters());
        assert_eq!((sent.frames_sent, sent.sends_refused, sent.bytes_dropped), (110_000, 0, 0));
        assert!(got.reads < 20_000, "frames of a read come together, not {} times", got.reads);
    });
}

#[test]
fn replies_to_one_read_leave_together() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        let before = n2.mesh.counters();
        for number in 0..64_u8 {
            n1.mesh.send(N2, Lane::Fast, |buf| buf.extend([b'?', number])).unwrap();
        }
        n1.mesh.flush();
        until("all answered", || n1.memory.frames.borrow().len() == 64).await;
        let answers = n1.memory.frames.borrow();
        assert!(answers.iter().map(|(_, _, frame)| frame[0]).eq(0..64));
        let after = n2.mesh.counters();
        assert!(after.flushes - before.flushes <= 4, "{} flushes", after.flushes - before.flushes);
    });
}

#[test]
fn nothing_leaves_before_a_flush() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        n1.mesh.send(N2, Lane::Fast, |buf| buf.push(1)).unwrap();
        assert_eq!(n1.mesh.queued(N2, Lane::Fast), 5);
        n1.mesh.flush();
        assert_eq!(n1.mesh.queued(N2, Lane::Fast), 0);
        until("it arrived", || n2.memory.frames.borrow().len() == 1).await;
    });
}

/// Beyond 6,550 bytes a datagram, segmentation offload fails and the connection stalls in silence.
#[test]
fn large_frames_in_the_largest_datagrams_go_through() {
    tell(async {
        let ca = authority();
        // Whatever is asked for, the datagrams stay below the trap.
        let tuning = Tuning { mtu_max_loopback: u16::MAX, mtu_max: u16::MAX, ..Tuning::default() };
        let mut one = config(&ca, N1, anywhere(), vec![]);
        one.tuning = tuning;
        let (n1, n2) = introduced(one, config(&ca, N2, anywhere(), vec![]));
        until("connected", || n1.sees(N2)).await;
        let mut frames = 0;
        let mut send = |bytes: usize| {
            let sent = n1.mesh.send(N2, Lane::Bulk, |buf| buf.resize(buf.len() + bytes, 7));
            n1.mesh.flush();
            frames += usize::from(sent.is_ok());
            sent
        };
        for _ in 0..64 {
            while let Err(error) = send(1 << 20) {
                assert!(matches!(error, SendError::Full { .. }), "{error}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        while send(FRAME_BYTES_MAX).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        until("all arrived", || n2.memory.frames.borrow().len() == 65).await;
        let total: usize = n2.memory.frames.borrow().iter().map(|(_, _, f)| f.len()).sum();
        assert_eq!((total, frames), ((64 << 20) + FRAME_BYTES_MAX, 65));
        let mtu = n1.mesh.path(N2).unwrap().mtu;
        assert!(mtu > 1_452 && mtu <= MTU_MAX, "discovery found {mtu}");
    });
}

#[test]
fn a_frame_beyond_the_limit_is_refused_and_harms_no_other() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        n1.mesh.send(N2, Lane::Fast, |buf| buf.push(1)).unwrap();
        let bytes = FRAME_BYTES_MAX + 1;
        let refused = n1.mesh.send(N2, Lane::Fast, |buf| buf.resize(buf.len() + bytes, 0));
        assert_eq!(refused, Err(SendError::TooLarge { bytes }));
        n1.mesh.send(N2, Lane::Fast, |buf| buf.push(2)).unwrap();
        n1.mesh.flush();
        until("both arrived", || n2.memory.frames.borrow().len() == 2).await;
        let frames = n2.memory.frames.borrow();
        assert!(frames.iter().map(|(_, _, frame)| frame.as_slice()).eq([&[1_u8][..], &[2]]));
        let unknown = ring::NodeId(9);
        let refused = n1.mesh.send(unknown, Lane::Fast, |buf| buf.push(1));
        assert_eq!(refused, Err(SendError::UnknownPeer { to: unknown }));
    });
}

#[test]
fn a_peer_that_never_reads_costs_a_bounded_buffer() {
    tell(async {
        let ca = authority();
        let deaf = raw_endpoint(&node(&ca, N2));
        let mut one = config(&ca, N1, anywhere(), vec![peer(N2, deaf.local_addr().unwrap())]);
        let limit = 1 << 20;
        one.tuning.queue_bytes_max = limit;
        let n1 = Node::start(one);
        let connection = deaf.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let mut heard = [0; HELLO_BYTES];
        recv.read_exact(&mut heard).await.unwrap();
        assert_eq!(Hello::decode(&heard).unwrap().node, N1);
        send.write_all(&hello(Purpose::Fast, N2).encode()).await.unwrap();
        until("connected", || n1.sees(N2)).await;
        let mut taken = 0;
        let refused = loop {
            match n1.mesh.send(N2, Lane::Fast, |buf| buf.resize(buf.len() + 1_000, 0)) {
                Ok(()) => taken += 1_004,
                Err(refused) => {
                    // Once neither the peer nor the network takes more, that stays so.
                    let before = n1.mesh.path(N2).unwrap().sent;
                    n1.mesh.flush();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let quiet = n1.mesh.path(N2).unwrap().sent <= before + 2;
                    if quiet && n1.mesh.queued(N2, Lane::Fast) + 1_004 > limit {
                        break refused;
                    }
                }
            }
            assert!(taken < 64 << 20, "the buffers have no bound");
        };
        let queued = n1.mesh.queued(N2, Lane::Fast);
        assert_eq!(refused, SendError::Full { queued });
        assert!(queued <= limit && n1.sees(N2), "slow is not dead");
        connection.close(0_u8.into(), b"enough");
        until("told", || n1.memory.has(|e| matches!(e, Event::Closed(N2, _)))).await;
        assert!(n1.mesh.counters().bytes_dropped as usize >= queued);
        assert_eq!(n1.mesh.send(N2, Lane::Fast, |_| ()), Err(SendError::NotConnected));
    });
}

#[test]
fn exactly_one_provider_of_cryptography_is_at_work() {
    tell(async {
        let (n1, n2) = pair(&authority()).await;
        assert!(n1.sees(N2) && n2.sees(N1));
        // Had any part asked for "the" provider, it would have been installed by now, or panicked.
        assert!(CryptoProvider::get_default().is_none());
    });
}
