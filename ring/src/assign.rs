//! Assign: which member keeps which slot, and what a change of layout moves.
//!
//! The promises, the first one winning over the next:
//! 1. the copies of a slot lie in min(N, zones) distinct zones;
//! 2. every member owns its fair share by capacity, rounded down or up to whole slots. Where zones
//!    or the size of the slot space do not allow that (three zones and three copies: each zone keeps
//!    everything, however small it is; nobody keeps a slot twice), the share is the fairest that
//!    they do allow: see [`ideal_loads`];
//! 3. from one table to the next, little more moves than these shares make necessary;
//! 4. every member is first in one N-th of the slots that it keeps.
//!
//! How: shares are water-filled, then rounded in favour of whoever owns more today. A first table
//! lays the shares one after the other along a line, zone by zone, and cuts that line every 16384
//! steps: no share is longer than the cut, so no slot meets a node twice (McNaughton's wrap-around
//! rule). A later table starts from the one before: what must go is dropped, holes are filled, then
//! copies pass from members with too many to members with too few, directly where zones allow,
//! else along a shortest chain. Such a chain exists while shares are not met, because the legal
//! replica sets of a slot are the bases of a matroid. In small clusters, where zones and weights meet
//! hardest, copies then go back to who kept them, as long as others that travel anyway can take the
//! turn. No chance and no floating-point function
//! beyond the four basic operations is involved: equal input gives equal output everywhere.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::layout::{Member, Table};
use crate::slot::{SLOTS, Slot};

const SLOT_COUNT: usize = SLOTS as usize;

/// A first table is laid out in this many independent blocks, so that a node shares its slots with
/// about this many times 2·(N−1) others: few enough that three losses seldom meet in one slot, many
/// enough that a lost node is rebuilt from many.
const BLOCKS: usize = 4;

/// Up to [`FEW`] nodes meet each other anyway; more blocks then mix zones better, which leaves later
/// changes more to choose from.
const BLOCKS_OF_FEW: usize = 16;
const FEW: usize = 16;

/// In clusters up to this size copies are given back. Larger ones have so many nodes to choose from
/// that shares alone come within a tenth of the fewest moves, and there it would take seconds.
const GIVE_BACK_MAX: usize = 64;
const _: () =
    assert!(SLOT_COUNT.is_multiple_of(BLOCKS) && SLOT_COUNT.is_multiple_of(BLOCKS_OF_FEW));

/// Shares are sums of a few thousand doubles; anything nearer to a whole number is that number.
const WHOLE: f64 = 1e-6;

/// The slots of every member with a capacity above 0, assigned anew from `old` (which may be empty).
///
/// The table keeps min(`copies`, members with a capacity) copies of each slot.
#[must_use]
pub fn assign(members: &BTreeMap<NodeId, Member>, copies: u8, old: &Table) -> Table {
    let field = Field::new(members, copies);
    if field.copies == 0 {
        return Table::default();
    }
    let mut board = Board::from_table(&field, old);
    if old.width() == 0 {
        board.lay_out();
    } else {
        board.drop_excess();
        board.fill_holes();
        // Copies that have just found a place travel anyway: to place them better costs nothing.
        board.pass_on_directly(Movable::Placed);
        while board.pass_on_by_chain(0) {}
        board.pass_on_directly(Movable::All);
        while board.pass_on_by_chain(field.ids.len()) {}
        board.give_back();
    }
    board.order();
    board.into_table()
}

/// How many slots each member should keep, before rounding to whole slots: proportional to its
/// capacity as far as zones and the size of the slot space allow.
#[must_use]
pub fn ideal_loads(members: &BTreeMap<NodeId, Member>, copies: u8) -> BTreeMap<NodeId, f64> {
    let field = Field::new(members, copies);
    let ideal = field.ideal();
    let owners = field.ids.iter().copied().zip(ideal.nodes);
    let mut loads: BTreeMap<NodeId, f64> = members.keys().map(|id| (*id, 0.0)).collect();
    loads.extend(owners);
    loads
}

/// What the assignment is about: the owners, numbered from 0, and their zones.
struct Field {
    ids: Vec<NodeId>,
    capacity: Vec<f64>,
    zone: Vec<usize>,
    /// The owners of each zone.
    zones: Vec<Vec<usize>>,
    /// Copies of a slot.
    copies: usize,
    /// Distinct zones of a slot.
    spread: usize,
}

/// Shares before rounding.
struct Ideal {
    zones: Vec<f64>,
    nodes: Vec<f64>,
}

impl Field {
    fn new(members: &BTreeMap<NodeId, Member>, copies: u8) -> Self {
        let owners: Vec<&Member> = members.values().filter(|m| m.capacity > 0).collect();
        let mut by_zone: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
        for (node, owner) in owners.iter().enumerate() {
            by_zone.entry(owner.failure_domain()).or_default().push(node);
        }
        let zones: Vec<Vec<usize>> = by_zone.into_values().collect();
        let mut zone = vec![0; owners.len()];
        for (z, nodes) in zones.iter().enumerate() {
            for &node in nodes {
                zone[node] = z;
            }
        }
        let copies = owners.len().min(usize::from(copies));
        Self {
            ids: owners.iter().map(|m| m.id).collect(),
            capacity: owners.iter().map(|m| f64::from(m.capacity)).collect(),
            spread: copies.min(zones.len()),
            zone,
            zones,
            copies,
        }
    }

    /// A zone keeps at least this many and at most that many copies.
    fn zone_bounds(&self, zone: usize) -> (f64, f64) {
        let slots = f64::from(SLOTS);
        let least = if self.zones.len() <= self.copies { slots } else { 0.0 };
        let most = self.zones[zone].len().min(self.copies - self.spread + 1);
        (least, slots * most as f64)
    }

    /// What the owners of a zone keep at a water level of `level` slots a unit of capacity.
    fn filled(&self, zone: usize, level: f64) -> f64 {
        let slots = f64::from(SLOTS);
        self.zones[zone].iter().map(|&node| (level * self.capacity[node]).min(slots)).sum()
    }

    fn ideal(&self) -> Ideal {
        let total = f64::from(SLOTS) * self.copies as f64;
        let clamped = |zone: usize, level: f64| {
            let (least, most) = self.zone_bounds(zone);
            self.filled(zone, level).clamp(least, most)
        };
        let all = 0..self.zones.len();
        let level = level_where(total, |l| all.clone().map(|zone| clamped(zone, l)).sum());
        let zones: Vec<f64> = all.map(|zone| clamped(zone, level)).collect();
        let mut nodes = vec![0.0; self.ids.len()];
        for (zone, &share) in zones.iter().enumerate() {
            let level = level_where(share, |l| self.filled(zone, l));
            for &node in &self.zones[zone] {
                nodes[node] = (level * self.capacity[node]).min(f64::from(SLOTS));
            }
        }
        Ideal { zones, nodes }
    }

    /// The shares in whole slots; roundings favour whoever has more than the rounded-down share.
    fn targets(&self, loads: &[u32]) -> Vec<u32> {
        let ideal = self.ideal();
        let loads_of = |zone: &Vec<usize>| zone.iter().map(|&node| loads[node]).sum();
        let zone_loads: Vec<u32> = self.zones.iter().map(loads_of).collect();
        let total = u32::from(SLOTS) * self.copies as u32;
        let zone_targets = round(&ideal.zones, total, &zone_loads);
        let mut targets = vec![0; self.ids.len()];
        for (nodes, zone_target) in self.zones.iter().zip(zone_targets) {
            let shares: Vec<f64> = nodes.iter().map(|&node| ideal.nodes[node]).collect();
            let now: Vec<u32> = nodes.iter().map(|&node| loads[node]).collect();
            for (&node, target) in nodes.iter().zip(round(&shares, zone_target, &now)) {
                targets[node] = target;
            }
        }
        targets
    }
}

/// The level at which the never falling function `filled` reaches `wanted`, by halving: 200 steps
/// exhaust the precision of a double.
fn level_where(wanted: f64, filled: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, f64::from(SLOTS));
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if filled(middle) < wanted { low = middle } else { high = middle }
    }
    high
}

/// Whole numbers that sum to `total`, each its share rounded down or up: up first where `now` is
/// more than the share rounded down, then where the fraction is greatest.
fn round(shares: &[f64], total: u32, now: &[u32]) -> Vec<u32> {
    let mut whole: Vec<u32> = shares.iter().map(|share| (share + WHOLE) as u32).collect();
    let fraction = |i: usize| (shares[i] - f64::from(whole[i])).max(0.0);
    let mut up: Vec<usize> = (0..shares.len()).collect();
    up.sort_by(|&a, &b| {
        let rank = |i: usize| (fraction(i) < WHOLE, now[i] <= whole[i]);
        rank(a).cmp(&rank(b)).then(fraction(b).total_cmp(&fraction(a))).then(a.cmp(&b))
    });
    let missing = total - whole.iter().sum::<u32>();
    for &i in up.iter().take(missing as usize) {
        whole[i] += 1;
    }
    whole
}

/// Which copies may be passed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Movable {
    /// Those that their node did not keep before.
    Placed,
    /// Every copy.
    All,
}

/// The table in the making: for each slot the owners that keep it, by number.
struct Board<'a> {
    field: &'a Field,
    rows: Vec<Vec<usize>>,
    /// The rows of the table before, as far as their nodes are still owners.
    before: Vec<Vec<usize>>,
    loads: Vec<u32>,
    targets: Vec<u32>,
    /// Who was first in each slot before; nobody in a new slot.
    firsts_before: Vec<u32>,
}

impl<'a> Board<'a> {
    fn from_table(field: &'a Field, old: &Table) -> Self {
        let numbers: BTreeMap<NodeId, usize> =
            field.ids.iter().enumerate().map(|(node, id)| (*id, node)).collect();
        let owner = |id: &NodeId| numbers.get(id).copied();
        let rows: Vec<Vec<usize>> =
            old.rows().map(|(_, nodes)| nodes.iter().filter_map(owner).collect()).collect();
        let mut loads = vec![0; field.ids.len()];
        let mut firsts_before = vec![0; field.ids.len()];
        for row in &rows {
            for &node in row {
                loads[node] += 1;
            }
            if let Some(&first) = row.first() {
                firsts_before[first] += 1;
            }
        }
        let targets = field.targets(&loads);
        Self { field, before: rows.clone(), rows, loads, targets, firsts_before }
    }

    /// The first table: every share on one line, cut to the length of a block.
    fn lay_out(&mut self) {
        let field = self.field;
        let blocks = if field.ids.len() <= FEW { BLOCKS_OF_FEW } else { BLOCKS };
        let block_slots = SLOT_COUNT / blocks;
        for block in 0..blocks {
            // Dealing single slots to the blocks in turn keeps every zone's part of each block
            // within one slot of its share, and so within what zones demand.
            let mut dealt = 0;
            let mut parts = vec![0; field.ids.len()];
            for &node in field.zones.iter().flatten() {
                let turns = |units: usize| (units + blocks - 1 - block) / blocks;
                let end = dealt + self.targets[node] as usize;
                parts[node] = turns(end) - turns(dealt);
                dealt = end;
            }
            let mut position = 0;
            // Another order in every block: other neighbours, and other zones beside each other.
            let shuffled = |numbers: &[usize]| {
                let mut order = numbers.to_vec();
                order.sort_by_key(|&number| mix(((block as u64) << 32) | number as u64));
                order
            };
            let zones: Vec<usize> = (0..field.zones.len()).collect();
            for zone in shuffled(&zones) {
                for node in shuffled(&field.zones[zone]) {
                    for _ in 0..parts[node] {
                        let slot = block * block_slots + position % block_slots;
                        self.rows[slot].push(node);
                        position += 1;
                    }
                }
            }
        }
        self.loads.clone_from(&self.targets);
        self.rotate_runs();
    }

    /// Lets every node of a run of equal rows come first in its part of the run.
    fn rotate_runs(&mut self) {
        let copies = self.field.copies;
        let mut start = 0;
        while start < SLOT_COUNT {
            let mut row = self.rows[start].clone();
            let mut end = start;
            while end < SLOT_COUNT && self.rows[end] == row {
                end += 1;
            }
            let length = end - start;
            for turn in 0..copies {
                let part = start + length * turn / copies..start + length * (turn + 1) / copies;
                self.rows[part].fill(row.clone());
                row.rotate_left(1);
            }
            start = end;
        }
    }

    fn zones_in(&self, row: &[usize]) -> usize {
        let zone = &self.field.zone;
        let new = |i: &usize| row[..*i].iter().all(|&other| zone[other] != zone[row[*i]]);
        (0..row.len()).filter(new).count()
    }

    /// Whether a row can be completed to one that spans enough zones.
    fn is_legal(&self, row: &[usize]) -> bool {
        let Some(holes) = self.field.copies.checked_sub(row.len()) else { return false };
        self.zones_in(row) + holes >= self.field.spread
    }

    /// Whether `row` may keep its copy at `new` in place of the one at position `at`.
    fn may_replace(&self, row: &[usize], at: usize, new: usize) -> bool {
        if row.contains(&new) {
            return false;
        }
        let zone = &self.field.zone;
        if zone[row[at]] == zone[new] {
            return true;
        }
        let others = || row.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, &n)| zone[n]);
        let new_is_alone = others().all(|z| z != zone[new]);
        let old_was_alone = others().all(|z| z != zone[row[at]]);
        // A full row spans exactly `spread` zones or more; only the last copy of a zone is missed.
        new_is_alone || !old_was_alone || self.zones_in(row) > self.field.spread
    }

    fn surplus(&self, node: usize) -> i64 {
        i64::from(self.loads[node]) - i64::from(self.targets[node])
    }

    /// Drops the copies that zones forbid or that exceed the number of copies.
    fn drop_excess(&mut self) {
        for slot in 0..SLOT_COUNT {
            while !self.is_legal(&self.rows[slot]) {
                let row = &self.rows[slot];
                let zone = &self.field.zone;
                let doubled =
                    |i: usize| row.iter().filter(|&&n| zone[n] == zone[row[i]]).count() > 1;
                let at = (0..row.len())
                    .max_by_key(|&i| (doubled(i), self.surplus(row[i])))
                    .expect("an empty row is legal");
                let node = self.rows[slot].remove(at);
                self.loads[node] -= 1;
            }
        }
    }

    fn fill_holes(&mut self) {
        let mut last = None;
        for slot in 0..SLOT_COUNT {
            while self.rows[slot].len() < self.field.copies {
                let node = self.best_for_hole(slot, last);
                self.rows[slot].push(node);
                self.loads[node] += 1;
                last = Some(node);
            }
        }
    }

    /// The node of the slot before while it lacks slots (runs stay long), else who lacks most.
    fn best_for_hole(&self, slot: usize, last: Option<usize>) -> usize {
        let mut row = self.rows[slot].clone();
        let mut fits = |node: usize| {
            row.push(node);
            let legal = !row[..row.len() - 1].contains(&node) && self.is_legal(&row);
            row.pop();
            legal
        };
        if let Some(node) = last.filter(|&node| self.surplus(node) < 0 && fits(node)) {
            return node;
        }
        (0..self.field.ids.len())
            .filter(|&node| fits(node))
            .min_by_key(|&node| self.surplus(node))
            .expect("a legal row can be completed")
    }

    fn replace(&mut self, slot: usize, old: usize, new: usize) {
        let at = self.rows[slot].iter().position(|&node| node == old);
        let at = at.expect("a copy moves only from a node that keeps it");
        self.rows[slot][at] = new;
        self.loads[old] -= 1;
        self.loads[new] += 1;
    }

    fn may_move(&self, slot: usize, node: usize, movable: Movable) -> bool {
        movable == Movable::All || !self.before[slot].contains(&node)
    }

    /// One pass over the slots: copies go from nodes with too many to nodes with too few. What is
    /// impossible when a slot is passed stays impossible, so that one pass does all there is.
    fn pass_on_directly(&mut self, movable: Movable) {
        let mut lacking: Vec<usize> =
            (0..self.field.ids.len()).filter(|&node| self.surplus(node) < 0).collect();
        let mut last = None;
        for slot in 0..SLOT_COUNT {
            while let Some((giver, i)) = self.direct_move(slot, &lacking, last, movable) {
                let taker = lacking[i];
                self.replace(slot, giver, taker);
                last = Some(giver);
                if self.surplus(taker) == 0 {
                    lacking.remove(i);
                }
            }
        }
    }

    /// A giver in `slot` and the position of its taker in `lacking`. The last giver goes on giving,
    /// and the first taker goes on taking, while they can: neighbouring slots stay alike, and the
    /// map that clients see stays short.
    fn direct_move(
        &self,
        slot: usize,
        lacking: &[usize],
        last: Option<usize>,
        movable: Movable,
    ) -> Option<(usize, usize)> {
        let row = &self.rows[slot];
        let gives =
            |at: &usize| self.surplus(row[*at]) > 0 && self.may_move(slot, row[*at], movable);
        let mut givers: Vec<usize> = (0..row.len()).filter(gives).collect();
        givers.sort_by_key(|&at| (Some(row[at]) != last, Reverse(self.surplus(row[at]))));
        givers.into_iter().find_map(|at| {
            let i = lacking.iter().position(|&taker| self.may_replace(row, at, taker))?;
            Some((row[at], i))
        })
    }

    /// Passes one copy along a chain a → b → … → z, where each gives a copy of some slot to the next,
    /// a has too many and z too few: a chain that moves the fewest copies which would stay
    /// otherwise, and at most `moves_max`. False once there is none.
    fn pass_on_by_chain(&mut self, moves_max: usize) -> bool {
        let mut search = Search::from((0..self.loads.len()).map(|node| self.surplus(node) > 0));
        for moves in 0..=moves_max {
            // Copies that travel anyway pass on for nothing, so as far as they get …
            let mut frontier = search.reached.clone();
            while frontier.contains(&true) && self.lacking_in(&search).is_none() {
                frontier = self.expand(&mut search, &frontier, Movable::Placed);
            }
            if let Some(end) = self.lacking_in(&search) {
                self.pass_on(&search, end);
                return true;
            }
            // … and then one that would stay.
            let from = search.reached.clone();
            let stuck = moves == moves_max
                || !self.expand(&mut search, &from, Movable::All).contains(&true);
            if stuck {
                break;
            }
        }
        false
    }

    /// Gives copies back to nodes that kept them before and pass on, for each, one that travels anyway:
    /// the same shares with fewer moves.
    fn give_back(&mut self) {
        if self.field.ids.len() > GIVE_BACK_MAX {
            return;
        }
        let mut left = self.placed();
        let mut taker = 0;
        while taker < self.field.ids.len() {
            if !self.give_back_to(taker) {
                taker += 1;
                continue;
            }
            // A chain that spoilt its own next step has left somebody with one too many.
            while self.pass_on_by_chain(self.field.ids.len()) {}
            let now = self.placed();
            if now >= left {
                taker += 1;
            }
            left = left.min(now);
        }
    }

    /// How many copies are with a node that did not keep them before.
    fn placed(&self) -> usize {
        let placed = |(row, before): (&Vec<usize>, &Vec<usize>)| {
            row.iter().filter(|node| !before.contains(node)).count()
        };
        self.rows.iter().zip(&self.before).map(placed).sum()
    }

    /// Gives one copy back to `taker` from a node that gets another by a chain of copies that travel
    /// anyway, beginning with one of `taker`; false if there is none.
    fn give_back_to(&mut self, taker: usize) -> bool {
        let mut gives: Vec<Option<usize>> = vec![None; self.loads.len()];
        for (slot, row) in self.rows.iter().enumerate() {
            if row.contains(&taker) || !self.before[slot].contains(&taker) {
                continue;
            }
            for (at, &node) in row.iter().enumerate() {
                if gives[node].is_none()
                    && !self.before[slot].contains(&node)
                    && self.may_replace(row, at, taker)
                {
                    gives[node] = Some(slot);
                }
            }
        }
        if gives.iter().all(Option::is_none) {
            return false;
        }
        let mut search = Search::from((0..self.loads.len()).map(|node| node == taker));
        let mut frontier = search.reached.clone();
        while frontier.contains(&true) {
            frontier = self.expand(&mut search, &frontier, Movable::Placed);
            let end = (0..self.loads.len()).find(|&node| frontier[node] && gives[node].is_some());
            if let Some(end) = end
                && let Some(slot) = gives[end]
            {
                self.replace(slot, end, taker);
                self.pass_on(&search, end);
                return true;
            }
        }
        false
    }

    fn lacking_in(&self, search: &Search) -> Option<usize> {
        (0..self.loads.len()).find(|&node| search.reached[node] && self.surplus(node) < 0)
    }

    /// One step of a search: who can be given a copy by a node of the frontier? It ends early with
    /// the first that lacks slots.
    fn expand(&self, search: &mut Search, frontier: &[bool], movable: Movable) -> Vec<bool> {
        let nodes = frontier.len();
        let mut next = vec![false; nodes];
        let mut found = false;
        let mut unreached: Vec<usize> = (0..nodes).filter(|&node| !search.reached[node]).collect();
        for (slot, row) in self.rows.iter().enumerate() {
            for (at, &giver) in row.iter().enumerate() {
                if !frontier[giver] || !self.may_move(slot, giver, movable) {
                    continue;
                }
                unreached.retain(|&node| {
                    let fits = self.may_replace(row, at, node);
                    if fits {
                        search.given[node] = Some((giver, slot));
                        next[node] = true;
                        search.reached[node] = true;
                        found |= self.surplus(node) < 0;
                    }
                    !fits
                });
                if unreached.is_empty() || found {
                    return next;
                }
            }
        }
        next
    }

    fn pass_on(&mut self, search: &Search, end: usize) {
        let mut taker = end;
        while let Some((giver, slot)) = search.given[taker] {
            let at = self.rows[slot].iter().position(|&node| node == giver);
            let at = at.expect("a node passes on only what it keeps");
            // A chain that meets a slot twice may spoil its own next step. Then it ends here: the
            // part behind is a chain of its own, and the part before is found again.
            if !self.may_replace(&self.rows[slot], at, taker) {
                return;
            }
            self.replace(slot, giver, taker);
            taker = giver;
        }
    }

    /// Puts the right node first in every slot, then the others so that each prefix of the list
    /// spans as many zones as it can.
    fn order(&mut self) {
        let copies = self.field.copies;
        let shares: Vec<f64> =
            self.loads.iter().map(|&load| f64::from(load) / copies as f64).collect();
        let targets = round(&shares, u32::from(SLOTS), &self.firsts_before);
        let floors = shares.iter().map(|share| (share + WHOLE) as u32).collect::<Vec<_>>();
        let ceilings = shares.iter().map(|share| (share + 1.0 - WHOLE) as u32).collect::<Vec<_>>();
        let mut firsts = vec![0; shares.len()];
        for row in &self.rows {
            firsts[row[0]] += 1;
        }
        self.lead_directly(&mut firsts, &targets);
        // These exact targets may be out of reach; rounded down or up, they never are.
        while self.lead_by_chain(&mut firsts, &ceilings, &ceilings) {}
        while self.lead_by_chain(&mut firsts, &floors, &floors) {}
        for slot in 0..SLOT_COUNT {
            self.spread_prefixes(slot);
        }
    }

    fn lead_directly(&mut self, firsts: &mut [u32], targets: &[u32]) {
        for row in &mut self.rows {
            if firsts[row[0]] <= targets[row[0]] {
                continue;
            }
            if let Some(at) = (1..row.len()).find(|&at| firsts[row[at]] < targets[row[at]]) {
                firsts[row[0]] -= 1;
                firsts[row[at]] += 1;
                row.swap(0, at);
            }
        }
    }

    /// As [`Board::pass_on_by_chain`], for the first places: from a node that is first in more slots
    /// than `most` to one that is first in fewer than `least`.
    fn lead_by_chain(&mut self, firsts: &mut [u32], most: &[u32], least: &[u32]) -> bool {
        let nodes = firsts.len();
        let mut frontier: Vec<bool> = (0..nodes).map(|node| firsts[node] > most[node]).collect();
        let mut reached = frontier.clone();
        let mut given: Vec<Option<usize>> = vec![None; nodes];
        while frontier.contains(&true) {
            let mut next = vec![false; nodes];
            for (slot, row) in self.rows.iter().enumerate().filter(|(_, row)| frontier[row[0]]) {
                for &node in &row[1..] {
                    if !reached[node] {
                        given[node] = Some(slot);
                        next[node] = true;
                        reached[node] = true;
                    }
                }
            }
            if let Some(end) = (0..nodes).find(|&node| next[node] && firsts[node] < least[node]) {
                let mut taker = end;
                while let Some(slot) = given[taker] {
                    let row = &mut self.rows[slot];
                    let giver = row[0];
                    let at = row.iter().position(|&node| node == taker);
                    row.swap(0, at.expect("a node takes the lead only of a slot that it keeps"));
                    firsts[giver] -= 1;
                    firsts[taker] += 1;
                    taker = giver;
                }
                return true;
            }
            frontier = next;
        }
        false
    }

    fn spread_prefixes(&mut self, slot: usize) {
        let zone = &self.field.zone;
        let row = &mut self.rows[slot];
        for end in 1..row.len() {
            let new = |at: &usize| row[..end].iter().all(|&other| zone[other] != zone[row[*at]]);
            if let Some(at) = (end..row.len()).find(new) {
                row[end..=at].rotate_right(1);
            }
        }
    }

    fn into_table(self) -> Table {
        let width = u8::try_from(self.field.copies).expect("copies came from a u8");
        let cells = self.rows.iter().flatten().map(|&node| self.field.ids[node]).collect();
        Table::from_cells(width, cells).expect("every row was filled")
    }
}

/// Who was reached in the search for a chain, and who gave what to whom.
struct Search {
    reached: Vec<bool>,
    given: Vec<Option<(usize, usize)>>,
}

impl Search {
    fn from(givers: impl Iterator<Item = bool>) -> Self {
        let reached: Vec<bool> = givers.collect();
        Self { given: vec![None; reached.len()], reached }
    }
}

/// A well-mixed function of a number (the finaliser of SplitMix64).
const fn mix(raw: u64) -> u64 {
    let a = (raw ^ (raw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    b ^ (b >> 31)
}

/// How the replicas of one slot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotChange {
    /// The slot.
    pub slot: Slot,
    /// Who must receive a copy, in order of preference.
    pub gained: Vec<NodeId>,
    /// Who may then drop its copy.
    pub lost: Vec<NodeId>,
}

/// How many copies of slots a node receives and gives away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Copies that it must receive.
    pub gained: u32,
    /// Copies that it may drop.
    pub lost: u32,
}

/// What must move to get from one table to another. A new order of the same nodes moves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The slots whose set of nodes changes, ascending.
    pub changes: Vec<SlotChange>,
    /// What that means for each node; untouched nodes are absent.
    pub nodes: BTreeMap<NodeId, Traffic>,
}

impl Diff {
    /// How many copies of slots travel.
    #[must_use]
    pub fn copies_moved(&self) -> u32 {
        self.nodes.values().map(|traffic| traffic.gained).sum()
    }
}

/// What must move to get from `old` to `new`.
#[must_use]
pub fn diff(old: &Table, new: &Table) -> Diff {
    let mut diff = Diff::default();
    for slot in Slot::all() {
        let (before, after) = (old.replicas(slot), new.replicas(slot));
        let missing_in = |other: &[NodeId], nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !other.contains(node)).collect()
        };
        let gained = missing_in(before, after);
        let lost = missing_in(after, before);
        for &node in &gained {
            diff.nodes.entry(node).or_default().gained += 1;
        }
        for &node in &lost {
            diff.nodes.entry(node).or_default().lost += 1;
        }
        if !gained.is_empty() || !lost.is_empty() {
            diff.changes.push(SlotChange { slot, gained, lost });
        }
    }
    diff
}
