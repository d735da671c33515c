//! Expiry: EXPIRE and its family, TTL and its family, PERSIST; and the reading of expiry options.

use replication::Op;
use replication::op::ExpireCondition;
use ring::WallMillis;

use crate::args::{self, row_of};
use crate::errors::Fault;
use crate::ops::Asked;
use crate::shape::{Shape, TimeForm};
use crate::turn::Ask;

/// How a moment is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    InSeconds,
    InMillis,
    AtSeconds,
    AtMillis,
}

impl Moment {
    /// The option of SET and GETEX that this word is.
    pub(crate) fn option(word: &[u8]) -> Option<Self> {
        if args::is(word, "ex") {
            Some(Self::InSeconds)
        } else if args::is(word, "px") {
            Some(Self::InMillis)
        } else if args::is(word, "exat") {
            Some(Self::AtSeconds)
        } else if args::is(word, "pxat") {
            Some(Self::AtMillis)
        } else {
            None
        }
    }

    /// The moment, in milliseconds since 1970; `None` if no clock reaches it. May lie before 1970.
    const fn at(self, ask: &Ask, amount: i64) -> Option<i64> {
        let now = ask.now.wall.0 as i64;
        match self {
            Self::InSeconds => match amount.checked_mul(1_000) {
                Some(millis) => now.checked_add(millis),
                None => None,
            },
            Self::InMillis => now.checked_add(amount),
            Self::AtSeconds => amount.checked_mul(1_000),
            Self::AtMillis => Some(amount),
        }
    }

    /// The moment that an option of `command` names; it has to be positive.
    pub(crate) fn read(
        self,
        ask: &Ask,
        command: &'static str,
        amount: &[u8],
    ) -> Result<WallMillis, Fault> {
        let amount = args::integer(amount)?;
        let at = if amount > 0 { self.at(ask, amount) } else { None };
        let at = at.ok_or(Fault::InvalidExpire { command })?;
        Ok(WallMillis(at as u64))
    }
}

fn expire_as(
    ask: &Ask,
    args: &[&[u8]],
    command: &'static str,
    form: Moment,
) -> Result<Asked, Fault> {
    let condition = condition(&args[3..])?;
    let amount = args::integer(args[2])?;
    let at = form.at(ask, amount).ok_or(Fault::InvalidExpire { command })?;
    // A moment in the past deletes; one before 1970 does it no better.
    let at = WallMillis(at.max(0) as u64);
    Ok(Asked::one(row_of(ask, args[1])?, Op::Expire { at, condition }, Shape::Flag))
}

fn condition(words: &[&[u8]]) -> Result<ExpireCondition, Fault> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for word in words {
        let flag = match () {
            () if args::is(word, "nx") => &mut nx,
            () if args::is(word, "xx") => &mut xx,
            () if args::is(word, "gt") => &mut gt,
            () if args::is(word, "lt") => &mut lt,
            () => return Err(Fault::UnsupportedOption { option: word.to_vec() }),
        };
        *flag = true;
    }
    match (nx, xx, gt, lt) {
        (true, true, _, _) | (true, _, true, _) | (true, _, _, true) => {
            Err(Fault::ExpireNxWithOthers)
        }
        (_, _, true, true) => Err(Fault::ExpireGtWithLt),
        (true, false, false, false) => Ok(ExpireCondition::IfNone),
        (false, true, true, false) => Ok(ExpireCondition::IfSomeAndLater),
        (false, true, false, true) => Ok(ExpireCondition::IfSomeAndEarlier),
        (false, true, false, false) => Ok(ExpireCondition::IfSome),
        (false, false, true, false) => Ok(ExpireCondition::IfLater),
        (false, false, false, true) => Ok(ExpireCondition::IfEarlier),
        (false, false, false, false) => Ok(ExpireCondition::Always),
    }
}

pub(crate) fn expire(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    expire_as(ask, args, "expire", Moment::InSeconds)
}

pub(crate) fn pexpire(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    expire_as(ask, args, "pexpire", Moment::InMillis)
}

pub(crate) fn expireat(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    expire_as(ask, args, "expireat", Moment::AtSeconds)
}

pub(crate) fn pexpireat(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    expire_as(ask, args, "pexpireat", Moment::AtMillis)
}

pub(crate) fn persist(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::Persist, Shape::Flag))
}

fn deadline(ask: &Ask, args: &[&[u8]], form: TimeForm) -> Result<Asked, Fault> {
    Ok(Asked::one(row_of(ask, args[1])?, Op::Read, Shape::Deadline(form)))
}

pub(crate) fn ttl(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    deadline(ask, args, TimeForm::Seconds)
}

pub(crate) fn pttl(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    deadline(ask, args, TimeForm::Millis)
}

pub(crate) fn expiretime(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    deadline(ask, args, TimeForm::AtSeconds)
}

pub(crate) fn pexpiretime(ask: &Ask, args: &[&[u8]]) -> Result<Asked, Fault> {
    deadline(ask, args, TimeForm::AtMillis)
}
