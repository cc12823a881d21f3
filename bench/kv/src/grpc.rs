//! A gRPC client's side of one HTTP/2 connection (RFC 9113), as pure bytes in and bytes out.
//!
//! It exists so that the load costs as little as possible next to the servers that it loads. It
//! sends requests with few header bytes, many to one write; hands out messages where they lie in
//! the read buffer; and decodes no response headers. A unary call therefore succeeded if and only
//! if it brought a message: no server sends one with an error.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

use crate::etcd;
use crate::hpack::RequestHeaders;
use crate::wire::{Event, Operation, Wire};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// Both sides start with this largest frame and window, and this client leaves the frame so.
const FRAME_BYTES_MAX: usize = 16_384;
const WINDOW_INITIAL: i64 = 65_535;
/// What a server may send on one stream, and on the connection, before this client says more. As
/// large as a client with window estimation comes to on loopback.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Before a message: one byte that says whether it is compressed, and its length.
const MESSAGE_HEADER_BYTES: usize = 5;

/// Types of frames.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}

mod flag {
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const ACK: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
}

mod setting {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
}

/// The dynamic table that request headers need; every server grants 4,096 bytes unless it says less.
const HEADER_TABLE_BYTES: u32 = 4096;

/// Whether a call sends one message or may send more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Unary,
    Stream,
}

struct Stream {
    token: u32,
    send_window: i64,
    /// Bytes that came since the window was last opened.
    unacknowledged: u32,
    has_message: bool,
    /// The start of a message whose rest is yet to come.
    partial: Vec<u8>,
}

/// What the server's limits hold back: the whole order is kept, so that no call overtakes another.
enum Held {
    Open { token: u32, call: Call, path: &'static str, message: Vec<u8> },
    Send { token: u32, message: Vec<u8> },
}

/// One connection.
pub(crate) struct Connection {
    headers: RequestHeaders,
    out: Vec<u8>,
    /// Where requests are encoded before it is known whether they may go out.
    message: Vec<u8>,
    /// The start of a frame whose rest is yet to come.
    partial: Vec<u8>,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    /// The streams of calls that may send more, by their tokens.
    open_ended: HashMap<u32, u32>,
    streams_max: usize,
    send_window: i64,
    stream_send_window: i64,
    unacknowledged: u32,
    held: VecDeque<Held>,
}

impl Connection {
    /// Starts a call with its first message, at most a frame long with its header.
    ///
    /// # Errors
    ///
    /// The message is too long.
    pub(crate) fn start(
        &mut self,
        token: u32,
        call: Call,
        path: &'static str,
        message: &[u8],
    ) -> Result<()> {
        ensure!(
            message.len() + MESSAGE_HEADER_BYTES <= FRAME_BYTES_MAX,
            "a request of {} bytes is longer than one frame",
            message.len()
        );
        if self.held.is_empty() && self.may_open(message.len()) {
            self.open(token, call, path, message);
        } else {
            self.held.push_back(Held::Open { token, call, path, message: message.to_vec() });
        }
        Ok(())
    }

    /// Sends a further message of a [`Call::Stream`]; nothing when that call is over.
    pub(crate) fn send(&mut self, token: u32, message: &[u8]) {
        if self.held.is_empty() && self.may_send(token, message.len()) {
            self.further(token, message);
        } else {
            self.held.push_back(Held::Send { token, message: message.to_vec() });
        }
    }

    fn may_open(&self, bytes: usize) -> bool {
        let needed = (bytes + MESSAGE_HEADER_BYTES) as i64;
        self.streams.len() < self.streams_max
            && needed <= self.send_window
            && needed <= self.stream_send_window
    }

    fn may_send(&self, token: u32, bytes: usize) -> bool {
        let needed = (bytes + MESSAGE_HEADER_BYTES) as i64;
        let stream = self.open_ended.get(&token).and_then(|id| self.streams.get(id));
        needed <= self.send_window && stream.is_none_or(|stream| needed <= stream.send_window)
    }

    fn further(&mut self, token: u32, message: &[u8]) {
        if let Some(&id) = self.open_ended.get(&token) {
            self.data(id, Call::Stream, message);
        }
    }

    fn open(&mut self, token: u32, call: Call, path: &'static str, message: &[u8]) {
        let id = self.next_stream;
        self.next_stream += 2;
        let stream = Stream {
            token,
            send_window: self.stream_send_window,
            unacknowledged: 0,
            has_message: false,
            partial: Vec::new(),
        };
        self.streams.insert(id, stream);
        if call == Call::Stream {
            self.open_ended.insert(token, id);
        }
        let start = self.out.len();
        frame_header(0, kind::HEADERS, flag::END_HEADERS, id, &mut self.out);
        self.headers.encode(path, &mut self.out);
        let length = self.out.len() - start - FRAME_HEADER_BYTES;
        self.out[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
        self.data(id, call, message);
    }

    fn data(&mut self, id: u32, call: Call, message: &[u8]) {
        let length = message.len() + MESSAGE_HEADER_BYTES;
        let flags = if call == Call::Unary { flag::END_STREAM } else { 0 };
        frame_header(length, kind::DATA, flags, id, &mut self.out);
        self.out.push(0);
        self.out.extend((message.len() as u32).to_be_bytes());
        self.out.extend(message);
        self.send_window -= length as i64;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send_window -= length as i64;
        }
    }

    /// Sends what was held back, as far as the server's limits now allow.
    fn release(&mut self) {
        while let Some(held) = self.held.pop_front() {
            match held {
                Held::Open { token, call, path, message } if self.may_open(message.len()) => {
                    self.open(token, call, path, &message);
                }
                Held::Send { token, message } if self.may_send(token, message.len()) => {
                    self.further(token, &message);
                }
                held => return self.held.push_front(held),
            }
        }
    }

    /// Handles all whole frames; gives how many bytes these were.
    fn frames(&mut self, bytes: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<usize> {
        let mut used = 0;
        while let Some((header, _)) = bytes[used..].split_first_chunk::<FRAME_HEADER_BYTES>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            ensure!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
            let end = used + FRAME_HEADER_BYTES + length;
            let Some(payload) = bytes.get(used + FRAME_HEADER_BYTES..end) else { break };
            let id = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & !(1 << 31);
            self.frame(header[3], header[4], id, payload, on)?;
            used = end;
        }
        Ok(used)
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<()> {
        match kind {
            kind::DATA => self.receive_data(flags, id, payload, on),
            kind::HEADERS => {
                if flags & flag::END_STREAM != 0 {
                    self.end(id, true, on);
                }
                Ok(())
            }
            kind::RST_STREAM => {
                self.end(id, false, on);
                Ok(())
            }
            kind::SETTINGS if flags & flag::ACK == 0 => self.settings(payload),
            kind::PING if flags & flag::ACK == 0 => {
                frame_header(payload.len(), kind::PING, flag::ACK, 0, &mut self.out);
                self.out.extend(payload);
                Ok(())
            }
            kind::WINDOW_UPDATE => {
                let bytes = payload.first_chunk().context("a window update without a number")?;
                let opened = i64::from(u32::from_be_bytes(*bytes));
                if id == 0 {
                    self.send_window += opened;
                } else if let Some(stream) = self.streams.get_mut(&id) {
                    stream.send_window += opened;
                }
                Ok(())
            }
            kind::GOAWAY => {
                let reason = payload.get(8..).unwrap_or_default();
                bail!("the server closes the connection: {}", String::from_utf8_lossy(reason))
            }
            kind::PUSH_PROMISE => bail!("a push, though it was forbidden"),
            // Acknowledgements, priorities, the rest of long headers, and what this client may ignore.
            _ => Ok(()),
        }
    }

    fn settings(&mut self, payload: &[u8]) -> Result<()> {
        for entry in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match name {
                setting::MAX_CONCURRENT_STREAMS => self.streams_max = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let opened = i64::from(value) - self.stream_send_window;
                    self.stream_send_window += opened;
                    for stream in self.streams.values_mut() {
                        stream.send_window += opened;
                    }
                }
                setting::HEADER_TABLE_SIZE => {
                    ensure!(value >= HEADER_TABLE_BYTES, "a header table of only {value} bytes");
                }
                _ => {}
            }
        }
        frame_header(0, kind::SETTINGS, flag::ACK, 0, &mut self.out);
        Ok(())
    }

    fn receive_data(
        &mut self,
        flags: u8,
        id: u32,
        payload: &[u8],
        on: &mut impl FnMut(u32, Event<'_>),
    ) -> Result<()> {
        self.unacknowledged += payload.len() as u32;
        if self.unacknowledged >= CONNECTION_WINDOW_BYTES / 2 {
            window_update(0, std::mem::take(&mut self.unacknowledged), &mut self.out);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.unacknowledged += payload.len() as u32;
        if stream.unacknowledged >= STREAM_WINDOW_BYTES / 2 {
            window_update(id, std::mem::take(&mut stream.unacknowledged), &mut self.out);
        }
        let data = if flags & flag::PADDED == 0 {
            payload
        } else {
            let (padding, rest) = payload.split_first().context("padding without its length")?;
            let end = rest.len().checked_sub(usize::from(*padding));
            &rest[..end.context("more padding than data")?]
        };
        let token = stream.token;
        if stream.partial.is_empty() {
            let used = messages(data, |message| {
                stream.has_message = true;
                on(token, Event::Message(&data[message]));
            })?;
            stream.partial.extend_from_slice(&data[used..]);
        } else {
            let mut whole = std::mem::take(&mut stream.partial);
            whole.extend_from_slice(data);
            let used = messages(&whole, |message| {
                stream.has_message = true;
                on(token, Event::Message(&whole[message]));
            })?;
            whole.drain(..used);
            stream.partial = whole;
        }
        if flags & flag::END_STREAM != 0 {
            self.end(id, true, on);
        }
        Ok(())
    }

    fn end(&mut self, id: u32, orderly: bool, on: &mut impl FnMut(u32, Event<'_>)) {
        // A stream that is not known any more was ended by the server's first word on it.
        if let Some(stream) = self.streams.remove(&id) {
            self.open_ended.retain(|_, open| *open != id);
            on(stream.token, Event::End { succeeded: orderly && stream.has_message });
        }
    }
}

impl Wire for Connection {
    fn new(authority: &str) -> Self {
        let mut out = PREFACE.to_vec();
        let settings =
            [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES)];
        frame_header(6 * settings.len(), kind::SETTINGS, 0, 0, &mut out);
        for (name, value) in settings {
            out.extend(u16::to_be_bytes(name));
            out.extend(u32::to_be_bytes(value));
        }
        window_update(0, CONNECTION_WINDOW_BYTES - WINDOW_INITIAL as u32, &mut out);
        Self {
            headers: RequestHeaders::new(authority),
            out,
            message: Vec::new(),
            partial: Vec::new(),
            next_stream: 1,
            streams: HashMap::new(),
            open_ended: HashMap::new(),
            streams_max: usize::MAX,
            send_window: WINDOW_INITIAL,
            stream_send_window: WINDOW_INITIAL,
            unacknowledged: 0,
            held: VecDeque::new(),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn request(&mut self, token: u32, operation: Operation<'_>) -> Result<()> {
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        let path = match operation {
            Operation::Create { key, value } | Operation::Put { key, value } => {
                etcd::put(key, value, &mut message);
                etcd::PUT
            }
            Operation::Get { key, serializable } => {
                etcd::range(key, serializable, &mut message);
                etcd::RANGE
            }
        };
        let started = self.start(token, Call::Unary, path, &message);
        self.message = message;
        started
    }

    fn receive(&mut self, bytes: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<()> {
        if self.partial.is_empty() {
            let used = self.frames(bytes, on)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            let used = self.frames(&whole, on)?;
            whole.drain(..used);
            self.partial = whole;
        }
        self.release();
        Ok(())
    }
}

/// Finds the whole messages in a stream's bytes; gives how many bytes these were.
fn messages(bytes: &[u8], mut on: impl FnMut(Range<usize>)) -> Result<usize> {
    let mut used = 0;
    while let Some((header, _)) = bytes[used..].split_first_chunk::<MESSAGE_HEADER_BYTES>() {
        ensure!(header[0] == 0, "a compressed message, though none was asked for");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let message = used + MESSAGE_HEADER_BYTES..used + MESSAGE_HEADER_BYTES + length;
        if message.end > bytes.len() {
            break;
        }
        used = message.end;
        on(message);
    }
    Ok(used)
}

fn frame_header(length: usize, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    out.extend(&(length as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

fn window_update(stream: u32, bytes: u32, out: &mut Vec<u8>) {
    frame_header(4, kind::WINDOW_UPDATE, 0, stream, out);
    out.extend(bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame_header(payload.len(), kind, flags, stream, &mut out);
        out.extend(payload);
        out
    }

    fn message(bytes: &[u8]) -> Vec<u8> {
        [&[0], u32::to_be_bytes(bytes.len() as u32).as_slice(), bytes].concat()
    }

    /// What a connection hands out for bytes that come in pieces of one length.
    fn events(connection: &mut Connection, bytes: &[u8], piece: usize) -> Vec<String> {
        let mut events = Vec::new();
        for bytes in bytes.chunks(piece) {
            let on = &mut |token, event: Event<'_>| events.push(format!("{token} {event:?}"));
            connection.receive(bytes, on).expect("what a server may send");
        }
        events
    }

    /// The types and streams of the frames that a connection has to send.
    fn sent(connection: &mut Connection) -> Vec<(u8, u32)> {
        let out = std::mem::take(connection.out());
        let mut rest = out.strip_prefix(PREFACE).unwrap_or(&out);
        let mut frames = Vec::new();
        while let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            frames.push((
                header[3],
                u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
            ));
            rest = &after[length..];
        }
        frames
    }

    #[test]
    fn answers_are_found_however_the_bytes_are_cut() {
        let whole = message(b"stored");
        let padded = [&[2], message(b"b").as_slice(), &[0, 0]].concat();
        let bytes = [
            frame(kind::SETTINGS, 0, 0, &[]),
            frame(kind::HEADERS, flag::END_HEADERS, 1, b"ignored"),
            frame(kind::DATA, 0, 1, &whole[..4]),
            frame(kind::DATA, flag::PADDED, 3, &padded),
            frame(kind::DATA, 0, 1, &whole[4..]),
            // An error without a message: headers alone.
            frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 5, b"ignored"),
            frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"ignored"),
        ]
        .concat();
        for piece in 1..=bytes.len() {
            let mut connection = Connection::new("localhost:1");
            for token in 10..13 {
                connection.start(token, Call::Unary, "/a", b"request").expect("a short request");
            }
            let expected = [
                format!("11 Message({:?})", b"b"),
                format!("10 Message({:?})", b"stored"),
                "12 End { succeeded: false }".to_owned(),
                "11 End { succeeded: false }".to_owned(),
                "10 End { succeeded: true }".to_owned(),
            ];
            assert_eq!(events(&mut connection, &bytes, piece), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn requests_wait_for_the_server_to_allow_them() {
        let mut connection = Connection::new("localhost:1");
        let one_stream = [0, setting::MAX_CONCURRENT_STREAMS as u8, 0, 0, 0, 1];
        events(&mut connection, &frame(kind::SETTINGS, 0, 0, &one_stream), 100);
        sent(&mut connection);
        connection.start(1, Call::Unary, "/a", b"request").expect("a short request");
        connection.start(2, Call::Unary, "/a", b"request").expect("a short request");
        assert_eq!(sent(&mut connection), [(kind::HEADERS, 1), (kind::DATA, 1)]);
        let end = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"ignored");
        events(&mut connection, &end, 100);
        assert_eq!(sent(&mut connection), [(kind::HEADERS, 3), (kind::DATA, 3)]);
    }

    #[test]
    fn messages_wait_for_the_windows_of_stream_and_connection() {
        let mut connection = Connection::new("localhost:1");
        connection.start(1, Call::Stream, "/a", &[7; 16_000]).expect("a frame");
        for _ in 0..4 {
            connection.send(1, &[7; 16_000]);
        }
        let data = |connection: &mut Connection| {
            sent(connection).iter().filter(|(kind, _)| *kind == kind::DATA).count()
        };
        assert_eq!(data(&mut connection), 4);
        let opened = 20_000_u32.to_be_bytes();
        events(&mut connection, &frame(kind::WINDOW_UPDATE, 0, 0, &opened), 100);
        assert_eq!(data(&mut connection), 0);
        events(&mut connection, &frame(kind::WINDOW_UPDATE, 0, 1, &opened), 100);
        assert_eq!(data(&mut connection), 1);
    }
}
