//! The order of appends to one replica: which offset each piece gets, which piece is written next,
//! and when none is accepted any more. Pure: it holds no file and no clock.
//!
//! The primary reserves offsets; every replica, the primary included, then takes the pieces at these
//! offsets in whatever order they arrive and writes them without gaps. A replica that misses a piece
//! never gets past it, so that what it has is always a prefix of what the primary ordered.

use std::collections::BTreeMap;

use bytes::Bytes;
use onefold_types::ChunkVersion;
use onefold_types::limits::CHUNK_BYTES_MAX;

/// Most bytes of pieces that wait for one replica's disk.
pub(super) const QUEUED_BYTES_MAX: usize = 32 << 20;

/// Why a piece is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The grant under which the piece was sent is not the replica's.
    OtherVersion,
    /// The replica was fenced, sealed, or failed.
    Closed(String),
    /// It does not fit behind what was reserved.
    Full,
    /// Another piece was ordered at this offset, or too much waits already.
    Disorder(String),
}

/// What is ordered and waits to be written; `T` is who waits for a piece.
pub(super) struct Appends<T> {
    version: ChunkVersion,
    /// The end of what was ordered.
    reserved: u64,
    /// The end of what was handed out to be written.
    taken: u64,
    waiting: BTreeMap<u64, (Bytes, T)>,
    waiting_bytes: usize,
    /// A run of pieces is being written.
    writing: bool,
    closed: Option<String>,
}

impl<T> Appends<T> {
    /// The order of a new replica.
    pub(super) fn new(version: ChunkVersion) -> Self {
        let (reserved, taken, waiting_bytes) = (0, 0, 0);
        let (waiting, writing, closed) = (BTreeMap::new(), false, None);
        Self { version, reserved, taken, waiting, waiting_bytes, writing, closed }
    }

    fn check(&self, version: ChunkVersion, bytes: usize) -> Result<(), Refusal> {
        if let Some(reason) = &self.closed {
            return Err(Refusal::Closed(reason.clone()));
        }
        if version != self.version {
            return Err(Refusal::OtherVersion);
        }
        if self.waiting_bytes + bytes > QUEUED_BYTES_MAX {
            return Err(Refusal::Disorder("too many bytes wait for the disk".to_owned()));
        }
        Ok(())
    }

    /// As the primary: orders a piece behind all others, and answers its offset.
    pub(super) fn order(
        &mut self,
        version: ChunkVersion,
        bytes: Bytes,
        waiter: T,
    ) -> Result<u64, Refusal> {
        self.check(version, bytes.len())?;
        let offset = self.reserved;
        if offset + bytes.len() as u64 > CHUNK_BYTES_MAX {
            return Err(Refusal::Full);
        }
        self.enter(offset, bytes, waiter);
        Ok(offset)
    }

    /// As a secondary: takes a piece at the offset that the primary gave it.
    pub(super) fn accept(
        &mut self,
        version: ChunkVersion,
        offset: u64,
        bytes: Bytes,
        waiter: T,
    ) -> Result<(), Refusal> {
        self.check(version, bytes.len())?;
        let end = offset + bytes.len() as u64;
        if end > CHUNK_BYTES_MAX {
            return Err(Refusal::Full);
        }
        let before = self.waiting.range(..end).next_back();
        let overlaps = before.is_some_and(|(at, (bytes, _))| at + bytes.len() as u64 > offset);
        if offset < self.taken || overlaps {
            let reason = format!("bytes at {offset} were ordered already");
            return Err(Refusal::Disorder(reason));
        }
        self.enter(offset, bytes, waiter);
        Ok(())
    }

    fn enter(&mut self, offset: u64, bytes: Bytes, waiter: T) {
        self.reserved = self.reserved.max(offset + bytes.len() as u64);
        self.waiting_bytes += bytes.len();
        self.waiting.insert(offset, (bytes, waiter));
    }

    /// The pieces that can be written now, in order and without gaps. Until
    /// [`written`](Self::written) is called, no more are handed out.
    pub(super) fn take(&mut self) -> Option<(Vec<Bytes>, Vec<T>)> {
        if self.writing || self.closed.is_some() {
            return None;
        }
        let (mut pieces, mut waiters) = (Vec::new(), Vec::new());
        while let Some((bytes, waiter)) = self.waiting.remove(&self.taken) {
            self.taken += bytes.len() as u64;
            self.waiting_bytes -= bytes.len();
            pieces.push(bytes);
            waiters.push(waiter);
        }
        self.writing = !pieces.is_empty();
        self.writing.then_some((pieces, waiters))
    }

    /// The pieces that were taken are durable, or have failed, which closes the replica.
    pub(super) fn written(&mut self, failure: Option<String>) -> Vec<T> {
        assert!(self.writing, "something was taken");
        self.writing = false;
        failure.map_or_else(Vec::new, |reason| self.close(reason))
    }

    /// Accepts nothing more, and answers who waited in vain. The first reason stands.
    pub(super) fn close(&mut self, reason: String) -> Vec<T> {
        self.closed.get_or_insert(reason);
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting).into_values().map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const V1: ChunkVersion = ChunkVersion(1);

    #[test]
    fn pieces_are_written_in_order_and_without_gaps_however_they_arrive() {
        let mut appends = Appends::new(V1);
        appends.accept(V1, 3, Bytes::from_static(b"de"), 2).unwrap();
        assert!(appends.take().is_none(), "bytes 0 to 3 are missing");
        appends.accept(V1, 0, Bytes::from_static(b"abc"), 1).unwrap();
        let (pieces, waiters) = appends.take().unwrap();
        assert_eq!((pieces.concat(), waiters), (b"abcde".to_vec(), vec![1, 2]));
        appends.accept(V1, 5, Bytes::from_static(b"f"), 3).unwrap();
        assert!(appends.take().is_none(), "one write at a time");
        assert!(appends.written(None).is_empty());
        assert_eq!(appends.take().unwrap().1, vec![3]);
    }

    #[test]
    fn a_place_is_given_once() {
        let mut appends = Appends::new(V1);
        assert_eq!(appends.order(V1, Bytes::from_static(b"abc"), 1), Ok(0));
        assert_eq!(appends.order(V1, Bytes::from_static(b"d"), 2), Ok(3));
        let again = appends.accept(V1, 1, Bytes::from_static(b"x"), 3);
        assert!(matches!(again, Err(Refusal::Disorder(_))));
        appends.take().unwrap();
        let again = appends.accept(V1, 3, Bytes::from_static(b"d"), 4);
        assert!(matches!(again, Err(Refusal::Disorder(_))));
    }

    #[test]
    fn a_fenced_replica_takes_nothing_and_lets_nobody_wait() {
        let mut appends = Appends::new(V1);
        appends.order(V1, Bytes::from_static(b"abc"), 1).unwrap();
        let other = appends.order(ChunkVersion(2), Bytes::from_static(b"x"), 2);
        assert_eq!(other, Err(Refusal::OtherVersion));
        assert_eq!(appends.close("fenced".to_owned()), vec![1]);
        assert!(appends.take().is_none());
        let after = appends.order(V1, Bytes::from_static(b"x"), 2);
        assert_eq!(after, Err(Refusal::Closed("fenced".to_owned())));
    }

    #[test]
    fn a_failed_write_closes_the_replica() {
        let mut appends = Appends::new(V1);
        appends.order(V1, Bytes::from_static(b"a"), 1).unwrap();
        appends.take().unwrap();
        appends.order(V1, Bytes::from_static(b"b"), 2).unwrap();
        assert_eq!(appends.written(Some("disk".to_owned())), vec![2]);
        assert!(appends.order(V1, Bytes::from_static(b"c"), 3).is_err());
    }

    #[test]
    fn what_waits_and_what_fits_is_bounded() {
        let piece = Bytes::from(vec![0; 16 << 20]);
        let mut appends = Appends::new(V1);
        for offset in [0, 16 << 20] {
            assert_eq!(appends.order(V1, piece.clone(), ()), Ok(offset));
        }
        assert!(matches!(appends.order(V1, piece.clone(), ()), Err(Refusal::Disorder(_))));
        appends.take().unwrap();
        appends.written(None);
        appends.order(V1, piece.clone(), ()).unwrap();
        appends.order(V1, piece.clone(), ()).unwrap();
        appends.take().unwrap();
        assert_eq!(appends.order(V1, Bytes::from_static(b"x"), ()), Err(Refusal::Full));
    }
}
