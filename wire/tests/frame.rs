//! Frames: golden bytes, damage, compression, and building many messages into one.

use core::time::Duration;

use ring::Hlc;
use ringdb_wire::frame::WIRE_VERSION;
use ringdb_wire::limits::{FRAME_BODY_BYTES_MAX, LZ4_THRESHOLD, RESERVE_BYTES_MAX};
use ringdb_wire::{FrameDecoder, FrameError, FrameWriter, Header, Kind};

const HEADER: Header = Header {
    kind: Kind::PEER_MESSAGES,
    epoch: 0x0102_0304_0506_0708,
    deadline_us: 250_000,
    hlc: Hlc(0x1112_1314_1516_1718),
    request_id: 0x2122_2324_2526_2728,
};

fn frame(body: &[u8]) -> Vec<u8> {
    let mut writer = FrameWriter::new();
    writer.frame(HEADER, body).expect("fits");
    writer.bytes().to_vec()
}

fn first(bytes: &[u8]) -> Result<Option<(Header, Vec<u8>)>, FrameError> {
    let mut decoder = FrameDecoder::new();
    let frame = decoder.decode(bytes)?;
    Ok(frame.map(|frame| (frame.header, frame.body.to_vec())))
}

#[test]
fn the_layout_on_the_wire_never_changes() {
    let golden = [
        &[1, 3, 0, 0, 5, 0, 0, 0][..],
        &[8, 7, 6, 5, 4, 3, 2, 1],
        &[0x90, 0xd0, 0x03, 0],
        &GOLDEN_CHECKSUM,
        &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11],
        &[0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21],
        b"hello",
    ]
    .concat();
    assert_eq!(frame(b"hello"), golden);
    assert_eq!(first(&golden), Ok(Some((HEADER, b"hello".to_vec()))));
}

/// CRC-32 of the other bytes above with zeros in its place, from another implementation.
const GOLDEN_CHECKSUM: [u8; 4] = [0x5a, 0x96, 0x24, 0x41];

#[test]
fn every_truncation_asks_for_more_and_every_flipped_bit_is_found() {
    let good = frame(b"some body");
    for end in 0..good.len() {
        assert_eq!(first(&good[..end]), Ok(None), "{end}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A longer length merely waits for bytes; all else is an error.
        let damaged = !matches!(first(&bad), Ok(Some(_)));
        assert!(damaged, "bit {bit} flipped unseen");
    }
}

#[test]
fn strangers_and_giants_are_refused_before_their_body_arrives() {
    let good = frame(b"");
    let theirs = WIRE_VERSION + 1;
    assert_eq!(
        first(&[theirs]),
        Err(FrameError::Version { theirs, oldest: 1, newest: WIRE_VERSION })
    );
    assert_eq!(
        first(&[theirs]).expect_err("too new").to_string(),
        "the peer speaks wire version 2, this node 1 to 1"
    );
    let mut flags = good.clone();
    flags[3] = 0x80;
    assert_eq!(first(&flags), Err(FrameError::UnknownFlags { flags: 0x8000 }));
    let mut giant = good;
    giant[4..8].copy_from_slice(&(FRAME_BODY_BYTES_MAX + 1).to_le_bytes());
    assert_eq!(
        first(&giant),
        Err(FrameError::TooLarge { bytes: u64::from(FRAME_BODY_BYTES_MAX) + 1 })
    );
}

#[test]
fn after_an_error_nothing_more_is_read() {
    let mut decoder = FrameDecoder::new();
    let error = decoder.decode(&[9]).expect_err("a stranger");
    assert_eq!(decoder.decode(&frame(b"x")).expect_err("poisoned"), error);
}

#[test]
fn many_messages_make_one_frame_and_many_frames_one_write() {
    let mut writer = FrameWriter::new();
    for kind in [Kind::HEARTBEAT, Kind::PEER_MESSAGES] {
        writer.begin(Header::new(kind));
        for message in [b"one", b"two"] {
            writer.body().extend_from_slice(message);
        }
        assert_eq!(writer.body_len(), 6);
        writer.finish().expect("fits");
    }
    writer.begin(Header::new(Kind::BULK));
    writer.body().extend_from_slice(b"thought better of");
    writer.abandon();

    let mut sending = vec![0; 3];
    writer.swap(&mut sending);
    assert!(writer.bytes().is_empty());

    let mut decoder = FrameDecoder::new();
    let mut rest = &sending[..];
    for kind in [Kind::HEARTBEAT, Kind::PEER_MESSAGES] {
        let frame = decoder.decode(rest).expect("good").expect("whole");
        assert_eq!((frame.header, frame.body), (Header::new(kind), &b"onetwo"[..]));
        rest = &rest[frame.consumed..];
    }
    assert!(rest.is_empty());
}

#[test]
fn a_body_is_compressed_if_that_pays() {
    let compressible = b"the same again, ".repeat(10_000);
    let bytes = frame(&compressible);
    assert!(bytes.len() < compressible.len() / 10, "{} bytes", bytes.len());
    assert_eq!(first(&bytes), Ok(Some((HEADER, compressible.clone()))));
    for end in 0..bytes.len() {
        assert_eq!(first(&bytes[..end]), Ok(None));
    }

    let short = &compressible[..LZ4_THRESHOLD];
    assert_eq!(frame(short).len(), 40 + short.len());

    let noise: Vec<u8> = crate::fuzz::Random(1).bytes(10_000);
    assert_eq!(frame(&noise).len(), 40 + noise.len());
    assert_eq!(first(&frame(&noise)), Ok(Some((HEADER, noise))));
}

#[test]
fn one_writer_compresses_one_body_after_another() {
    let mut random = crate::fuzz::Random(4);
    let bodies: Vec<Vec<u8>> =
        (1..30).map(|i| random.bytes(i * 7).repeat(10_000_usize.div_ceil(i * 7) * i)).collect();
    let mut writer = FrameWriter::new();
    for body in &bodies {
        writer.frame(HEADER, body).expect("fits");
    }
    let mut decoder = FrameDecoder::new();
    let mut rest = writer.bytes();
    assert!(rest.len() < bodies.iter().map(Vec::len).sum::<usize>() / 10);
    for body in &bodies {
        let frame = decoder.decode(rest).expect("good").expect("whole");
        assert!(frame.body == body, "a body of {} bytes came out different", body.len());
        rest = &rest[frame.consumed..];
    }
}

#[test]
fn a_block_that_lies_about_its_length_is_refused() {
    let good = frame(&b"the same again, ".repeat(10_000));
    for announced in [0, 1, 15_999, 16_001, 20_000, u32::MAX] {
        let mut writer = FrameWriter::new();
        writer.frame(HEADER, &[&announced.to_le_bytes()[..], &good[44..]].concat()).expect("fits");
        // The flag says that the body is compressed; the checksum must cover that.
        let mut bad = writer.bytes().to_vec();
        bad[2] = 1;
        bad[20..24].fill(0);
        let sum = crc32fast::hash(&bad);
        bad[20..24].copy_from_slice(&sum.to_le_bytes());
        let expected = match announced {
            u32::MAX => FrameError::TooLarge { bytes: announced.into() },
            _ => FrameError::Compression,
        };
        assert_eq!(first(&bad), Err(expected), "{announced}");
    }
}

#[test]
fn the_largest_body_fits_and_one_byte_more_does_not() {
    let noise = crate::fuzz::Random(2).bytes(FRAME_BODY_BYTES_MAX as usize + 1);
    let largest = &noise[1..];
    assert_eq!(first(&frame(largest)).map(|f| f.map(|f| f.1 == largest)), Ok(Some(true)));
    let mut writer = FrameWriter::new();
    writer.frame(HEADER, b"before").expect("fits");
    let before = writer.bytes().to_vec();
    assert_eq!(
        writer.frame(HEADER, &noise),
        Err(FrameError::TooLarge { bytes: noise.len() as u64 })
    );
    assert_eq!(writer.bytes(), before);
}

#[test]
fn room_is_made_as_bytes_arrive() {
    let bytes = frame(&crate::fuzz::Random(3).bytes(1 << 20));
    let mut decoder = FrameDecoder::new();
    for buffered in [40, 41, 100_000, 900_000] {
        assert!(decoder.decode(&bytes[..buffered]).expect("good").is_none());
        let hint = decoder.reserve_hint(buffered);
        assert!(0 < hint && hint <= buffered.max(RESERVE_BYTES_MAX), "{hint} at {buffered}");
    }
}

#[test]
fn time_left_is_never_mistaken_for_ever() {
    let left = |left| Header::new(Kind::HELLO).with_time_left(left).time_left();
    assert_eq!(left(None), None);
    assert_eq!(left(Some(Duration::ZERO)), Some(Duration::from_micros(1)));
    assert_eq!(left(Some(Duration::from_millis(5))), Some(Duration::from_millis(5)));
    assert_eq!(left(Some(Duration::MAX)), Some(Duration::from_micros(u32::MAX.into())));
}
