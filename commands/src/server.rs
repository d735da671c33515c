//! Server: CONFIG, MODULE, CLUSTER and the small commands that tools ask on connecting.

use ring::Slot;
use wire::resp::encode;

use crate::args;
use crate::errors::Fault;
use crate::glob;
use crate::host::SlowLine;
use crate::turn::Turn;

pub(crate) fn config(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let (word, rest) = (args[1], &args[2..]);
    match () {
        () if args::is(word, "get") && !rest.is_empty() => config_get(turn, rest),
        () if args::is(word, "get") => turn.fail(&arity("config|get")),
        () if args::is(word, "set") && rest.len() >= 2 => config_set(turn, rest),
        () if args::is(word, "set") => turn.fail(&arity("config|set")),
        () if args::is(word, "resetstat") && rest.is_empty() => {
            turn.host.reset_stats();
            turn.ok();
        }
        () if args::is(word, "resetstat") => turn.fail(&arity("config|resetstat")),
        () if args::is(word, "rewrite") => turn.fail(&Fault::Fixed(
            "ERR The server is running without a config file that it may rewrite. fix: edit \
             ringd.toml, which is read at the start",
        )),
        () if args::is(word, "help") => turn.help(
            "CONFIG",
            rest,
            &[
                "GET <pattern> [<pattern> ...]",
                "    Settings whose names fit a pattern.",
                "SET <name> <value> [<name> <value> ...]",
                "    Changes a setting of this node until it stops; most stand in ringd.toml.",
                "RESETSTAT",
                "    Counts for INFO from 0 again.",
                "REWRITE",
                "    Refused: ringd.toml is written by people.",
            ],
        ),
        () => {
            let name = word.to_vec();
            turn.fail(&Fault::UnknownSubcommand { container: "CONFIG", name });
        }
    }
}

fn arity(command: &str) -> Fault {
    Fault::Arity { command: command.to_owned() }
}

fn config_get(turn: &mut Turn<'_>, patterns: &[&[u8]]) {
    let table = turn.host.config();
    let wanted =
        |(name, _): &(&str, &str)| patterns.iter().any(|p| glob::matches(p, name.as_bytes(), true));
    let found: Vec<(&str, &str)> = table.iter().filter(wanted).collect();
    turn.map(found.len());
    for (name, value) in found {
        turn.bulk(name);
        turn.bulk(value);
    }
}

fn config_set(turn: &mut Turn<'_>, pairs: &[&[u8]]) {
    if !pairs.len().is_multiple_of(2) {
        return turn.fail(&arity("config|set"));
    }
    let table = turn.host.config();
    let mut accepted = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let (name, value) = (args::text(pair[0]).to_ascii_lowercase(), args::text(pair[1]));
        if table.get(&name).is_none() {
            let name = args::text(pair[0]);
            return turn.fail(&Fault::Line(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        }
        if let Err(why) = table.accepts(&name, &value) {
            return turn.fail(&config_set_failed(&name, why));
        }
        accepted.push((name, value));
    }
    for (name, value) in accepted {
        if let Err(why) = turn.host.config_set(&name, &value) {
            return turn.fail(&config_set_failed(&name, &why));
        }
    }
    turn.ok();
}

fn config_set_failed(name: &str, why: &str) -> Fault {
    Fault::Line(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

pub(crate) fn module(turn: &mut Turn<'_>, args: &[&[u8]]) {
    if args::is(args[1], "list") {
        return encode::write_array(turn.reply, 0);
    }
    turn.fail(&Fault::Fixed(
        "ERR MODULE is not supported: RingDB loads no foreign code. fix: MODULE LIST tells that \
         there are none",
    ));
}

pub(crate) fn cluster(turn: &mut Turn<'_>, args: &[&[u8]]) {
    match args {
        [_, word, key] if args::is(word, "keyslot") => {
            turn.integer(i64::from(Slot::of_key(key).0));
        }
        [_, word, ..] if args::is(word, "keyslot") => turn.fail(&arity("cluster|keyslot")),
        [_, word, ..]
            if ["meet", "addslots", "setslot", "failover", "reset", "forget"]
                .iter()
                .any(|w| args::is(word, w)) =>
        {
            turn.fail(&Fault::Line(format!(
                "ERR CLUSTER {} is not supported: RingDB places slots itself, on the members \
                 that ringd.toml names. fix: ringctl ring owners KEY tells where a key lives",
                args::text(word).to_ascii_uppercase()
            )));
        }
        _ => turn.fail(&Fault::Fixed("ERR This instance has cluster support disabled")),
    }
}

/// Entries that SLOWLOG GET shows unless it is told how many.
const SLOW_SHOWN: i64 = 10;

pub(crate) fn slowlog(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let rest = &args[2..];
    match () {
        () if args::is(args[1], "get") && rest.len() <= 1 => {
            match rest.first().map_or(Some(SLOW_SHOWN), |count| args::canonical(count)) {
                Some(count @ -1..) => slow_commands(turn, usize::try_from(count).ok()),
                Some(_) => turn
                    .fail(&Fault::Fixed("ERR count should be greater than or equal to -1")),
                None => turn.fail(&Fault::NotInteger),
            }
        }
        () if args::is(args[1], "get") => turn.fail(&arity("slowlog|get")),
        () if args::is(args[1], "len") => {
            let length = turn.host.slow_lines().len();
            turn.integer(length as i64);
        }
        () if args::is(args[1], "reset") => {
            turn.host.forget_slow();
            turn.ok();
        }
        () if args::is(args[1], "help") => turn.help(
            "SLOWLOG",
            rest,
            &[
                "GET [<count>]",
                "    Commands that took longer than slowlog-log-slower-than, the latest first: number,",
                "    Unix second, microseconds, name and first key, address of the client, its name.",
                "LEN",
                "    How many are kept.",
                "RESET",
                "    Forgets them.",
            ],
        ),
        () => {
            let name = args[1].to_vec();
            turn.fail(&Fault::UnknownSubcommand { container: "SLOWLOG", name });
        }
    }
}

fn slow_commands(turn: &mut Turn<'_>, count: Option<usize>) {
    let lines = turn.host.slow_lines();
    let shown = &lines[..count.unwrap_or(usize::MAX).min(lines.len())];
    encode::write_array(turn.reply, shown.len());
    for SlowLine { id, unix_s, address, slow } in shown {
        encode::write_array(turn.reply, 6);
        turn.integer(*id as i64);
        turn.integer(*unix_s as i64);
        turn.integer(slow.micros as i64);
        encode::write_array(turn.reply, 1 + usize::from(slow.key.is_some()));
        turn.bulk(slow.command);
        if let Some(key) = &slow.key {
            turn.bulk(key);
        }
        turn.bulk(address);
        turn.bulk(&slow.client_name);
    }
}

pub(crate) fn latency(turn: &mut Turn<'_>, args: &[&[u8]]) {
    match () {
        () if args::is(args[1], "latest") || args::is(args[1], "history") => {
            encode::write_array(turn.reply, 0);
        }
        () if args::is(args[1], "histogram") => turn.map(0),
        () if args::is(args[1], "reset") => turn.integer(0),
        () if args::is(args[1], "help") => turn.help(
            "LATENCY",
            &args[2..],
            &[
                "LATEST | HISTORY <event> | HISTOGRAM [<command> ...] | RESET [<event> ...]",
                "    Always empty: latencies are not kept, /metrics tells how long requests took.",
            ],
        ),
        () => {
            let name = args[1].to_vec();
            turn.fail(&Fault::UnknownSubcommand { container: "LATENCY", name });
        }
    }
}

pub(crate) fn lastsave(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    let last = turn.host.node().last_sync_unix_s;
    turn.integer(last as i64);
}

pub(crate) fn role(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    encode::write_array(turn.reply, 3);
    turn.bulk("master");
    turn.integer(0);
    encode::write_array(turn.reply, 0);
}

/// READONLY and READWRITE: every node takes both.
pub(crate) fn accepted(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    turn.fail(&Fault::Fixed("ERR This instance has cluster support disabled"));
}
