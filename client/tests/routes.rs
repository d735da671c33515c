//! Requests go to the holders of their keys, to another when one is slow or gone, and stop when
//! nobody wants their answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::{CaPair, Role};
use ring::{ClusterId, Epoch, Layout, Member, NodeId, Slot};
use ringdb_client::limits::CLOSE_TIMEOUT;
use ringdb_client::{Client, Patience, Settings, Tls};
use wire::{ClientReply, ClientRequest};

use crate::fake::*;

/// A layout of these nodes, in zones a, b, c.
pub(crate) fn layout_of(addresses: &[String]) -> Layout {
    let member = |(place, address): (usize, &String)| Member {
        zone: ["a", "b", "c"][place].to_owned(),
        ..Member::new(format!("n{}", place + 1), address.clone())
    };
    Layout::genesis(ClusterId(5), 3, addresses.iter().enumerate().map(member)).unwrap()
}

type Map = Arc<Mutex<Option<Layout>>>;

/// A node that answers reads with its own number, and knows the map.
fn knowing(ca: &CaPair, id: u32, map: &Map, silent: &Arc<AtomicBool>, heard: &Heard) -> FakeNode {
    let (map, silent, heard) = (map.clone(), silent.clone(), heard.clone());
    FakeNode::start_mapped(&node(ca, id), id, move |_, request| match request {
        ClientRequest::Layout => {
            let layout = map.lock().unwrap().clone().unwrap();
            Answer::Say(ClientReply::Layout { layout: Box::new(layout), down: vec![] })
        }
        ClientRequest::Cancel { .. } => {
            heard.cancels.fetch_add(1, Ordering::SeqCst);
            Answer::Silence
        }
        ClientRequest::Get { .. } if silent.load(Ordering::SeqCst) => Answer::Silence,
        ClientRequest::Get { .. } => {
            let values = vec![Bytes::from(id.to_string())];
            Answer::Say(ClientReply::Value { values, context: Bytes::new() })
        }
        other => panic!("{other:?}"),
    })
}

#[derive(Clone, Default)]
struct Heard {
    cancels: Arc<AtomicU64>,
}

/// Three nodes that know the map, and a client in a zone.
struct Stage {
    ring: Client,
    map: Map,
    silent: [Arc<AtomicBool>; 3],
    heard: Heard,
    nodes: Vec<FakeNode>,
}

async fn stage(settings: Settings) -> Stage {
    let ca = authority();
    let (map, silent, heard) =
        (Map::default(), <[Arc<AtomicBool>; 3]>::default(), Heard::default());
    let nodes: Vec<_> =
        (0..3).map(|i| knowing(&ca, i as u32 + 1, &map, &silent[i], &heard)).collect();
    let addresses: Vec<_> = nodes.iter().map(FakeNode::address).collect();
    *map.lock().unwrap() = Some(layout_of(&addresses));
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let ring = Client::connect_with([addresses[0].clone()], tls, settings).await.unwrap();
    Stage { ring, map, silent, heard, nodes }
}

impl Stage {
    /// Who answers a read of `key`.
    async fn reader(&self, key: &str) -> String {
        let read = self.ring.get(key.to_owned()).await.unwrap();
        String::from_utf8(read.values()[0].to_vec()).unwrap()
    }

    /// Reads until this node answers: connections are made in the background.
    async fn until_read_from(&self, key: &str, node: &str) {
        for _ in 0..100_000 {
            if self.reader(key).await == node {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("n{node} never answered for {key}: {:?}", self.ring.tally());
    }

    /// Reads until each node answers for the keys that it is preferred for.
    async fn until_all_are_at_hand(&self) {
        for i in 0..20 {
            let key = format!("k{i}");
            self.until_read_from(&key, &self.preferred(&key).0.to_string()).await;
        }
    }

    fn preferred(&self, key: &str) -> NodeId {
        let map = self.map.lock().unwrap().clone().unwrap();
        map.replicas(Slot::of_key(key.as_bytes()))[0]
    }
}

#[tokio::test]
async fn a_key_is_read_from_its_preferred_node_and_in_a_zone_from_the_node_there() {
    let stage = stage_for(None).await;
    stage.until_all_are_at_hand().await;
    assert_eq!(stage.ring.tally().epoch, Some(1));
    let zoned = stage_for(Some("c")).await;
    for i in 0..20 {
        zoned.until_read_from(&format!("k{i}"), "3").await;
    }
}

async fn stage_for(zone: Option<&str>) -> Stage {
    stage(Settings { zone: zone.map(str::to_owned), direct_reads: false, ..Settings::default() })
        .await
}

#[tokio::test]
async fn a_slow_reader_is_not_waited_for_and_is_told_to_stop() {
    let stage = stage_for(None).await;
    let key = "hedged";
    let first = stage.preferred(key).0;
    stage.until_read_from(key, &first.to_string()).await;
    // Enough answers to know what is slow, and to fill the budget again.
    for _ in 0..400 {
        stage.reader(key).await;
    }
    stage.silent[first as usize - 1].store(true, Ordering::SeqCst);
    let hedged = stage.ring.tally().hedged;
    let read = stage.ring.get(key).timeout(Duration::from_secs(20)).await.unwrap();
    assert_ne!(read.values()[0], first.to_string(), "another node answered");
    assert_eq!(stage.ring.tally().hedged, hedged + 1);
    while stage.heard.cancels.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // The budget is a share of the reads: soon a slow one waits for its answer, or its time.
    let mut given = 1;
    while stage.ring.get(key).timeout(Duration::from_millis(200)).await.is_ok() {
        given += 1;
        assert!(given <= 12, "{:?}", stage.ring.tally());
    }
    assert_eq!(stage.nodes.len(), 3);
}

#[tokio::test]
async fn without_hedging_a_slow_reader_is_waited_for() {
    let stage =
        stage(Settings { hedging: false, direct_reads: false, ..Settings::default() }).await;
    let key = "patient";
    let first = stage.preferred(key).0;
    stage.until_read_from(key, &first.to_string()).await;
    for _ in 0..100 {
        stage.reader(key).await;
    }
    stage.silent[first as usize - 1].store(true, Ordering::SeqCst);
    stage.ring.get(key).timeout(Duration::from_millis(80)).await.unwrap_err();
    assert_eq!(stage.ring.tally().hedged, 0);
}

#[tokio::test]
async fn a_node_that_is_away_is_dialled_over_the_same_socket_again() {
    let ca = authority();
    let (map, silent, heard) = (Map::default(), Arc::default(), Heard::default());
    let nodes: Vec<_> = (1..3).map(|id| knowing(&ca, id, &map, &silent, &heard)).collect();
    // Something that listens where the third node was, and says nothing.
    let away = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    away.set_nonblocking(true).unwrap();
    let mut addresses: Vec<_> = nodes.iter().map(FakeNode::address).collect();
    addresses.push(away.local_addr().unwrap().to_string());
    *map.lock().unwrap() = Some(layout_of(&addresses));
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let patience = Patience { dial: Duration::from_millis(100), ..Patience::default() };
    let settings = Settings { direct_reads: false, patience, ..Settings::default() };
    let ring = Client::connect_with(addresses[..1].to_vec(), tls, settings).await.unwrap();
    // Each dial has a number of its own (RFC 9000, 17.2: the destination's connection id, behind its length).
    let (mut dials, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let mut bytes = [0; 2048];
    while dials.len() < 3 {
        for i in 0..8 {
            ring.get(format!("k{i}")).await.unwrap();
        }
        while let Ok((_, from)) = away.recv_from(&mut bytes) {
            ports.insert(from.port());
            dials.insert(bytes[6..][..usize::from(bytes[5])].to_vec());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ports.len(), 1, "{dials:?}");
}

#[tokio::test]
async fn farewells_do_not_wait_for_each_other() {
    let stage = stage_for(None).await;
    // The node that was dialled first is dialled as a holder of keys as well.
    stage.until_all_are_at_hand().await;
    let began = std::time::Instant::now();
    stage.ring.close().await;
    assert!(began.elapsed() < CLOSE_TIMEOUT / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_answer_that_speaks_of_a_later_map_has_it_fetched() {
    let stage = stage(Settings { direct_reads: false, ..Settings::default() }).await;
    while stage.ring.tally().epoch.is_none() {
        stage.reader("k").await;
    }
    // The members change places in the second map, and a node says with an answer that there is one.
    let mut addresses: Vec<_> = stage.nodes.iter().map(FakeNode::address).collect();
    addresses.rotate_left(1);
    let later = Layout { epoch: Epoch(2), ..layout_of(&addresses) };
    *stage.map.lock().unwrap() = Some(later);
    assert_eq!(stage.ring.tally().epoch, Some(1), "nobody has said so yet");
    stage.nodes.iter().for_each(|node| node.epoch.store(2, Ordering::SeqCst));
    for asked in 0.. {
        if stage.ring.tally().epoch == Some(2) {
            break;
        }
        assert!(asked < 20_000, "{:?}", stage.ring.tally());
        stage.reader("k").await;
    }
}
