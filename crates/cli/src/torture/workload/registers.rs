//! Clients of single keys: read, put, swap, delete, compare and swap, now and then, here and there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use onefold_checker::history::{Action, Answer, Compare, Outcome, Span};
use onefold_types::Revision;
use rand::Rng;
use tokio_util::sync::CancellationToken;

use super::session::Session;

/// Registers that are in use at the same time.
const REGISTERS: u64 = 5;
/// Operations on all registers after which others are used, so that no history gets too long to be
/// searched.
const OPERATIONS_PER_GENERATION: u64 = 2_000;
/// Longest rest between two operations of a client.
const REST_MAX: Duration = Duration::from_millis(12);
/// How far back reads of old revisions go.
const LOOK_BACK_REVISIONS: u64 = 400;

/// Counts the operations on registers, for all clients.
pub type Count = Arc<AtomicU64>;

/// A client of registers.
pub struct RegisterClient {
    pub session: Session,
    pub prefix: String,
    pub begin: Revision,
    pub count: Count,
}

impl RegisterClient {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
        while !stop.is_cancelled() {
            self.session.rest(REST_MAX).await;
            let generation = self.count.fetch_add(1, Ordering::Relaxed) / OPERATIONS_PER_GENERATION;
            let folder = format!("{}{generation}/", self.prefix);
            let key = format!("{folder}{}", self.session.random.random_range(0..REGISTERS));
            let action = self.draw(&folder, &key, known.get(&key).cloned().flatten());
            let written = written(&action);
            if let Some(outcome) = self.session.perform(action).await {
                learn(&mut known, &key, written, &outcome);
            }
            known.retain(|key, _| key.starts_with(&folder));
        }
    }

    fn draw(&mut self, folder: &str, key: &str, expected: Option<String>) -> Action {
        let own = Span::key(key);
        let value = self.session.fresh_value();
        let random = &mut self.session.random;
        let put = |previous| Action::Put {
            key: key.to_owned(),
            value: value.clone(),
            lease: 0,
            previous,
        };
        let read = |span, at, serializable| Action::Range { span, at, serializable };
        match random.random_range(0..100) {
            0..25 => read(own, None, false),
            25..45 => put(false),
            45..55 => put(true),
            55..63 => Action::Delete { span: own, previous: random.random() },
            63..83 => {
                let compare = match expected {
                    Some(value) => Compare::Value { key: key.to_owned(), value },
                    None => Compare::Modified { key: key.to_owned(), at: Revision::ZERO },
                };
                let failure = vec![read(own, None, false)];
                Action::Txn { compares: vec![compare], success: vec![put(false)], failure }
            }
            83..88 => read(Span::prefix(folder), None, false),
            88..94 => read(Span::prefix(folder), None, true),
            _ => {
                let latest = self.session.recorder.latest().get();
                let back = random.random_range(0..LOOK_BACK_REVISIONS);
                let at = Revision(latest.saturating_sub(back)).max(self.begin);
                read(Span::prefix(folder), Some(at), random.random())
            }
        }
    }
}

/// The value that an action writes if it is done.
fn written(action: &Action) -> Option<String> {
    match action {
        Action::Put { value, .. } => Some(value.clone()),
        Action::Txn { success, .. } => success.first().and_then(written),
        _ => None,
    }
}

/// Remembers what a register held last, so that comparisons often hold.
fn learn(
    known: &mut BTreeMap<String, Option<String>>,
    key: &str,
    written: Option<String>,
    outcome: &Outcome,
) {
    let Outcome::Answered { answer, .. } = outcome else { return };
    let read = |records: &[onefold_checker::history::Record]| {
        records.iter().find(|record| record.key == key).map(|record| record.value.clone())
    };
    let held = match answer {
        Answer::Put(_) => written,
        Answer::Txn { succeeded: true, .. } => written,
        Answer::Txn { answers, .. } => match &answers[..] {
            [Answer::Range(records)] => read(records),
            _ => None,
        },
        Answer::Range(records) => read(records),
        _ => None,
    };
    known.insert(key.to_owned(), held);
}
