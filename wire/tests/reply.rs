//! Replies: golden bytes in both versions, and reading them back.

use bytes::{Bytes, BytesMut};
use ringdb_wire::resp::encode::{write_decimal, write_error, write_integer};
use ringdb_wire::resp::{DoubleText, Protocol, Reply, ReplyDecoder, ReplyError, encode};

fn encoded(reply: &Reply, protocol: Protocol) -> String {
    let mut out = Vec::new();
    encode(reply, protocol, &mut out);
    out.escape_ascii().to_string()
}

#[test]
fn each_reply_in_both_versions() {
    let pair = || vec![(Reply::bulk("a"), Reply::Integer(1))];
    let items = || vec![Reply::bulk("a"), Reply::Null];
    let cases = [
        (Reply::OK, r"+OK\r\n", r"+OK\r\n"),
        (Reply::error("ERR no"), r"-ERR no\r\n", r"-ERR no\r\n"),
        (Reply::Integer(-7), r":-7\r\n", r":-7\r\n"),
        (Reply::bulk("a\r\nb"), r"$4\r\na\r\nb\r\n", r"$4\r\na\r\nb\r\n"),
        (Reply::bulk(""), r"$0\r\n\r\n", r"$0\r\n\r\n"),
        (Reply::Double(1.5), r"$3\r\n1.5\r\n", r",1.5\r\n"),
        (Reply::Double(f64::NEG_INFINITY), r"$4\r\n-inf\r\n", r",-inf\r\n"),
        (Reply::Boolean(true), r":1\r\n", r"#t\r\n"),
        (Reply::Boolean(false), r":0\r\n", r"#f\r\n"),
        (Reply::BigNumber("123".into()), r"$3\r\n123\r\n", r"(123\r\n"),
        (Reply::Null, r"$-1\r\n", r"_\r\n"),
        (Reply::NullArray, r"*-1\r\n", r"_\r\n"),
        (Reply::Array(vec![]), r"*0\r\n", r"*0\r\n"),
        (Reply::Array(items()), r"*2\r\n$1\r\na\r\n$-1\r\n", r"*2\r\n$1\r\na\r\n_\r\n"),
        (Reply::Set(items()), r"*2\r\n$1\r\na\r\n$-1\r\n", r"~2\r\n$1\r\na\r\n_\r\n"),
        (Reply::Push(items()), r"*2\r\n$1\r\na\r\n$-1\r\n", r">2\r\n$1\r\na\r\n_\r\n"),
        (Reply::Map(pair()), r"*2\r\n$1\r\na\r\n:1\r\n", r"%1\r\n$1\r\na\r\n:1\r\n"),
        (Reply::text("hi"), r"$2\r\nhi\r\n", r"=6\r\ntxt:hi\r\n"),
    ];
    for (reply, resp2, resp3) in cases {
        assert_eq!(encoded(&reply, Protocol::Resp2), resp2, "{reply:?}");
        assert_eq!(encoded(&reply, Protocol::Resp3), resp3, "{reply:?}");
    }
}

#[test]
fn no_text_breaks_a_line() {
    let mut out = BytesMut::new();
    write_error(&mut out, "ERR unknown command 'x\r\n+OK'");
    assert_eq!(&out[..], b"-ERR unknown command 'x  +OK'\r\n");
    assert_eq!(encoded(&Reply::Simple("a\nb".into()), Protocol::Resp2), r"+a b\r\n");
}

#[test]
fn integers_of_every_length() {
    let mut number: i64 = 1;
    let mut numbers = vec![0, i64::MIN, i64::MAX];
    while let Some(next) = number.checked_mul(10) {
        numbers.extend([number - 1, number, number + 1, -number]);
        number = next;
    }
    for number in numbers {
        let mut out = Vec::new();
        write_integer(&mut out, number);
        assert_eq!(out, format!(":{number}\r\n").into_bytes());
        out.clear();
        write_decimal(&mut out, number);
        assert_eq!(out, number.to_string().into_bytes());
    }
}

#[test]
fn doubles_are_printed_as_redis_prints_them() {
    for (number, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (3.0, "3"),
        (-3.0, "-3"),
        (3.1, "3.1"),
        (0.1, "0.1"),
        (-0.001, "-0.001"),
        (0.000_001, "0.000001"),
        (1e-7, "1e-7"),
        (1.5e-10, "1.5e-10"),
        (4_503_599_627_370_495.0, "4503599627370495"),
        (9_007_199_254_740_993.0, "9007199254740992"),
        (1e20, "1e+20"),
        (1.234_567_890_123_456_8e20, "123456789012345680000"),
        (12_345.678_901_234, "1.2345678901234e+4"),
        (1e300, "1e+300"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        (core::f64::consts::PI, "3.141592653589793"),
        (f64::NAN, "nan"),
        (f64::INFINITY, "inf"),
    ] {
        let printed = DoubleText::new(number);
        let printed = core::str::from_utf8(printed.as_bytes()).expect("ASCII");
        assert_eq!(printed, text);
        let back: f64 = printed.parse().expect("a number");
        assert!(back.to_bits() == number.to_bits() || number.is_nan(), "{printed}");
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
    let mut decoder = ReplyDecoder::new();
    let mut replies = Vec::new();
    let mut rest = bytes;
    while let Some(read) = decoder.decode(rest)? {
        replies.push(read.reply);
        rest = &rest[read.consumed..];
    }
    Ok(replies)
}

#[test]
fn what_is_encoded_for_resp3_reads_back() {
    let reply = Reply::Map(vec![
        (Reply::bulk("list"), Reply::Array(vec![Reply::Integer(1), Reply::Double(2.5)])),
        (Reply::Simple("set".into()), Reply::Set(vec![Reply::Boolean(true), Reply::Null])),
        (Reply::text("empty"), Reply::Array(vec![Reply::Array(vec![]), Reply::Map(vec![])])),
        (Reply::error("ERR x"), Reply::BigNumber("-12345678901234567890".into())),
        (Reply::Push(vec![Reply::bulk("message")]), Reply::bulk(Bytes::from_static(&[0, 255]))),
    ]);
    let mut bytes = Vec::new();
    encode(&reply, Protocol::Resp3, &mut bytes);
    encode(&Reply::OK, Protocol::Resp3, &mut bytes);
    assert_eq!(read(&bytes), Ok(vec![reply, Reply::OK]));
}

#[test]
fn both_nulls_of_resp2_and_blob_errors_are_read() {
    assert_eq!(
        read(b"$-1\r\n*-1\r\n!5\r\nERR x\r\n"),
        Ok(vec![Reply::Null, Reply::NullArray, Reply::error("ERR x")])
    );
}

#[test]
fn attributes_stand_beside_the_reply_that_they_precede() {
    let bytes = b"|1\r\n+ring-meta\r\n:7\r\n*2\r\n:1\r\n|1\r\n+inner\r\n:8\r\n:2\r\n";
    let mut decoder = ReplyDecoder::new();
    let read = decoder.decode(bytes).expect("well formed").expect("whole");
    assert_eq!(read.reply, Reply::Array(vec![Reply::Integer(1), Reply::Integer(2)]));
    assert_eq!(read.attributes, [(Reply::simple("ring-meta"), Reply::Integer(7))]);
    assert_eq!(read.consumed, bytes.len());
    let next = decoder.decode(b"+OK\r\n").expect("well formed").expect("whole");
    assert_eq!((next.reply, next.attributes), (Reply::OK, vec![]));
}

#[test]
fn a_lying_server_is_found_out() {
    for (bytes, error) in [
        (&b"?\r\n"[..], ReplyError::UnknownType { marker: b'?' }),
        (b"$x\r\n", ReplyError::InvalidLength),
        (b"$-2\r\n", ReplyError::InvalidLength),
        (b"*-2\r\n", ReplyError::InvalidLength),
        (b":1x\r\n", ReplyError::InvalidLine),
        (b"#y\r\n", ReplyError::InvalidLine),
        (b"(-\r\n", ReplyError::InvalidLine),
        (b"=2\r\nab\r\n", ReplyError::InvalidLine),
        (b"$1\r\nabc", ReplyError::Unterminated),
        (b"$999999999999\r\n", ReplyError::TooLarge),
        (&b"*1\r\n".repeat(40), ReplyError::TooDeep),
        (&[b'+'; 70_000], ReplyError::TooLarge),
    ] {
        assert_eq!(read(bytes), Err(error), "{}", bytes[..bytes.len().min(40)].escape_ascii());
    }
    // Four thousand million elements announced, none sent: nothing to do but wait.
    assert_eq!(read(b"*4294967295\r\n"), Ok(vec![]));
    let mut small = ReplyDecoder::new().with_bytes_max(100);
    assert_eq!(small.decode(b"$101\r\n"), Err(ReplyError::TooLarge));
}
