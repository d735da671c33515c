//! A layout is a sound value: it survives the wire, refuses nonsense, and never reuses an id.

use ringdb_ring::layout::WrongShape;
use ringdb_ring::{
    ClusterId, Epoch, Incarnation, Layout, LayoutError, Member, NodeId, SLOTS, Slot, Table,
};

fn three() -> Layout {
    let member = |name: &str| Member {
        zone: format!("z-{name}"),
        redis: format!("{name}:6379"),
        ..Member::new(name, format!("{name}:7400"))
    };
    Layout::genesis(ClusterId(0xabc), 3, ["ada", "bo", "cy"].map(member)).expect("sound")
}

#[test]
fn every_slot_of_three_nodes_is_kept_by_all_of_them() {
    let layout = three();
    assert_eq!(layout.epoch, Epoch(1));
    for slot in Slot::all() {
        let replicas = layout.replicas(slot);
        assert_eq!(replicas.len(), 3);
        assert_eq!(layout.primary(slot), Some(replicas[0]));
        assert_eq!(layout.replicas_for(slot, 2), &replicas[..2]);
        assert_eq!(layout.replicas_for(slot, 7), replicas);
        for (i, &node) in replicas.iter().enumerate() {
            assert_eq!(layout.replica_index(node, slot), Some(i));
            assert!(layout.is_replica(node, slot));
        }
    }
    assert!(!layout.is_replica(NodeId(4), Slot(0)));
    assert_eq!(layout.slots_of(NodeId(2)).count(), usize::from(SLOTS));
    let led: Vec<usize> = (1..=3).map(|n| layout.primaries(NodeId(n)).count()).collect();
    assert_eq!(led.iter().sum::<usize>(), usize::from(SLOTS));
    assert!(led.iter().all(|n| (5_461..=5_462).contains(n)), "{led:?}");
    assert_eq!(layout.replicas(Slot(u16::MAX)), &[] as &[NodeId], "no such slot, and no panic");
}

#[test]
fn ranges_cover_every_slot_once() {
    let layout = three();
    let mut next = 0;
    for range in layout.ranges() {
        assert_eq!(range.first, Slot(next));
        assert_eq!(range.replicas, layout.replicas(range.last));
        next = range.last.0 + 1;
    }
    assert_eq!(next, SLOTS);
}

#[test]
fn a_layout_survives_both_encodings_and_keeps_its_hash() {
    let layout = three();
    let packed = rmp_serde::to_vec_named(&layout).expect("encodes");
    let unpacked: Layout = rmp_serde::from_slice(&packed).expect("decodes");
    assert_eq!(unpacked, layout);
    assert_eq!(unpacked.hash(), layout.hash());
    assert!(packed.len() < 64 << 10, "{} bytes", packed.len());
    let text = serde_json::to_string(&layout).expect("encodes");
    let parsed: Layout = serde_json::from_str(&text).expect("decodes");
    assert_eq!(parsed, layout);
}

#[test]
fn the_hash_is_the_same_for_ever_and_sees_every_field() {
    let empty = Layout::empty(ClusterId(1), 3);
    assert_eq!(empty.hash(), GOLDEN, "{:#018x}", empty.hash());
    let layout = three();
    let edits: [fn(&mut Layout); 8] = [
        |l| l.epoch = l.epoch.next(),
        |l| l.cluster.0 += 1,
        |l| l.copies = 2,
        |l| l.next_id += 1,
        |l| l.members.get_mut(&NodeId(1)).expect("ada").capacity += 1,
        |l| l.members.get_mut(&NodeId(1)).expect("ada").incarnation = Incarnation(2),
        |l| l.members.get_mut(&NodeId(1)).expect("ada").http = "ada:7480".to_owned(),
        |l| l.table = Table::default(),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut edited = layout.clone();
        edit(&mut edited);
        assert_ne!(edited.hash(), layout.hash(), "edit {i}");
    }
}

/// Computed by hand from the definition of FNV-1a.
const GOLDEN: u64 = 0x1722_6f74_c79b_d10c;

#[test]
fn fields_that_an_older_version_did_not_write_have_defaults() {
    let text = format!(
        r#"{{"epoch": 4, "cluster": "{}", "members": {{"1": {{"id": 1, "name": "ada"}}}},
            "next_id": 2, "from_the_future": true}}"#,
        ClusterId(9)
    );
    let layout: Layout = serde_json::from_str(&text).expect("decodes");
    let ada = layout.member_named("ada").expect("a member");
    assert_eq!((ada.incarnation, ada.capacity), (Incarnation(1), 100));
    assert_eq!(ada.failure_domain(), ("default", "default"));
    assert_eq!(layout.copies, 3);
}

#[test]
fn a_table_of_the_wrong_shape_cannot_be_read() {
    let shape = Table::from_cells(2, vec![NodeId(1); 5]);
    assert_eq!(shape, Err(WrongShape { width: 2, cells: 5 }));
    let refused: Result<Table, _> = serde_json::from_str(r#"{"width": 1, "cells": [1, 2]}"#);
    assert!(refused.is_err());
}

#[test]
fn ids_are_never_given_again() {
    let layout = three();
    let without = layout.next(|l| {
        l.members.remove(&NodeId(3));
    });
    let with = without.expect("sound").next(|l| {
        assert_eq!(l.add(Member::new("cy", "cy:7400")), NodeId(4));
    });
    let with = with.expect("sound");
    assert_eq!(with.epoch, Epoch(3));
    assert_eq!(with.members.keys().copied().collect::<Vec<_>>(), [1, 2, 4].map(NodeId));
    assert_eq!(layout.epoch, Epoch(1), "a layout is a value");
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let refusal = |edit: fn(&mut Layout)| three().next(edit).expect_err("nonsense");
    let (a, b) = (NodeId(1), NodeId(4));
    assert_eq!(
        refusal(|l| {
            l.add(Member::new("ada", "other:7400"));
        }),
        LayoutError::NameTaken { name: "ada".to_owned(), a, b }
    );
    assert_eq!(
        refusal(|l| {
            l.add(Member::new("dee", "ada:7400"));
        }),
        LayoutError::AddressTaken { address: "ada:7400".to_owned(), a, b }
    );
    for address in ["", "dee", ":1", "dee:", "dee:0", "dee:70000", "a b:1", "::1:7400"] {
        let refused = three().next(|l| {
            l.add(Member::new("dee", address));
        });
        assert!(matches!(refused, Err(LayoutError::BadAddress { .. })), "{address:?}");
    }
    assert!(matches!(
        refusal(|l| {
            l.add(Member::new("no spaces", "dee:7400"));
        }),
        LayoutError::BadName { what: "name", .. }
    ));
    assert_eq!(refusal(|l| l.copies = 8), LayoutError::Copies { copies: 8 });
    assert_eq!(refusal(|l| l.next_id = 3), LayoutError::IdNotAllocated { id: NodeId(3), next: 3 });

    let mut stray = three();
    stray.members.remove(&NodeId(3));
    stray.copies = 3;
    assert_eq!(stray.validate(), Err(LayoutError::Width { width: 3, most: 2 }));
    let mut stray = three();
    stray.table = Table::from_cells(1, vec![NodeId(9); usize::from(SLOTS)]).expect("the shape");
    assert_eq!(
        stray.validate(),
        Err(LayoutError::UnknownReplica { slot: Slot(0), node: NodeId(9) })
    );
    stray.table = Table::from_cells(2, vec![a; 2 * usize::from(SLOTS)]).expect("the shape");
    assert_eq!(stray.validate(), Err(LayoutError::ReplicaTwice { slot: Slot(0), node: a }));
}

#[test]
fn a_cluster_id_is_read_back_as_it_is_written() {
    let id = ClusterId(0x0123_4567_89ab_cdef);
    assert_eq!(id.to_string(), "00000000000000000123456789abcdef");
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "12", "+0000000000000000123456789abcdef", "g".repeat(32).as_str()] {
        assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
    }
}
