//! The ring's own commands: CONSISTENCY, and RING.*, which show what plain Redis hides: concurrent
//! values, their context, and where a key lives.

use bytes::Bytes;
use replication::{Op, row};
use ring::Slot;
use wire::resp::encode;

use crate::args::{self, row_of};
use crate::errors::Fault;
use crate::levels::Levels;
use crate::ops::Asked;
use crate::shape::Shape;
use crate::token::{self, Place};
use crate::turn::{Ask, Turn};

/// CONSISTENCY GET, DEFAULT, or levels for this connection.
pub(crate) fn consistency(turn: &mut Turn<'_>, args: &[&[u8]]) {
    const USAGE: &str = "ERR CONSISTENCY takes GET, DEFAULT, or [READ level] [WRITE level] \
                         [DURABILITY sync|os]. fix: CONSISTENCY READ ONE WRITE QUORUM";
    if let [_, word] = args {
        if args::is(word, "get") {
            return show(turn);
        }
        if args::is(word, "default") {
            turn.state.levels = turn.state.defaults.levels;
            return turn.ok();
        }
        let mut levels = turn.state.levels;
        match levels.take(word) {
            Ok(true) => {
                turn.state.levels = levels;
                turn.ok();
            }
            Ok(false) => turn.fail(&Fault::Fixed(USAGE)),
            Err(why) => turn.fail(&Fault::Line(format!("ERR CONSISTENCY: {why}"))),
        }
        return;
    }
    let mut levels = turn.state.levels;
    if args.len().is_multiple_of(2) {
        return turn.fail(&Fault::Fixed(USAGE));
    }
    for pair in args[1..].chunks_exact(2) {
        let option = match () {
            () if args::is(pair[0], "read") => "r",
            () if args::is(pair[0], "write") => "w",
            () if args::is(pair[0], "durability") => "d",
            () => return turn.fail(&Fault::Fixed(USAGE)),
        };
        let word = format!("{option}={}", args::text(pair[1]));
        if let Err(why) = levels.take(word.as_bytes()) {
            return turn.fail(&Fault::Line(format!("ERR CONSISTENCY: {why}")));
        }
    }
    turn.state.levels = levels;
    turn.ok();
}

fn show(turn: &mut Turn<'_>) {
    let Levels { read, write, durability } = turn.state.levels;
    let shown = [
        ("read", read.map(|l| l.to_string())),
        ("write", write.map(|l| l.to_string())),
        ("durability", durability.map(|d| d.to_string())),
    ];
    turn.map(shown.len());
    for (name, value) in shown {
        turn.bulk(name);
        turn.bulk(value.as_deref().unwrap_or("default"));
    }
}

/// RING.GET key WITHCTX.
pub(crate) fn ring_get(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let row = row_of(ask, args[1])?;
    match args {
        [_, _] => Ok(Asked::one(row, Op::Read, Shape::Value)),
        [_, key, word] if args::is(word, "withctx") => {
            let shape = Shape::WithContext(Place::of(ask.keyspace, key));
            Ok(Asked::one(row, Op::Siblings, shape))
        }
        _ => Err(Fault::Syntax),
    }
}

/// RING.SIBLINGS key.
pub(crate) fn ring_siblings(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let shape = Shape::Siblings(Place::of(ask.keyspace, args[1]));
    Ok(Asked::one(row_of(ask, args[1])?, Op::Siblings, shape))
}

/// What a write that is to replace what was read must say, and does not.
const NO_CONTEXT: Fault = Fault::Fixed(
    "ERR syntax error. fix: RING.SET key value CTX context, or RING.DEL key CTX context, with the \
     context of RING.GET key WITHCTX; SET and DEL need none",
);

/// RING.SET key value CTX token.
pub(crate) fn ring_set(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let [_, key, value, word, token] = args else { return Err(NO_CONTEXT) };
    with_context(ask, key, Some(value), word, token)
}

/// RING.DEL key CTX token.
pub(crate) fn ring_del(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let [_, key, word, token] = args else { return Err(NO_CONTEXT) };
    with_context(ask, key, None, word, token)
}

/// RING.RESOLVE key token value.
pub(crate) fn ring_resolve(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    with_context(ask, args[1], Some(args[3]), b"ctx", args[2])
}

fn with_context(
    ask: &Ask,
    key: &[u8],
    value: Option<&[u8]>,
    word: &[u8],
    token: &[u8],
) -> Result<Asked, Fault> {
    if !args::is(word, "ctx") {
        return Err(NO_CONTEXT);
    }
    let place = Place::of(ask.keyspace, key);
    let context = token::open(&place, token, ask.context_secret)?;
    let op = Op::SetWithContext { value: value.map(Bytes::copy_from_slice), context };
    Ok(Asked::one(row_of(ask, key)?, op, Shape::Context(place)))
}

/// RING.WHERE key.
pub(crate) fn ring_where(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let slot = Slot::of_key(args[1]);
    let owners = turn.host.owners(turn.state.keyspace, slot);
    turn.map(4);
    turn.bulk("slot");
    turn.integer(i64::from(slot.0));
    turn.bulk("group");
    turn.integer(i64::from(slot.group()));
    turn.bulk("hash");
    turn.integer(row::hash48(args[1]) as i64);
    turn.bulk("owners");
    encode::write_array(turn.reply, owners.len());
    for owner in owners {
        let name = turn.host.node_name(owner);
        turn.bulk(name);
    }
}
