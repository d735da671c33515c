//! Shape: how the outcomes of a command's ops become its reply.
//!
//! The same shapes serve a command that stands alone and one within a transaction.

use bytes::Bytes;
use replication::Outcome;
use replication::op::{Found, Sibling};
use wire::resp::encode::{
    write_array, write_bulk, write_error, write_integer, write_map, write_null, write_ok,
    write_simple,
};

use crate::args::canonical;
use crate::errors;
use crate::host::Host;
use crate::token::{self, Place};
use crate::turn::Ask;

/// The longest string that Redis calls `embstr`.
const EMBEDDED_BYTES_MAX: usize = 44;

/// What MEMORY USAGE adds to key and value, about: a record's head and its row.
const RECORD_OVERHEAD_BYTES: usize = 72;

/// What of a deadline is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// How long until then, in seconds.
    Seconds,
    /// How long until then, in milliseconds.
    Millis,
    /// When, in Unix seconds.
    AtSeconds,
    /// When, in Unix milliseconds.
    AtMillis,
}

/// How outcomes become a reply.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// The reply is known; there are no ops.
    Fixed(Vec<u8>),
    /// A value or null.
    Value,
    /// Part of a value.
    Range { start: i64, end: i64 },
    /// The length of a value.
    Length,
    /// OK, if nothing failed.
    Done,
    /// OK, or null if a condition did not hold.
    SetOk,
    /// The value before, or null.
    Previous,
    /// 1 if a value was set, else 0.
    SetFlag,
    /// A number.
    Integer,
    /// A decimal number as text.
    Float,
    /// 1 or 0.
    Flag,
    /// How many flags are true, or reads found something.
    Count,
    /// A list of values and nulls.
    Values,
    /// `string` or `none`.
    Type,
    /// A deadline.
    Deadline(TimeForm),
    /// How a value is kept.
    Encoding,
    /// A number if there is a value, else null.
    IfPresent(i64),
    /// About how many bytes a key takes.
    Usage { key_bytes: usize },
    /// The newest value and the context that replaces all of them.
    WithContext(Place),
    /// A context alone.
    Context(Place),
    /// All values with their origin, and their context.
    Siblings(Place),
}

impl Shape {
    /// Appends the reply. `outcomes` holds one outcome an op, in the order of the ops; `ask.now` is
    /// the time that remaining lives are counted from.
    pub(crate) fn render(
        &self,
        outcomes: &[Outcome],
        ask: &Ask,
        host: &mut dyn Host,
        out: &mut Vec<u8>,
    ) {
        for outcome in outcomes {
            if let Outcome::Failed(error) = outcome {
                return write_error(out, errors::of_op(*error));
            }
        }
        let start = out.len();
        if self.try_render(outcomes, ask, host, out).is_none() {
            out.truncate(start);
            write_error(
                out,
                "ERR the replica's outcome does not fit the command. fix: upgrade all nodes to \
                 one version",
            );
        }
    }

    /// `None` if an outcome is of the wrong kind; then what was appended counts for nothing.
    fn try_render(
        &self,
        outcomes: &[Outcome],
        ask: &Ask,
        host: &mut dyn Host,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        match self {
            Self::Fixed(reply) => out.extend_from_slice(reply),
            Self::Values => {
                write_array(out, outcomes.len());
                for outcome in outcomes {
                    write_value(counted(read(outcome)?, host), ask, out);
                }
            }
            Self::Count => {
                let mut count = 0;
                for outcome in outcomes {
                    count += match outcome {
                        Outcome::Read { found, .. } => {
                            i64::from(counted(found.as_ref(), host).is_some())
                        }
                        Outcome::Flag(flag) => i64::from(*flag),
                        _ => return None,
                    };
                }
                write_integer(out, count);
            }
            Self::Done => write_ok(out),
            Self::SetOk
            | Self::SetFlag
            | Self::Previous
            | Self::Integer
            | Self::Float
            | Self::Flag => self.render_write(outcomes.first()?, ask, out)?,
            Self::Value
            | Self::Range { .. }
            | Self::Length
            | Self::Type
            | Self::Deadline(_)
            | Self::Encoding
            | Self::IfPresent(_)
            | Self::Usage { .. } => {
                let found = counted(read(outcomes.first()?)?, host);
                self.render_read(found, ask, out);
            }
            Self::WithContext(place) | Self::Context(place) | Self::Siblings(place) => {
                let Outcome::Siblings { values, context } = outcomes.first()? else { return None };
                let token = token::seal(place, context, ask.context_secret);
                self.render_siblings(values, &token, ask, host, out);
            }
        }
        Some(())
    }

    fn render_write(&self, outcome: &Outcome, ask: &Ask, out: &mut Vec<u8>) -> Option<()> {
        match (self, outcome) {
            (Self::SetOk, Outcome::Set { done: true, .. }) => write_ok(out),
            (Self::SetOk, Outcome::Set { done: false, .. })
            | (Self::Previous, Outcome::Set { previous: None, .. }) => {
                write_null(out, ask.protocol);
            }
            (Self::SetFlag, Outcome::Set { done: flag, .. })
            | (Self::Flag, Outcome::Flag(flag)) => write_integer(out, i64::from(*flag)),
            (Self::Previous, Outcome::Set { previous: Some(value), .. })
            | (Self::Float, Outcome::Float(value)) => write_bulk(out, value),
            (Self::Integer, Outcome::Integer(number)) => write_integer(out, *number),
            _ => return None,
        }
        Some(())
    }

    fn render_read(&self, found: Option<&Found>, ask: &Ask, out: &mut Vec<u8>) {
        match self {
            Self::Range { start, end } => {
                let value = found.map_or(&[][..], |f| &f.value);
                write_bulk(out, range(value, *start, *end));
            }
            Self::Length => write_integer(out, found.map_or(0, |f| f.value.len() as i64)),
            Self::Type => write_simple(out, if found.is_some() { "string" } else { "none" }),
            Self::Deadline(form) => write_integer(out, deadline(found, *form, ask)),
            Self::Encoding => match found {
                Some(found) => write_bulk(out, encoding(&found.value).as_bytes()),
                None => write_null(out, ask.protocol),
            },
            Self::IfPresent(number) => match found {
                Some(_) => write_integer(out, *number),
                None => write_null(out, ask.protocol),
            },
            Self::Usage { key_bytes } => match found {
                Some(found) => {
                    let bytes = key_bytes + found.value.len() + RECORD_OVERHEAD_BYTES;
                    write_integer(out, bytes as i64);
                }
                None => write_null(out, ask.protocol),
            },
            _ => write_value(found, ask, out),
        }
    }

    fn render_siblings(
        &self,
        values: &[Sibling],
        token: &str,
        ask: &Ask,
        host: &dyn Host,
        out: &mut Vec<u8>,
    ) {
        match self {
            Self::WithContext(_) => {
                write_array(out, 2);
                match values.first() {
                    Some(newest) => write_bulk(out, &newest.value),
                    None => write_null(out, ask.protocol),
                }
                write_bulk(out, token.as_bytes());
            }
            Self::Siblings(_) => {
                write_map(out, ask.protocol, 2);
                write_bulk(out, b"siblings");
                write_array(out, values.len());
                for sibling in values {
                    write_map(out, ask.protocol, 3);
                    write_bulk(out, b"value");
                    write_bulk(out, &sibling.value);
                    write_bulk(out, b"node");
                    write_bulk(out, host.node_name(sibling.node).as_bytes());
                    write_bulk(out, b"time");
                    write_integer(out, sibling.written.0 as i64);
                }
                write_bulk(out, b"context");
                write_bulk(out, token.as_bytes());
            }
            _ => write_bulk(out, token.as_bytes()),
        }
    }
}

/// `None` if the outcome is no read; then whether it found something.
const fn read(outcome: &Outcome) -> Option<Option<&Found>> {
    match outcome {
        Outcome::Read { found, .. } => Some(found.as_ref()),
        _ => None,
    }
}

fn counted<'f>(found: Option<&'f Found>, host: &mut dyn Host) -> Option<&'f Found> {
    let stats = host.stats_mut();
    match found {
        Some(_) => stats.hits += 1,
        None => stats.misses += 1,
    }
    found
}

fn write_value(found: Option<&Found>, ask: &Ask, out: &mut Vec<u8>) {
    match found {
        Some(found) => write_bulk(out, &found.value),
        None => write_null(out, ask.protocol),
    }
}

/// GETRANGE: both ends inclusive, negative ones counted from the end.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let from_front = |at: i64| if at < 0 { at.saturating_add(length).max(0) } else { at };
    let (start, end) = (from_front(start), from_front(end).min(length - 1));
    if start > end || length == 0 {
        return &[];
    }
    &value[start as usize..=end as usize]
}

fn deadline(found: Option<&Found>, form: TimeForm, ask: &Ask) -> i64 {
    let Some(found) = found else { return -2 };
    let Some(deadline) = found.deadline else { return -1 };
    let (at, left) = (deadline.0 as i64, deadline.0.saturating_sub(ask.now.wall.0) as i64);
    match form {
        TimeForm::Seconds => left.saturating_add(500) / 1_000,
        TimeForm::Millis => left,
        TimeForm::AtSeconds => at.saturating_add(500) / 1_000,
        TimeForm::AtMillis => at,
    }
}

fn encoding(value: &Bytes) -> &'static str {
    if canonical(value).is_some() {
        "int"
    } else if value.len() <= EMBEDDED_BYTES_MAX {
        "embstr"
    } else {
        "raw"
    }
}
