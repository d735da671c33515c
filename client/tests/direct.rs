//! Reads without a coordinator: which replicas are asked for what, and what is made of their answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use certs::Role;
use ringdb_client::{Client, ClientError, Settings, Tls};
use wire::reply::Held;
use wire::{ClientReply, ClientRequest, ErrorCode, ErrorReply, Level};

use crate::fake::*;
use crate::routes::layout_of;

/// What a node does when it is asked for its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Holds what has this digest.
    Holds(u64),
    /// Says nothing.
    Nothing,
    /// Refuses.
    Refuses(ErrorCode),
}

/// What the nodes do, and what they were asked: by whom, and for the whole.
#[derive(Default)]
struct Scene {
    does: [Option<Does>; 3],
    shares: Vec<(u32, bool)>,
    reads: Vec<u32>,
}

struct Stage {
    ring: Client,
    scene: Arc<Mutex<Scene>>,
    _nodes: Vec<FakeNode>,
}

async fn stage(does: [Does; 3]) -> Stage {
    stage_with(does, Settings::default()).await
}

async fn stage_with(does: [Does; 3], settings: Settings) -> Stage {
    let ca = authority();
    let scene = Arc::new(Mutex::new(Scene::default()));
    let map = Arc::new(Mutex::new(None));
    let start = |id: u32| {
        let (scene, map) = (scene.clone(), map.clone());
        FakeNode::start_mapped(&node(&ca, id), id, move |_, request| {
            let mut scene = scene.lock().unwrap();
            match request {
                ClientRequest::Layout => {
                    let layout = map.lock().unwrap().clone().unwrap();
                    Answer::Say(ClientReply::Layout { layout: Box::new(layout), down: vec![] })
                }
                ClientRequest::Share { whole, of, epoch, .. } => {
                    assert_eq!((*of, *epoch), (2, 1));
                    scene.shares.push((id, *whole));
                    let does = scene.does[id as usize - 1];
                    answer(does.unwrap_or(Does::Holds(0)), *whole)
                }
                ClientRequest::Get { .. } => {
                    scene.reads.push(id);
                    let values = vec![Bytes::from_static(b"coordinated")];
                    Answer::Say(ClientReply::Value { values, context: Bytes::new() })
                }
                ClientRequest::Cancel { .. } => Answer::Silence,
                other => panic!("{other:?}"),
            }
        })
    };
    let nodes: Vec<_> = (1..=3).map(start).collect();
    let addresses: Vec<_> = nodes.iter().map(FakeNode::address).collect();
    *map.lock().unwrap() = Some(layout_of(&addresses));
    let tls = Tls::from_pair(&visitor(&ca, Role::Client)).unwrap();
    let ring = Client::connect_with([addresses[0].clone()], tls, settings).await.unwrap();
    // Connections are made in the background: until all stand, reads go elsewhere.
    for key in 0.. {
        ring.get(format!("warm{key}")).await.unwrap();
        let asked = scene.lock().unwrap().shares.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if (1..=3).all(|id| asked.contains(&id)) {
            break;
        }
        assert!(key < 100_000, "{:?}", ring.tally());
        tokio::task::yield_now().await;
    }
    let mut begins = scene.lock().unwrap();
    *begins = Scene { does: does.map(Some), ..Scene::default() };
    drop(begins);
    Stage { ring, scene, _nodes: nodes }
}

fn answer(does: Does, whole: bool) -> Answer {
    match does {
        Does::Holds(what) => {
            let values = vec![Bytes::from(what.to_string())];
            let held = Held::Value { values, context: Bytes::from_static(b"c") };
            Answer::Say(ClientReply::Share { digest: (0, what), held: whole.then_some(held) })
        }
        Does::Nothing => Answer::Silence,
        Does::Refuses(code) => Answer::Say(ClientReply::Error(ErrorReply {
            code,
            what: "refused".into(),
            why: String::new(),
            fix: String::new(),
        })),
    }
}

impl Stage {
    async fn read(&self) -> Result<Bytes, ClientError> {
        Ok(self.ring.get("k").await?.values()[0].clone())
    }

    fn asked(&self) -> (Vec<(u32, bool)>, usize) {
        let scene = self.scene.lock().unwrap();
        (scene.shares.clone(), scene.reads.len())
    }
}

#[tokio::test]
async fn two_replicas_that_hold_the_same_are_a_quorum() {
    let settings = Settings { hedging: false, ..Settings::default() };
    let stage = stage_with([Does::Holds(7); 3], settings).await;
    let before = stage.ring.tally();
    assert_eq!(stage.read().await.unwrap(), "7");
    let (shares, reads) = stage.asked();
    assert_eq!((shares.len(), reads), (2, 0), "{shares:?}");
    assert_ne!(shares[0].0, shares[1].0, "no node twice");
    assert_eq!(shares.iter().filter(|(_, whole)| *whole).count(), 1);
    let after = stage.ring.tally();
    assert_eq!((after.direct, after.undecided), (before.direct + 1, before.undecided));
}

#[tokio::test]
async fn replicas_that_differ_are_joined_by_a_coordinator() {
    // A hedge would ask for a third share.
    let settings = Settings { hedging: false, ..Settings::default() };
    let stage = stage_with([Does::Holds(7), Does::Holds(8), Does::Holds(9)], settings).await;
    assert_eq!(stage.read().await.unwrap(), "coordinated");
    assert_eq!(stage.ring.tally().undecided, 1);
    // Where they keep differing, they are asked for shares seldom.
    for _ in 0..400 {
        assert_eq!(stage.read().await.unwrap(), "coordinated");
    }
    let (shares, reads) = stage.asked();
    assert!(shares.len() < 2 * (50 + 400 / 5 + 2), "{} shares", shares.len());
    assert_eq!(reads, 401);
}

#[tokio::test]
async fn a_slow_replica_is_not_waited_for_if_another_holds_the_same() {
    let stage = stage([Does::Holds(7); 3]).await;
    for _ in 0..200 {
        stage.read().await.unwrap();
    }
    let (shares, _) = stage.asked();
    let digest = shares.iter().find(|(_, whole)| !whole).expect("one of two").0;
    stage.scene.lock().unwrap().does[digest as usize - 1] = Some(Does::Nothing);
    let hedged = stage.ring.tally().hedged;
    assert_eq!(stage.read().await.unwrap(), "7");
    assert_eq!(stage.ring.tally().hedged, hedged + 1);
    assert_eq!(stage.asked().1, 0, "no coordinator");
}

#[tokio::test]
async fn where_shares_are_not_given_they_are_not_asked_for() {
    let stage = stage([Does::Refuses(ErrorCode::Invalid); 3]).await;
    for _ in 0..20 {
        assert_eq!(stage.read().await.unwrap(), "coordinated");
    }
    assert!(stage.asked().0.len() <= 2, "{:?}", stage.asked());
    assert_eq!(stage.asked().1, 20);
}

#[tokio::test]
async fn a_share_that_is_not_to_be_had_now_is_made_up_for_and_overload_is_told() {
    for code in [ErrorCode::NotReady, ErrorCode::Behind, ErrorCode::Internal] {
        let stage = stage([Does::Refuses(code); 3]).await;
        assert_eq!(stage.read().await.unwrap(), "coordinated", "{code:?}");
    }
    let overloaded = Does::Refuses(ErrorCode::Overloaded { retry_after_ms: 20 });
    let stage = stage([overloaded; 3]).await;
    let told = stage.read().await.unwrap_err();
    assert!(matches!(told, ClientError::Overloaded { .. }), "{told}");
    assert_eq!(stage.asked().1, 0, "nobody is asked for more");
}

#[tokio::test]
async fn other_levels_and_whoever_does_not_want_it_have_a_coordinator() {
    let stage = stage([Does::Holds(7); 3]).await;
    for level in [Level::One, Level::All, Level::LocalQuorum] {
        let read = stage.ring.get("k").consistency(level).await.unwrap();
        assert_eq!(read.values(), ["coordinated"], "{level}");
    }
    assert!(stage.asked().0.is_empty());
    let read = stage.ring.get("k").consistency(Level::Quorum).await.unwrap();
    assert_eq!(read.values(), ["7"]);
}

#[tokio::test]
async fn silence_ends_with_the_time_of_the_read() {
    let stage = stage([Does::Nothing; 3]).await;
    let told = stage.ring.get("k").timeout(Duration::from_millis(60)).await.unwrap_err();
    assert!(matches!(told, ClientError::TimedOut { .. }), "{told}");
}
