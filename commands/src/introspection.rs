//! Introspection: COMMAND and its subcommands, all told from the command table.

use wire::resp::encode;

use crate::args;
use crate::errors::Fault;
use crate::glob;
use crate::table::{self, Spec, TABLE};
use crate::turn::Turn;

pub(crate) fn command(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let Some(word) = args.get(1) else {
        encode::write_array(turn.reply, TABLE.len());
        for spec in TABLE {
            describe(turn, spec);
        }
        return;
    };
    let rest = &args[2..];
    match () {
        () if args::is(word, "count") && rest.is_empty() => turn.integer(TABLE.len() as i64),
        () if args::is(word, "count") => {
            turn.fail(&Fault::Arity { command: "command|count".to_owned() });
        }
        () if args::is(word, "info") => info(turn, rest),
        () if args::is(word, "docs") => docs(turn, rest),
        () if args::is(word, "list") => list(turn, rest),
        () if args::is(word, "getkeys") => get_keys(turn, rest),
        () if args::is(word, "help") => turn.help(
            "COMMAND",
            rest,
            &[
                "(no subcommand)",
                "    Describes every command.",
                "COUNT",
                "    How many commands there are.",
                "DOCS [<command> ...]",
                "    What commands are for.",
                "GETKEYS <command> [<arg> ...]",
                "    Which arguments of a command are keys.",
                "INFO [<command> ...]",
                "    Describes these commands, or all.",
                "LIST [FILTERBY <ACLCAT <category> | PATTERN <pattern> | MODULE <module>>]",
                "    The names of commands.",
            ],
        ),
        () => {
            let name = word.to_vec();
            turn.fail(&Fault::UnknownSubcommand { container: "COMMAND", name });
        }
    }
}

fn describe(turn: &mut Turn<'_>, spec: &Spec) {
    let protocol = turn.state.protocol;
    let (first, last, step) = spec.keys;
    encode::write_array(turn.reply, 10);
    turn.bulk(spec.name);
    turn.integer(i64::from(spec.arity));
    let flags = spec.flag_names();
    encode::write_set(turn.reply, protocol, flags.len());
    for flag in flags {
        encode::write_simple(turn.reply, flag);
    }
    for number in [first, last, step] {
        turn.integer(i64::from(number));
    }
    let categories = spec.categories();
    encode::write_set(turn.reply, protocol, categories.len());
    for category in categories {
        encode::write_simple(turn.reply, &category);
    }
    // Tips, key specifications, subcommands.
    for _ in 0..3 {
        encode::write_array(turn.reply, 0);
    }
}

fn info(turn: &mut Turn<'_>, names: &[&[u8]]) {
    if names.is_empty() {
        encode::write_array(turn.reply, TABLE.len());
        for spec in TABLE {
            describe(turn, spec);
        }
        return;
    }
    encode::write_array(turn.reply, names.len());
    for name in names {
        match table::find(name) {
            Some(place) => describe(turn, &TABLE[place]),
            None => turn.null(),
        }
    }
}

fn docs(turn: &mut Turn<'_>, names: &[&[u8]]) {
    let wanted: Vec<&Spec> = if names.is_empty() {
        TABLE.iter().collect()
    } else {
        names.iter().filter_map(|name| table::find(name)).map(|place| &TABLE[place]).collect()
    };
    turn.map(wanted.len());
    for spec in wanted {
        turn.bulk(spec.name);
        turn.map(3);
        turn.bulk("summary");
        turn.bulk(spec.summary);
        turn.bulk("since");
        turn.bulk(spec.since);
        turn.bulk("group");
        turn.bulk(spec.group);
    }
}

fn list(turn: &mut Turn<'_>, filter: &[&[u8]]) {
    let fits: Box<dyn Fn(&&Spec) -> bool> = match filter {
        [] => Box::new(|_| true),
        [by, kind, wanted] if args::is(by, "filterby") => match () {
            () if args::is(kind, "module") => Box::new(|_| false),
            () if args::is(kind, "aclcat") => {
                let wanted = format!("@{}", args::text(wanted).to_ascii_lowercase());
                Box::new(move |spec| spec.categories().contains(&wanted))
            }
            () if args::is(kind, "pattern") => {
                let pattern = wanted.to_vec();
                Box::new(move |spec| glob::matches(&pattern, spec.name.as_bytes(), true))
            }
            () => return turn.fail(&Fault::Syntax),
        },
        _ => return turn.fail(&Fault::Syntax),
    };
    let names: Vec<&str> = TABLE.iter().filter(fits).map(|spec| spec.name).collect();
    encode::write_array(turn.reply, names.len());
    for name in names {
        turn.bulk(name);
    }
}

fn get_keys(turn: &mut Turn<'_>, command: &[&[u8]]) {
    if command.len() < 2 {
        return turn.fail(&Fault::Arity { command: "command|getkeys".to_owned() });
    }
    let Some(place) = command.first().and_then(|name| table::find(name)) else {
        return turn.fail(&Fault::Fixed("ERR Invalid command specified"));
    };
    let spec = &TABLE[place];
    let (first, last, step) = spec.keys;
    if first == 0 {
        return turn.fail(&Fault::Fixed("ERR The command has no key arguments"));
    }
    if !spec.takes(command.len()) {
        return turn.fail(&Fault::Fixed("ERR Invalid number of arguments specified for command"));
    }
    let last = if last < 0 { command.len() as i16 + last } else { last };
    let places: Vec<usize> =
        (first..=last).step_by(step.max(1) as usize).map(|at| at as usize).collect();
    if places.iter().any(|at| *at >= command.len()) {
        return turn.fail(&Fault::Fixed("ERR Invalid number of arguments specified for command"));
    }
    encode::write_array(turn.reply, places.len());
    for at in places {
        turn.bulk(command[at]);
    }
}
