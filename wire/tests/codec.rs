//! The codec and the native client's messages: golden bytes, growth of a message, lies.

use bytes::Bytes;
use ringdb_wire::codec::{decode, decode_next, encode_into};
use ringdb_wire::limits::CODEC_DEPTH_MAX;
use ringdb_wire::reply::PageRow;
use ringdb_wire::{
    ClientReply, ClientRequest, ClusterStatus, CodecError, Durability, ErrorCode, ErrorReply,
    Level, Name, NodeStatus,
};
use serde::{Deserialize, Serialize};

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes);
    bytes
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Small<'a> {
    t: u64,
    #[serde(borrow, with = "serde_bytes")]
    k: &'a [u8],
}

#[test]
fn a_struct_is_a_map_of_names_and_bytes_are_bytes() {
    let bytes = encoded(&Small { t: 300, k: b"key" });
    assert_eq!(bytes, b"\x82\xa1t\xcd\x01\x2c\xa1k\xc4\x03key");
    let back: Small<'_> = decode(&bytes).expect("whole");
    assert_eq!(back, Small { t: 300, k: b"key" });
    assert!(core::ptr::eq(&raw const back.k[0], &raw const bytes[10]), "borrowed, not copied");
}

#[test]
fn old_and_new_read_each_other() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newer<'a> {
        t: u64,
        #[serde(borrow, with = "serde_bytes")]
        k: &'a [u8],
        #[serde(default)]
        extra: Vec<String>,
    }
    let newer = encoded(&Newer { t: 1, k: b"k", extra: vec!["unknown to the old".into()] });
    assert_eq!(decode(&newer), Ok(Small { t: 1, k: b"k" }));
    let older = encoded(&Small { t: 1, k: b"k" });
    assert_eq!(decode(&older), Ok(Newer { t: 1, k: b"k", extra: vec![] }));
}

#[test]
fn a_sequence_is_read_one_by_one() {
    let mut bytes = Vec::new();
    for t in 0..3 {
        encode_into(&Small { t, k: b"k" }, &mut bytes);
    }
    let mut rest = &bytes[..];
    for t in 0..3 {
        let (small, after): (Small<'_>, _) = decode_next(rest).expect("three of them");
        assert_eq!(small.t, t);
        rest = after;
    }
    assert_eq!(decode_next::<Small<'_>>(rest), Err(CodecError::Truncated));
    let one = bytes.len() / 3;
    assert_eq!(decode::<Small<'_>>(&bytes), Err(CodecError::Trailing { bytes: 2 * one }));
}

#[test]
fn announced_elements_must_be_there() {
    // An array, a map, a string and bytes of four thousand million, and nothing of them.
    for marker in [0xdd, 0xdf, 0xdb, 0xc6, 0xc9] {
        let bytes = [marker, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(decode::<Vec<u64>>(&bytes), Err(CodecError::Truncated), "{marker:x}");
    }
    assert_eq!(decode::<u64>(&[0xc1]), Err(CodecError::Truncated));
    assert_eq!(decode::<Vec<u8>>(&[0x93, 1, 2]), Err(CodecError::Truncated));
}

#[test]
fn a_deep_value_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Nested(Vec<Self>);
    let mut deep = vec![];
    for depth in [CODEC_DEPTH_MAX + 1, 100_000] {
        deep = vec![0x91; depth];
        deep.push(0x90);
        assert!(matches!(decode::<Nested>(&deep), Err(CodecError::Mismatch { .. })), "{depth}");
    }
    assert_eq!(decode::<Nested>(&[0x91, 0x90]).expect("shallow").0.len(), 1);

    // Also in a field that is only skipped.
    let mut unknown = b"\x83\xa1t\x01\xa1k\xc4\x00\xa1z".to_vec();
    unknown.extend_from_slice(&deep);
    assert!(matches!(decode::<Small<'_>>(&unknown), Err(CodecError::Mismatch { .. })));
}

#[test]
fn every_truncation_of_a_message_is_an_error() {
    for bytes in crate::fuzz::messages() {
        for end in 0..bytes.len() {
            assert!(decode::<ClientRequest<'_>>(&bytes[..end]).is_err());
            assert!(decode::<ClientReply>(&bytes[..end]).is_err());
        }
    }
}

#[test]
fn requests_and_replies_round_trip() {
    for request in requests() {
        assert_eq!(decode(&encoded(&request)), Ok(request));
    }
    for reply in replies() {
        assert_eq!(decode(&encoded(&reply)), Ok(reply));
    }
}

#[test]
fn a_request_looks_like_this() {
    let get = ClientRequest::Get { key: b"k", level: Some(Level::Quorum), after: vec![] };
    assert_eq!(encoded(&get), b"\x81\xa3get\x82\xa3key\xc4\x01k\xa5level\xa6quorum");
    assert_eq!(encoded(&ClientRequest::Ping), b"\xa4ping");
    // Without its optional fields it is shorter and means the same.
    let bare = b"\x81\xa3put\x82\xa3key\xc4\x01k\xa5value\xc4\x01v";
    let put = ClientRequest::Put {
        key: b"k",
        value: b"v",
        context: None,
        level: None,
        durability: None,
        ttl_ms: None,
        after: vec![],
        name: None,
    };
    assert_eq!(encoded(&put), bare);
    assert_eq!(decode(bare), Ok(put));
}

#[test]
fn a_message_from_the_future_is_named_as_such() {
    let error = decode::<ClientRequest<'_>>(b"\xa8teleport").expect_err("unknown");
    assert!(error.to_string().contains("teleport"), "{error}");
}

#[test]
fn levels_are_read_as_people_write_them() {
    for text in ["ONE", "LOCAL_QUORUM", "EACH_QUORUM", "SERIAL", "2"] {
        assert_eq!(Level::parse(text).map(|level| level.to_string()).as_deref(), Some(text));
    }
    assert_eq!(Level::parse("quorum"), Some(Level::Quorum));
    assert_eq!(Level::parse("0"), None);
    assert_eq!(Level::parse("most"), None);
}

fn seen(contexts: &[&'static [u8]]) -> Vec<&'static serde_bytes::Bytes> {
    contexts.iter().map(|context| serde_bytes::Bytes::new(context)).collect()
}

pub(crate) fn requests() -> Vec<ClientRequest<'static>> {
    let name = Some(Name { client: u64::MAX, n: 1, age_ms: 0, first_asked: 7, direct: true });
    vec![
        ClientRequest::Get { key: b"k", level: Some(Level::Count(2)), after: seen(&[b"1", b"2"]) },
        ClientRequest::Get { key: b"", level: None, after: seen(&[]) },
        ClientRequest::Put {
            key: b"cart:42",
            value: &[0xff; 300],
            context: Some(b"opaque"),
            level: Some(Level::LocalQuorum),
            durability: Some(Durability::Sync),
            ttl_ms: Some(60_000),
            after: seen(&[b"1"]),
            name,
        },
        ClientRequest::Delete {
            key: b"k",
            context: Some(b"c"),
            level: Some(Level::All),
            durability: None,
            after: seen(&[]),
            name: None,
        },
        ClientRequest::Add {
            key: b"k",
            by: -1,
            level: None,
            durability: None,
            after: seen(&[]),
            name,
        },
        ClientRequest::Range {
            partition: b"inbox",
            from: Some(b"a"),
            to: None,
            reverse: true,
            rows: 100,
            level: Some(Level::One),
            after: seen(&[b"context"]),
        },
        ClientRequest::DeleteRange {
            partition: b"inbox",
            from: None,
            to: Some(b"\0"),
            rows: 1,
            level: None,
            durability: Some(Durability::Sync),
            after: seen(&[]),
            name,
        },
        ClientRequest::Status,
        ClientRequest::Owners { key: b"k" },
        ClientRequest::Ping,
    ]
}

pub(crate) fn replies() -> Vec<ClientReply> {
    let status = ClusterStatus {
        cluster: "3f0e".into(),
        name: "prod-eu".into(),
        epoch: 17,
        n: 3,
        r: 2,
        w: 2,
        wire_version: 1,
        nodes: vec![NodeStatus {
            id: 1,
            name: "n1".into(),
            zone: "a".into(),
            up: true,
            owns: 0.251,
            keys: 38_100_000,
            ..NodeStatus::default()
        }],
        slots_quorum_readable: 1.0,
        slots_quorum_writable: 0.75,
        reporter: "n1".into(),
    };
    let error = |code| {
        ClientReply::Error(ErrorReply {
            code,
            what: "the write reached one replica of two".into(),
            why: "n2 is down".into(),
            fix: "retry".into(),
        })
    };
    vec![
        ClientReply::Value {
            values: vec![Bytes::from_static(b"a"), Bytes::new()],
            context: Bytes::from_static(b"seen"),
        },
        ClientReply::Done { context: Bytes::new() },
        ClientReply::Number { value: i64::MIN, context: Bytes::from_static(b"seen") },
        ClientReply::Page {
            rows: vec![PageRow {
                sort: Bytes::new(),
                values: vec![Bytes::from_static(b"a")],
                context: Bytes::from_static(b"seen"),
            }],
            next: Some(Bytes::from_static(b"b")),
            context: Bytes::from_static(b"seen"),
        },
        ClientReply::Deleted { count: 3, next: None, context: Bytes::new() },
        ClientReply::Status(status),
        ClientReply::Owners { slot: 866, nodes: vec![] },
        ClientReply::Pong,
        error(ErrorCode::Unavailable { needed: 2, alive: 1 }),
        error(ErrorCode::Unconfirmed { acked: 1, needed: 2 }),
        error(ErrorCode::Overloaded { retry_after_ms: 50 }),
        error(ErrorCode::Behind),
        error(ErrorCode::Invalid),
    ]
}
