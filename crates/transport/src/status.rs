//! Counters that a node's metrics read.

use std::sync::atomic::{AtomicU64, Ordering};

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
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a gauge of the transport went below zero");
    }
}

/// What a [`Peers`](crate::Peers) or a [`Server`](crate::Server) did so far.
///
/// Each side counts its own: `frames_sent` of a server are its responses.
#[derive(Debug, Default)]
pub struct TransportStatus {
    /// Connections that are open now.
    pub connections_open: Counter,
    /// Connections that completed their handshake.
    pub connections_total: Counter,
    /// Attempts to connect that failed before a handshake (outbound only).
    pub connect_failures_total: Counter,
    /// Handshakes that ended in a refusal, by either side.
    pub handshakes_refused_total: Counter,
    /// Connections closed because the other side fell silent.
    pub connections_silent_total: Counter,
    /// Connections closed because of bytes that are no valid frame.
    pub frames_malformed_total: Counter,
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
    /// Handlers that panicked (inbound only); the caller got an internal error.
    pub handlers_panicked_total: Counter,
}
