//! Named requests, through real nodes: what is asked for again is done once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::Settings;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::{connect, connect_to, runtime, until_routed};
use crate::support::demo::Demo;

/// Passes datagrams on between clients and a node. While it is deaf, the node's answers are lost; it hears again as
/// soon as somebody connects anew.
async fn cable_to(port: u16) -> (SocketAddr, Arc<AtomicBool>, JoinHandle<()>) {
    let (near, deaf) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicBool::new(false)));
    let (address, is_deaf) = (near.local_addr().unwrap(), deaf.clone());
    let cable = tokio::spawn(async move {
        let near = Arc::new(near);
        let mut far: Option<(SocketAddr, Arc<UdpSocket>)> = None;
        let mut out = [0; 4096];
        while let Ok((length, from)) = near.recv_from(&mut out).await {
            // A connection begins with Initial packets (RFC 9000, 17.2.2).
            if out[0] & 0xf0 == 0xc0 {
                is_deaf.store(false, Ordering::SeqCst);
            }
            if far.as_ref().is_none_or(|(client, _)| *client != from) {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                socket.connect(("127.0.0.1", port)).await.unwrap();
                let (near, back, is_deaf) = (near.clone(), socket.clone(), is_deaf.clone());
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    while let Ok(length) = back.recv(&mut bytes).await {
                        if !is_deaf.load(Ordering::SeqCst) {
                            near.send_to(&bytes[..length], from).await.unwrap();
                        }
                    }
                });
                far = Some((from, socket));
            }
            if let Some((_, far)) = &far {
                far.send(&out[..length]).await.unwrap();
            }
        }
    });
    (address, deaf, cable)
}

#[test]
fn an_addition_whose_answer_is_lost_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        for node in 1..=3_u16 {
            let (address, deaf, cable) = cable_to(demo.base + 100 + node).await;
            let far = connect_to(dir.path(), Some(address.to_string()), Settings::default()).await;
            let key = format!("hits{node}");
            deaf.store(true, Ordering::SeqCst);
            let add = far.counter(key.as_str()).add(5).timeout(Duration::from_secs(10));
            assert_eq!(add.await.unwrap(), 5, "through n{node}");
            assert!(!deaf.load(Ordering::SeqCst), "the client had to connect anew");
            assert!(far.tally().retried > 0, "{:?}", far.tally());
            assert_eq!(ring.counter(key.as_str()).value().await.unwrap(), 5);
            far.close().await;
            cable.abort();
        }
        ring.close().await;
    });
    demo.stop();
}

#[test]
fn what_a_program_sends_again_under_its_name_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(dir.path());
    runtime().block_on(async {
        let ring = connect(dir.path()).await;
        until_routed(&ring).await;
        let hits = ring.counter("hits");
        for i in 0..100_u64 {
            let name = ring.name();
            let add = || hits.add(1).named(&name).into_future();
            // Given up at some moment or other: before it left, under way, or when it was done.
            let _ = tokio::time::timeout(Duration::from_micros(i * 40), add()).await;
            loop {
                match add().await {
                    Ok(_) => break,
                    // The one that was given up was stopped in time.
                    Err(error) => assert!(error.had_no_effect(), "{error}"),
                }
            }
            add().await.unwrap();
        }
        assert_eq!(hits.value().await.unwrap(), 100);
        // Also when the node that did it dies, since the others hold it.
        let name = ring.name();
        let first = ring.owners("hits").await.unwrap().nodes[0].id;
        assert_eq!(hits.add(1).named(&name).await.unwrap(), 101);
        demo.kill(u16::try_from(first).unwrap());
        assert_eq!(hits.add(1).named(&name).await.unwrap(), 101);
        assert_eq!(hits.value().await.unwrap(), 101);
        ring.close().await;
    });
    demo.stop();
}
