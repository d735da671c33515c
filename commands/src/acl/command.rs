//! ACL: the command by which accounts are looked at and changed.

use wire::resp::encode;

use super::rules::{CATEGORIES, commands_in, hex, subcommands_in};
use super::{ACCOUNTS_MAX, Account, Why};
use crate::args;
use crate::errors::Fault;
use crate::host::{DenialLine, KillFilter};
use crate::table;
use crate::turn::Turn;

/// Denials that ACL LOG shows unless it is told how many.
const LOG_SHOWN: usize = 10;

pub(crate) fn acl(turn: &mut Turn<'_>, args: &[&[u8]]) {
    let (word, rest) = (args::text(args[1]).to_ascii_lowercase(), &args[2..]);
    match (word.as_str(), rest) {
        ("whoami", []) => {
            let user = turn.state.user.clone().unwrap_or_default();
            turn.bulk(user);
        }
        ("users", []) => {
            let accounts = turn.host.accounts();
            encode::write_array(turn.reply, accounts.len());
            for account in accounts.iter() {
                turn.bulk(&account.name);
            }
        }
        ("list", []) => {
            let accounts = turn.host.accounts();
            encode::write_array(turn.reply, accounts.len());
            for account in accounts.iter() {
                turn.bulk(account.line());
            }
        }
        ("getuser", [name]) => get_user(turn, &args::text(name)),
        ("setuser", [name, rules @ ..]) => set_user(turn, name, rules),
        ("deluser", [_, ..]) => delete_users(turn, rest),
        ("cat", []) => {
            encode::write_array(turn.reply, CATEGORIES.len());
            for category in CATEGORIES {
                turn.bulk(category);
            }
        }
        ("cat", [category]) => commands_of(turn, &args::text(category)),
        ("log", []) => log(turn, LOG_SHOWN),
        ("log", [word]) if args::is(word, "reset") => {
            turn.host.forget_denials();
            turn.ok();
        }
        ("log", [count]) => match args::canonical(count).map(usize::try_from) {
            Some(Ok(count)) => log(turn, count),
            Some(Err(_)) | None => turn.fail(&Fault::NotInteger),
        },
        ("dryrun", [name, command @ ..]) if !command.is_empty() => dry_run(turn, name, command),
        ("save", []) => done(turn, |turn| turn.host.save_accounts()),
        ("load", []) => done(turn, |turn| turn.host.load_accounts()),
        ("help", _) => turn.help("ACL", rest, &HELP),
        (
            "whoami" | "users" | "list" | "getuser" | "setuser" | "deluser" | "cat" | "log"
            | "dryrun" | "save" | "load",
            _,
        ) => turn.fail(&Fault::Arity { command: format!("acl|{word}") }),
        _ => turn.fail(&Fault::UnknownSubcommand { container: "ACL", name: args[1].to_vec() }),
    }
}

const HELP: [&str; 24] = [
    "CAT [<category>]",
    "    Lists categories, or the commands of one.",
    "DELUSER <username> [<username> ...]",
    "    Deletes users, and closes their connections.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Tells whether the user may run the command.",
    "GETUSER <username>",
    "    Tells a user's rights.",
    "LIST",
    "    Shows all users in the format of the ACL file.",
    "LOAD",
    "    Reads the ACL file again.",
    "LOG [<count> | RESET]",
    "    Shows what was refused of late.",
    "SAVE",
    "    Writes the ACL file.",
    "SETUSER <username> <rule> [<rule> ...]",
    "    Creates or changes a user, on this node. consistency=<level> sets what its connections",
    "    start with.",
    "USERS",
    "    Lists the names of users.",
    "WHOAMI",
    "    The user of this connection.",
    "Users hold on one node, until it stops; redis.acl_file keeps them.",
];

fn done(turn: &mut Turn<'_>, act: impl FnOnce(&mut Turn<'_>) -> Result<(), String>) {
    match act(turn) {
        Ok(()) => turn.ok(),
        Err(why) => turn.fail(&Fault::Line(format!("ERR {why}"))),
    }
}

fn get_user(turn: &mut Turn<'_>, name: &str) {
    let Some(account) = turn.host.account(name) else { return turn.null() };
    turn.map(7);
    turn.bulk("flags");
    let flags = account.flags();
    encode::write_set(turn.reply, turn.state.protocol, flags.len());
    for flag in flags {
        turn.bulk(flag);
    }
    turn.bulk("passwords");
    encode::write_array(turn.reply, account.passwords.len());
    for hash in &account.passwords {
        turn.bulk(hex(hash));
    }
    for (field, value) in [
        ("commands", account.command_rules()),
        ("keys", account.key_rules()),
        ("channels", String::new()),
    ] {
        turn.bulk(field);
        turn.bulk(value);
    }
    turn.bulk("selectors");
    encode::write_array(turn.reply, 0);
    turn.bulk("consistency");
    turn.bulk(account.consistency().join(" "));
}

fn set_user(turn: &mut Turn<'_>, name: &[u8], rules: &[&[u8]]) {
    let odd = |b: &u8| b.is_ascii_whitespace() || *b == 0 || *b == b'~';
    let Some(name) = core::str::from_utf8(name).ok().filter(|n| !n.bytes().any(|b| odd(&b))) else {
        return turn.fail(&Fault::Fixed(
            "ERR Usernames can't contain spaces or null characters, nor ~, which begins a \
             consistency level",
        ));
    };
    let known = turn.host.account(name);
    if known.is_none() && turn.host.accounts().len() >= ACCOUNTS_MAX {
        return turn.fail(&Fault::Line(format!(
            "ERR there are {ACCOUNTS_MAX} users already. fix: delete some with ACL DELUSER"
        )));
    }
    let mut account = known.map_or_else(|| Account::new(name), |a| Account::clone(&a));
    for rule in rules {
        let host = &*turn.host;
        if let Err(why) = account.apply(rule, &|password| host.hash_password(password)) {
            let rule = args::text(rule);
            // A password that was mistyped is not repeated.
            let shown = if rule.starts_with(['>', '<', '#', '!']) { &rule[..1] } else { &rule };
            return turn
                .fail(&Fault::Line(format!("ERR Error in ACL SETUSER modifier '{shown}': {why}")));
        }
    }
    turn.host.set_account(account);
    turn.ok();
}

fn delete_users(turn: &mut Turn<'_>, names: &[&[u8]]) {
    if names.iter().any(|name| *name == b"default") {
        return turn.fail(&Fault::Fixed("ERR The 'default' user cannot be removed"));
    }
    let mut deleted = 0;
    for name in names {
        let name = args::text(name);
        if turn.host.remove_account(&name) {
            deleted += 1;
            turn.host.kill_clients(&KillFilter { user: Some(name), ..KillFilter::default() });
        }
    }
    turn.integer(deleted);
}

fn commands_of(turn: &mut Turn<'_>, category: &str) {
    let category = category.to_ascii_lowercase();
    if !CATEGORIES.contains(&category.as_str()) {
        return turn.fail(&Fault::Line(format!("ERR Unknown category '{category}'")));
    }
    let names = commands_in(&category).map(|(_, name)| name.to_owned());
    let names: Vec<_> = names.chain(subcommands_in(&category)).collect();
    encode::write_array(turn.reply, names.len());
    for name in names {
        turn.bulk(name);
    }
}

fn dry_run(turn: &mut Turn<'_>, name: &[u8], command: &[&[u8]]) {
    let name = args::text(name);
    let Some(account) = turn.host.account(&name) else {
        return turn.fail(&Fault::Line(format!("ERR User '{name}' not found")));
    };
    let Some(place) = table::find(command[0]) else {
        let command = args::text(command[0]);
        return turn.fail(&Fault::Line(format!("ERR Command '{command}' not found")));
    };
    if !table::TABLE[place].takes(command.len()) {
        let command = table::TABLE[place].name.to_owned();
        return turn.fail(&Fault::Arity { command });
    }
    match account.judge(place, command) {
        Ok(()) => turn.ok(),
        Err(Why::Key(key)) => {
            let key = args::text(&key);
            turn.bulk(format!("User {name} has no permissions to access the '{key}' key"));
        }
        Err(Why::Command(command)) => {
            turn.bulk(format!("User {name} has no permissions to run the '{command}' command"));
        }
        Err(Why::Password) => unreachable!("no password is looked at"),
    }
}

fn log(turn: &mut Turn<'_>, count: usize) {
    let lines = turn.host.denials();
    let shown = &lines[..count.min(lines.len())];
    encode::write_array(turn.reply, shown.len());
    for DenialLine { id, count, age_s, denial } in shown {
        turn.map(7);
        turn.bulk("count");
        turn.integer(*count as i64);
        for (field, value) in [
            ("reason", denial.reason().to_owned()),
            ("context", "toplevel".to_owned()),
            ("object", denial.object()),
            ("username", denial.user.clone()),
            ("age-seconds", age_s.to_string()),
        ] {
            turn.bulk(field);
            turn.bulk(value);
        }
        turn.bulk("entry-id");
        turn.integer(*id as i64);
    }
}
