//! What users may do, as Redis says it, and that it is told when it was refused.

use commands::SessionDefaults;
use commands::acl::{Account, Accounts, Why};

use crate::story::Story;

const DENIED_KEY: &str = "-NOPERM No permissions to access a key";

/// A user `app` with these rules, who has come in.
fn app(rules: &str) -> Story {
    let mut story =
        Story::with(SessionDefaults { auth_required: true, ..SessionDefaults::default() });
    assert_eq!(story.says("AUTH default any"), "+OK");
    assert_eq!(story.says(&format!("ACL SETUSER app on >secret {rules}")), "+OK");
    assert_eq!(story.says("AUTH app secret"), "+OK");
    story
}

fn denied(command: &str) -> String {
    format!("-NOPERM User app has no permissions to run the '{command}' command")
}

#[test]
fn a_user_may_do_what_its_rules_say_and_nothing_else() {
    let mut story = app("~app:* %R~shared:* -@all +@read +set +config|get +mset");
    for (command, reply) in [
        ("SET app:1 x", "+OK"),
        ("GET app:1", "$1 x"),
        ("GET shared:1", "$-1"),
        ("SET shared:1 x", DENIED_KEY),
        ("GET other", DENIED_KEY),
        ("MGET app:1 other", DENIED_KEY),
        ("MSET app:1 a other b", DENIED_KEY),
        ("SET app:1 y GET", "$1 x"),
        ("WITH ONE GET other", DENIED_KEY),
        ("DEL app:1", &denied("del")),
        ("FLUSHALL", &denied("flushall")),
        ("CONFIG GET port", "*2 $4 port $4 6379"),
        ("CONFIG SET maxclients 1", &denied("config|set")),
        ("ACL LIST", &denied("acl|list")),
        ("PING", &denied("ping")),
        ("AUTH app wrong", "-WRONGPASS invalid username-password pair or user is disabled."),
    ] {
        assert_eq!(story.says(command), reply, "{command}");
    }
    let reasons: Vec<&str> = story.host.denials.iter().map(|d| d.reason()).collect();
    assert_eq!(reasons.len(), 11, "every refusal is told: {reasons:?}");
    assert!(matches!(&story.host.denials[0].why, Why::Password));
}

#[test]
fn who_may_only_write_a_key_may_do_what_tells_nothing_of_its_value() {
    let mut story = app("%W~w:* %R~r:* -@all +@all");
    for (command, reply) in [
        ("SET w:1 x", "+OK"),
        ("APPEND w:1 y", ":2"),
        ("SETRANGE w:1 0 z", ":2"),
        ("EXPIRE w:1 100", ":1"),
        ("MSETNX w:1 a", ":0"),
        ("STRLEN w:1", ":2"),
        ("EXISTS w:1", ":1"),
        ("TYPE w:1", "+string"),
        ("TYPE r:1", "+none"),
        ("GET w:1", DENIED_KEY),
        ("TTL w:1", DENIED_KEY),
        ("SET w:1 x GET", DENIED_KEY),
        ("INCR w:2", DENIED_KEY),
        ("GETDEL w:1", DENIED_KEY),
        ("APPEND r:1 y", DENIED_KEY),
        ("EXISTS w:1 other", DENIED_KEY),
        ("STRLEN other", DENIED_KEY),
        ("GET r:1", "$-1"),
    ] {
        assert_eq!(story.says(command), reply, "{command}");
    }
}

#[test]
fn subcommands_belong_to_the_categories_that_redis_has_them_in() {
    let mut story = app("~* +@all -@admin -@dangerous");
    for (command, denied_as) in [
        ("CLIENT LIST", "client|list"),
        ("CLIENT KILL USER root", "client|kill"),
        ("CLIENT NO-EVICT on", "client|no-evict"),
        ("CONFIG GET port", "config|get"),
        ("ACL LIST", "acl|list"),
        ("FLUSHALL", "flushall"),
        ("INFO", "info"),
        ("ROLE", "role"),
        ("LASTSAVE", "lastsave"),
    ] {
        assert_eq!(story.says(command), denied(denied_as), "{command}");
    }
    for command in ["ACL WHOAMI", "CLIENT ID", "COMMAND COUNT", "TIME", "DBSIZE", "MEMORY USAGE k"]
    {
        let reply = story.says(command);
        assert!(!reply.starts_with("-NOPERM"), "{command}: {reply}");
    }
    // What is named alone counts, and a command by itself has all of its subcommands.
    let mut story = app("~* +@connection -client|kill +acl|cat");
    assert!(story.says("CLIENT LIST").starts_with('$'));
    assert_eq!(story.says("CLIENT KILL USER root"), denied("client|kill"));
    let of = story.says("ACL CAT dangerous");
    assert!(of.contains("client|kill") && of.contains("flushall"), "{of}");
    let mut story = app("~* -@all +@dangerous -flushall");
    assert!(story.says("CLIENT LIST").starts_with('$'));
    assert_eq!(story.says("CLIENT ID"), denied("client|id"));
}

#[test]
fn a_denied_command_spoils_its_transaction() {
    let mut story = app("~app:* +@all");
    assert_eq!(story.says("MULTI"), "+OK");
    assert_eq!(story.says("SET app:1 x"), "+QUEUED");
    assert_eq!(story.says("SET other x"), DENIED_KEY);
    assert!(story.says("EXEC").starts_with("-EXECABORT"), "nothing of it is done");
    assert_eq!(story.says("GET app:1"), "$-1");
}

#[test]
fn a_change_of_rights_holds_for_connections_that_are_open() {
    let mut story = app("~* +@all");
    assert_eq!(story.says("GET a"), "$-1");
    assert_eq!(story.says("ACL SETUSER app -get"), "+OK");
    assert_eq!(story.says("GET a"), denied("get"));
    assert_eq!(story.says("ACL DELUSER app"), ":1");
    assert_eq!(story.says("GET a"), "-NOAUTH Authentication required.");
    assert_eq!(
        story.says("AUTH app secret"),
        "-WRONGPASS invalid username-password pair or user is disabled."
    );
}

#[test]
fn the_consistency_of_a_user_is_what_its_connections_start_with() {
    let mut story = app("~* +@all consistency=one");
    let level = |story: &mut Story, line: &str| {
        story.sends_line(line);
        let submit = story.takes_submits().remove(0);
        let text = format!("{:?}", submit.request);
        story.serves(submit);
        story.hears_text();
        text
    };
    assert!(level(&mut story, "GET a").contains("read: Some(One)"), "the user's");
    assert!(level(&mut story, "WITH ALL GET a").contains("read: Some(All)"), "the request's own");
    assert_eq!(story.says("AUTH app~quorum secret"), "+OK");
    assert!(level(&mut story, "GET a").contains("read: Some(Quorum)"), "the connection's own");
    assert_eq!(
        story.says("ACL SETUSER app consistency=most"),
        "-ERR Error in ACL SETUSER modifier 'consistency=most': most is no consistency level"
    );
}

#[test]
fn users_are_shown_as_they_were_set() {
    let mut story = app("~a:* %R~b:* -@all +@read -get +config|get consistency=r=1");
    assert_eq!(story.says("AUTH default any"), "+OK");
    assert_eq!(story.says("ACL USERS"), "*2 $3 app $7 default");
    assert_eq!(story.says("ACL WHOAMI"), "$7 default");
    let list = story.says("ACL LIST");
    assert!(list.contains("user default on nopass ~* +@all"), "{list}");
    assert!(list.contains("~a:* %R~b:* consistency=r=1 -@all +@read -get +config|get"), "{list}");
    assert!(!list.contains("secret"), "{list}");
    let user = story.says("ACL GETUSER app");
    assert!(user.contains("$8 commands $29 -@all +@read -get +config|get $4 keys"), "{user}");
    assert_eq!(story.says("ACL GETUSER nobody"), "$-1");
    assert_eq!(story.says("ACL DRYRUN app set a:1 x"), format!("$52 {}", &denied("set")[8..]));
    assert_eq!(story.says("ACL DRYRUN app mget a:1"), "+OK");
    assert_eq!(story.says("ACL DELUSER default"), "-ERR The 'default' user cannot be removed");
    assert!(story.says("ACL CAT").contains("dangerous"));
    assert!(story.says("ACL CAT transaction").contains("exec"));
    assert_eq!(
        story.says("ACL SETUSER app +nothing"),
        "-ERR Error in ACL SETUSER modifier '+nothing': Unknown command or category name in ACL"
    );
    assert_eq!(
        story.says("ACL SETUSER app nonsense"),
        "-ERR Error in ACL SETUSER modifier 'nonsense': Syntax error"
    );
    assert!(
        story.says("ACL SETUSER app #beef").starts_with("-ERR Error in ACL SETUSER modifier '#'")
    );
}

#[test]
fn the_log_of_denials_is_read_and_emptied() {
    let mut story = app("~* +get +acl");
    assert_eq!(story.says("SET a b"), denied("set"));
    let log = story.says("ACL LOG");
    assert!(log.contains("$6 reason $7 command") && log.contains("$6 object $3 set"), "{log}");
    assert_eq!(story.says("ACL LOG RESET"), "+OK");
    assert_eq!(story.says("ACL LOG 5"), "*0");
}

#[test]
fn accounts_that_are_written_are_the_same_when_they_are_read() {
    let hash = |password: &[u8]| [password.len() as u8; 32];
    let rules = [
        "on",
        "off",
        "nopass",
        ">one",
        ">three",
        "~a*",
        "%R~b*",
        "%W~c*",
        "allkeys",
        "+@all",
        "-@all",
        "+@read",
        "-@dangerous",
        "+@dangerous",
        "-@admin",
        "+@slow",
        "+@connection",
        "+client",
        "+acl|whoami",
        "+get",
        "-get",
        "+config|get",
        "-client|kill",
        "consistency=quorum",
        "consistency=r=1",
        "consistency=d=sync",
        "resetkeys",
        "resetpass",
    ];
    let mut chance = 1_u64;
    for _ in 0..2_000 {
        let mut account = Account::new("app");
        for _ in 0..8 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let rule = rules[(chance >> 33) as usize % rules.len()];
            account.apply(rule.as_bytes(), &hash).expect("the rule exists");
        }
        let mut accounts = Accounts::default();
        accounts.set(account.clone());
        let mut read = Accounts::default();
        read.read(&accounts.to_text(), &hash).expect("what was written can be read");
        assert_eq!(read, accounts, "{}", account.line());
    }
    let told = Accounts::default().read("user a on\nuser b what\n", &hash);
    assert_eq!(told, Err((2, "Syntax error".to_owned())));
}
