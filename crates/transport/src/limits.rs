//! Every bound of the transport, in one place.

use std::time::Duration;

/// Bounds of a [`Peers`](crate::Peers) or a [`Server`](crate::Server). The defaults are the
/// `*_MAX`, `*_INTERVAL` and `*_TIMEOUT` constants of this type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most one-way messages that wait for one peer.
    pub one_way_messages_max: usize,
    /// Most bytes of one-way messages that wait for one peer.
    pub one_way_bytes_max: usize,
    /// Most bytes of requests or responses that wait to be written on one connection. While that
    /// many bytes of responses wait, the connection's next request is not read.
    pub queued_bytes_max: usize,
    /// Most bytes of requests that a server holds for its handlers; beyond it, a request is
    /// answered as overloaded without being read into memory.
    pub handler_bytes_max: usize,
    /// Bytes of responses in memory, over all connections of a server, at which it answers further
    /// requests as overloaded. A handler that still runs counts with what its method's responses
    /// lately came to; what it makes beyond that is held, and nothing new starts until it is gone.
    pub response_bytes_max: usize,
    /// Most requests that a server's handlers work on at once.
    pub handlers_max: usize,
    /// Most connections that a server has open.
    pub connections_max: usize,
    /// How long opening a TCP connection may take.
    pub connect_timeout: Duration,
    /// How long the exchange of hellos may take.
    pub handshake_timeout: Duration,
    /// Silence after which the other side is asked whether it is there.
    pub ping_interval: Duration,
    /// Silence after which a connection is given up.
    pub silence_timeout: Duration,
    /// How long a connection that carries neither calls nor messages is kept by who opened it.
    pub unused_timeout: Duration,
    /// Pause after a first failed attempt to connect; doubled by each further one.
    pub backoff_min: Duration,
    /// Longest pause between two attempts to connect.
    pub backoff_max: Duration,
}

impl Limits {
    /// Default of [`one_way_messages_max`](Self::one_way_messages_max).
    pub const ONE_WAY_MESSAGES_MAX: usize = 4096;
    /// Default of [`one_way_bytes_max`](Self::one_way_bytes_max).
    pub const ONE_WAY_BYTES_MAX: usize = 64 << 20;
    /// Default of [`queued_bytes_max`](Self::queued_bytes_max).
    pub const QUEUED_BYTES_MAX: usize = 64 << 20;
    /// Default of [`handler_bytes_max`](Self::handler_bytes_max).
    pub const HANDLER_BYTES_MAX: usize = 512 << 20;
    /// Default of [`response_bytes_max`](Self::response_bytes_max).
    pub const RESPONSE_BYTES_MAX: usize = 512 << 20;
    /// Default of [`handlers_max`](Self::handlers_max).
    pub const HANDLERS_MAX: usize = 16 << 10;
    /// Default of [`connections_max`](Self::connections_max).
    pub const CONNECTIONS_MAX: usize = 4096;
    /// Default of [`connect_timeout`](Self::connect_timeout).
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// Default of [`handshake_timeout`](Self::handshake_timeout).
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`ping_interval`](Self::ping_interval).
    pub const PING_INTERVAL: Duration = Duration::from_secs(1);
    /// Default of [`silence_timeout`](Self::silence_timeout).
    pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`unused_timeout`](Self::unused_timeout).
    pub const UNUSED_TIMEOUT: Duration = Duration::from_secs(300);
    /// Default of [`backoff_min`](Self::backoff_min).
    pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
    /// Default of [`backoff_max`](Self::backoff_max).
    pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            one_way_messages_max: Self::ONE_WAY_MESSAGES_MAX,
            one_way_bytes_max: Self::ONE_WAY_BYTES_MAX,
            queued_bytes_max: Self::QUEUED_BYTES_MAX,
            handler_bytes_max: Self::HANDLER_BYTES_MAX,
            response_bytes_max: Self::RESPONSE_BYTES_MAX,
            handlers_max: Self::HANDLERS_MAX,
            connections_max: Self::CONNECTIONS_MAX,
            connect_timeout: Self::CONNECT_TIMEOUT,
            handshake_timeout: Self::HANDSHAKE_TIMEOUT,
            ping_interval: Self::PING_INTERVAL,
            silence_timeout: Self::SILENCE_TIMEOUT,
            unused_timeout: Self::UNUSED_TIMEOUT,
            backoff_min: Self::BACKOFF_MIN,
            backoff_max: Self::BACKOFF_MAX,
        }
    }
}
