//! Connection: who the client is and how it is spoken to: HELLO, AUTH, SELECT, PING, RESET, QUIT.

use wire::resp::Protocol;
use wire::resp::encode;

use crate::acl::{Denial, Why};
use crate::args;
use crate::client;
use crate::errors::Fault;
use crate::levels::Levels;
use crate::table::KEYSPACES;
use crate::turn::Turn;

/// The Redis whose behaviour clients may count on.
pub(crate) const REDIS_VERSION: &str = "7.2.4";

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

pub(crate) fn ping(turn: &mut Turn<'_>, args: &[&[u8]]) {
    match args {
        [_] => encode::write_simple(turn.reply, "PONG"),
        [_, text] => turn.bulk(text),
        _ => turn.fail(&Fault::Arity { command: "ping".to_owned() }),
    }
}

pub(crate) fn echo(turn: &mut Turn<'_>, args: &[&[u8]]) {
    turn.bulk(args[1]);
}

pub(crate) fn quit(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    turn.state.closing = true;
    turn.ok();
}

pub(crate) fn reset(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    turn.state.reset();
    announce(turn);
    encode::write_simple(turn.reply, "RESET");
}

pub(crate) fn select(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let Some(wanted) = args::canonical(args[1]) else {
        return turn.fail(&Fault::NotInteger);
    };
    match u16::try_from(wanted) {
        Ok(keyspace) if KEYSPACES.contains(&keyspace) => {
            turn.state.keyspace = keyspace;
            announce(turn);
            turn.ok();
        }
        _ => turn.fail(&Fault::Fixed("ERR DB index is out of range")),
    }
}

/// Tells the host what the session now says of itself.
pub(crate) fn announce(turn: &mut Turn<'_>) {
    let facts = turn.state.facts();
    turn.host.client_is(&facts);
}

pub(crate) fn auth(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let accepted = match args {
        [_, password] => {
            if !turn.host.default_has_password() {
                return turn.fail(&Fault::Fixed(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                ));
            }
            log_in(turn, "default", password)
        }
        [_, user, password] => log_in(turn, &args::text(user), password),
        _ => return turn.fail(&Fault::Syntax),
    };
    if accepted {
        announce(turn);
        turn.ok();
    } else {
        turn.fail(&Fault::Fixed(WRONGPASS));
    }
}

/// Checks a name, which may end in `~level` for the connection's default levels, and a password.
fn log_in(turn: &mut Turn<'_>, name: &str, password: &[u8]) -> bool {
    let mut name = name;
    let mut levels = Levels::default();
    // From the right: app~quorum~d=sync.
    while let Some((rest, suffix)) = name.rsplit_once('~') {
        let mut taken = Levels::default();
        if taken.take(suffix.as_bytes()) != Ok(true) {
            break;
        }
        // `quorum~r=1`: what stands further right is the more special.
        levels = levels.or(taken);
        name = rest;
    }
    let Some(user) = turn.host.authenticate(name, password) else {
        let (client, user) = (turn.state.id, name.to_owned());
        turn.host.denied(Denial { client, user, why: Why::Password });
        return false;
    };
    turn.state.is_user(user.name);
    turn.state.levels = levels.or(turn.state.defaults.levels);
    true
}

pub(crate) fn hello(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let mut protocol = None;
    if let Some(version) = args.get(1) {
        protocol = match args::canonical(version) {
            None => {
                return turn
                    .fail(&Fault::Fixed("ERR Protocol version is not an integer or out of range"));
            }
            Some(2) => Some(Protocol::Resp2),
            Some(3) => Some(Protocol::Resp3),
            Some(_) => {
                return turn.fail(&Fault::Fixed("NOPROTO unsupported protocol version"));
            }
        };
    }
    let mut options = args.get(2..).unwrap_or_default();
    while let Some((option, rest)) = options.split_first() {
        options = match rest {
            [user, password, rest @ ..] if args::is(option, "auth") => {
                if !log_in(turn, &args::text(user), password) {
                    return turn.fail(&Fault::Fixed(WRONGPASS));
                }
                rest
            }
            [name, rest @ ..] if args::is(option, "setname") => {
                match client::checked_name(name, "Client names") {
                    Ok(name) => turn.state.name = name,
                    Err(fault) => return turn.fail(&fault),
                }
                rest
            }
            _ => {
                let option = args::text(option);
                return turn
                    .fail(&Fault::Line(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        };
    }
    if turn.state.user.is_none() {
        return turn.fail(&Fault::Fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
             <proto> AUTH <user> <pass> option can be used to authenticate the client and select \
             the RESP protocol version at the same time",
        ));
    }
    turn.state.protocol = protocol.unwrap_or(turn.state.protocol);
    announce(turn);
    turn.map(7);
    turn.bulk("server");
    turn.bulk("redis");
    turn.bulk("version");
    turn.bulk(REDIS_VERSION);
    turn.bulk("proto");
    turn.integer(if turn.state.protocol == Protocol::Resp3 { 3 } else { 2 });
    turn.bulk("id");
    turn.integer(turn.state.id as i64);
    turn.bulk("mode");
    turn.bulk("standalone");
    turn.bulk("role");
    turn.bulk("master");
    turn.bulk("modules");
    encode::write_array(turn.reply, 0);
}

pub(crate) fn time(turn: &mut Turn<'_>, _args: &[&[u8]]) {
    // The wall clock comes in milliseconds: the last three digits are always zero.
    let millis = turn.now.wall.0;
    encode::write_array(turn.reply, 2);
    turn.bulk((millis / 1_000).to_string());
    turn.bulk((millis % 1_000 * 1_000).to_string());
}
