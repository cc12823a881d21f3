//! The way from a session to its client: a short queue of answers, several at a time.
//!
//! An event that many watches of a stream want makes many small answers at once. They go through the
//! queue together, so that the tasks at its two ends change places once for all of them, and the
//! connection writes them together.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::proto::etcdserverpb::WatchResponse;

/// Handfuls that wait for the connection, beside the one that the session holds.
const HANDFULS_QUEUED_MAX: usize = 4;

/// Answers after which a handful is full.
const HANDFUL_MAX: usize = 256;

/// Bytes of answers after which a handful is full.
const HANDFUL_BYTES_MAX: usize = 64 << 10;

type Handful = Vec<Result<WatchResponse, Status>>;

/// The session's end of the queue.
pub(super) struct Answers {
    queue: mpsc::Sender<Handful>,
    /// What goes next.
    handful: Handful,
    bytes: usize,
}

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// A queue without answers, and what comes out of it.
pub(super) fn queue() -> (Answers, BoxStream<'static, Result<WatchResponse, Status>>) {
    let (queue, answers) = mpsc::channel(HANDFULS_QUEUED_MAX);
    let answers = ReceiverStream::new(answers).flat_map(stream::iter).boxed();
    (Answers { queue, handful: Vec::new(), bytes: 0 }, answers)
}

impl Answers {
    /// Takes an answer for the next handful; waits for the client when that is full.
    pub(super) async fn send(&mut self, response: WatchResponse) -> Result<(), Gone> {
        self.bytes += response.encoded_len();
        self.handful.push(Ok(response));
        match self.has_room() {
            true => Ok(()),
            false => self.flush().await,
        }
    }

    /// Whether a further answer can be taken without waiting for the client.
    pub(super) fn has_room(&self) -> bool {
        self.handful.len() < HANDFUL_MAX && self.bytes < HANDFUL_BYTES_MAX
    }

    /// Sends what was taken.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        if self.handful.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let handful = std::mem::take(&mut self.handful);
        self.queue.send(handful).await.map_err(|_| Gone)
    }

    /// Sends what was taken, and ends the stream with a status.
    pub(super) async fn end(mut self, status: Status) -> Result<(), Gone> {
        self.handful.push(Err(status));
        self.flush().await
    }

    /// Waits until the client is gone.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn answer(watch_id: i64) -> WatchResponse {
        WatchResponse { watch_id, ..Default::default() }
    }

    #[tokio::test]
    async fn answers_come_in_their_order_and_the_status_last() {
        let (mut answers, came) = queue();
        for id in 1..=3 {
            answers.send(answer(id)).await.expect("the client is there");
        }
        answers.end(Status::unavailable("over")).await.expect("the client is there");
        let came: Vec<_> = came.collect().await;
        let ids: Vec<_> =
            came.iter().flatten().map(|response: &WatchResponse| response.watch_id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let status = came.last().and_then(|last| last.as_ref().err());
        assert_eq!(status.map(Status::message), Some("over"));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_waited_for() {
        let (mut answers, came) = queue();
        let most = HANDFUL_MAX * (HANDFULS_QUEUED_MAX + 1);
        let mut taken = 0;
        while answers.send(answer(1)).now_or_never().is_some() {
            taken += 1;
            assert!(taken < most, "the queue has a bound");
        }
        assert_eq!(taken, most - 1);
        drop(came);
        assert!(answers.send(answer(1)).await.is_err() || answers.flush().await.is_err());
    }

    #[tokio::test]
    async fn a_large_answer_fills_a_handful() {
        let (mut answers, mut came) = queue();
        let cancel_reason = "x".repeat(HANDFUL_BYTES_MAX);
        answers.send(WatchResponse { cancel_reason, ..answer(1) }).await.expect("it is there");
        assert!(came.next().now_or_never().flatten().is_some(), "it was sent at once");
    }
}
