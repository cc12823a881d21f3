//! Bounds on what clients can make a node hold and wait for.

use std::time::Duration;

/// Limits of one S3 listener. Every queue and wait of this crate has its bound here.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most open connections; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// Most requests at work at once; what does not get in within `admission_wait` is answered
    /// `SlowDown`.
    pub requests_max: usize,
    /// Most bytes of bodies in memory at once, estimated for each request before it starts.
    pub body_bytes_max: usize,
    /// Longest wait for a place among `requests_max` and `body_bytes_max`.
    pub admission_wait: Duration,
    /// Longest time from a connection's start, or from its last answer, to a request's last header
    /// line. It ends idle connections too.
    pub header_timeout: Duration,
    /// Longest time without a byte of a body that a client is to send.
    pub body_idle_timeout: Duration,
    /// How long a client may keep us waiting for its body in total, on top of one second for each
    /// `body_bytes_per_second_min` received. Time in which storage is the slow one does not count.
    pub body_grace: Duration,
    /// See `body_grace`. Never 0.
    pub body_bytes_per_second_min: u64,
    /// Longest time in which a client takes no byte of an answer.
    pub response_stall_timeout: Duration,
    /// Most bytes of an XML body.
    pub xml_bytes_max: usize,
    /// Time for open requests to end at shutdown.
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            requests_max: 512,
            body_bytes_max: 512 << 20,
            admission_wait: Duration::from_secs(2),
            header_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(30),
            body_grace: Duration::from_secs(60),
            body_bytes_per_second_min: 1024,
            response_stall_timeout: Duration::from_secs(60),
            xml_bytes_max: 4 << 20,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
