//! Token: a causal context as a client carries it.
//!
//! `base64url(version · slot · hash of keyspace and key · encoded dot set · mac)`. The mac is
//! SipHash-2-4 over all before it, keyed by the cluster's secret: a client can neither make a
//! context up nor use one for another key, so that a write never discards values that its client
//! has not read.

use bytes::Bytes;
use core::hash::Hasher;
use replication::row::Keyspace;
use ring::Slot;
use siphasher::sip::SipHasher24;

use crate::errors::Fault;

const VERSION: u8 = 1;

/// Version, slot and hash of the key.
const HEAD_BYTES: usize = 1 + 2 + 8;

const MAC_BYTES: usize = 8;

/// Which key a context is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    slot: Slot,
    hash: u64,
}

impl Place {
    pub(crate) fn of(keyspace: Keyspace, key: &[u8]) -> Self {
        // Not keyed: it tells keys apart, the mac keeps it honest.
        let mut hasher = SipHasher24::new();
        hasher.write(&keyspace.to_be_bytes());
        hasher.write(key);
        Self { slot: Slot::of_key(key), hash: hasher.finish() }
    }
}

/// The token of a context.
pub(crate) fn seal(place: &Place, context: &[u8], secret: [u8; 16]) -> String {
    let mut raw = Vec::with_capacity(HEAD_BYTES + context.len() + MAC_BYTES);
    raw.push(VERSION);
    raw.extend_from_slice(&place.slot.0.to_be_bytes());
    raw.extend_from_slice(&place.hash.to_be_bytes());
    raw.extend_from_slice(context);
    let mac = mac_of(&raw, secret);
    raw.extend_from_slice(&mac);
    to_base64(&raw)
}

/// The context of a token.
pub(crate) fn open(place: &Place, token: &[u8], secret: [u8; 16]) -> Result<Bytes, Fault> {
    const FIX: &str = "read the key with RING.GET key WITHCTX and pass its context on unchanged";
    let fault = |why| Fault::BadContext { why, fix: FIX };
    let raw = from_base64(token).ok_or(fault("is not base64url text"))?;
    if to_base64(&raw).as_bytes() != token {
        // Bits that carry nothing must be zero, so that a context has one spelling.
        return Err(fault("is not base64url text"));
    }
    if raw.len() < HEAD_BYTES + MAC_BYTES {
        return Err(fault("is cut short"));
    }
    let (body, mac) = raw.split_at(raw.len() - MAC_BYTES);
    if body[0] != VERSION {
        return Err(fault("is of another version"));
    }
    if !same(&mac_of(body, secret), mac) {
        return Err(fault("was changed, or comes from another cluster"));
    }
    let head = [&place.slot.0.to_be_bytes()[..], &place.hash.to_be_bytes()[..]].concat();
    if body[1..HEAD_BYTES] != head {
        return Err(fault("is for another key"));
    }
    Ok(Bytes::copy_from_slice(&body[HEAD_BYTES..]))
}

fn mac_of(body: &[u8], secret: [u8; 16]) -> [u8; MAC_BYTES] {
    let mut hasher = SipHasher24::new_with_key(&secret);
    hasher.write(body);
    hasher.finish().to_be_bytes()
}

/// Equality in a time that does not tell where two macs differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_base64(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len().div_ceil(3) * 4);
    for chunk in raw.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63] as char);
        }
    }
    text
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut raw = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut bits = 0;
        for place in 0..4 {
            let six = match chunk.get(place) {
                Some(c) => ALPHABET.iter().position(|a| a == c)? as u32,
                None => 0,
            };
            bits = bits << 6 | six;
        }
        raw.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 16] = *b"a cluster secret";

    #[test]
    fn a_sealed_context_opens_for_its_key_alone() {
        let place = Place::of(0, b"cart");
        for length in 0..20 {
            let context: Vec<u8> = (0..length).collect();
            let token = seal(&place, &context, SECRET);
            assert_eq!(open(&place, token.as_bytes(), SECRET).as_deref(), Ok(&context[..]));
        }
        let token = seal(&place, b"abc", SECRET);
        for elsewhere in [Place::of(0, b"other"), Place::of(1, b"cart")] {
            let fault = open(&elsewhere, token.as_bytes(), SECRET).expect_err("another key");
            assert!(fault.to_string().starts_with("ERR context is for another key. fix: "));
        }
    }

    #[test]
    fn a_changed_or_made_up_token_is_refused() {
        let place = Place::of(0, b"cart");
        let token = seal(&place, b"abc", SECRET);
        assert!(open(&place, token.as_bytes(), [7; 16]).is_err());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let opened = open(&place, &changed, SECRET);
            assert!(opened.is_err(), "{at}: {opened:?}");
        }
        for made_up in [&b""[..], b"A", b"AA", b"not a token!", &token.as_bytes()[..10]] {
            assert!(open(&place, made_up, SECRET).is_err());
        }
    }
}
