//! Client: CLIENT and its subcommands, which name, list and end connections.

use core::fmt::Write as _;

use wire::resp::Protocol;

use crate::args;
use crate::connection::announce;
use crate::errors::Fault;
use crate::host::{ClientFacts, ClientLine, KillFilter};
use crate::turn::{Replies, Turn};

pub(crate) fn client(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let (word, rest) = (args[1], &args[2..]);
    let mut lower = word.to_ascii_lowercase();
    lower.truncate(32);
    let wanted = match &lower[..] {
        b"id" | b"getname" | b"info" | b"getredir" | b"unpause" | b"help" => 0..=0,
        b"setname" | b"reply" | b"no-evict" | b"no-touch" => 1..=1,
        b"setinfo" => 2..=2,
        b"list" => 0..=usize::MAX,
        b"kill" => 1..=usize::MAX,
        _ => {
            let name = word.to_vec();
            return turn.fail(&Fault::UnknownSubcommand { container: "CLIENT", name });
        }
    };
    if !wanted.contains(&rest.len()) {
        let command = format!("client|{}", args::text(&lower));
        return turn.fail(&Fault::Arity { command });
    }
    match &lower[..] {
        b"id" => turn.integer(turn.state.id as i64),
        b"getname" if turn.state.name.is_empty() => turn.null(),
        b"getname" => turn.bulk(turn.state.name.clone()),
        b"getredir" => turn.integer(-1),
        b"unpause" => turn.ok(),
        b"setname" => match checked_name(rest[0], "Client names") {
            Ok(name) => {
                turn.state.name = name;
                announce(turn);
                turn.ok();
            }
            Err(fault) => turn.fail(&fault),
        },
        b"setinfo" => set_info(turn, rest[0], rest[1]),
        b"no-evict" | b"no-touch" => {
            if args::is(rest[0], "on") || args::is(rest[0], "off") {
                turn.ok();
            } else {
                turn.fail(&Fault::Syntax);
            }
        }
        b"reply" => reply_mode(turn, rest[0]),
        b"info" => info(turn),
        b"list" => list(turn, rest),
        b"kill" => kill(turn, rest),
        _ => help(turn),
    }
}

/// A name without blanks, line breaks or other special characters; `what` begins the error.
pub(crate) fn checked_name(name: &[u8], what: &str) -> Result<String, Fault> {
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(args::text(name));
    }
    let text = format!("ERR {what} cannot contain spaces, newlines or special characters.");
    Err(Fault::Line(text))
}

fn set_info(turn: &mut Turn<'_>, attribute: &[u8], value: &[u8]) {
    let lower = args::text(&attribute.to_ascii_lowercase());
    let place = match lower.as_str() {
        "lib-name" => &mut turn.state.lib_name,
        "lib-ver" => &mut turn.state.lib_version,
        _ => {
            let option = args::text(attribute);
            return turn.fail(&Fault::Line(format!("ERR Unrecognized option '{option}'")));
        }
    };
    match checked_name(value, &lower) {
        Ok(value) => {
            *place = value;
            announce(turn);
            turn.ok();
        }
        Err(fault) => turn.fail(&fault),
    }
}

fn reply_mode(turn: &mut Turn<'_>, mode: &[u8]) {
    if args::is(mode, "on") {
        turn.state.replies = Replies::On;
        turn.ok();
    } else if args::is(mode, "off") {
        turn.state.replies = Replies::Off;
    } else if args::is(mode, "skip") {
        if turn.state.replies == Replies::On {
            turn.state.replies = Replies::SkipNext;
        }
    } else {
        turn.fail(&Fault::Syntax);
    }
}

/// The lines of every client, this one's as it is at this moment.
fn lines(turn: &Turn<'_>) -> Vec<ClientLine> {
    let mut lines = turn.host.clients();
    let facts = turn.state.facts();
    match lines.iter_mut().find(|l| l.facts.id == facts.id) {
        Some(line) => line.facts = facts,
        None => lines.push(ClientLine {
            facts,
            address: String::new(),
            local_address: String::new(),
            age_s: 0,
            idle_s: 0,
        }),
    }
    lines.sort_by_key(|l| l.facts.id);
    lines
}

fn write_line(out: &mut String, line: &ClientLine, own: Option<&str>) {
    let ClientFacts { id, name, user, keyspace, protocol, lib_name, lib_version } = &line.facts;
    let resp = if *protocol == Protocol::Resp3 { 3 } else { 2 };
    let command = own.unwrap_or("NULL");
    writeln!(
        out,
        "id={id} addr={} laddr={} fd=0 name={name} age={} idle={} flags=N db={keyspace} sub=0 \
         psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 \
         omem=0 tot-mem=0 events=r cmd={command} user={user} redir=-1 resp={resp} \
         lib-name={lib_name} lib-ver={lib_version}",
        line.address, line.local_address, line.age_s, line.idle_s
    )
    .expect("a string takes any text");
}

fn info(turn: &mut Turn<'_>) {
    let mut text = String::new();
    for line in lines(turn).iter().filter(|l| l.facts.id == turn.state.id) {
        write_line(&mut text, line, Some("client|info"));
    }
    turn.text(&text);
}

fn list(turn: &mut Turn<'_>, options: &[&[u8]]) {
    let mut wanted = lines(turn);
    match options {
        [] => {}
        [word, kind] if args::is(word, "type") => {
            let known = ["normal", "master", "replica", "slave", "pubsub"];
            if !known.iter().any(|k| args::is(kind, k)) {
                let kind = args::text(kind);
                return turn.fail(&Fault::Line(format!("ERR Unknown client type '{kind}'")));
            }
            if !args::is(kind, "normal") {
                wanted.clear();
            }
        }
        [word, ids @ ..] if args::is(word, "id") && !ids.is_empty() => {
            let mut numbers = Vec::new();
            for id in ids {
                match args::canonical(id).filter(|id| *id > 0) {
                    Some(id) => numbers.push(id as u64),
                    None => return turn.fail(&Fault::Fixed("ERR Invalid client ID")),
                }
            }
            wanted.retain(|l| numbers.contains(&l.facts.id));
        }
        _ => return turn.fail(&Fault::Syntax),
    }
    let mut text = String::new();
    for line in &wanted {
        let own = (line.facts.id == turn.state.id).then_some("client|list");
        write_line(&mut text, line, own);
    }
    turn.text(&text);
}

fn kill(turn: &mut Turn<'_>, options: &[&[u8]]) {
    let own = turn.state.id;
    if let [address] = options {
        let filter = KillFilter { address: Some(args::text(address)), ..KillFilter::default() };
        let meant = kill_by(turn, &filter, own);
        return if meant == 0 {
            turn.fail(&Fault::Fixed("ERR No such client"));
        } else {
            turn.ok();
        };
    }
    let mut filter = KillFilter { except: Some(own), ..KillFilter::default() };
    let mut nobody = false;
    if !options.len().is_multiple_of(2) {
        return turn.fail(&Fault::Syntax);
    }
    for pair in options.chunks_exact(2) {
        let (name, value) = (pair[0], pair[1]);
        match () {
            () if args::is(name, "id") => match args::canonical(value).filter(|id| *id > 0) {
                Some(id) => filter.id = Some(id as u64),
                None => {
                    return turn.fail(&Fault::Fixed("ERR client-id should be greater than 0"));
                }
            },
            () if args::is(name, "addr") => filter.address = Some(args::text(value)),
            () if args::is(name, "laddr") => filter.local_address = Some(args::text(value)),
            () if args::is(name, "user") => filter.user = Some(args::text(value)),
            () if args::is(name, "type") => nobody = !args::is(value, "normal"),
            () if args::is(name, "skipme") && args::is(value, "yes") => filter.except = Some(own),
            () if args::is(name, "skipme") && args::is(value, "no") => filter.except = None,
            () => return turn.fail(&Fault::Syntax),
        }
    }
    let meant = if nobody { 0 } else { kill_by(turn, &filter, own) };
    turn.integer(meant as i64);
}

/// Ends the connections that are meant; our own after its replies.
fn kill_by(turn: &mut Turn<'_>, filter: &KillFilter, own: u64) -> u64 {
    let ourselves = lines(turn).iter().any(|l| l.facts.id == own && filter.fits(l));
    let others = KillFilter { except: Some(own), ..filter.clone() };
    turn.state.closing |= ourselves;
    turn.host.kill_clients(&others) + u64::from(ourselves)
}

fn help(turn: &mut Turn<'_>) {
    turn.help(
        "CLIENT",
        &[],
        &[
            "GETNAME | SETNAME <name> | ID | INFO",
            "SETINFO <LIB-NAME|LIB-VER> <value>",
            "LIST [TYPE <type> | ID <id> ...]",
            "KILL <address> | KILL <ID|ADDR|LADDR|USER|TYPE|SKIPME> <value> ...",
            "REPLY <ON|OFF|SKIP>",
            "NO-EVICT <ON|OFF> | NO-TOUCH <ON|OFF>",
        ],
    );
}
