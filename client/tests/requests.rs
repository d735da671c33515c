//! What is asked arrives as it was meant, and what is answered comes back to whoever asked.

use std::collections::BTreeMap;
use std::future::{IntoFuture, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certs::Role;
use ring::Hlc;
use ringdb_client::{Client, ClientError, Context, Durability, Level, Owner, Slot, Tls};
use wire::{ClientReply, ClientRequest, ClusterStatus};

use crate::fake::*;

pub(crate) async fn client_of(ca: &certs::CaPair, nodes: &[&FakeNode]) -> Client {
    let tls = Tls::from_pair(&visitor(ca, Role::Client)).unwrap();
    Client::connect(nodes.iter().map(|node| node.address()), tls).await.unwrap()
}

#[tokio::test]
async fn what_was_put_is_read_and_what_was_deleted_is_gone() {
    let ca = authority();
    let store: Mutex<BTreeMap<Vec<u8>, Bytes>> = Mutex::default();
    let n1 = FakeNode::start(&node(&ca, 1), 1, move |_, request| {
        let mut store = store.lock().unwrap();
        let context = Bytes::from_static(b"seen");
        Answer::Say(match request {
            ClientRequest::Get { key, .. } => ClientReply::Value {
                values: store.get(*key).cloned().into_iter().collect(),
                context,
            },
            ClientRequest::Put { key, value, .. } => {
                store.insert(key.to_vec(), Bytes::copy_from_slice(value));
                ClientReply::Done { context }
            }
            ClientRequest::Delete { key, context: seen, .. } => {
                assert_eq!(*seen, Some(&b"seen"[..]));
                store.remove(*key);
                ClientReply::Done { context }
            }
            other => panic!("{other:?}"),
        })
    });
    let ring = client_of(&ca, &[&n1]).await;
    let seen = ring.put("k", "v").await.unwrap();
    let read = ring.get("k").await.unwrap();
    assert_eq!((read.values(), read.context()), (&[Bytes::from("v")][..], seen.clone()));
    ring.delete("k").context(Context::from_bytes(seen.as_bytes().to_vec())).await.unwrap();
    assert!(ring.get("k").await.unwrap().into_values().is_empty());
    // Far more than a window, and of bytes that do not compress to nothing.
    let large: Vec<u8> =
        (0..5_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    ring.put("large", large.clone()).await.unwrap();
    assert_eq!(ring.get("large").await.unwrap().values(), [Bytes::from(large)]);
    ring.close().await;
}

#[tokio::test]
async fn levels_deadlines_and_clocks_travel_with_the_request() {
    let ca = authority();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let n1 = FakeNode::start(&node(&ca, 1), 1, {
        let heard = heard.clone();
        move |header, request| {
            let text = format!("{request:?}");
            heard.lock().unwrap().push((text, header.time_left(), header.hlc));
            Answer::Say(match request {
                ClientRequest::Get { .. } => {
                    ClientReply::Value { values: vec![], context: Bytes::new() }
                }
                _ => ClientReply::Done { context: Bytes::new() },
            })
        }
    });
    let ring = client_of(&ca, &[&n1]).await;
    let second = Duration::from_secs(1);
    ring.get("a").consistency(Level::Quorum).timeout(2 * second).await.unwrap();
    ring.put("b", "c")
        .consistency(Level::Count(2))
        .durability(Durability::Sync)
        .ttl(second)
        .context(Context::from_bytes(&b"x"[..]))
        .await
        .unwrap();
    ring.delete("d").consistency(Level::All).await.unwrap();
    ring.counter("e").value().consistency(Level::One).timeout(second).await.unwrap();
    let heard = heard.lock().unwrap();
    // A client's own number is chosen by chance.
    let without_client = |text: &str| match text.split_once("client: ") {
        Some((head, tail)) => format!("{head}{}", tail.split_once(", ").unwrap().1),
        None => text.to_owned(),
    };
    let texts: Vec<_> = heard.iter().map(|(text, ..)| without_client(text)).collect();
    assert_eq!(
        texts,
        [
            "Get { key: [97], level: Some(Quorum), after: [] }",
            "Put { key: [98], value: [99], context: Some([120]), level: Some(Count(2)), \
             durability: Some(Sync), ttl_ms: Some(1000), after: [], name: Some(Name { n: 1, age_ms: 0, \
             first_asked: 901, direct: false }) }",
            "Delete { key: [100], context: None, level: Some(All), durability: None, after: [], \
             name: Some(Name { n: 2, age_ms: 0, first_asked: 901, direct: false }) }",
            "Get { key: [101], level: Some(One), after: [] }",
        ]
    );
    // The node hears of a little less than the caller waits, and of the default if he says nothing.
    let left: Vec<_> = heard.iter().map(|(_, left, _)| left.unwrap()).collect();
    assert!(left[0] > second && left[0] <= Duration::from_millis(1_900), "{left:?}");
    assert!(left[1] > 4 * second && left[1] <= Duration::from_millis(4_900), "{left:?}");
    // What it said of its clock is said back to it.
    assert_eq!(heard.iter().map(|(.., hlc)| *hlc).collect::<Vec<_>>(), [Hlc(0), HLC, HLC, HLC]);
    assert!(left[3] <= Duration::from_millis(800), "{left:?}");
}

#[tokio::test]
async fn status_owners_and_ping_are_answered() {
    let ca = authority();
    let owner = Owner { id: 2, name: "n2".into(), up: true, ..owner_blank() };
    let n7 = FakeNode::start(&node(&ca, 7), 7, {
        let owner = owner.clone();
        move |_, request| {
            Answer::Say(match request {
                ClientRequest::Status => ClientReply::Status(ClusterStatus {
                    name: "demo".into(),
                    ..ClusterStatus::default()
                }),
                ClientRequest::Owners { key: b"foo" } => {
                    ClientReply::Owners { slot: 12_182, nodes: vec![owner.clone()] }
                }
                ClientRequest::Ping => ClientReply::Pong,
                other => panic!("{other:?}"),
            })
        }
    });
    let ring = client_of(&ca, &[&n7]).await;
    assert_eq!(ring.status().await.unwrap().name, "demo");
    let owners = ring.owners("foo").await.unwrap();
    assert_eq!((owners.slot, owners.nodes), (Slot::of_key(b"foo"), vec![owner]));
    ring.ping().await.unwrap();
    let contact = ring.contact().await;
    assert_eq!((contact.node.0, contact.address), (7, n7.address()));
}

fn owner_blank() -> Owner {
    Owner { id: 0, name: String::new(), address: String::new(), zone: String::new(), up: false }
}

#[tokio::test]
async fn answers_find_their_requests_whatever_their_order() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, request| {
        let ClientRequest::Get { key, .. } = request else { panic!("{request:?}") };
        let values = vec![Bytes::copy_from_slice(key)];
        let reply = ClientReply::Value { values, context: Bytes::new() };
        if key == b"last" { Answer::SayLast(reply) } else { Answer::Keep(reply) }
    });
    let ring = client_of(&ca, &[&n1]).await;
    let asked: Vec<_> =
        (0..200).map(|i| (i, tokio::spawn(ring.get(format!("k{i}")).into_future()))).collect();
    // All of them wait before the one that releases them is asked.
    while ring.pending().await < 200 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert_eq!(ring.get("last").await.unwrap().values(), [Bytes::from("last")]);
    for (i, asked) in asked {
        assert_eq!(asked.await.unwrap().unwrap().values(), [Bytes::from(format!("k{i}"))]);
    }
    assert_eq!(ring.pending().await, 0);
}

#[tokio::test]
async fn a_dropped_future_leaves_nothing_behind_and_its_late_answer_is_ignored() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, request| match request {
        ClientRequest::Get { .. } => {
            Answer::Keep(ClientReply::Value { values: vec![], context: Bytes::new() })
        }
        ClientRequest::Ping => Answer::SayLast(ClientReply::Pong),
        other => panic!("{other:?}"),
    });
    let ring = client_of(&ca, &[&n1]).await;
    let asked = tokio::spawn(ring.get("slow").into_future());
    while ring.pending().await == 0 {
        tokio::task::yield_now().await;
    }
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    assert_eq!(ring.pending().await, 0);
    // The late answer and the pong come in one piece; only the pong finds somebody.
    ring.ping().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_looked_at_after_the_deadline_is_none() {
    let ca = authority();
    let n1 = FakeNode::start(&node(&ca, 1), 1, |_, request| match request {
        ClientRequest::Get { .. } => {
            Answer::Say(ClientReply::Value { values: vec![], context: Bytes::new() })
        }
        other => panic!("{other:?}"),
    });
    let ring = client_of(&ca, &[&n1]).await;
    let (after, began) = (Duration::from_millis(200), Instant::now());
    let mut asked = ring.get("k").timeout(after).into_future();
    // Its task looks once, and then is kept from it until the answer is there and the time is over.
    let once = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending()));
    assert!(once.await, "the node cannot have answered yet");
    while ring.pending().await > 0 || began.elapsed() <= 2 * after {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap_err(), ClientError::TimedOut { after });
}

#[tokio::test]
async fn what_is_given_up_before_it_leaves_is_no_late_answer() {
    let ca = authority();
    let (blocked, mut blocks) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = std::sync::mpsc::channel();
    let released = Mutex::new(released);
    let n1 = FakeNode::start(&node(&ca, 1), 1, move |_, request| match request {
        // The whole node stands still, and takes nothing in.
        ClientRequest::Get { .. } => {
            blocked.send(()).unwrap();
            let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(10));
            Answer::Silence
        }
        ClientRequest::Put { .. } => Answer::Silence,
        ClientRequest::Ping => Answer::Say(ClientReply::Pong),
        other => panic!("{other:?}"),
    });
    let ring = client_of(&ca, &[&n1]).await;
    let after = Duration::from_millis(300);
    let get = tokio::spawn(ring.get("k").timeout(after).into_future());
    blocks.recv().await.unwrap();
    // More than may be under way, which nothing makes smaller, and one that waits behind it.
    let large: Vec<u8> =
        (0..8_u64 << 20).map(|i| ((i * i).wrapping_mul(0x9e37_79b1) >> 28) as u8).collect();
    let large = tokio::spawn(ring.put("large", large).timeout(after).into_future());
    while ring.pending().await < 2 {
        tokio::task::yield_now().await;
    }
    let small = ring.put("small", "v").timeout(2 * after).await.unwrap_err();
    assert_eq!(small, ClientError::TimedOut { after: 2 * after });
    assert!(get.await.unwrap().is_err() && large.await.unwrap().is_err());
    release.send(()).unwrap();
    ring.ping().await.unwrap();
    assert_eq!(ring.tally().unwanted, 0);
    ring.close().await;
}

#[tokio::test]
async fn who_is_asked_second_is_told_the_deadline_of_the_first() {
    let ca = authority();
    let (second, half) = (Duration::from_secs(1), Duration::from_millis(500));
    let n1 = FakeNode::start(&node(&ca, 1), 1, move |_, _| {
        let began = Instant::now();
        while began.elapsed() < half {
            std::thread::yield_now();
        }
        Answer::HangUp(wire::hello::close::CLOSING, "the node ends")
    });
    let left = Arc::new(Mutex::new(None));
    let n2 = FakeNode::start(&node(&ca, 2), 2, {
        let left = left.clone();
        move |header, _| {
            *left.lock().unwrap() = header.time_left();
            Answer::Say(ClientReply::Value { values: vec![], context: Bytes::new() })
        }
    });
    let ring = client_of(&ca, &[&n1, &n2]).await;
    ring.get("k").timeout(second).await.unwrap();
    let left = left.lock().unwrap().unwrap();
    // A fifth of the whole time is kept back for the answer, and not a fifth of the rest.
    assert!(left <= half - second / 5, "{left:?}");
}
