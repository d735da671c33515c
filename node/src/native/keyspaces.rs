//! Keyspaces: an administrator wants other terms for one; here it is judged whether they can be.
//!
//! Promise: what is refused has changed nothing; that reads may miss writes from then on must be meant.

use ring::keyspace::{KeyspacePolicy, LevelError};
use ring::limits::AUTHOR_BYTES_MAX;
use ring::{Actor, NodeId, NodeState, Scope, Setting};
use wire::operate::{KeyspaceChange, KeyspaceChanged};
use wire::{AdminReply, ClientReply, ErrorCode, ErrorReply};

use super::NativeAsker;
use super::explain::explain;
use crate::facts;
use crate::limits::{CLOSED_BY_MS, CLOSED_OTHERS_MS, DATABASES};
use crate::members::{Then, Wanted};
use crate::shared::Shared;
use crate::turn::Core;

/// Why it cannot be.
type Refused = Box<ErrorReply>;

pub(super) fn on_change(core: &mut Core, asker: NativeAsker, change: &KeyspaceChange) {
    let shared = core.shared.clone();
    let hlc = core.hlc();
    let say = |asker: NativeAsker, reply: &ClientReply| asker.send(&shared, reply, hlc);
    if shared.is_loading() || core.draining {
        let error = explain(&shared, replication::op::TaskError::NotReady);
        return say(asker, &ClientReply::Error(error));
    }
    match judge(core, &asker, change) {
        Err(refused) => say(asker, &ClientReply::Error(*refused)),
        Ok(Judged::Answer(changed)) => {
            say(asker, &ClientReply::Admin(AdminReply::Keyspace(changed)));
        }
        Ok(Judged::Change { scope, setting, changed, copies }) => {
            let KeyspaceChanged { before, warning, .. } = *changed;
            let (asker, then) = (Some(asker), copies.map_or(Then::Tell, Then::Search));
            let wanted = Wanted { asker, scope, setting, before, warning, then };
            core.with_members(|members, now, events| members.change_terms(now, wanted, events));
        }
    }
}

enum Judged {
    Answer(Box<KeyspaceChanged>),
    Change {
        scope: Scope,
        setting: Setting,
        changed: Box<KeyspaceChanged>,
        /// It is closed first: what it is to have if it is empty.
        copies: Option<KeyspacePolicy>,
    },
}

fn refused(code: ErrorCode, what: String, why: impl Into<String>, fix: &str) -> Refused {
    Box::new(ErrorReply { code, what, why: why.into(), fix: fix.to_owned() })
}

fn judge(core: &mut Core, asker: &NativeAsker, change: &KeyspaceChange) -> Result<Judged, Refused> {
    let name = &change.name;
    let scope: Scope = name.parse().ok().filter(is_database).ok_or_else(|| {
        let why = format!("there are `default` and the databases 0 to {}", DATABASES - 1);
        let what = format!("there is no keyspace {name:?}");
        refused(ErrorCode::Invalid, what, why, "name one of those; ringctl keyspace ls shows them")
    })?;
    let at = core.now().wall;
    let Some(members) = &core.members else {
        let why = "the core that was asked does not know the members";
        let what = format!("keyspace {scope} is not changed");
        return Err(refused(ErrorCode::Internal, what, why, "ask another node"));
    };
    let shared = &core.shared;
    let register = members.known_terms();
    let known = register.get(scope);
    let version = known.map_or(0, |setting| setting.version);
    if let Some(expected) = change.version.filter(|expected| *expected != version) {
        let by = known.map(|setting| setting.by.as_str()).unwrap_or_default();
        let why =
            format!("{by} made version {version} of it meanwhile, you saw version {expected}");
        let what = format!("keyspace {scope} is not changed");
        let fix = "look what holds now (ringctl keyspace ls), then set it again";
        return Err(refused(ErrorCode::Conflict, what, why, fix));
    }
    let configured = &shared.config.policies;
    let policies = register.over(configured);
    let before = *policies.of_scope(scope);
    let closed = known.is_some_and(|setting| setting.closed);
    let copies = shared.layout().table.width();
    if let Some(n) = change.n.filter(|n| *n != before.n && *n > copies) {
        return Err(too_many(scope, n, copies));
    }
    let finishes = closed && change.finish && change.version == Some(version);
    if !change.dry_run {
        let age_ms = known.map_or(0, |setting| at.0.saturating_sub(setting.at.0));
        let by = known.map(|setting| setting.by.as_str()).unwrap_or_default();
        may_open(scope, (closed, finishes), age_ms, by)?;
    }
    let drives = change.drive && !change.dry_run && !change.remove;
    let drives = drives && change.n.is_some_and(|n| n != before.n);
    let closes = change.close || drives;
    let mut other = None;
    let terms = if closes {
        let after = terms(scope, &before, change)?;
        check(scope, &after, copies)?;
        can_close(scope, shared)?;
        other = Some(after).filter(|_| drives);
        known.and_then(|setting| setting.terms)
    } else if change.remove {
        None
    } else {
        let terms = terms(scope, &before, change)?;
        Some(terms)
    };
    let mut by = asker.client.identity().name.clone();
    while by.len() > AUTHOR_BYTES_MAX {
        by.pop();
    }
    let setting = Setting {
        version: register.next_version(scope),
        writer: Actor { node: shared.config.node, incarnation: shared.incarnation },
        at,
        by,
        closed: closes,
        terms,
    };
    // What is so already is only made sure of.
    let as_known = |known: &&Setting| known.terms == terms && !known.closed && !closes;
    let setting = known.filter(as_known).cloned().unwrap_or(setting);
    let mut with = register.clone();
    with.put(scope, setting.clone());
    let after = *with.over(configured).of_scope(scope);
    check(scope, &after, copies)?;
    let asks = change.dry_run && !change.remove;
    if after.n != before.n && !asks {
        let what = format!("keyspace {scope} keeps N={}", before.n);
        let why =
            "which nodes hold a key depends on N: it must be closed, and found to be empty, first";
        let fix = "ringctl keyspace set --n does that; then rm does not change it";
        return Err(refused(ErrorCode::Invalid, what, why, fix));
    }
    let warning = warning(&before, &other.unwrap_or(after));
    let nothing_to_remove =
        change.remove && !closed && known.is_none_or(|setting| setting.terms.is_none());
    let changed = Box::new(KeyspaceChanged {
        before: facts::keyspace(scope, &before, known),
        after: facts::keyspace(
            scope,
            &after,
            if nothing_to_remove { known } else { Some(&setting) },
        ),
        warning: warning.clone(),
        ..KeyspaceChanged::default()
    });
    if change.dry_run || nothing_to_remove && known.is_none() {
        return Ok(Judged::Answer(changed));
    }
    if !warning.is_empty() && !change.weak {
        let what = format!("keyspace {scope} is not changed");
        return Err(refused(ErrorCode::Invalid, what, warning, "say that you mean it with --yes"));
    }
    Ok(Judged::Change { scope, setting, changed, copies: other })
}

/// Why reads by the new terms may miss what was acknowledged, though they did not by the old ones.
fn warning(before: &KeyspacePolicy, after: &KeyspacePolicy) -> String {
    let KeyspacePolicy { n, read, write, .. } = *after;
    let others = before.n != n;
    if (before.n, before.read, before.write) == (n, read, write) {
        return String::new();
    }
    if !after.reads_meet_writes() {
        return format!(
            "with N={n} R={read} W={write} a read and a write need have no replica in common: reads may \
             miss acknowledged writes"
        );
    }
    // Of another N nothing was acknowledged: it is empty.
    if !others
        && before.reads_meet_writes()
        && !(KeyspacePolicy { read, ..*before }).reads_meet_writes()
    {
        let write = before.write;
        return format!(
            "reads at R={read} may miss what was acknowledged at W={write} before, until it is read at \
             ALL or written again"
        );
    }
    String::new()
}

fn is_database(scope: &Scope) -> bool {
    !matches!(scope, Scope::Keyspace(number) if *number >= DATABASES)
}

/// The terms that are wanted.
fn terms(
    scope: Scope,
    before: &KeyspacePolicy,
    change: &KeyspaceChange,
) -> Result<KeyspacePolicy, Refused> {
    let mut terms = *before;
    let wrong = |what: &str, text: &str, why: String| {
        let what = format!("keyspace {scope} cannot have {what} {text:?}");
        refused(ErrorCode::Invalid, what, why, "ringctl keyspace set --help lists what there is")
    };
    for (what, text, level) in
        [("read", &change.read, &mut terms.read), ("write", &change.write, &mut terms.write)]
    {
        if let Some(text) = text {
            *level = text.parse().map_err(|e: LevelError| wrong(what, text, e.to_string()))?;
        }
    }
    if let Some(text) = &change.durability {
        terms.durability = text.parse().map_err(|e| wrong("durability", text, format!("{e}")))?;
    }
    if let Some(text) = &change.conflict {
        terms.conflict = text.parse().map_err(|e| wrong("conflict", text, format!("{e}")))?;
    }
    if let Some(ms) = change.ttl_ms {
        terms.ttl_ms = Some(ms).filter(|ms| *ms > 0);
    }
    if change.n.is_some_and(|n| n != before.n) && scope == Scope::Default {
        let what = format!("keyspace {scope} keeps N={}", before.n);
        let why = "a database must be empty for it, and this would be about all of them";
        return Err(refused(ErrorCode::Invalid, what, why, "name the databases, one by one"));
    }
    terms.n = change.n.unwrap_or(terms.n);
    Ok(terms)
}

/// Whether a keyspace may be changed now, if it is closed: by whoever closed it for a while, and after
/// that by anybody. So one who gives up and one who takes over never open it at the same time.
fn may_open(
    scope: Scope,
    (closed, finishes): (bool, bool),
    age_ms: u64,
    by: &str,
) -> Result<(), Refused> {
    let (why, fix) = match (closed, finishes) {
        (true, true) if age_ms > CLOSED_BY_MS => {
            ("it was closed for longer than that may take", "open it, and begin anew")
        }
        (true, false) if age_ms < CLOSED_OTHERS_MS => {
            ("its number of copies is being changed", "wait a minute; then anybody may open it")
        }
        _ => return Ok(()),
    };
    let what = format!("keyspace {scope} is closed");
    Err(refused(ErrorCode::Conflict, what, format!("{by} closed it: {why}"), fix))
}

/// A keyspace is closed only while everybody is there to hear of it.
fn can_close(scope: Scope, shared: &Shared) -> Result<(), Refused> {
    let (layout, view) = (shared.layout(), shared.members());
    let ready =
        |node: &NodeId| view.members.get(node).is_some_and(|m| m.up && m.state == NodeState::Ready);
    let absent = layout.members.values().filter(|member| !ready(&member.id));
    let absent: Vec<_> = absent.map(|member| member.name.as_str()).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let what = format!("the copies of keyspace {scope} are not changed");
    let why =
        format!("{} must say that it holds no key of it, and is not there", absent.join(", "));
    Err(refused(ErrorCode::Invalid, what, why, "bring it back first"))
}

fn too_many(scope: Scope, n: u8, copies: u8) -> Refused {
    let what = format!("keyspace {scope} cannot have N={n}");
    let why = format!(
        "the layout keeps {copies} copies of a slot, as many as the configuration asks for"
    );
    let fix = "start the cluster with as high a keyspace.n, and set others down to what they need";
    refused(ErrorCode::Invalid, what, why, fix)
}

/// Whether a cluster that keeps `copies` copies of a slot can give what the terms promise.
fn check(scope: Scope, terms: &KeyspacePolicy, copies: u8) -> Result<(), Refused> {
    let possible = KeyspacePolicy { n: terms.n.min(copies), ..*terms };
    possible.validate(copies).map_err(|e| {
        let what = format!("keyspace {scope} cannot have these terms");
        refused(ErrorCode::Invalid, what, e.to_string(), "choose what so many copies can give")
    })
}
