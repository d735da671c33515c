//! Properties that hold for any bytes whatever, as ordinary functions.
//!
//! Each takes bytes from nowhere in particular and panics if a promise is broken: decoders never
//! panic, yield the same however the bytes were cut, and what they yield survives a round trip.
//! The tests feed them seeded mutations of good input, a fuzzer feeds them its corpus.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::frame::{FrameDecoder, FrameError, FrameWriter, Header, Kind, WIRE_VERSION, seal};
use crate::limits::FRAME_HEADER_BYTES;
use crate::resp::encode::{Protocol, encode, write_command};
use crate::resp::{Decoder, Limits, ProtocolError, Reply, ReplyDecoder, ReplyError};
use crate::{ClientReply, ClientRequest, ClusterStatus};

/// Bytes as a client's requests.
///
/// # Panics
/// If a promise of [`Decoder`] is broken.
pub fn fuzz_resp_request(data: &[u8]) {
    let small = Limits {
        bulk_bytes_max: 64,
        args_max: 8,
        command_bytes_max: 256,
        inline_bytes_max: 48,
        authenticated: true,
    };
    for limits in [Limits::default(), Limits { authenticated: false, ..Limits::default() }, small] {
        let (whole, error) = requests(data, data.len(), limits);
        for step in [1, 7] {
            let (cut, cut_error) = requests(data, step, limits);
            assert_eq!(
                (&cut, cut_error),
                (&whole, error),
                "cut every {step} bytes: {}",
                data.escape_ascii()
            );
        }
    }
    for command in requests(data, data.len(), Limits::default()).0 {
        let args: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let mut bytes = Vec::new();
        write_command(&mut bytes, &args);
        let again = requests(&bytes, bytes.len(), Limits::default());
        assert_eq!(again, (vec![command], None), "a command does not survive a round trip");
    }
}

/// Every command of `data` when `step` bytes arrive at a time.
fn requests(
    data: &[u8],
    step: usize,
    limits: Limits,
) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let mut decoder = Decoder::new(limits);
    let mut commands = Vec::new();
    let error = arrive(data, step, |buf| {
        let decoded = decoder.decode(buf)?;
        Ok(decoded.map(|decoded| {
            commands.push(decoded.command.args().map(<[u8]>::to_vec).collect());
            decoded.consumed
        }))
    });
    (commands, error)
}

/// Bytes as a server's replies.
///
/// # Panics
/// If a promise of [`ReplyDecoder`] is broken.
pub fn fuzz_reply(data: &[u8]) {
    let (whole, error) = replies(data, data.len());
    for step in [1, 7] {
        let (cut, cut_error) = replies(data, step);
        // As bytes, since a double may be no number, which equals nothing.
        assert_eq!(as_bytes(&whole), as_bytes(&cut), "cut every {step} bytes");
        assert_eq!(error, cut_error, "cut every {step} bytes");
    }
    let bytes = as_bytes(&whole);
    let (again, error) = replies(&bytes, bytes.len());
    assert_eq!((as_bytes(&again), error), (bytes, None), "replies do not survive a round trip");
}

fn replies(data: &[u8], step: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut decoder = ReplyDecoder::new();
    let mut replies = Vec::new();
    let error = arrive(data, step, |buf| {
        let read = decoder.decode(buf)?;
        Ok(read.map(|read| {
            replies.push(read.reply);
            read.consumed
        }))
    });
    (replies, error)
}

fn as_bytes(replies: &[Reply]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for reply in replies {
        encode(reply, Protocol::Resp3, &mut bytes);
    }
    bytes
}

/// Bytes as frames: as they are, with the header's lengths and checksum put right (so that what
/// stands behind the checksum is reached too), and as the body of a good frame.
///
/// # Panics
/// If a promise of [`FrameDecoder`] or [`FrameWriter`] is broken.
pub fn fuzz_frame(data: &[u8]) {
    cut_frames(data);
    if data.len() >= FRAME_HEADER_BYTES as usize {
        let mut forged = data.to_vec();
        forged[0] = WIRE_VERSION;
        forged[2] &= 1;
        forged[3] = 0;
        seal(&mut forged);
        cut_frames(&forged);
    }
    let mut writer = FrameWriter::new();
    let header = Header::new(Kind::BULK);
    if writer.frame(header, data).is_ok() {
        let (frames, error) = frames(writer.bytes(), writer.bytes().len());
        assert_eq!((frames, error), (vec![(header, data.to_vec())], None));
    }
}

fn cut_frames(data: &[u8]) {
    let whole = frames(data, data.len());
    for step in [1, 7] {
        assert_eq!(whole, frames(data, step), "cut every {step} bytes");
    }
}

fn frames(data: &[u8], step: usize) -> (Vec<(Header, Vec<u8>)>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    let error = arrive(data, step, |buf| {
        let frame = decoder.decode(buf)?;
        Ok(frame.map(|frame| {
            frames.push((frame.header, frame.body.to_vec()));
            frame.consumed
        }))
    });
    (frames, error)
}

/// Bytes as the native client's messages: what can be decoded encodes to bytes that decode and
/// encode to the same bytes.
///
/// # Panics
/// If a promise of [`codec`] is broken.
pub fn fuzz_codec(data: &[u8]) {
    if let Ok((request, _)) = codec::decode_next::<ClientRequest<'_>>(data) {
        let bytes = encoded(&request);
        let again: ClientRequest<'_> = codec::decode(&bytes).expect("we wrote it");
        assert_eq!(again, request, "a request does not survive a round trip");
    }
    survives::<ClientReply>(data);
    survives::<ClusterStatus>(data);
}

fn survives<T: Serialize + DeserializeOwned>(data: &[u8]) {
    if let Ok((value, rest)) = codec::decode_next::<T>(data) {
        assert!(rest.len() < data.len(), "a value took no bytes");
        let bytes = encoded(&value);
        let again: T = codec::decode(&bytes).expect("we wrote it");
        assert_eq!(encoded(&again), bytes, "a value does not survive a round trip");
    }
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_into(value, &mut bytes);
    bytes
}

/// Lets `data` arrive `step` bytes at a time and gives a decoder the unconsumed part each time,
/// until it fails or all is there.
fn arrive<E>(
    data: &[u8],
    step: usize,
    mut decode: impl FnMut(&[u8]) -> Result<Option<usize>, E>,
) -> Option<E> {
    let mut start = 0;
    let mut end = 0;
    loop {
        end = data.len().min(end + step.max(1));
        loop {
            match decode(&data[start..end]) {
                Ok(Some(consumed)) => {
                    assert!(consumed > 0 && start + consumed <= end, "consumed {consumed}");
                    start += consumed;
                }
                Ok(None) => break,
                Err(error) => return Some(error),
            }
        }
        if end == data.len() {
            return None;
        }
    }
}
