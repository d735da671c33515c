//! `ring map`, `ring slots` and `ring balance`: the table of slots as people can read it.

use std::collections::BTreeMap;

use client::{Layout, NodeId, Slot, Told};
use serde_json::Value;

use crate::args::Args;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::render::{Cell, Paint, Record, Report, Style, Table, human};
use crate::{show, style};

/// The characters of a line of the map, and how many slots each stands for.
const LINE: usize = 64;
const STEP: usize = ring::SLOTS as usize / (LINE * 4);

async fn fetch(args: &Args) -> Result<(Layout, Vec<NodeId>), Failure> {
    let client = Cluster::find(args)?.connect(args.node.as_deref()).await?;
    let layout = client.layout().await?;
    client.close().await;
    Ok(layout)
}

fn name(layout: &Layout, node: NodeId) -> String {
    layout.member(node).map_or_else(|| node.to_string(), |member| member.name.clone())
}

fn whole(layout: &Layout) -> Record {
    Record::new([
        ("ring_version", layout.epoch.0.into()),
        ("slots", ring::SLOTS.into()),
        ("copies", layout.copies.into()),
    ])
}

pub(crate) async fn map(args: &Args) -> Result<Exit, Failure> {
    let (layout, down) = fetch(args).await?;
    show(args, &map_report(&layout, &down, style(args)));
    Ok(Exit::Fine)
}

/// A letter for each node, in the order of their numbers.
fn letters(layout: &Layout) -> BTreeMap<NodeId, char> {
    let letters = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(std::iter::repeat('?'));
    layout.members.keys().copied().zip(letters).collect()
}

fn map_report(layout: &Layout, down: &[NodeId], style: Style) -> Report {
    let letters = letters(layout);
    let mut text = format!(
        "ring {}   {} slots, each kept by {}   one letter: {STEP} slots, by the node that most are first in\n",
        layout.epoch,
        ring::SLOTS,
        human::things(usize::from(layout.table.width()), "node", "nodes"),
    );
    for line in 0..4 {
        text += &format!("{:>5}  ", line * LINE * STEP);
        for column in 0..LINE {
            let from = (line * LINE + column) * STEP;
            let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
            for slot in from..from + STEP {
                let first = layout.replicas(Slot(slot as u16)).first();
                first.iter().for_each(|node| *counts.entry(**node).or_default() += 1);
            }
            let most =
                counts.into_iter().max_by_key(|(node, count)| (*count, std::cmp::Reverse(*node)));
            text.push(most.and_then(|(node, _)| letters.get(&node).copied()).unwrap_or('.'));
        }
        text.push('\n');
    }
    let (firsts, loads) = (layout.table.firsts(), layout.table.loads());
    let mut table = Table::new(&["", "NODE", "ZONE", ">FIRST IN", ">KEEPS", "STATE"]);
    let mut rows = Vec::new();
    for (id, member) in &layout.members {
        let is_down = down.contains(id);
        let (first, keeps) = (firsts.get(id).unwrap_or(&0), loads.get(id).unwrap_or(&0));
        let (state, paint) = if is_down { ("down", Paint::Bad) } else { ("up", Paint::Good) };
        table.row([
            Cell::text(letters.get(id).copied().unwrap_or('?').to_string()),
            Cell::text(member.name.as_str()),
            Cell::text(member.zone.as_str()),
            Cell::number(first.to_string()),
            Cell::number(keeps.to_string()),
            Cell::text(state).painted(paint),
        ]);
        rows.push(Record::new([
            ("id", id.0.to_string().into()),
            ("name", member.name.as_str().into()),
            ("zone", member.zone.as_str().into()),
            ("slots_first", (*first).into()),
            ("slots_kept", (*keeps).into()),
            ("up", (!is_down).into()),
        ]));
    }
    text += &table.render(style.colour);
    Report { text, whole: whole(layout).with("nodes", &rows), rows }
}

pub(crate) async fn slots(
    args: &Args,
    of: Option<&str>,
    slot: Option<u16>,
) -> Result<Exit, Failure> {
    let (layout, _) = fetch(args).await?;
    let node = match of {
        None => None,
        Some(wanted) => Some(member(&layout, wanted)?),
    };
    show(args, &slots_report(&layout, node, slot, style(args)));
    Ok(Exit::Fine)
}

fn member(layout: &Layout, wanted: &str) -> Result<NodeId, Failure> {
    let by_number = |id: &&NodeId| id.0.to_string() == wanted;
    let found = layout.member_named(wanted).map(|member| member.id);
    found.or_else(|| layout.members.keys().find(by_number).copied()).ok_or_else(|| {
        let known: Vec<_> = layout.members.values().map(|m| m.name.as_str()).collect();
        let why = format!("the members are {}", known.join(", "));
        let told = Told::new(format!("no node has the name {wanted}"), why, "name one of those");
        Failure { exit: Exit::Usage, told }
    })
}

/// Slots that follow each other and are kept by the same nodes in the same order.
fn runs(layout: &Layout) -> Vec<(u16, u16, Vec<NodeId>)> {
    let mut runs: Vec<(u16, u16, Vec<NodeId>)> = Vec::new();
    for (slot, nodes) in layout.table.rows() {
        match runs.last_mut() {
            Some((_, last, held)) if held == nodes => *last = slot.0,
            _ => runs.push((slot.0, slot.0, nodes.to_vec())),
        }
    }
    runs
}

fn slots_report(layout: &Layout, of: Option<NodeId>, slot: Option<u16>, style: Style) -> Report {
    let mut table =
        Table::new(&[">FROM", ">TO", ">SLOTS", "KEPT BY, THE PREFERRED COORDINATOR FIRST"]);
    let mut rows = Vec::new();
    for (from, to, nodes) in runs(layout) {
        let wanted = of.is_none_or(|node| nodes.contains(&node))
            && slot.is_none_or(|slot| (from..=to).contains(&slot));
        if !wanted {
            continue;
        }
        let count = u32::from(to - from) + 1;
        let names: Vec<_> = nodes.iter().map(|node| name(layout, *node)).collect();
        table.row([
            Cell::number(from.to_string()),
            Cell::number(to.to_string()),
            Cell::number(count.to_string()),
            Cell::text(names.join(" ")),
        ]);
        let names: Vec<Value> = names.into_iter().map(Value::from).collect();
        rows.push(Record::new([
            ("from", from.into()),
            ("to", to.into()),
            ("slots", count.into()),
            ("nodes", names.into()),
        ]));
    }
    let text = table.render(style.colour);
    Report { text, whole: whole(layout).with("ranges", &rows), rows }
}

pub(crate) async fn balance(args: &Args) -> Result<Exit, Failure> {
    let (layout, _) = fetch(args).await?;
    show(args, &balance_report(&layout, style(args)));
    Ok(Exit::Fine)
}

fn balance_report(layout: &Layout, style: Style) -> Report {
    let (firsts, loads) = (layout.table.firsts(), layout.table.loads());
    let weight: u64 = layout.members.values().map(|m| u64::from(m.capacity)).sum();
    let width = f64::from(layout.table.width());
    let slots = f64::from(ring::SLOTS);
    let headings =
        ["NODE", "ZONE", ">WEIGHT", ">KEEPS", ">FAIR", ">RATIO", ">FIRST IN", ">FAIR", ">RATIO"];
    let mut table = Table::new(&headings);
    let (mut rows, mut worst, mut worst_first) = (Vec::new(), 0.0_f64, 0.0_f64);
    for (id, member) in &layout.members {
        let share = f64::from(member.capacity) / weight.max(1) as f64;
        let fair = (share * slots * width).min(slots);
        let fair_first = share * slots;
        let (keeps, first) = (*loads.get(id).unwrap_or(&0), *firsts.get(id).unwrap_or(&0));
        let ratio = |is: u32, fair: f64| if fair > 0.0 { f64::from(is) / fair } else { 1.0 };
        let (kept, firsts) = (ratio(keeps, fair), ratio(first, fair_first));
        (worst, worst_first) = (worst.max(kept), worst_first.max(firsts));
        table.row([
            Cell::text(member.name.as_str()),
            Cell::text(member.zone.as_str()),
            Cell::number(member.capacity.to_string()),
            Cell::number(keeps.to_string()),
            Cell::number(format!("{fair:.0}")),
            Cell::number(format!("{kept:.3}")),
            Cell::number(first.to_string()),
            Cell::number(format!("{fair_first:.0}")),
            Cell::number(format!("{firsts:.3}")),
        ]);
        rows.push(Record::new([
            ("id", id.0.to_string().into()),
            ("name", member.name.as_str().into()),
            ("zone", member.zone.as_str().into()),
            ("weight", member.capacity.into()),
            ("slots_kept", keeps.into()),
            ("slots_kept_fair", fair.into()),
            ("ratio", kept.into()),
            ("slots_first", first.into()),
            ("slots_first_fair", fair_first.into()),
            ("ratio_first", firsts.into()),
        ]));
    }
    let text = format!(
        "{}balance: the fullest node keeps {worst:.3} of its fair share, the busiest coordinates {worst_first:.3}\n",
        table.render(style.colour)
    );
    let whole = whole(layout)
        .and([("worst_ratio", worst.into()), ("worst_ratio_first", worst_first.into())]);
    Report { text, whole: whole.with("nodes", &rows), rows }
}
