//! A client that compacts history, after it has read back what is going to be forgotten.

use std::time::Duration;

use onefold_checker::history::{Action, Span};
use onefold_types::Revision;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio_util::sync::CancellationToken;

use super::readback::read_history;
use super::session::{Address, Session};

const REST_MAX: Duration = Duration::from_secs(12);
/// How far a compaction stays behind the present.
const KEPT_REVISIONS_MAX: u64 = 200;

/// A client that compacts.
pub struct Compactor {
    pub session: Session,
    pub addresses: std::sync::Arc<[Address]>,
    /// The last revision that was read back.
    pub read: Revision,
}

impl Compactor {
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.session.rest(REST_MAX) => {}
                () = stop.cancelled() => return,
            }
            // Never broken off: what was asked must be written down.
            self.compact().await;
        }
    }

    async fn compact(&mut self) {
        let look = Action::Range { span: Span::key("none"), at: None, serializable: false };
        let Some((present, _)) = self.session.ask(look).await else { return };
        let Some(address) = self.addresses.choose(&mut self.session.random) else { return };
        let recorder = self.session.recorder.clone();
        let from = self.read.next();
        // Without what it would forget there is nothing to compare with: then nothing is compacted.
        match read_history(address, &recorder, from, present).await {
            Ok(reading) => recorder.reading(reading),
            Err(error) => return tracing::debug!("history was not read back: {error:#}"),
        }
        self.read = self.read.max(present);
        let kept = self.session.random.random_range(0..KEPT_REVISIONS_MAX);
        let at = Revision(present.get().saturating_sub(kept));
        if at > recorder.compacted() {
            recorder.compacts(at);
            self.session.perform(Action::Compact { at }).await;
        }
    }
}
