//! The JSON objects of a body that is sent piece by piece.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tonic::Status;

use crate::errors;

/// Cuts a body into its objects as they arrive. Holds one object at most.
pub(crate) struct Values {
    body: Body,
    read: BytesMut,
    cutter: Cutter,
    object_bytes_max: usize,
}

impl Values {
    /// The objects of `body`, none of them longer than so many bytes.
    pub(crate) fn new(body: Body, object_bytes_max: usize) -> Self {
        Self { body, read: BytesMut::new(), cutter: Cutter::default(), object_bytes_max }
    }

    /// The text of the next object; nothing at the end of the body. What is no object is given as
    /// far as that is clear.
    ///
    /// # Errors
    /// When the body breaks off, or an object is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(end) = self.cutter.end(&self.read) {
                self.cutter = Cutter::default();
                return Ok(Some(self.read.split_to(end).freeze()));
            }
            if self.read.len() > self.object_bytes_max {
                return Err(errors::request_too_large());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Status::cancelled(format!("the body did not arrive: {error}")));
                }
                None if self.read.trim_ascii().is_empty() => return Ok(None),
                // Its reader says what is missing.
                None => return Ok(Some(self.read.split().freeze())),
            }
        }
    }
}

/// Finds the end of an object without understanding it. Looks at each byte once.
#[derive(Default)]
struct Cutter {
    at: usize,
    depth: usize,
    is_in_text: bool,
    is_escaped: bool,
}

impl Cutter {
    /// Where the first object of `read` ends. `read` is what it was before, and more.
    fn end(&mut self, read: &[u8]) -> Option<usize> {
        while let Some(&byte) = read.get(self.at) {
            self.at += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_text => self.is_escaped = true,
                b'"' if self.depth > 0 => self.is_in_text = !self.is_in_text,
                _ if self.is_in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b'}' | b']' => return Some(self.at),
                _ if self.depth == 0 && !byte.is_ascii_whitespace() => return Some(self.at),
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    async fn cut(pieces: &[&'static str]) -> Vec<String> {
        let pieces: Vec<Result<_, std::convert::Infallible>> =
            pieces.iter().map(|piece| Ok(Bytes::from(*piece))).collect();
        let mut values = Values::new(Body::from_stream(stream::iter(pieces)), 64);
        let mut texts = Vec::new();
        while let Some(text) = values.next().await.expect("it is short") {
            texts.push(String::from_utf8(text.to_vec()).expect("text"));
        }
        texts
    }

    #[tokio::test]
    async fn objects_are_cut_wherever_the_pieces_are() {
        let whole = r#"{"a":{"b":"}\"{"}}"#;
        assert_eq!(cut(&[r#"{"a":{"b":"}\"{"}}{"c":[1]}"#]).await, [whole, r#"{"c":[1]}"#]);
        assert_eq!(cut(&[r#"{"a":{"b":"}\"#, r#""{"}"#, "}\n ", "\n"]).await, [whole]);
        assert!(cut(&[" ", "\r\n"]).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_object_is_handed_on_for_its_reader_to_refuse() {
        assert_eq!(cut(&["nonsense"]).await[0], "n");
        assert_eq!(cut(&["}"]).await, ["}"]);
        assert_eq!(cut(&[r#"{"a":"#]).await, [r#"{"a":"#]);
    }

    #[tokio::test]
    async fn an_object_beyond_the_bound_is_refused() {
        let pieces = [Ok::<_, std::convert::Infallible>(Bytes::from(vec![b'{'; 65]))];
        let mut values = Values::new(Body::from_stream(stream::iter(pieces)), 64);
        let error = values.next().await.expect_err("it is too long");
        assert_eq!(error.message(), "etcdserver: request is too large");
    }
}
