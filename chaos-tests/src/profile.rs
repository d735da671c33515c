//! Profiles: what a seed draws before its run begins, so that each seed tries another corner.

use commands::Bug as SessionBug;
use replication::Bug;
use ring::{Durability, Level};
use storage::PlantedBug;

use crate::fault::{Fault, Rates};
use crate::sim::chance::Chance;
use crate::sim::clock::{MS, SECOND};
use crate::sim::network::Manners;
use crate::workload::TalkMix;

/// How much of each kind of request clients make; weights.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Plain SET.
    pub set: u64,
    /// GET.
    pub get: u64,
    /// DEL and GETDEL.
    pub del: u64,
    /// SETNX, GETSET, APPEND.
    pub conditional: u64,
    /// Reads of siblings and writes with their context.
    pub siblings: u64,
    /// INCR and reads of counters.
    pub counter: u64,
    /// Counters that are reset.
    pub reset: u64,
    /// Transactions on keys of one slot.
    pub multi: u64,
    /// Keys that expire.
    pub expiry: u64,
    /// Scans.
    pub scan: u64,
    /// FLUSHDB of one slot.
    pub flush: u64,
    /// Pages of ranges of sort keys.
    pub range: u64,
    /// Deletions of such pages.
    pub range_delete: u64,
    /// Keys of the keyspace that keeps siblings.
    pub kept: u64,
}

/// Everything that a seed draws.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Which of [`NAMES`].
    pub name: &'static str,
    /// The seed itself.
    pub seed: u64,
    /// Nodes in the cluster; each key has three copies.
    pub nodes: usize,
    /// Cores a node.
    pub cores: u8,
    /// How the network behaves.
    pub manners: Manners,
    /// The read level.
    pub read: Level,
    /// The write level.
    pub write: Level,
    /// Requests draw their own levels instead.
    pub mixed_levels: bool,
    /// When a write counts as there.
    pub durability: Durability,
    /// Hash tags, and so slots, in use.
    pub tags: u64,
    /// Keys of each kind.
    pub keys: u64,
    /// Clients.
    pub clients: usize,
    /// Mean time between a client's requests.
    pub think_ns: u64,
    /// How long requests may take.
    pub patience_ns: u64,
    /// Size of a memtable.
    pub memtable_bytes: usize,
    /// How much flushed log is kept.
    pub log_retain_bytes: u64,
    /// How long the disk takes to answer a read, at most; 0: the answer is there at once.
    pub load_ns: u64,
    /// Reads of the disk see the moment of the answer, not that of the asking.
    pub load_late: bool,
    /// How long an fsync takes, at most.
    pub sync_ns: u64,
    /// Wall clocks differ by up to so much from the truth.
    pub skew_ms: u64,
    /// Wall clocks jump by up to so much more.
    pub jump_ms: u64,
    /// How often what happens.
    pub faults: Rates,
    /// How long a node stays down, and a cut lasts, on average.
    pub outage_ns: u64,
    /// A second layout is announced at this time.
    pub new_layout_at: Option<u64>,
    /// Replicas move to another node at this time, while every process is down.
    pub replicas_move_at: Option<u64>,
    /// What clients ask.
    pub mix: Mix,
    /// Clients that speak RESP.
    pub speakers: usize,
    /// Commands that they send at once, at most, but for transactions.
    pub pipeline: u64,
    /// What they say.
    pub talk: TalkMix,
    /// Writes have names, and are asked for until their fate is known.
    pub named: bool,
    /// Clients are sessions: they say what they have seen, and are never shown less.
    pub tokens: bool,
    /// Clients read quorums by themselves where they can.
    pub shares: bool,
    /// Clients hear the replicas of their writes themselves.
    pub acks: bool,
    /// One slot holds so many keys that scans of it are cut.
    pub large_slot: bool,
    /// For how long clients ask and faults happen.
    pub length_ns: u64,
    /// Bugs planted in replication.
    pub bugs: Vec<Bug>,
    /// Bugs planted in storage.
    pub storage_bugs: Vec<PlantedBug>,
    /// Bugs planted in sessions.
    pub session_bugs: Vec<SessionBug>,
}

/// The profiles that can be asked for by name. `swarm` draws among all corners; the others press on
/// one of them.
pub const NAMES: [&str; 23] = [
    "swarm",
    "quiet",
    "lossy",
    "crashes",
    "power",
    "sync",
    "retries",
    "small-log",
    "fence",
    "echoes",
    "resets",
    "rot",
    "sessions",
    "transactions",
    "expiry",
    "sweeps",
    "moves",
    "ranges",
    "named",
    "tokens",
    "terms",
    "shares",
    "acks",
];

impl Profile {
    /// What `seed` draws under a profile's name; `None` if there is no such profile.
    #[must_use]
    pub fn draw(name: &str, seed: u64, seconds: u64) -> Option<Self> {
        let name = NAMES.into_iter().find(|n| *n == name)?;
        let mut chance = Chance::new(seed ^ 0x7072_6f66);
        let mut profile = Self::swarm(&mut chance, seed, seconds);
        profile.name = name;
        profile.press(&mut chance);
        // A source of its own: what the others draw does not depend on it.
        profile.speak(&mut Chance::new(seed ^ 0x7365_7373));
        Some(profile)
    }

    fn swarm(c: &mut Chance, seed: u64, seconds: u64) -> Self {
        let faithful = c.hits(600_000);
        let manners = Manners {
            faithful,
            delay_ns: c.pick(&[(100_000, 300_000), (200_000, 2 * MS), (MS, 12 * MS)]),
            late_ppm: c.pick(&[0, 1_000, 20_000]),
            loss_ppm: c.pick(&[0, 2_000, 20_000, 100_000]),
            twice_ppm: c.pick(&[0, 2_000, 50_000]),
        };
        let (read, write) = c.pick(&[
            (Level::Quorum, Level::Quorum),
            (Level::Quorum, Level::Quorum),
            (Level::Quorum, Level::Quorum),
            (Level::Quorum, Level::Quorum),
            (Level::One, Level::All),
            (Level::All, Level::One),
            (Level::One, Level::One),
            (Level::Quorum, Level::All),
        ]);
        let durability = if c.hits(250_000) { Durability::Sync } else { Durability::Os };
        let mut faults = Rates::default();
        let mut may = |c: &mut Chance, ppm, fault, seconds: &[u64]| {
            if c.hits(ppm) {
                faults.set(fault, c.pick(seconds));
            }
        };
        may(c, 700_000, Fault::Kill, &[4, 10, 25]);
        may(c, 500_000, Fault::Power, &[6, 15, 30]);
        may(c, 300_000, Fault::Stop, &[10, 30]);
        may(c, 500_000, Fault::Split, &[6, 15]);
        may(c, 300_000, Fault::OneWay, &[6, 15]);
        may(c, 500_000, Fault::Reset, &[2, 5, 15]);
        may(c, 400_000, Fault::Pause, &[5, 15]);
        may(c, 300_000, Fault::Jump, &[5, 15]);
        may(c, 200_000, Fault::SyncFails, &[15, 30]);
        may(c, 200_000, Fault::Full, &[15, 30]);
        may(c, 100_000, Fault::Rot, &[10]);
        if durability == Durability::Sync && c.coin() {
            faults.set(Fault::PowerEverywhere, 20);
        }
        let weight = |c: &mut Chance, most: u64| if c.hits(250_000) { 0 } else { c.below(most) };
        let mix = Mix {
            set: 2 + weight(c, 8),
            get: 2 + weight(c, 10),
            del: weight(c, 3),
            conditional: weight(c, 4),
            siblings: weight(c, 4),
            counter: weight(c, 6),
            reset: weight(c, 4),
            multi: weight(c, 2),
            expiry: weight(c, 3),
            scan: u64::from(c.hits(200_000)),
            flush: u64::from(c.hits(200_000)),
            range: 0,
            range_delete: 0,
            kept: 0,
        };
        let memtable_bytes = c.pick(&[4 << 10, 16 << 10, 64 << 10, 1 << 20]);
        Self {
            name: "swarm",
            seed,
            nodes: if c.hits(250_000) { 5 } else { 3 },
            cores: if c.hits(200_000) { 2 } else { 1 },
            manners,
            read,
            write,
            mixed_levels: c.hits(150_000),
            durability,
            tags: c.pick(&[1, 2, 4, 8]),
            keys: c.pick(&[1, 3, 8, 20]),
            clients: c.between(3, 10) as usize,
            think_ns: c.pick(&[5 * MS, 30 * MS, 100 * MS, 300 * MS]),
            patience_ns: c.pick(&[300 * MS, SECOND, 3 * SECOND]),
            memtable_bytes,
            log_retain_bytes: c.pick(&[0, 8 << 10, 64 << 10, 4 << 20]),
            load_ns: c.pick(&[0, 0, 100_000, 2 * MS]),
            load_late: c.coin(),
            sync_ns: c.pick(&[MS, 10 * MS, 100 * MS]),
            skew_ms: c.pick(&[0, 5, 100, 240]),
            jump_ms: c.pick(&[20, 200, 3_000]),
            faults,
            outage_ns: c.pick(&[200 * MS, SECOND, 4 * SECOND]),
            new_layout_at: c.hits(100_000).then(|| c.below(seconds * SECOND)),
            replicas_move_at: None,
            mix,
            speakers: 0,
            pipeline: 1,
            talk: TalkMix::default(),
            named: false,
            tokens: false,
            shares: false,
            acks: false,
            large_slot: false,
            length_ns: seconds * SECOND,
            bugs: Vec::new(),
            storage_bugs: Vec::new(),
            session_bugs: Vec::new(),
        }
    }

    /// Presses on the corner that the profile is named after.
    fn press(&mut self, c: &mut Chance) {
        match self.name {
            "quiet" => self.faults = Rates::default(),
            "lossy" => {
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[20_000, 100_000, 200_000]);
                self.manners.twice_ppm = c.pick(&[20_000, 100_000]);
                self.manners.late_ppm = 50_000;
                self.quorums();
            }
            "crashes" => {
                self.quorums();
                self.faults.set(Fault::Kill, 3);
                self.faults.set(Fault::Reset, 2);
                self.faults.set(Fault::Split, 5);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS, 2 * SECOND]);
            }
            "power" => {
                self.quorums();
                self.durability = Durability::Os;
                self.faults.never(Fault::PowerEverywhere);
                self.faults.set(Fault::Power, 4);
                self.faults.set(Fault::Split, 5);
                self.faults.set(Fault::Reset, 3);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS, 2 * SECOND]);
            }
            "sync" => {
                self.quorums();
                self.durability = Durability::Sync;
                self.faults.never(Fault::SyncFails);
                self.faults.never(Fault::Rot);
                self.faults.set(Fault::PowerEverywhere, 6);
                self.faults.set(Fault::Power, 6);
                self.sync_ns = c.pick(&[MS, 10 * MS]);
            }
            "retries" => {
                self.quorums();
                self.mix.counter = 10;
                self.mix.conditional = 6;
                self.manners.faithful = false;
                self.manners.loss_ppm = 50_000;
                self.faults.set(Fault::Kill, 4);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS]);
                self.patience_ns = 3 * SECOND;
                self.think_ns = 20 * MS;
            }
            "small-log" => {
                self.quorums();
                self.memtable_bytes = 4 << 10;
                self.log_retain_bytes = 0;
                self.tags = 1;
                self.keys = c.pick(&[8, 20, 60]);
                self.think_ns = 10 * MS;
                self.manners.delay_ns = c.pick(&[(200_000, 2 * MS), (MS, 12 * MS)]);
                self.faults.set(Fault::Kill, 4);
                self.faults.set(Fault::Reset, 2);
                self.faults.set(Fault::Split, 4);
                self.outage_ns = c.pick(&[300 * MS, 2 * SECOND]);
                self.mix.del = 4;
            }
            "echoes" => {
                // Acknowledgements come twice, all are needed, and a replica is away just then.
                self.read = Level::One;
                self.write = Level::All;
                self.mixed_levels = false;
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[50_000, 200_000]);
                self.manners.twice_ppm = 400_000;
                self.faults.set(Fault::Split, 3);
                self.faults.set(Fault::OneWay, 3);
                self.faults.set(Fault::Pause, 4);
                self.think_ns = 10 * MS;
            }
            "resets" => {
                self.quorums();
                self.mix.reset = 20;
                self.mix.counter = 0;
                self.keys = c.pick(&[1, 3]);
                self.think_ns = 10 * MS;
                self.faults.set(Fault::Split, 4);
            }
            "rot" => {
                // Damage, and whoever could make up for it is away.
                self.quorums();
                self.durability = Durability::Os;
                self.nodes = 3;
                self.faults = Rates::default();
                self.faults.set(Fault::Rot, 2);
                self.faults.set(Fault::Split, 2);
                self.faults.set(Fault::Kill, 4);
                self.memtable_bytes = 1 << 20;
                self.outage_ns = c.pick(&[300 * MS, 2 * SECOND]);
                self.think_ns = 10 * MS;
            }
            "ranges" => {
                // Pages that replicas cut at different rows, while messages come late and twice.
                self.quorums();
                self.mixed_levels = c.hits(200_000);
                self.mix.range = 8;
                self.mix.range_delete = 2;
                self.tags = c.pick(&[1, 2]);
                self.keys = c.pick(&[3, 8, 20]);
                self.think_ns = 10 * MS;
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 50_000]);
                self.manners.twice_ppm = c.pick(&[20_000, 200_000]);
                self.manners.late_ppm = 50_000;
                self.faults.set(Fault::Kill, 8);
                self.faults.set(Fault::Split, 4);
            }
            "named" => {
                // Writes whose answers get lost, asked for again wherever.
                self.quorums();
                self.named = true;
                self.mixed_levels = c.hits(200_000);
                self.nodes = c.pick(&[3, 5]);
                self.mix.counter = 8;
                self.mix.siblings = 4;
                self.mix.range = 1;
                self.mix.range_delete = 1;
                self.mix.kept = 3;
                self.think_ns = 10 * MS;
                self.patience_ns = c.pick(&[300 * MS, SECOND]);
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 50_000]);
                self.manners.twice_ppm = c.pick(&[2_000, 100_000]);
                self.faults.set(Fault::Kill, 4);
                self.faults.set(Fault::Stop, 10);
                self.faults.set(Fault::Split, 4);
                self.faults.set(Fault::Reset, 3);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS, 2 * SECOND]);
            }
            "tokens" => {
                // Sessions that read and write at ONE, wherever they are, while replicas lag.
                self.quorums();
                self.tokens = true;
                self.named = c.coin();
                self.mixed_levels = true;
                self.nodes = c.pick(&[3, 5]);
                self.tags = c.pick(&[1, 2]);
                self.keys = c.pick(&[1, 3, 8]);
                self.mix.counter = 6;
                self.mix.siblings = 4;
                self.mix.range = 4;
                self.mix.range_delete = 1;
                self.think_ns = 10 * MS;
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 50_000, 200_000]);
                self.manners.late_ppm = 50_000;
                self.faults.set(Fault::Kill, 6);
                self.faults.set(Fault::Split, 3);
                self.faults.set(Fault::OneWay, 4);
            }
            "shares" => {
                // Clients gather quorums, by old maps as well, while replicas lag, restart and move.
                self.quorums();
                self.shares = true;
                self.tokens = c.coin();
                self.mixed_levels = c.hits(300_000);
                self.nodes = c.pick(&[3, 5, 5]);
                self.mix.get = 10;
                self.mix.siblings = 6;
                self.mix.expiry = 2;
                self.mix.counter = 4;
                self.mix.kept = 2;
                self.tags = c.pick(&[1, 2, 4]);
                self.keys = c.pick(&[1, 3, 8]);
                self.think_ns = c.pick(&[5 * MS, 10 * MS]);
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 50_000, 200_000]);
                self.manners.late_ppm = 50_000;
                self.faults.set(Fault::Kill, 5);
                self.faults.set(Fault::Power, 8);
                self.faults.set(Fault::Split, 4);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS, 2 * SECOND]);
                let moves = self.nodes == 5 && c.coin();
                self.replicas_move_at = moves.then_some(self.length_ns / 2);
                self.new_layout_at = (!moves && c.coin()).then_some(self.length_ns / 3);
            }
            "acks" => {
                // Clients count the replicas that tell them, while those lag, restart, lose power and move.
                (self.read, self.write) = c.pick(&[
                    (Level::Quorum, Level::Quorum),
                    (Level::Quorum, Level::Quorum),
                    (Level::One, Level::All),
                ]);
                self.durability = Durability::Os;
                self.faults.never(Fault::PowerEverywhere);
                // Kills one after the other while a clock is ahead take it further with each.
                self.faults.never(Fault::Jump);
                self.named = true;
                self.acks = true;
                self.tokens = c.coin();
                self.mixed_levels = c.hits(200_000);
                self.nodes = c.pick(&[3, 5]);
                self.mix.get = 8;
                self.mix.counter = 6;
                self.mix.siblings = 4;
                self.mix.kept = 3;
                self.mix.range_delete = 1;
                self.tags = c.pick(&[1, 2, 4]);
                self.keys = c.pick(&[1, 3, 8]);
                self.think_ns = c.pick(&[5 * MS, 10 * MS]);
                self.patience_ns = c.pick(&[300 * MS, SECOND]);
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 20_000, 100_000]);
                self.manners.twice_ppm = c.pick(&[2_000, 100_000]);
                self.manners.late_ppm = 50_000;
                self.faults.set(Fault::Kill, 4);
                self.faults.set(Fault::Power, 8);
                self.faults.set(Fault::Stop, 15);
                self.faults.set(Fault::Split, 4);
                self.faults.set(Fault::Reset, 5);
                self.outage_ns = c.pick(&[20 * MS, 300 * MS, 2 * SECOND]);
                let moves = self.nodes == 5 && c.coin();
                self.replicas_move_at = moves.then_some(self.length_ns / 2);
                self.new_layout_at = (!moves && c.coin()).then_some(self.length_ns / 3);
            }
            "fence" => {
                self.quorums();
                self.new_layout_at = Some(self.length_ns / 3);
                self.think_ns = 5 * MS;
            }
            _ => {}
        }
    }

    /// Draws what speakers do, where there are any.
    fn speak(&mut self, c: &mut Chance) {
        let weight = |c: &mut Chance, most: u64| if c.hits(250_000) { 0 } else { c.below(most) };
        self.talk = TalkMix {
            set: 2 + weight(c, 8),
            get: 2 + weight(c, 10),
            del: weight(c, 3),
            conditional: weight(c, 4),
            siblings: weight(c, 4),
            counter: weight(c, 6),
            decimal: weight(c, 4),
            cells: weight(c, 4),
            many: weight(c, 6),
            pair: weight(c, 4),
            across: weight(c, 3),
            watch: weight(c, 4),
            expiry: weight(c, 4),
            wait: weight(c, 2),
            chat: 1 + weight(c, 3),
            scan: u64::from(c.hits(200_000)),
            size: u64::from(c.hits(100_000)),
            flush: u64::from(c.hits(100_000) && self.mix.flush > 0),
        };
        self.pipeline = c.pick(&[1, 4, 16]);
        match self.name {
            "swarm" if c.hits(600_000) => self.speakers = c.between(1, 5) as usize,
            "sessions" => {
                // Some keys live elsewhere, so that requests are forwarded and overtake each other.
                self.quorums();
                self.clients = 2;
                self.speakers = c.between(3, 6) as usize;
                self.nodes = c.pick(&[3, 5, 5]);
                self.pipeline = c.pick(&[4, 16]);
                self.faults.set(Fault::Kill, 5);
                self.faults.set(Fault::Split, 5);
            }
            "transactions" => {
                self.quorums();
                self.clients = 2;
                self.speakers = 5;
                self.tags = c.pick(&[2, 4]);
                self.keys = c.pick(&[1, 2]);
                self.think_ns = c.pick(&[5 * MS, 20 * MS]);
                self.talk.pair = 8;
                self.talk.across = 4;
                self.talk.watch = 10;
                self.manners.faithful = false;
                self.manners.loss_ppm = c.pick(&[2_000, 50_000]);
                self.faults.set(Fault::Split, 5);
            }
            "expiry" => {
                self.quorums();
                self.clients = 2;
                self.speakers = 4;
                self.talk.expiry = 20;
                self.think_ns = c.pick(&[20 * MS, 100 * MS]);
            }
            "moves" => {
                self.quorums();
                self.nodes = 5;
                self.new_layout_at = None;
                self.replicas_move_at = Some(self.length_ns / 2);
                self.speakers = 3;
                self.faults.set(Fault::Kill, 8);
            }
            "terms" => {
                self.quorums();
                self.durability = Durability::Os;
                self.faults.never(Fault::PowerEverywhere);
                self.faults.set(Fault::Terms, 1);
                self.mix.kept = 8;
                self.faults.set(Fault::Kill, 6);
                self.faults.set(Fault::Split, 6);
                self.speakers = 2;
            }
            "sweeps" => {
                self.quorums();
                self.clients = 1;
                self.speakers = 3;
                self.large_slot = true;
                self.tags = 8;
                self.mix.scan = 1;
                self.talk.scan = 3;
                self.talk.size = 1;
                self.think_ns = c.pick(&[20 * MS, 50 * MS]);
                self.memtable_bytes = 1 << 20;
                self.faults.set(Fault::Kill, 10);
            }
            _ => {}
        }
    }

    fn quorums(&mut self) {
        self.read = Level::Quorum;
        self.write = Level::Quorum;
        self.mixed_levels = false;
    }
}
