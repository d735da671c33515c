//! Requests of Redis clients: golden commands, quoting, limits, Redis's words for each error.

use ringdb_wire::limits::RESERVE_BYTES_MAX;
use ringdb_wire::resp::{Decoder, Limits, ProtocolError};

/// The commands of `bytes`, and the error that ends them.
fn commands(bytes: &[u8], limits: Limits) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let mut rest = bytes;
    let mut commands = Vec::new();
    loop {
        match decoder.decode(rest) {
            Ok(Some(decoded)) => {
                commands.push(decoded.command.args().map(<[u8]>::to_vec).collect());
                rest = &rest[decoded.consumed..];
            }
            Ok(None) => return (commands, None),
            Err(error) => return (commands, Some(error)),
        }
    }
}

/// The only command of `bytes`.
fn command(bytes: &[u8]) -> Vec<String> {
    let (commands, error) = commands(bytes, Limits::default());
    assert_eq!((commands.len(), error), (1, None), "{}", bytes.escape_ascii());
    commands[0].iter().map(|arg| arg.escape_ascii().to_string()).collect()
}

fn refusal(bytes: &[u8]) -> String {
    commands(bytes, Limits::default()).1.map_or("none".to_owned(), |error| error.to_string())
}

#[test]
fn a_pipeline_of_both_forms_is_read_in_order() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n*1";
    let (commands, error) = commands(bytes, Limits::default());
    let expected = vec![
        vec![b"SET".to_vec(), b"k".to_vec(), b"a\r\nb".to_vec()],
        vec![b"PING".to_vec()],
        vec![b"QUIT".to_vec()],
    ];
    assert_eq!((commands, error), (expected, None));
}

#[test]
fn arguments_stand_in_the_callers_buffer() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\n";
    let mut decoder = Decoder::new(Limits::default());
    let decoded = decoder.decode(bytes).expect("well formed").expect("whole");
    assert_eq!(decoded.command.range(1), Some(17..22));
    assert_eq!(&decoded.command[1], b"hello");
    assert_eq!(decoded.command.get(2), None);
    assert_eq!(decoded.command.name(), b"GET");
    assert_eq!(decoded.consumed, bytes.len());
    assert!(core::ptr::eq(&raw const decoded.command[1][0], &raw const bytes[17]));
}

#[test]
fn debugging_a_command_shows_no_password() {
    let mut decoder = Decoder::new(Limits::default());
    let decoded = decoder.decode(b"AUTH app secret\r\n").expect("well formed").expect("whole");
    assert_eq!(format!("{:?}", decoded.command), "AUTH (2 args)");
    assert_eq!(decoded.command.range(1), None, "an inline command does not stand in the buffer");
}

#[test]
fn inline_commands_are_quoted_as_in_redis() {
    assert_eq!(command(b"  set\tkey  value \r\n"), ["set", "key", "value"]);
    assert_eq!(command(b"PING\n"), ["PING"]);
    assert_eq!(
        command(
            br#"set "a b" 'c "d"'"#.iter().chain(b"\n").copied().collect::<Vec<_>>().as_slice()
        ),
        ["set", "a b", r#"c \"d\""#]
    );
    assert_eq!(command(b"x \"\\x41\\n\\r\\t\\b\\a\\q\\\"\"\r\n"), ["x", r#"A\n\r\t\x08\x07q\""#]);
    assert_eq!(command(b"x 'it\\'s' \"\" ''\r\n"), ["x", r"it\'s", "", ""]);
    assert_eq!(command(b"x \"\\xzz\"\r\n"), ["x", "xzz"]);
    assert_eq!(command(b"ab\"c d\" e\r\n"), ["abc d", "e"]);
    assert_eq!(command(b"x a\x0bb \x0b 'c'\x0b\r\n"), ["x", r"a\x0bb", "c"]);
}

#[test]
fn a_line_with_a_nul_never_ends() {
    let mut bytes = b"\0".to_vec();
    bytes.extend(b"PING\r\n".repeat(10_000));
    assert_eq!(commands(&bytes, Limits::default()), (vec![], None));
    bytes.extend(b"PING\r\n".repeat(1_000));
    assert_eq!(refusal(&bytes), "Protocol error: too big inline request");
    bytes.splice(0..0, *b"PING\r\n");
    assert_eq!(commands(&bytes, Limits::default()).0, [[b"PING"]]);
}

#[test]
fn an_empty_command_asks_for_nothing() {
    for bytes in [&b"\r\n"[..], b"\n", b"   \r\n", b"*0\r\n", b"*-1\r\n", b"*-10\r\n"] {
        assert_eq!(command(bytes), Vec::<String>::new(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn errors_are_in_the_words_of_redis() {
    let endless = |start: &[u8]| [start, &vec![b'1'; 70_000]].concat();
    let cases: &[(&[u8], &str)] = &[
        (b"*3000000000\r\n", "invalid multibulk length"),
        (b"*blabla\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*01\r\n", "invalid multibulk length"),
        (b"*1\rx", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", "expected '$', got 'f'"),
        (b"*1\r\n\x01", "expected '$', got '\\x01'"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$-10\r\n", "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$2000000000\r\n", "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$blabla\r\n", "invalid bulk length"),
        (b"*1\r\n$4\r\nPINGxx", "bulk string without CRLF at its end"),
        (b"set \"\"\"test-key\"\"\" test-value\r\n", "unbalanced quotes in request"),
        (b"set 'a\r\n", "unbalanced quotes in request"),
        (b"set \"a\\\r\n", "unbalanced quotes in request"),
        (&endless(b"*"), "too big mbulk count string"),
        (&endless(b"*1\r\n$"), "too big bulk count string"),
        (&endless(b"get "), "too big inline request"),
    ];
    for (bytes, words) in cases {
        assert_eq!(refusal(bytes), format!("Protocol error: {words}"));
    }
}

#[test]
fn after_an_error_nothing_more_is_understood() {
    let mut decoder = Decoder::new(Limits::default());
    let error = decoder.decode(b"*1\r\nPING").expect_err("no $");
    assert_eq!(decoder.decode(b"PING\r\n").expect_err("poisoned"), error);
}

#[test]
fn a_stranger_may_only_authenticate() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    let refusal = |bytes: &[u8]| commands(bytes, limits).1.map(|error| error.to_string());
    assert_eq!(refusal(b"*3\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$2\r\npw\r\n"), None);
    let words = "Protocol error: unauthenticated multibulk length";
    assert_eq!(refusal(b"*11\r\n").as_deref(), Some(words));
    assert_eq!(refusal(b"a b c d e f g h i j k\r\n").as_deref(), Some(words));
    let words = "Protocol error: unauthenticated bulk length";
    assert_eq!(refusal(b"*2\r\n$16385\r\n").as_deref(), Some(words));

    let mut decoder = Decoder::new(limits);
    decoder.decode(b"AUTH pw\r\n").expect("well formed").expect("whole");
    decoder.set_authenticated(true);
    assert!(decoder.decode(b"*11\r\n").expect("no longer a stranger").is_none());
}

#[test]
fn a_command_is_bounded_as_a_whole() {
    let limits = Limits { command_bytes_max: 100, ..Limits::default() };
    let bytes = b"*3\r\n$60\r\n".iter().copied().chain([b'x'; 60]).chain(*b"\r\n$60\r\n");
    let (commands, error) = commands(&bytes.collect::<Vec<_>>(), limits);
    assert_eq!((commands.len(), error), (0, Some(ProtocolError::TooBigCommand)));
}

#[test]
fn an_announced_bulk_is_believed_as_its_bytes_arrive() {
    // 100 MiB cannot even be announced unless the limit is raised, and then a frame's limit holds.
    let limits = Limits { bulk_bytes_max: 1 << 30, ..Limits::default() };
    let announced = commands(b"*2\r\n$3\r\nSET\r\n$104857600\r\n", limits);
    assert_eq!(announced.1, Some(ProtocolError::InvalidBulkLength));

    // A client announces 12 MiB and sends them by and by: the reader never makes room for more
    // than it has received, and the decoder holds nothing at all.
    let total = 12 << 20;
    let mut bytes = format!("*1\r\n${total}\r\n").into_bytes();
    let mut decoder = Decoder::new(limits);
    let mut reads = 0;
    while decoder.decode(&bytes).expect("well formed").is_none() {
        let hint = decoder.reserve_hint(bytes.len());
        assert!(0 < hint && hint <= bytes.len().max(RESERVE_BYTES_MAX), "{hint}");
        bytes.resize(bytes.len() + hint - 2, b'x');
        bytes.extend_from_slice(b"\r\n");
        if bytes.len() < total {
            let ends = bytes.len() - 2;
            bytes[ends..].fill(b'x');
        }
        reads += 1;
    }
    assert!(reads < 12, "{reads} reads: the room doubles");
    assert_eq!(decoder.decode(&bytes).expect("well formed").map(|d| d.consumed), Some(bytes.len()));
}

#[test]
fn a_command_arriving_byte_by_byte_is_not_read_twice() {
    // Quadratic work on 8 MiB in pieces of 64 bytes would take minutes.
    let value = vec![b'\n'; 8 << 20];
    let mut bytes = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()).into_bytes();
    bytes.extend_from_slice(&value);
    bytes.extend_from_slice(b"\r\n");
    let mut decoder = Decoder::new(Limits::default());
    let mut whole = 0;
    for end in (0..bytes.len()).step_by(64).chain([bytes.len()]) {
        whole += usize::from(decoder.decode(&bytes[..end]).expect("well formed").is_some());
    }
    assert_eq!(whole, 1);
}

#[test]
fn many_arguments_arrive_and_are_forgotten() {
    let mut bytes = b"*100001\r\n$4\r\nMGET\r\n".to_vec();
    for _ in 0..100_000 {
        bytes.extend_from_slice(b"$1\r\nk\r\n");
    }
    bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
    let (commands, error) = commands(&bytes, Limits::default());
    assert_eq!(error, None);
    assert_eq!(commands.iter().map(Vec::len).collect::<Vec<_>>(), [100_001, 1]);
}

#[test]
fn every_truncation_of_a_command_asks_for_more() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n";
    for end in 0..bytes.len() {
        let mut decoder = Decoder::new(Limits::default());
        assert!(decoder.decode(&bytes[..end]).expect("well formed").is_none(), "{end}");
        assert_eq!(decoder.is_idle(), end == 0);
    }
}
