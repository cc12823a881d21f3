//! What the load asks of a protocol.

use anyhow::Result;

/// A client's side of one connection: bytes in, bytes out, no socket of its own.
pub(crate) trait Wire {
    /// A connection to a host and port; what it says first is in [`Self::out`].
    fn new(address: &str) -> Self;

    /// Bytes to be written to the socket. Whoever writes them removes them.
    fn out(&mut self) -> &mut Vec<u8>;

    /// Starts an operation; its events carry the token.
    ///
    /// # Errors
    ///
    /// The operation is larger than the client can send.
    fn request(&mut self, token: u32, operation: Operation<'_>) -> Result<()>;

    /// Takes bytes from the socket and hands out what they bring.
    ///
    /// # Errors
    ///
    /// The server ended the connection or broke the protocol.
    fn receive(&mut self, bytes: &[u8], on: &mut impl FnMut(u32, Event<'_>)) -> Result<()>;
}

/// An operation that every server under test knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation<'a> {
    /// A put of a key that is not there.
    Create { key: &'a [u8], value: &'a [u8] },
    /// A put of a key that is there.
    Put { key: &'a [u8], value: &'a [u8] },
    /// The value of one key, from the member that is asked if `serializable`.
    Get { key: &'a [u8], serializable: bool },
}

/// What an operation came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// One message of the answer.
    Message(&'a [u8]),
    /// It is over.
    End { succeeded: bool },
}
