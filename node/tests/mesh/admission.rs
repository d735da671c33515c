//! Who is turned away, and that both sides learn why.

use std::rc::Rc;

use certs::Role;
use ring::NodeId;
use ringdb_node::mesh::limits::FRAME_BYTES_MAX;
use ringdb_node::mesh::{
    ClusterId, Ending, HELLO_BYTES, Hello, Mesh, MeshConfig, MeshError, Purpose, Refusal, Versions,
};

use crate::story::*;

fn refusal(ending: &Ending) -> Option<(Refusal, &str)> {
    match ending {
        Ending::Refused { refusal: Some(refusal), text } => Some((*refusal, text)),
        _ => None,
    }
}

/// Two nodes that dial each other, the second changed by `change`; how each was refused.
async fn misfits(change: impl FnOnce(&mut MeshConfig)) -> (Node, Node) {
    let ca = authority();
    let mut two = config(&ca, N2, anywhere(), vec![]);
    change(&mut two);
    let (n1, n2) = introduced(config(&ca, N1, anywhere(), vec![]), two);
    until("both turned away", || {
        let answered = |ending: Option<Ending>| {
            ending.is_some_and(|e| !matches!(e, Ending::Silent | Ending::Broken(_)))
        };
        answered(n1.last(N2)) && answered(n2.last(N1))
    })
    .await;
    assert!(n1.memory.frames.borrow().is_empty() && n1.memory.events.borrow().is_empty());
    (n1, n2)
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    tell(async {
        let (n1, n2) = misfits(|two| two.cluster = ClusterId(0xc2)).await;
        let ending = n2.last(N1).unwrap();
        let (refused, text) = refusal(&ending).unwrap();
        assert_eq!(refused, Refusal::WrongCluster);
        assert_eq!(text, format!("this is cluster {CLUSTER}, not {}", ClusterId(0xc2)));
        assert!(n1.mesh.counters().refused_cluster > 0);
    });
}

#[test]
fn nodes_without_a_common_version_say_both_ranges() {
    tell(async {
        let (n1, n2) = misfits(|two| two.wire = Versions { min: 2, max: 3 }).await;
        let ending = n2.last(N1).unwrap();
        let told = refusal(&ending).unwrap();
        assert_eq!(told, (Refusal::WireVersion, "this node speaks v1 to v1, not v2 to v3"));
        assert!(n1.mesh.counters().refused_other > 0);
    });
}

#[test]
fn a_node_of_another_authority_is_refused_in_words() {
    tell(async {
        let (n1, n2) = misfits(|two| two.credentials = node(&authority(), N2)).await;
        for ending in [n1.last(N2).unwrap(), n2.last(N1).unwrap()] {
            assert!(
                matches!(&ending, Ending::Certificates(text) if text.contains("another CA")),
                "{ending}"
            );
        }
        until("counted", || n1.mesh.counters().handshakes_failed > 0).await;
    });
}

#[test]
fn a_stranger_and_a_member_under_anothers_number_are_refused() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![peer(N2, free_address())]));
        let n3 = NodeId(3);
        let cases = [
            (n3, n3, "n3 (n3) is not a member"),
            (n3, N2, "node n3 of prod is not n2"),
            (N2, n3, "node n2 of prod is not n3"),
        ];
        for (certified, claimed, told) in cases {
            let endpoint = raw_endpoint(&node(&ca, certified));
            let connection = raw_dial(&endpoint, &n1).await;
            let _streams = raw_hello(&connection, hello(Purpose::Fast, claimed)).await;
            let ending = raw_ending(&connection).await;
            assert_eq!(refusal(&ending), Some((Refusal::UnknownNode, told)));
        }
        assert_eq!(n1.mesh.counters().refused_unknown, 3);
    });
}

#[test]
fn a_client_cannot_open_a_lane_between_nodes() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![peer(N2, free_address())]));
        for (count, role) in [(0, Role::Client), (2, Role::Admin)] {
            let endpoint = raw_endpoint(&visitor(&ca, "n2", role));
            // It claims to be a node…
            let connection = raw_dial(&endpoint, &n1).await;
            let _streams = raw_hello(&connection, hello(Purpose::Fast, N2)).await;
            let ending = raw_ending(&connection).await;
            let (refused, text) = refusal(&ending).unwrap();
            assert_eq!(refused, Refusal::WrongRole);
            assert_eq!(text, format!("{role} n2 of prod may not open a stream for Fast"));
            // … or comes as what it is, and then opens a lane.
            let connection = raw_dial(&endpoint, &n1).await;
            let _streams = raw_hello(&connection, hello(Purpose::Client, NodeId(0))).await;
            let mut lane = connection.open_uni().await.unwrap();
            lane.write_all(&hello(Purpose::Bulk, N2).encode()).await.unwrap();
            let ending = raw_ending(&connection).await;
            assert_eq!(refusal(&ending).map(|(refused, _)| refused), Some(Refusal::WrongRole));
            assert_eq!(n1.mesh.counters().refused_role, count + 2);
        }
        assert!(n1.memory.frames.borrow().is_empty());
    });
}

#[test]
fn a_node_cannot_come_as_a_client() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![]));
        let endpoint = raw_endpoint(&node(&ca, N2));
        let connection = raw_dial(&endpoint, &n1).await;
        let _streams = raw_hello(&connection, hello(Purpose::Client, N2)).await;
        let ending = raw_ending(&connection).await;
        assert_eq!(refusal(&ending).map(|(refused, _)| refused), Some(Refusal::WrongRole));
    });
}

#[test]
fn clients_and_administrators_are_told_apart_and_answered() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![]));
        for role in [Role::Client, Role::Admin] {
            let endpoint = raw_endpoint(&visitor(&ca, "alice", role));
            let connection = raw_dial(&endpoint, &n1).await;
            // A client may not know the cluster's id yet; it learns it from the answer.
            let unaware = Hello { cluster: ClusterId(0), ..hello(Purpose::Client, NodeId(0)) };
            let (mut send, mut recv) = raw_hello(&connection, unaware).await;
            let mut answer = [0; HELLO_BYTES];
            recv.read_exact(&mut answer).await.unwrap();
            let answer = Hello::decode(&answer).unwrap();
            assert_eq!((answer.node, answer.cluster, answer.wire), (N1, CLUSTER, WIRE));
            send.write_all(b"\x03\0\0\0abc\x02\0\0\0de").await.unwrap();
            let mut replies = [0; 13];
            recv.read_exact(&mut replies).await.unwrap();
            assert_eq!(&replies, b"\x03\0\0\0cba\x02\0\0\0ed");
            assert_eq!(
                *n1.memory.requests.borrow(),
                [(role, b"abc".to_vec()), (role, b"de".to_vec())]
            );
            n1.memory.requests.borrow_mut().clear();
            connection.close(0_u8.into(), b"bye");
            until("told", || n1.memory.has(|e| matches!(e, Event::ClientClosed(_)))).await;
            n1.memory.events.borrow_mut().clear();
        }
    });
}

#[test]
fn an_announced_length_beyond_the_limit_ends_the_connection_with_a_reason() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![peer(N2, free_address())]));
        let endpoint = raw_endpoint(&node(&ca, N2));
        let connection = raw_dial(&endpoint, &n1).await;
        let (mut send, _recv) = raw_hello(&connection, hello(Purpose::Fast, N2)).await;
        let announced = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        let mut bytes = b"\x02\0\0\0ok".to_vec();
        bytes.extend(announced.to_le_bytes());
        send.write_all(&bytes[..6]).await.unwrap();
        until("the good one arrived", || n1.memory.frames.borrow().len() == 1).await;
        send.write_all(&bytes[6..]).await.unwrap();
        let ending = raw_ending(&connection).await;
        let told = format!("a frame of {announced} bytes was announced");
        assert_eq!(refusal(&ending), Some((Refusal::Oversized, told.as_str())));
        assert_eq!(n1.mesh.counters().refused_other, 1);
    });
}

#[test]
fn what_is_no_hello_is_refused() {
    tell(async {
        let ca = authority();
        let n1 = Node::start(config(&ca, N1, anywhere(), vec![peer(N2, free_address())]));
        let endpoint = raw_endpoint(&node(&ca, N2));
        let connection = raw_dial(&endpoint, &n1).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&[b'x'; HELLO_BYTES]).await.unwrap();
        let ending = raw_ending(&connection).await;
        assert_eq!(refusal(&ending), Some((Refusal::BadHello, "not a hello")));
    });
}

#[test]
fn settings_that_contradict_each_other_are_found_at_the_start() {
    tell(async {
        let ca = authority();
        let refused = |change: &dyn Fn(&mut MeshConfig)| {
            let mut one = config(&ca, N1, anywhere(), vec![]);
            change(&mut one);
            let error = Mesh::start(one, Rc::new(Memory::default())).unwrap_err();
            (matches!(error, MeshError::Config { .. }), error.to_string())
        };
        let (config_fault, text) = refused(&|one| one.me = N2);
        assert!(config_fault && text.contains("is not for n2"), "{text}");
        let client = visitor(&ca, "alice", Role::Client);
        let (config_fault, text) = refused(&|one| one.credentials = client.clone());
        assert!(config_fault && text.contains("not one of a node"), "{text}");
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (config_fault, text) = refused(&|one| one.listen = taken.local_addr().unwrap());
        assert!(!config_fault && text.contains("\n  fix: choose a free address"), "{text}");
    });
}
