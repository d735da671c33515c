//! Counters: INCR and its family.
//!
//! Increments are sent as increments, not as sums: those of two nodes add up whatever happens
//! between them.

use bytes::Bytes;
use replication::Op;

use crate::args::{self, row_of};
use crate::errors::Fault;
use crate::ops::Asked;
use crate::shape::Shape;
use crate::turn::Ask;

fn by(ask: &Ask, key: &[u8], amount: i64) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, key)?, Op::Increment(amount), Shape::Integer))
}

pub(crate) fn incr(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    by(ask, args[1], 1)
}

pub(crate) fn decr(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    by(ask, args[1], -1)
}

pub(crate) fn incrby(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    by(ask, args[1], args::integer(args[2])?)
}

pub(crate) fn decrby(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let amount = args::integer(args[2])?.checked_neg().ok_or(Fault::DecrementOverflow)?;
    by(ask, args[1], amount)
}

pub(crate) fn incrbyfloat(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    let amount = args[2];
    let number = core::str::from_utf8(amount).ok().and_then(|text| text.parse::<f64>().ok());
    match number {
        None => Err(Fault::NotFloat),
        Some(number) if number.is_nan() => Err(Fault::NotFloat),
        Some(number) if number.is_infinite() => {
            Err(Fault::Fixed("ERR increment would produce NaN or Infinity"))
        }
        Some(_) => {
            let op = Op::IncrementFloat(Bytes::copy_from_slice(amount));
            Ok(Asked::one(row_of(ask, args[1])?, op, Shape::Float))
        }
    }
}
