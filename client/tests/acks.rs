//! Writes whose replicas tell the client: what counts, what does not, and what is done when a word may be lost.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::Role;
use ring::{Hlc, Layout, Slot};
use ringdb_client::{Client, Durability, Level, Settings, Tls};
use wire::{Ack, ClientReply, ClientRequest, Name};

use crate::fake::*;
use crate::routes::layout_of;

/// What the nodes were asked, and by whom the client was answered.
#[derive(Default)]
struct Heard {
    writes: Vec<(u32, Name)>,
    /// The clocks that were said with them.
    clocks: Vec<Hlc>,
    cancelled: usize,
    readers: Vec<u32>,
}

/// Three nodes: whoever is asked for a write that its replicas are to tell of says nothing.
struct Stage {
    ring: Client,
    heard: Arc<Mutex<Heard>>,
    nodes: Vec<FakeNode>,
    map: Layout,
}

const KEY: &str = "k";

fn told() -> Settings {
    Settings { direct_acks: true, ..Settings::default() }
}

fn done(context: &'static [u8]) -> ClientReply {
    ClientReply::Done { context: Bytes::from_static(context) }
}

async fn stage(settings: Settings) -> Stage {
    let ca = authority();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let map = Arc::new(Mutex::new(None));
    let start = |id: u32| {
        let (heard, map) = (heard.clone(), map.clone());
        FakeNode::start_mapped(&node(&ca, id), id, move |header, request| match request {
            ClientRequest::Layout => {
                let layout = map.lock().unwrap().clone().unwrap();
                Answer::Say(ClientReply::Layout { layout: Box::new(layout), down: vec![] })
            }
            ClientRequest::Put { name: Some(name), .. } => {
                let mut heard = heard.lock().unwrap();
                heard.writes.push((id, *name));
                heard.clocks.push(header.hlc);
                if name.direct { Answer::Silence } else { Answer::Say(done(b"coordinator")) }
            }
            ClientRequest::Get { .. } => {
                heard.lock().unwrap().readers.push(id);
                Answer::Say(ClientReply::Value { values: vec![], context: Bytes::new() })
            }
            ClientRequest::Cancel { .. } => {
                heard.lock().unwrap().cancelled += 1;
                Answer::Silence
            }
            other => panic!("{other:?}"),
        })
    };
    let nodes: Vec<_> = (1..=3).map(start).collect();
    let addresses: Vec<_> = nodes.iter().map(FakeNode::address).collect();
    *map.lock().unwrap() = Some(layout_of(&addresses));
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let settings = Settings { hedging: false, direct_reads: false, ..settings };
    let ring = Client::connect_with([addresses[0].clone()], tls, settings).await.unwrap();
    // Connections are made in the background: until all stand, reads go elsewhere.
    for key in 0.. {
        ring.get(format!("warm{key}")).await.unwrap();
        let readers = heard.lock().unwrap().readers.clone();
        if ring.tally().epoch.is_some() && (1..=3).all(|id| readers.contains(&id)) {
            break;
        }
        assert!(key < 100_000, "{:?}", ring.tally());
        tokio::task::yield_now().await;
    }
    Stage { ring, heard, nodes, map: layout_of(&addresses) }
}

impl Stage {
    /// Begins a write, and gives its future, its coordinator and its name.
    async fn begin(&self) -> (tokio::task::JoinHandle<Bytes>, u32, Name) {
        let ring = self.ring.clone();
        let write = tokio::spawn(async move {
            let put = ring.put(KEY, "v").timeout(Duration::from_secs(20));
            Bytes::copy_from_slice(put.await.unwrap().as_bytes())
        });
        while self.heard.lock().unwrap().writes.is_empty() {
            tokio::task::yield_now().await;
        }
        let (coordinator, name) = self.heard.lock().unwrap().writes[0];
        (write, coordinator, name)
    }

    /// The nodes that do not coordinate.
    fn others(&self, coordinator: u32) -> Vec<&FakeNode> {
        let all = self.nodes.iter().zip(1..);
        all.filter(|(_, id)| *id != coordinator).map(|(node, _)| node).collect()
    }
}

fn ack(name: Name, coordinator: u32, needed: u8) -> Ack {
    Ack { n: name.n, coordinator, write: 5, needed, reply: done(b"replica") }
}

#[tokio::test]
async fn a_write_is_done_when_as_many_replicas_say_so_as_it_takes() {
    let stage = stage(told()).await;
    let (write, coordinator, name) = stage.begin().await;
    assert!(name.direct);
    stage.others(coordinator)[0].hold(&[ack(name, coordinator, 1)]).await;
    assert_eq!(write.await.unwrap(), "replica");
    assert_eq!(stage.ring.tally().confirmed, 1);
    // What is asked next is later, at the third node too: it hears the clock of the one that told.
    let teller = (1..=3).find(|id| *id != coordinator).unwrap();
    let third = (1..=3).find(|id| *id != coordinator && *id != teller).unwrap();
    let preferred = |key: &String| stage.map.replicas(Slot::of_key(key.as_bytes()))[0].0;
    let key = (0..).map(|i| format!("n{i}")).find(|key| preferred(key) == third).unwrap();
    let put = stage.ring.put(key, "w").timeout(Duration::from_millis(400));
    assert_eq!(put.await.unwrap().as_bytes(), b"coordinator");
    let (asked, clocks) = {
        let heard = stage.heard.lock().unwrap();
        (heard.writes[1].0, heard.clocks.clone())
    };
    assert_eq!(asked, third);
    assert!(clocks[0] < LATER && clocks[1] >= LATER, "{clocks:?}");
    // Whoever speaks later speaks to nobody.
    stage.others(coordinator)[1].hold(&[ack(name, coordinator, 1)]).await;
    stage.ring.get("k").await.unwrap();
    assert_eq!(stage.ring.tally().confirmed, 1);
}

#[tokio::test]
async fn no_replica_counts_twice_nor_the_coordinator_nor_what_is_said_of_another_write() {
    let stage = stage(told()).await;
    let (write, coordinator, name) = stage.begin().await;
    let needed = ack(name, coordinator, 2);
    let others = stage.others(coordinator);
    let coordinators = &stage.nodes[coordinator as usize - 1];
    coordinators.hold(&[needed.clone(), needed.clone()]).await;
    others[1]
        .hold(&[Ack { write: 6, ..needed.clone() }, Ack { n: 1 << 40, ..needed.clone() }])
        .await;
    others[0].hold(&[needed.clone(), needed.clone()]).await;
    // Each of them has been heard by the time when its connection brings an answer.
    let readers = || stage.heard.lock().unwrap().readers.len();
    let before = readers();
    for i in 0..50 {
        stage.ring.get(format!("other{i}")).await.unwrap();
    }
    assert!(readers() > before);
    assert!(!write.is_finished());
    others[1].hold(&[needed]).await;
    assert_eq!(write.await.unwrap(), "replica");
}

#[tokio::test]
async fn when_a_connection_ends_over_which_somebody_may_have_spoken_the_coordinator_is_asked() {
    let mut stage = stage(told()).await;
    let (write, coordinator, name) = stage.begin().await;
    let lost = (1..=3).rev().find(|id| *id != coordinator).unwrap();
    drop(stage.nodes.remove(lost as usize - 1));
    assert_eq!(write.await.unwrap(), "coordinator");
    let writes = stage.heard.lock().unwrap().writes.clone();
    let again = Name { direct: false, age_ms: writes[1].1.age_ms, ..name };
    assert_eq!(
        writes,
        [(coordinator, name), (coordinator, again)],
        "the same write, at the same node"
    );
    assert_eq!(stage.ring.tally().confirmed, 0);
}

#[tokio::test]
async fn when_no_replica_speaks_for_a_part_of_the_time_the_coordinator_is_asked() {
    let stage = stage(told()).await;
    let put = stage.ring.put(KEY, "v").timeout(Duration::from_secs(2));
    assert_eq!(put.await.unwrap().as_bytes(), b"coordinator");
    let writes = stage.heard.lock().unwrap().writes.clone();
    assert_eq!(writes.iter().map(|(_, name)| name.direct).collect::<Vec<_>>(), [true, false]);
    assert_eq!(writes[0].1.n, writes[1].1.n);
    assert!(writes[1].1.age_ms >= 450, "{writes:?}");
    assert_eq!(stage.heard.lock().unwrap().cancelled, 0, "the node must go on with it");
}

#[tokio::test]
async fn while_the_replicas_speak_of_other_things_the_coordinator_is_not_asked_again() {
    let stage = stage(told()).await;
    let ring = stage.ring.clone();
    let began = std::time::Instant::now();
    let write = tokio::spawn(async move {
        let put = ring.put(KEY, "v").timeout(Duration::from_secs(2));
        Bytes::copy_from_slice(put.await.unwrap().as_bytes())
    });
    // Its patience with them is over after 500 ms.
    let mut reads = 0;
    while began.elapsed() < Duration::from_millis(800) {
        stage.ring.get(format!("other{reads}")).await.unwrap();
        reads += 1;
    }
    let (coordinator, name) = stage.heard.lock().unwrap().writes[0];
    stage.others(coordinator)[0].hold(&[ack(name, coordinator, 1)]).await;
    assert_eq!(write.await.unwrap(), "replica");
    assert_eq!(stage.heard.lock().unwrap().writes.len(), 1);
}

#[tokio::test]
async fn whoever_does_not_want_it_hears_the_coordinator() {
    let settings = Settings { direct_acks: false, ..Settings::default() };
    let stage = stage(settings).await;
    assert_eq!(stage.ring.put(KEY, "v").await.unwrap().as_bytes(), b"coordinator");
    assert!(!stage.heard.lock().unwrap().writes[0].1.direct);
}

#[tokio::test]
async fn writes_that_no_replica_may_tell_of_are_not_asked_for_so() {
    let stage = stage(told()).await;
    let put = || stage.ring.put(KEY, "v");
    put().consistency(Level::One).await.unwrap();
    put().consistency(Level::LocalQuorum).await.unwrap();
    put().durability(Durability::Sync).await.unwrap();
    assert!(stage.heard.lock().unwrap().writes.iter().all(|(_, name)| !name.direct));
}
