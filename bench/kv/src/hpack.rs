//! Request headers as HPACK (RFC 7541), as small as a long-lived client makes them.
//!
//! The first request of a connection enters its headers into the connection's dynamic table, so that
//! each later one is a few bytes of indices: what Go's and Rust's gRPC clients send as well.
//! Responses are never decoded, so nothing here reads.

/// Entries of the static table that requests use (RFC 7541, appendix A).
const INDEXED_METHOD_POST: u8 = 0x80 | 3;
const INDEXED_SCHEME_HTTP: u8 = 0x80 | 6;
const NAME_AUTHORITY: u8 = 1;
const NAME_PATH: u8 = 4;
const NAME_CONTENT_TYPE: u8 = 31;
const NAME_USER_AGENT: u8 = 58;
/// Of a literal whose name follows.
const NAME_NEW: u8 = 0;
/// A literal that enters the dynamic table; its name's index is in the low six bits.
const LITERAL_INDEXED: u8 = 0x40;
/// The newest entry of the dynamic table; older ones follow.
const DYNAMIC_FIRST: usize = 62;

/// The encoder of one connection.
pub(crate) struct RequestHeaders {
    authority: String,
    /// What was entered into the dynamic table, oldest first: the shared headers are `None`.
    entered: Vec<Option<&'static str>>,
}

/// Headers beside the path that every request carries.
const SHARED: usize = 4;

impl RequestHeaders {
    /// For requests to a host and port.
    pub(crate) fn new(authority: &str) -> Self {
        Self { authority: authority.to_owned(), entered: Vec::new() }
    }

    /// Appends the header block of a gRPC request to a path.
    ///
    /// A connection may ask for at most 60 different paths, so that every index is one byte.
    pub(crate) fn encode(&mut self, path: &'static str, out: &mut Vec<u8>) {
        out.extend([INDEXED_METHOD_POST, INDEXED_SCHEME_HTTP]);
        match self.entered.iter().position(|entered| *entered == Some(path)) {
            Some(position) => out.push(self.index(position)),
            None => {
                self.entered.push(Some(path));
                literal(NAME_PATH, path, out);
            }
        }
        match self.entered.iter().position(Option::is_none) {
            Some(first) => out.extend((first..first + SHARED).map(|at| self.index(at))),
            None => {
                self.entered.extend([None; SHARED]);
                literal(NAME_AUTHORITY, &self.authority, out);
                literal(NAME_CONTENT_TYPE, "application/grpc", out);
                literal(NAME_USER_AGENT, "onefold-bench", out);
                out.extend([LITERAL_INDEXED | NAME_NEW, 2]);
                out.extend(b"te");
                text("trailers", out);
            }
        }
    }

    /// The index of the entry that was entered at a position: it grows with each later entry.
    fn index(&self, position: usize) -> u8 {
        let index = DYNAMIC_FIRST + self.entered.len() - 1 - position;
        0x80 | u8::try_from(index).expect("few paths")
    }
}

fn literal(name: u8, value: &str, out: &mut Vec<u8>) {
    out.push(LITERAL_INDEXED | name);
    text(value, out);
}

/// A string without Huffman coding; all are shorter than 127 bytes, so the length is one byte.
fn text(value: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(value.len()).expect("a short header"));
    out.extend(value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_requests_are_indices_alone() {
        let mut headers = RequestHeaders::new("127.0.0.1:2379");
        let mut block = |path| {
            let mut out = Vec::new();
            headers.encode(path, &mut out);
            out
        };
        assert!(block("/a").len() > 60);
        // In the dynamic table, from the newest: te, user-agent, content-type, authority, path.
        assert_eq!(
            block("/a"),
            [0x83, 0x86, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62]
        );
        assert_eq!(block("/b")[..5], [0x83, 0x86, 0x44, 2, b'/']);
        // The second path is the newest now, and all others are one further.
        assert_eq!(
            block("/a"),
            [0x83, 0x86, 0x80 | 67, 0x80 | 66, 0x80 | 65, 0x80 | 64, 0x80 | 63]
        );
        assert_eq!(block("/b")[2], 0x80 | 62);
    }
}
