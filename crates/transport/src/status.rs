//! Counters that a node's metrics read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Refusal;
use crate::frame::DecodeError;

/// A number that only its owner raises and lowers, and anybody may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn decrement(&self) {
        self.subtract(1);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        let before = self.0.fetch_sub(amount, Ordering::Relaxed);
        assert!(before >= amount, "a gauge of the transport went below zero");
    }
}

/// A counter that is split by a fixed set of kinds.
#[derive(Debug)]
pub struct KindCounter {
    kinds: Vec<(&'static str, Counter)>,
}

impl KindCounter {
    fn of(kinds: &[&'static str]) -> Self {
        Self { kinds: kinds.iter().map(|kind| (*kind, Counter::default())).collect() }
    }

    /// The sum of all kinds now.
    pub fn get(&self) -> u64 {
        self.kinds.iter().map(|(_, counter)| counter.get()).sum()
    }

    /// Each kind with its value now.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.kinds.iter().map(|(kind, counter)| (*kind, counter.get()))
    }

    pub(crate) fn increment(&self, kind: &'static str) {
        let counter = self.kinds.iter().find(|(known, _)| *known == kind);
        counter.expect("the kinds are listed beside their names").1.increment();
    }
}

/// What a [`Peers`](crate::Peers) or a [`Server`](crate::Server) did so far.
///
/// Each side counts its own: `frames_sent` of a server are its responses.
#[derive(Debug)]
pub struct TransportStatus {
    /// Connections that are open now.
    pub connections_open: Counter,
    /// Connections that completed their handshake.
    pub connections_total: Counter,
    /// Attempts to connect that failed before a handshake (outbound only).
    pub connect_failures_total: Counter,
    /// Handshakes that ended in a refusal, by either side; the kinds are [`Refusal::KINDS`].
    pub handshakes_refused_total: KindCounter,
    /// Connections closed because the other side fell silent.
    pub connections_silent_total: Counter,
    /// Connections closed because of bytes that are no valid frame, by what was wrong with them.
    pub frames_malformed_total: KindCounter,
    /// Frames written.
    pub frames_sent_total: Counter,
    /// Bytes written, headers included.
    pub bytes_sent_total: Counter,
    /// Frames read.
    pub frames_received_total: Counter,
    /// Bytes read, headers included.
    pub bytes_received_total: Counter,
    /// One-way messages accepted for sending or handed to their handler.
    pub one_way_total: Counter,
    /// One-way messages dropped: queue full, peer unreachable, or (inbound) nobody to take them.
    pub one_way_dropped_total: Counter,
    /// Calls started (outbound) or handed to a handler (inbound).
    pub calls_total: Counter,
    /// Calls waiting for their answer (outbound) or in a handler (inbound) now.
    pub calls_in_flight: Counter,
    /// Calls that got no answer in time (outbound) or whose deadline passed in a handler (inbound).
    pub calls_timed_out_total: Counter,
    /// Calls whose caller went away, or stopped waiting, before the answer.
    pub calls_cancelled_total: Counter,
    /// Calls answered as overloaded before they reached a handler.
    pub calls_overloaded_total: Counter,
    /// Bytes of responses that wait to be written now (inbound only), with what the handlers that
    /// still run are expected to add.
    pub response_bytes: Counter,
    /// Handlers that panicked (inbound only); the caller got an internal error.
    pub handlers_panicked_total: Counter,
}

impl Default for TransportStatus {
    fn default() -> Self {
        Self {
            handshakes_refused_total: KindCounter::of(&Refusal::KINDS),
            frames_malformed_total: KindCounter::of(&DecodeError::KINDS),
            connections_open: Counter::default(),
            connections_total: Counter::default(),
            connect_failures_total: Counter::default(),
            connections_silent_total: Counter::default(),
            frames_sent_total: Counter::default(),
            bytes_sent_total: Counter::default(),
            frames_received_total: Counter::default(),
            bytes_received_total: Counter::default(),
            one_way_total: Counter::default(),
            one_way_dropped_total: Counter::default(),
            calls_total: Counter::default(),
            calls_in_flight: Counter::default(),
            calls_timed_out_total: Counter::default(),
            calls_cancelled_total: Counter::default(),
            calls_overloaded_total: Counter::default(),
            response_bytes: Counter::default(),
            handlers_panicked_total: Counter::default(),
        }
    }
}
