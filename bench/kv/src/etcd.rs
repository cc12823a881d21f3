//! The few requests of etcd's API that the load makes, encoded by hand into reused buffers.
//!
//! Field numbers are those of `etcdserverpb`.

use anyhow::{Context, Result};

pub(crate) const PUT: &str = "/etcdserverpb.KV/Put";
pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";

pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const BYTES: u8 = 2;
const FIXED_32: u8 = 5;

/// `PutRequest`.
pub(crate) fn put(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    bytes(1, key, out);
    bytes(2, value, out);
}

/// `RangeRequest` for one key.
pub(crate) fn range(key: &[u8], serializable: bool, out: &mut Vec<u8>) {
    bytes(1, key, out);
    if serializable {
        number(7, 1, out);
    }
}

/// `WatchRequest` that creates a watcher of one key under a number of the client's choice, not 0.
pub(crate) fn watch_create(key: &[u8], watch: u64, out: &mut Vec<u8>) {
    let mut create = Vec::new();
    bytes(1, key, &mut create);
    number(7, watch, &mut create);
    bytes(1, &create, out);
}

/// `LeaseGrantRequest` under a number of the client's choice.
pub(crate) fn lease_grant(lease: u64, ttl_seconds: u64, out: &mut Vec<u8>) {
    number(1, ttl_seconds, out);
    number(2, lease, out);
}

/// `LeaseKeepAliveRequest`.
pub(crate) fn lease_keep_alive(lease: u64, out: &mut Vec<u8>) {
    number(1, lease, out);
}

/// The time that a `LeaseKeepAliveResponse` grants, in seconds; 0 when the lease is gone.
pub(crate) fn lease_keep_alive_ttl(mut message: &[u8]) -> Result<u64> {
    let mut ttl = 0;
    while !message.is_empty() {
        if let (3, Field::Number(seconds)) = field(&mut message)? {
            ttl = seconds;
        }
    }
    Ok(ttl)
}

/// What the load wants to know of a `WatchResponse`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchResponse {
    pub(crate) watch: u64,
    pub(crate) is_created: bool,
    pub(crate) is_canceled: bool,
    pub(crate) events: usize,
}

/// Reads a `WatchResponse`.
///
/// # Errors
///
/// The message is not protobuf.
pub(crate) fn watch_response(mut message: &[u8]) -> Result<WatchResponse> {
    let mut response = WatchResponse::default();
    while !message.is_empty() {
        match field(&mut message)? {
            (2, Field::Number(watch)) => response.watch = watch,
            (3, Field::Number(created)) => response.is_created = created != 0,
            (4, Field::Number(canceled)) => response.is_canceled = canceled != 0,
            (11, Field::Bytes(_)) => response.events += 1,
            _ => {}
        }
    }
    response.is_created &= !response.is_canceled;
    Ok(response)
}

fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | BYTES);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn number(field: u8, value: u64, out: &mut Vec<u8>) {
    out.push(field << 3 | VARINT);
    varint(value, out);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Takes the first field off a message: its number and value.
///
/// # Errors
///
/// The message is not protobuf.
pub(crate) fn field<'a>(message: &mut &'a [u8]) -> Result<(u64, Field<'a>)> {
    let tag = take_varint(message)?;
    let value = match tag as u8 & 7 {
        VARINT => Field::Number(take_varint(message)?),
        BYTES => {
            let length = usize::try_from(take_varint(message)?)?;
            Field::Bytes(take(message, length)?)
        }
        FIXED_64 => Field::Bytes(take(message, 8)?),
        FIXED_32 => Field::Bytes(take(message, 4)?),
        other => anyhow::bail!("no wire type {other}"),
    };
    Ok((tag >> 3, value))
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(length).context("a message that is cut off")?;
    *message = rest;
    Ok(taken)
}

fn take_varint(message: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(message, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number of more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_found_again() {
        let mut out = Vec::new();
        range(&[7; 200], true, &mut out);
        let mut rest = out.as_slice();
        assert_eq!(field(&mut rest).expect("a key"), (1, Field::Bytes(&[7; 200])));
        assert_eq!(field(&mut rest).expect("a flag"), (7, Field::Number(1)));
        assert!(rest.is_empty());
        assert!(field(&mut &out[..100]).is_err());
    }

    #[test]
    fn events_of_a_watcher_are_counted() {
        let mut out = Vec::new();
        bytes(1, b"header", &mut out);
        number(2, 300, &mut out);
        bytes(11, b"event", &mut out);
        bytes(11, b"event", &mut out);
        let expected = WatchResponse { watch: 300, events: 2, ..WatchResponse::default() };
        assert_eq!(watch_response(&out).expect("a response"), expected);
    }
}
