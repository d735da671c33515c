//! The same commands for a session and for a stock Redis, where one is installed: the same bytes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ring::WallMillis;
use wire::resp::ReplyDecoder;
use wire::resp::encode::write_command;

use crate::story::{Story, words};

/// A stock Redis with nothing in it, gone when dropped.
struct Stock {
    child: Child,
    stream: UnixStream,
    directory: std::path::PathBuf,
}

impl Stock {
    /// `None` where no `redis-server` is installed.
    fn start(name: &str) -> Option<Self> {
        let directory = std::env::temp_dir().join(format!("ring-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory can be made");
        let socket = directory.join("s");
        let mut child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--daemonize", "no", "--unixsocket"])
            .arg(&socket)
            .current_dir(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let stdout = child.stdout.take().expect("it was piped");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let ready = lines.any(|line| line.contains("ready to accept connections at"));
        assert!(ready, "redis-server did not start");
        let stream = connect(&socket);
        Some(Self { child, stream, directory })
    }

    fn says(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = Vec::new();
        write_command(&mut request, args);
        self.stream.write_all(&request).expect("redis-server is there");
        let mut heard = Vec::new();
        let mut decoder = ReplyDecoder::new();
        let mut buffer = [0; 65_536];
        while decoder.decode(&heard).expect("redis-server speaks RESP").is_none() {
            let n = self.stream.read(&mut buffer).expect("redis-server is there");
            assert!(n > 0, "redis-server hung up");
            heard.extend_from_slice(&buffer[..n]);
        }
        heard
    }
}

fn connect(socket: &Path) -> UnixStream {
    UnixStream::connect(socket).expect("redis-server said that it is ready")
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        std::fs::remove_dir_all(&self.directory).expect("it is our directory");
    }
}

/// A session whose clock stands where Redis's does.
fn story_like(stock: &mut Stock) -> Story {
    let mut story = Story::new();
    let time = String::from_utf8(stock.says(&[b"TIME"])).expect("digits");
    let seconds: u64 = time.split("\r\n").nth(2).expect("a list of two").parse().expect("digits");
    story.now.wall = WallMillis(seconds * 1_000);
    story
}

/// What was asked and answered where the two differ.
fn difference(stock: &mut Stock, story: &mut Story, line: &str) -> Option<String> {
    let args = words(line);
    let (theirs, ours) = (stock.says(&args), story.says_args(&args));
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    (ours != theirs)
        .then(|| format!("{line}\n  redis: {}\n  ours:  {}", show(&theirs), show(&ours)))
}

fn differences<'l>(
    stock: &mut Stock,
    story: &mut Story,
    lines: impl Iterator<Item = &'l str>,
) -> Vec<String> {
    lines.filter_map(|line| difference(stock, story, line)).collect()
}

const SCRIPT: &str = "
PING
PING hello
PING a b
ECHO
ECHO x
NOSUCH a b c
NOSUCH
GET
GET a b
get missing
SET k v
GET k
SET k v NX
SET k w XX
SET k w XX GET
SET k w NX GET
SET fresh w NX GET
SET k v NX XX
SET k v EX
SET k v EX a
SET k v EX 0
SET k v EX -1
SET k v PX 0
SET k v EX 10 PX 10
SET k v EX 9223372036854775807
SET k v PX 9223372036854775807
SET k v KEEPTTL EX 10
SET k v EX 10 KEEPTTL
SET k v KEEPTTL KEEPTTL
SET k v BOGUS
SET k v GET GET
SET k v EX 100
TTL k
SET k v KEEPTTL
TTL k
SET k v
TTL k
PTTL k
TTL missing
PTTL missing
EXPIRETIME missing
PEXPIRETIME k
SET k v EXAT 4102444800
EXPIRETIME k
PEXPIRETIME k
SET k v PXAT 4102444800123
PEXPIRETIME k
EXPIRETIME k
SET k v EXAT 1
GET k
SETEX k 10 v
SETEX k 0 v
SETEX k -5 v
SETEX k x v
SETEX k 10
PSETEX k 10000 v
PSETEX k 0 v
SETNX k other
SETNX fresh2 v
GETSET k new
GETSET fresh3 new
GETDEL k
GETDEL k
SET k 0123456789
GETEX k
GETEX k PERSIST
GETEX k EX 100
TTL k
GETEX k PERSIST
TTL k
GETEX k EX 0
GETEX k EX
GETEX k EX 10 PX 10
GETEX k KEEPTTL
GETEX missing EX 10
GETRANGE k 0 3
GETRANGE k -3 -1
GETRANGE k 5 2
GETRANGE k -1 -3
GETRANGE k 0 -1
GETRANGE k 20 30
GETRANGE k -100 2
GETRANGE k -100 -200
GETRANGE k a b
GETRANGE missing 0 -1
SUBSTR k 1 2
SETRANGE k 3 abc
GET k
SETRANGE k 12 zz
GET k
SETRANGE k -1 x
SETRANGE k x x
SETRANGE missing 3 ''
SETRANGE missing2 3 x
GET missing2
SETRANGE k 0 ''
STRLEN k
STRLEN missing
APPEND k more
APPEND fresh4 first
GET k
MSET a 1 b 2 c 3
MSET a 1 b
MSET a
MGET a b missing c a
MSET a 1 a 2
GET a
MSETNX a 5
MSETNX {t}x 1 {t}y 2
MSETNX {t}y 1 {t}z 2
MSETNX {t}y 1 {t}z
MGET {t}x {t}y {t}z
EXISTS a b missing a
TOUCH a b missing
DEL a a b missing
UNLINK c missing
DEL
TYPE k
TYPE missing
INCR n
INCRBY n 10
DECR n
DECRBY n 3
INCRBY n x
INCRBY n 1.5
INCRBY n 01
DECRBY n -9223372036854775808
SET big 9223372036854775807
INCR big
SET low -9223372036854775808
DECR low
INCR k
SET f 10.5
INCRBYFLOAT f 0.25
INCRBYFLOAT f -5
INCRBYFLOAT f x
INCRBYFLOAT k 1
INCRBYFLOAT f inf
INCRBYFLOAT f 5.0e3
GET f
EXPIRE k 100
TTL k
EXPIRE k 200 GT
EXPIRE k 100 GT
EXPIRE k 50 LT
EXPIRE k 100 NX
EXPIRE k 100 XX
EXPIRE k 100 NX XX
EXPIRE k 100 NX GT
EXPIRE k 100 GT LT
EXPIRE k 300 XX GT
EXPIRE k 100 FOO
EXPIRE k x
EXPIRE k 9223372036854775807
EXPIRE k -9223372036854775808
PEXPIRE k 9223372036854775807
EXPIRE missing 100
PERSIST k
PERSIST k
PERSIST missing
EXPIRE k 100 GT
EXPIRE k 100 LT
PEXPIRE k 100000
TTL k
EXPIREAT k 4102444800
EXPIRETIME k
PEXPIREAT k 4102444800123
PEXPIRETIME k
EXPIREAT k 1
EXISTS k
SET k v
EXPIRE k -1
GET k
SET enc 12
OBJECT ENCODING enc
SET enc abc
OBJECT ENCODING enc
SET enc 0123456789012345678901234567890123456789012345
OBJECT ENCODING enc
OBJECT ENCODING missing
OBJECT REFCOUNT missing
OBJECT FREQ enc
OBJECT NOSUCH enc
OBJECT ENCODING
OBJECT
SELECT 1
GET enc
DBSIZE
SELECT 16
SELECT -1
SELECT x
SELECT 0
DBSIZE
MULTI
SET t 1
INCR t
GET t
EXEC
GET t
MULTI
MULTI
DISCARD
DISCARD
EXEC
MULTI
WATCH t
NOSUCH
SET t
EXEC
MULTI
SET t x
INCR t
SET t 1 BOGUS
GET t
EXEC
WATCH t
MULTI
GET t
EXEC
WATCH t
SET t changed
MULTI
GET t
EXEC
MULTI
GET t
EXEC
WATCH t
SET t again
UNWATCH
MULTI
GET t
EXEC
WATCH t
MULTI
SET t inside
DISCARD
MULTI
GET t
EXEC
WATCH
EXEC
MULTI
EXEC
MULTI
SELECT 2
SET in2 x
SELECT 0
GET in2
PING
ECHO hi
EXEC
SELECT 2
GET in2
SELECT 0
KEYS t
KEYS nothing*
KEYS
SCAN x
SCAN 0 COUNT 0
SCAN 0 COUNT x
SCAN 0 COUNT
SCAN 0 FOO 1
SCAN 0 MATCH t COUNT 100000
SCAN 0 TYPE list COUNT 100000
SELECT 6
MULTI
DBSIZE
SET only 1
RANDOMKEY
DBSIZE
KEYS *
SCAN 0
SCAN 0 COUNT x
SCAN x
KEYS
EXEC
MULTI
SET only 1
RANDOMKEY
DBSIZE
KEYS o*
SCAN 0 MATCH o* COUNT 1000
SCAN 0 COUNT x
SCAN x
SCAN 0 TYPE list
MSETNX only 2
MSETNX only2 2
MSETNX {t}a 1 {t}b 2
GET {t}b
DEL {t}a {t}b only2
FLUSHDB FOO
FLUSHDB
DBSIZE
RANDOMKEY
KEYS *
SCAN 0
SET after 1
DBSIZE
EXEC
GET after
WATCH after
SET after 2
MULTI
FLUSHDB
DBSIZE
EXEC
DBSIZE
MULTI
SELECT 7
SET there 1
DBSIZE
SELECT 6
DBSIZE
FLUSHALL SYNC
DBSIZE
SELECT 7
DBSIZE
EXEC
MULTI
FLUSHALL ASYNC
DISCARD
SELECT 5
RANDOMKEY
SET only 1
RANDOMKEY
SCAN 0
KEYS *
DBSIZE
FLUSHDB
DBSIZE
FLUSHDB FOO
FLUSHDB ASYNC
FLUSHALL SYNC
SELECT 0
DBSIZE
KEYS *
CLIENT GETNAME
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME
CLIENT NOSUCH
CLIENT REPLY
CLIENT REPLY FOO
CLIENT REPLY ON
CLIENT NO-EVICT FOO
CLIENT NO-EVICT ON
CLIENT GETREDIR
CLIENT KILL 1.2.3.4:5
CLIENT KILL ID x
CLIENT KILL ID 99999
CLIENT KILL FOO BAR
CLIENT LIST TYPE foo
CLIENT LIST ID x
CLIENT LIST FOO
CONFIG NOSUCH
CONFIG GET
CONFIG SET a
CONFIG SET nosuchsetting 1
CONFIG RESETSTAT
CONFIG GET maxmemory-policy
CONFIG GET appendfsync
CONFIG GET nosuchsetting
COMMAND GETKEYS GET k
COMMAND GETKEYS MSET a 1 b 2
COMMAND GETKEYS NOSUCH
COMMAND GETKEYS PING
COMMAND GETKEYS GET
COMMAND GETKEYS NOSUCH k
COMMAND GETKEYS PING k
COMMAND GETKEYS GET a b
CLIENT KILL
CONFIG SET hz
CLUSTER KEYSLOT
OBJECT HELP x
SETRANGE k 600000000 x
MULTI x
EXEC x
MULTI
EXEC x
DISCARD
GETEX k PERSIST PERSIST
GETEX k PERSIST EX 10
GETEX k EX 10 EX 20
SET k v KEEPTTL KEEPTTL
COMMAND NOSUCH
COMMAND INFO nosuch
COMMAND LIST FILTERBY PATTERN xyz*
AUTH
AUTH x
AUTH nobody x
AUTH a b c
HELLO x
HELLO 4
HELLO 2 FOO
HELLO 2 AUTH nobody x
CLUSTER INFO
WAIT
WAIT x 0
WAIT 0 x
WAIT 0 -1
MODULE LIST
ACL WHOAMI
RESET
CLIENT GETNAME
SLOWLOG LEN
MEMORY USAGE
ROLE x
PERSIST
TIME x
";

#[test]
fn a_script_of_commands_is_answered_byte_for_byte_as_by_a_stock_redis() {
    let Some(mut stock) = Stock::start("script") else { return };
    let mut story = story_like(&mut stock);
    let lines = SCRIPT.lines().filter(|line| !line.is_empty());
    let found = differences(&mut stock, &mut story, lines);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_third_version_of_the_protocol_looks_the_same_too() {
    let Some(mut stock) = Stock::start("resp3") else { return };
    let mut story = story_like(&mut stock);
    // The greeting differs in version and id.
    for hears in [stock.says(&[b"HELLO", b"3"]), story.says_args(&[b"HELLO", b"3"])] {
        assert!(hears.starts_with(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"));
    }
    let in_resp3 = |line: &&str| !line.is_empty() && !line.starts_with("RESET");
    let found = differences(&mut stock, &mut story, SCRIPT.lines().filter(in_resp3));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// SplitMix64.
pub(crate) fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A command about a few keys, drawn by chance; one in many makes no sense.
pub(crate) fn draw(state: &mut u64) -> String {
    const COMMANDS: &str = "
        GET K|SET K V|SET K V O|SET K V O O|SETNX K V|GETSET K V|GETDEL K|GETEX K|GETEX K O|APPEND K V
        STRLEN K|GETRANGE K N N|SETRANGE K 7 V|MGET K K K|MSET K V K V|DEL K|DEL K K K|EXISTS K K K
        INCR K|DECR K|INCRBY K N|DECRBY K N|TTL K|PERSIST K|EXPIRE K 1000|EXPIRE K 1000 E
        EXPIRE K N E|TYPE K|EXPIRETIME K|EXPIREAT K 4102444800|MSETNX {t}1 V {t}2 V|DEL {t}1 {t}2
        UNLINK K K|TOUCH K|SETEX K 500 V|SET K N|SET K V EX 700";
    const KEYS: [&str; 6] = ["a", "b", "{t}1", "{t}2", "long:key", "''"];
    const VALUES: [&str; 6] = ["v", "10", "-3", "''", "word", "9223372036854775807"];
    const OPTIONS: [&str; 7] = ["NX", "XX", "GET", "KEEPTTL", "EX 100", "PXAT 4102444800123", "Q"];
    const NUMBERS: [&str; 6] = ["0", "1", "-1", "5", "-4", "x"];
    const CONDITIONS: [&str; 4] = ["NX", "XX", "GT", "LT"];
    let mut pick = |from: &[&'static str]| from[chance(state) as usize % from.len()];
    let commands: Vec<&'static str> = COMMANDS.split(['|', '\n']).map(str::trim).collect();
    let commands: Vec<&'static str> = commands.into_iter().filter(|c| !c.is_empty()).collect();
    let words = pick(&commands).split(' ').map(|word| match word {
        "K" => pick(&KEYS),
        "V" => pick(&VALUES),
        "O" => pick(&OPTIONS),
        "N" => pick(&NUMBERS),
        "E" => pick(&CONDITIONS),
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn commands_drawn_by_chance_are_answered_as_by_a_stock_redis() {
    let Some(mut stock) = Stock::start("chance") else { return };
    let mut story = story_like(&mut stock);
    let mut state = 42;
    let lines: Vec<String> = (0..20_000).map(|_| draw(&mut state)).collect();
    // Deadlines that are so many seconds from now depend on when each is asked.
    let of_now = ["TTL", "EXPIRETIME", " GT", " LT"];
    let lines = lines.iter().map(String::as_str);
    let lines = lines.filter(|line| !of_now.iter().any(|word| line.contains(word)));
    let found = differences(&mut stock, &mut story, lines);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
