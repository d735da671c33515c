//! Keys: what can be asked of a key whatever its value: DEL, EXISTS, TYPE, TOUCH, OBJECT, MEMORY.

use replication::Op;
use smallvec::SmallVec;

use crate::args::{self, row_of};
use crate::errors::Fault;
use crate::ops::{Asked, Ops};
use crate::shape::Shape;
use crate::turn::{Ask, write_help};

/// DEL and UNLINK.
pub(crate) fn del(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let mut ops = Ops::new();
    for key in &args[1..] {
        ops.push((row_of(ask, key)?, Op::Delete));
    }
    if ops.len() > 1 {
        // A key named twice is deleted once, and counts once.
        ops.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        ops.dedup_by(|(a, _), (b, _)| a == b);
    }
    Ok(Asked { ops, shape: Shape::Count })
}

/// EXISTS and TOUCH: a key named twice counts twice.
pub(crate) fn exists(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let reads = args[1..].iter().map(|key| Ok((row_of(ask, key)?, Op::Read)));
    let ops = reads.collect::<Result<SmallVec<_>, Fault>>()?;
    Ok(Asked { ops, shape: Shape::Count })
}

pub(crate) fn type_of(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::Read, Shape::Type))
}

pub(crate) fn object(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    const FREQUENCY: &str = "ERR An LFU maxmemory policy is not selected, access frequency not \
                             tracked. Please note that when switching between policies at runtime \
                             LRU and LFU data will take some time to adjust.";
    let about = args[1];
    if args::is(about, "help") {
        return help(
            args,
            "OBJECT",
            &[
                "ENCODING <key>",
                "    How the value would be kept by a Redis.",
                "FREQ <key>",
                "    Refused: accesses are not counted.",
                "IDLETIME <key>",
                "    0: accesses are not timed.",
                "REFCOUNT <key>",
                "    1: values are not shared.",
            ],
        );
    }
    let (name, shape) = match () {
        () if args::is(about, "encoding") => ("object|encoding", Shape::Encoding),
        () if args::is(about, "refcount") => ("object|refcount", Shape::IfPresent(1)),
        () if args::is(about, "idletime") => ("object|idletime", Shape::IfPresent(0)),
        () if args::is(about, "freq") => ("object|freq", Shape::Type),
        () => {
            return Err(Fault::UnknownSubcommand { container: "OBJECT", name: about.to_vec() });
        }
    };
    if args.len() != 3 {
        return Err(Fault::Arity { command: name.to_owned() });
    }
    if name == "object|freq" {
        return Err(Fault::Fixed(FREQUENCY));
    }
    Ok(Asked::one(row_of(ask, args[2])?, Op::Read, shape))
}

pub(crate) fn memory(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    if args::is(args[1], "help") {
        return help(
            args,
            "MEMORY",
            &[
                "USAGE <key> [SAMPLES <count>]",
                "    About how many bytes the key and its value take.",
            ],
        );
    }
    if !args::is(args[1], "usage") {
        return Err(Fault::UnknownSubcommand { container: "MEMORY", name: args[1].to_vec() });
    }
    match args {
        [_, _, key] => {
            let shape = Shape::Usage { key_bytes: key.len() };
            Ok(Asked::one(row_of(ask, key)?, Op::Read, shape))
        }
        [_, _, key, samples, number] if args::is(samples, "samples") => {
            args::integer(number)?;
            memory(ask, &[args[0], args[1], key])
        }
        [_, _] => Err(Fault::Arity { command: "memory|usage".to_owned() }),
        _ => Err(Fault::Syntax),
    }
}

/// `CONTAINER HELP`.
fn help(args: &[&[u8]], container: &str, lines: &[&str]) -> Result<Asked, Fault> {
    let mut reply = Vec::new();
    write_help(&mut reply, container, &args[2..], lines)?;
    Ok(Asked::fixed(reply))
}
