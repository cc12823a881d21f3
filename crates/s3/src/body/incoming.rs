//! The stream of a body's frames.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use s3s::{S3ErrorCode, StdError};
use tokio::time::{Instant, Sleep};

use super::checks::BodyChecks;
use super::framing::Framing;
use super::{Fault, FaultCell};
use crate::config::Config;

/// How much of a refused body is still read, so that the client gets to see the answer: a
/// connection closed with unread bytes is reset, and the answer lost with it.
const LINGER_BYTES_MAX: u64 = 4 << 20;
/// How long that is done.
const LINGER: Duration = Duration::from_secs(2);

/// A request's body: hyper's, with limits.
pub(crate) struct RequestBody {
    /// `None` once it failed.
    inner: Option<Incoming>,
    fault: FaultCell,
    framing: Option<Framing>,
    checks: Option<BodyChecks>,
    /// Frames made by the framing and not passed on yet.
    ready: VecDeque<Bytes>,
    received: u64,
    patience: Patience,
    /// The client sends nothing before it has seen that we read.
    expects_continue: bool,
}

impl RequestBody {
    pub(crate) fn new(
        inner: Incoming,
        config: &Config,
        fault: FaultCell,
        framing: Option<Framing>,
        checks: Option<BodyChecks>,
        expects_continue: bool,
    ) -> Self {
        Self {
            inner: Some(inner),
            fault,
            framing,
            checks,
            ready: VecDeque::new(),
            received: 0,
            patience: Patience::new(config),
            expects_continue,
        }
    }

    fn fail(&mut self, fault: Fault) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        self.fault.record(&fault);
        self.inner = None;
        Poll::Ready(Some(Err(Box::new(fault))))
    }

    fn accept(&mut self, bytes: Bytes) -> Result<(), Fault> {
        self.received += bytes.len() as u64;
        if let Some(checks) = &mut self.checks {
            checks.update(&bytes);
        }
        match &mut self.framing {
            Some(framing) => framing.push(bytes, &mut self.ready)?,
            None if bytes.is_empty() => {}
            None => self.ready.push_back(bytes),
        }
        if self.inner.as_ref().is_some_and(Body::is_end_stream) {
            self.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Fault> {
        self.checks.as_mut().map_or(Ok(()), BodyChecks::finish)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            let frame = match Pin::new(inner).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let received = self.received;
                    if self.patience.poll_lost(received, context).is_pending() {
                        return Poll::Pending;
                    }
                    return self.fail(Fault::new(
                        S3ErrorCode::RequestTimeout,
                        "the body arrives too slowly; the connection was given up",
                    ));
                }
            };
            self.patience.stop();
            let outcome = match frame {
                None => self.finish().map(|()| true),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.accept(bytes).map(|()| false),
                    Err(_trailers) => Ok(false),
                },
                Some(Err(error)) => {
                    self.inner = None;
                    return Poll::Ready(Some(Err(Box::new(error))));
                }
            };
            match outcome {
                Ok(true) => return Poll::Ready(None),
                Ok(false) => {}
                Err(fault) => return self.fail(fault),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.framing, &self.inner) {
            (None, Some(inner)) if self.ready.is_empty() => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let is_silent = self.expects_continue && self.received == 0;
        if inner.is_end_stream() || is_silent {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, drain(inner)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { return };
        left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
    }
}

/// How long a client may still let us wait.
struct Patience {
    idle: Duration,
    grace: Duration,
    bytes_per_second_min: u64,
    /// Time spent waiting for the client in earlier waits.
    waited: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Patience {
    fn new(config: &Config) -> Self {
        Self {
            idle: config.body_idle_timeout,
            grace: config.body_grace,
            bytes_per_second_min: config.body_bytes_per_second_min.max(1),
            waited: Duration::ZERO,
            waiting: None,
        }
    }

    /// Ready when the present wait has become too long.
    fn poll_lost(&mut self, received: u64, context: &mut Context<'_>) -> Poll<()> {
        let earned = Duration::from_secs(received / self.bytes_per_second_min);
        let total = (self.grace + earned).saturating_sub(self.waited);
        let limit = self.idle.min(total);
        let (_, timer) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until(now + limit)))
        });
        timer.as_mut().poll(context)
    }

    fn stop(&mut self) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += since.elapsed();
        }
    }
}
