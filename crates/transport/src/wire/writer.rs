//! The queue in front of a socket, and the task that empties it with vectored writes.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Activity, End};
use crate::frame::Frame;
use crate::{Counter, TransportStatus};

/// Most frames that leave in one vectored write: two slices each, far below the system's IOV_MAX.
const BATCH_FRAMES_MAX: usize = 32;
/// Bytes at which a batch is full.
const BATCH_BYTES: usize = 256 << 10;

/// A frame on its way to the socket. What it holds of the bounds returns when it is written or
/// dropped.
pub(crate) struct Outgoing {
    pub(crate) frame: Frame,
    /// The call that the frame starts.
    pub(crate) starts_call: Option<u64>,
    /// Whether it is a one-way message.
    pub(crate) one_way: bool,
    /// Shares of the bounds.
    pub(crate) permits: [Option<OwnedSemaphorePermit>; 2],
    /// What a response counts for as long as it is in memory.
    pub(crate) share: Option<Share>,
}

impl Outgoing {
    /// A frame that counts against no bound: rare, small, and limited in number by its cause.
    pub(crate) fn control(frame: Frame) -> Self {
        Self { frame, starts_call: None, one_way: false, permits: [None, None], share: None }
    }

    /// A frame that holds its share of a queue's bytes.
    pub(crate) fn data(frame: Frame, permit: OwnedSemaphorePermit) -> Self {
        Self { permits: [Some(permit), None], ..Self::control(frame) }
    }
}

/// The sending end of a connection's queue.
#[derive(Clone)]
pub(crate) struct OutQueue {
    sender: mpsc::UnboundedSender<Outgoing>,
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

/// A queue for at most `bytes_max` bytes of data frames. A single larger frame takes it alone.
pub(crate) fn out_queue(bytes_max: usize) -> (OutQueue, mpsc::UnboundedReceiver<Outgoing>) {
    let bytes_max = bytes_max.clamp(1, u32::MAX as usize);
    let (sender, receiver) = mpsc::unbounded_channel();
    (OutQueue { sender, bytes: Arc::new(Semaphore::new(bytes_max)), bytes_max }, receiver)
}

impl OutQueue {
    /// Waits until a frame of this length may be queued.
    pub(crate) async fn reserve(&self, length: usize) -> OwnedSemaphorePermit {
        let share = length.min(self.bytes_max) as u32;
        let permit = Arc::clone(&self.bytes).acquire_many_owned(share).await;
        permit.expect("the semaphore is never closed")
    }

    /// Queues a frame; false when the connection has ended.
    pub(crate) fn push(&self, outgoing: Outgoing) -> bool {
        self.sender.send(outgoing).is_ok()
    }

    /// A handle for signs of life that does not keep the queue open.
    pub(crate) fn downgrade(&self) -> WeakOutQueue {
        WeakOutQueue { sender: self.sender.downgrade(), bytes: Arc::clone(&self.bytes) }
    }
}

/// A queue that ends although this is still held.
#[derive(Clone)]
pub(crate) struct WeakOutQueue {
    sender: mpsc::WeakUnboundedSender<Outgoing>,
    bytes: Arc<Semaphore>,
}

impl WeakOutQueue {
    /// Queues a sign of life, unless so much waits to be written that nobody needs one.
    pub(crate) fn push_if_room(&self, frame: Frame) {
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(frame.len() as u32);
        if let (Some(sender), Ok(permit)) = (self.sender.upgrade(), permit) {
            // A queue that just closed needs no sign of life.
            let _ = sender.send(Outgoing::data(frame, permit));
        }
    }
}

/// Bytes of one connection's responses that are in memory, and who waits for them to become fewer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: Counter,
    fewer: Notify,
}

impl Tally {
    /// Waits until there are fewer than that.
    pub(crate) async fn below(&self, bytes_max: usize) {
        loop {
            // Before looking, so that a change in between is not missed.
            let fewer = self.fewer.notified();
            if self.bytes.get() < bytes_max as u64 {
                return;
            }
            fewer.await;
        }
    }
}

/// What a response counts for on its server, and on its connection once it is made; given back
/// when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    status: Arc<TransportStatus>,
    tally: Option<Arc<Tally>>,
    bytes: u64,
}

impl Share {
    /// That of a response which a handler is expected to make.
    pub(crate) fn expected(status: &Arc<TransportStatus>, bytes: usize) -> Self {
        let bytes = bytes as u64;
        status.response_bytes.add(bytes);
        Self { status: Arc::clone(status), tally: None, bytes }
    }

    /// That of a response which waits to be written.
    pub(crate) fn made(status: &Arc<TransportStatus>, tally: &Arc<Tally>, bytes: usize) -> Self {
        tally.bytes.add(bytes as u64);
        let mut share = Self::expected(status, bytes);
        share.tally = Some(Arc::clone(tally));
        share
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.status.response_bytes.subtract(self.bytes);
        if let Some(tally) = &self.tally {
            tally.bytes.subtract(self.bytes);
            tally.fewer.notify_waiters();
        }
    }
}

/// Writes what is queued until the queue has no more senders. `wanted` may drop a frame at the last
/// moment.
pub(crate) async fn write_frames(
    stream: &OwnedWriteHalf,
    queue: &mut mpsc::UnboundedReceiver<Outgoing>,
    activity: &Activity,
    status: &TransportStatus,
    wanted: impl Fn(&Outgoing) -> bool,
) -> End {
    let mut batch = Batch::default();
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            if wanted(&outgoing) {
                batch.add(outgoing);
            }
            next = if batch.is_full() { None } else { queue.try_recv().ok() };
        }
        if let Err(end) = batch.write(stream, activity).await {
            return end;
        }
        status.frames_sent_total.add(batch.frames as u64);
        status.bytes_sent_total.add(batch.bytes as u64);
        activity.sent(batch.frames);
        batch.clear();
    }
    End::Released
}

/// Frames that leave together.
#[derive(Default)]
struct Batch {
    slices: VecDeque<Bytes>,
    permits: Vec<OwnedSemaphorePermit>,
    shares: Vec<Share>,
    frames: usize,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, outgoing: Outgoing) {
        self.frames += 1;
        self.bytes += outgoing.frame.len();
        self.slices.push_back(outgoing.frame.prefix);
        if !outgoing.frame.body.is_empty() {
            self.slices.push_back(outgoing.frame.body);
        }
        self.permits.extend(outgoing.permits.into_iter().flatten());
        self.shares.extend(outgoing.share);
    }

    fn is_full(&self) -> bool {
        self.frames >= BATCH_FRAMES_MAX || self.bytes >= BATCH_BYTES
    }

    fn clear(&mut self) {
        assert!(self.slices.is_empty(), "a batch is cleared only after it was written");
        self.permits.clear();
        self.shares.clear();
        self.frames = 0;
        self.bytes = 0;
    }

    async fn write(&mut self, stream: &OwnedWriteHalf, activity: &Activity) -> Result<(), End> {
        let mut was_full = false;
        while !self.slices.is_empty() {
            let mut io_slices = [IoSlice::new(&[]); 2 * BATCH_FRAMES_MAX];
            for (io_slice, slice) in io_slices.iter_mut().zip(&self.slices) {
                *io_slice = IoSlice::new(slice);
            }
            let used = self.slices.len().min(io_slices.len());
            match stream.try_write_vectored(&io_slices[..used]) {
                Ok(0) => return Err(std::io::Error::from(ErrorKind::WriteZero).into()),
                Ok(written) => {
                    if was_full {
                        activity.drained();
                    }
                    was_full = false;
                    self.advance(written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    was_full = true;
                    stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Drops what was written.
    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.slices.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.slices.pop_front();
        }
        assert_eq!(written, 0, "the socket took more than it was given");
    }
}
