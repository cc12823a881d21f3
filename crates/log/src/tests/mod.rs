//! The log's thread driven step by step, with crashes and damage, against a model.

#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod failure;
mod fuzz;
mod model;
mod recovery;

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::format::{BATCH_HEADER_BYTES, write_bytes};
use crate::log::{LogOptions, SEGMENT_BYTES_MIN};
use crate::manifest::Manifest;
use crate::queue::{Pending, Queue};
use crate::recovery::recover;
use crate::status::Counters;
use crate::writer::Writer;
use crate::{LogError, Recovered, Write};

/// Small segments, so that short runs fill and remove many.
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: SEGMENT_BYTES_MIN,
    retained_bytes: 4 * SEGMENT_BYTES_MIN,
    queue_bytes: 1 << 20,
    owner: 7,
    must_exist: false,
};

type Outcomes = Arc<Mutex<Vec<Result<(), LogError>>>>;

/// A log without its thread.
struct Driver {
    writer: Writer,
    outcomes: Outcomes,
}

impl Driver {
    fn open(path: &Path) -> Result<(Self, Recovered), LogError> {
        let manifest = match Manifest::read(path, OPTIONS.owner)? {
            Some(manifest) => manifest,
            None => Manifest::empty(OPTIONS.owner).write(path)?,
        };
        let mut found = recover(path, manifest)?;
        let recovered = std::mem::take(&mut found.recovered);
        let queue = Arc::new(Queue::new(OPTIONS.queue_bytes));
        let counters = Arc::new(Counters::of(&found));
        let writer = Writer::new(path.to_owned(), OPTIONS, found, queue, counters)?;
        Ok((Self { writer, outcomes: Outcomes::default() }, recovered))
    }

    /// Makes appends durable that waited together, and answers their outcomes.
    fn commit(&mut self, appends: Vec<Vec<Write>>) -> Vec<Result<(), LogError>> {
        let group = appends.into_iter().map(|writes| self.pending(writes)).collect();
        self.writer.commit(group).unwrap();
        std::mem::take(&mut self.outcomes.lock().unwrap())
    }

    /// Commits, and then cleans until there is nothing to clean.
    fn serve(&mut self, appends: Vec<Vec<Write>>) {
        for outcome in self.commit(appends) {
            outcome.unwrap();
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.writer.settle().unwrap();
        while self.writer.cleaning.is_some() {
            self.writer.serve(Vec::new()).unwrap();
        }
    }

    fn pending(&self, writes: Vec<Write>) -> Pending {
        let body: usize = writes.iter().map(write_bytes).sum();
        let bytes = if writes.is_empty() { 0 } else { BATCH_HEADER_BYTES + body };
        let outcomes = self.outcomes.clone();
        let done = move |outcome| outcomes.lock().unwrap().push(outcome);
        Pending { writes, bytes: bytes as u64, done: Box::new(done) }
    }
}
