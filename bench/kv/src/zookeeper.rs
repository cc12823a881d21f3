//! A ZooKeeper client's side of one session (its native protocol, "jute"), bytes in and bytes out.
//!
//! Requests are sent without waiting for answers, which come in order. A get that must see the
//! latest value is a `sync` and a `getData` behind each other, as ZooKeeper advises.
//! No pings are sent: a session lives as long as a run, and is busy all the time.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};

use crate::wire::{Event, Operation, Wire};

/// How long the server keeps a silent session; twenty of its ticks is what it grants at most.
const SESSION_TIMEOUT_MS: i32 = 40_000;
const PASSWORD_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// Of an answer: the request's number (4), the transaction (8) and the error (4).
const ANSWER_HEADER_BYTES: usize = 16;
/// A longer answer than any that the load asks for.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Numbers of what nobody asked for (notifications, pings) are negative.
const FIRST_NUMBER: i32 = 1;

mod operation {
    pub(super) const CREATE: i32 = 1;
    pub(super) const GET_DATA: i32 = 4;
    pub(super) const SET_DATA: i32 = 5;
    pub(super) const SYNC: i32 = 9;
}

/// Every right, for anyone.
const PERMISSIONS_ALL: i32 = 31;
const ANY_VERSION: i32 = -1;

/// What the next answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// Nothing that the caller waits for.
    Sync,
    /// An operation, whose answer is passed on as it is.
    Plain(u32),
    /// An operation whose answer begins with a value.
    Value(u32),
}

/// One session on one connection.
pub(crate) struct Session {
    out: Vec<u8>,
    /// The start of an answer whose rest is yet to come.
    partial: Vec<u8>,
    is_open: bool,
    next_number: i32,
    awaited: VecDeque<(i32, Awaited)>,
}

impl Session {
    /// Appends a request: its header, and what `body` appends.
    fn send(&mut self, kind: i32, awaited: Awaited, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        let number = self.next_number;
        self.next_number = number.checked_add(1).unwrap_or(FIRST_NUMBER);
        self.out.extend([0; LENGTH_BYTES]);
        self.out.extend(number.to_be_bytes());
        self.out.extend(kind.to_be_bytes());
        body(&mut self.out);
        let length = (self.out.len() - start - LENGTH_BYTES) as i32;
        self.out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
        self.awaited.push_back((number, awaited));
    }

    fn answers(&mut self, bytes: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some((length, _)) = bytes[used..].split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_be_bytes(*length) as usize;
            ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
            let end = used + LENGTH_BYTES + length;
            let Some(answer) = bytes.get(used + LENGTH_BYTES..end) else { break };
            used = end;
            if self.is_open {
                self.answer(answer, on)?;
            } else {
                // Version, timeout and the session's number, which is 0 if there is none.
                let session = answer.get(8..16).context("a short answer to the first request")?;
                ensure!(session != [0; 8], "the server opens no session");
                self.is_open = true;
            }
        }
        Ok(used)
    }

    fn answer(&mut self, answer: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<()> {
        let (header, rest) =
            answer.split_at_checked(ANSWER_HEADER_BYTES).context("a short answer")?;
        let number = i32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if number < FIRST_NUMBER {
            return Ok(());
        }
        let (expected, awaited) = self.awaited.pop_front().context("an answer to no request")?;
        ensure!(number == expected, "answer {number} where {expected} was to come");
        let succeeded = header[12..] == [0; 4];
        let (token, message) = match awaited {
            Awaited::Sync => return Ok(()),
            Awaited::Value(token) if succeeded => (token, value(rest)?),
            Awaited::Plain(token) | Awaited::Value(token) => (token, rest),
        };
        if succeeded {
            on(token, Event::Message(message));
        }
        on(token, Event::End { succeeded });
        Ok(())
    }
}

impl Wire for Session {
    fn new(_address: &str) -> Self {
        let mut out = Vec::new();
        let length = 4 + 8 + 4 + 8 + LENGTH_BYTES + PASSWORD_BYTES + 1;
        out.extend((length as i32).to_be_bytes());
        // The protocol's version, and the last transaction seen.
        out.extend([0; 4 + 8]);
        out.extend(SESSION_TIMEOUT_MS.to_be_bytes());
        // No session to resume.
        out.extend([0; 8]);
        buffer(&[0; PASSWORD_BYTES], &mut out);
        // Not content with a member that only reads.
        out.push(0);
        Self {
            out,
            partial: Vec::new(),
            is_open: false,
            next_number: FIRST_NUMBER,
            awaited: VecDeque::new(),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn request(&mut self, token: u32, operation: Operation<'_>) -> Result<()> {
        match operation {
            Operation::Create { key, value } => {
                self.send(operation::CREATE, Awaited::Plain(token), |out| {
                    path(key, out);
                    buffer(value, out);
                    out.extend(1_i32.to_be_bytes());
                    out.extend(PERMISSIONS_ALL.to_be_bytes());
                    buffer(b"world", out);
                    buffer(b"anyone", out);
                    // A node that stays.
                    out.extend([0; 4]);
                });
            }
            Operation::Put { key, value } => {
                self.send(operation::SET_DATA, Awaited::Plain(token), |out| {
                    path(key, out);
                    buffer(value, out);
                    out.extend(ANY_VERSION.to_be_bytes());
                });
            }
            Operation::Get { key, serializable } => {
                if !serializable {
                    self.send(operation::SYNC, Awaited::Sync, |out| path(key, out));
                }
                self.send(operation::GET_DATA, Awaited::Value(token), |out| {
                    path(key, out);
                    // No watch.
                    out.push(0);
                });
            }
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<()> {
        if self.partial.is_empty() {
            let used = self.answers(bytes, on)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            let used = self.answers(&whole, on)?;
            whole.drain(..used);
            self.partial = whole;
        }
        Ok(())
    }
}

fn buffer(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as i32).to_be_bytes());
    out.extend(bytes);
}

/// A key as a node right below the root.
fn path(key: &[u8], out: &mut Vec<u8>) {
    out.extend((key.len() as i32 + 1).to_be_bytes());
    out.push(b'/');
    out.extend(key);
}

/// The value that an answer begins with.
fn value(answer: &[u8]) -> Result<&[u8]> {
    let (length, rest) = answer.split_first_chunk().context("an answer without a value")?;
    let length = i32::from_be_bytes(*length).max(0) as usize;
    rest.get(..length).context("a value that is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: i32, error: i32, body: &[u8]) -> Vec<u8> {
        let mut out = ((ANSWER_HEADER_BYTES + body.len()) as i32).to_be_bytes().to_vec();
        out.extend(number.to_be_bytes());
        out.extend([0; 8]);
        out.extend(error.to_be_bytes());
        out.extend(body);
        out
    }

    #[test]
    fn answers_find_their_requests_however_they_are_cut() {
        let mut session = Session::new("");
        let get = Operation::Get { key: b"a", serializable: false };
        session.request(7, get).expect("sent");
        session.request(8, Operation::Put { key: b"a", value: b"v" }).expect("sent");
        let mut greeting = 37_i32.to_be_bytes().to_vec();
        greeting.extend([1; 37]);
        let mut value = Vec::new();
        buffer(b"stored", &mut value);
        let bytes = [
            greeting,
            answer(1, 0, &[]),
            answer(-2, 0, &[]),
            answer(2, 0, &value),
            answer(3, -101, &[]),
        ]
        .concat();
        let mut events = Vec::new();
        for piece in bytes.chunks(5) {
            let on = &mut |token, event: Event<'_>| events.push(format!("{token} {event:?}"));
            session.receive(piece, on).expect("a good answer");
        }
        assert_eq!(
            events,
            [
                format!("7 Message({:?})", b"stored"),
                "7 End { succeeded: true }".to_owned(),
                "8 End { succeeded: false }".to_owned(),
            ]
        );
    }
}
