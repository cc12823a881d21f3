//! A client of large transactions: their events are too large for one message of a watch.

use std::time::Duration;

use onefold_checker::history::{Action, Span};
use tokio_util::sync::CancellationToken;

use super::session::Session;

const KEYS: u64 = 8;
/// Together just below the limit of a request.
const VALUE_BYTES: usize = 170_000;
const REST_MAX: Duration = Duration::from_secs(8);

/// A client of large transactions.
pub struct BulkClient {
    pub session: Session,
    pub prefix: String,
}

impl BulkClient {
    pub async fn run(mut self, stop: CancellationToken) {
        let mut deletes = false;
        while !stop.is_cancelled() {
            let key = |number| format!("{}{number}", self.prefix);
            let keys: Vec<String> = (0..KEYS).map(key).collect();
            let mut success = Vec::new();
            for (place, key) in keys.into_iter().enumerate() {
                // Every other time the first key goes, so that a revision has puts and deletions.
                success.push(match place == 0 && deletes {
                    true => Action::Delete { span: Span::key(key), previous: false },
                    false => {
                        let value = format!("{}+{VALUE_BYTES}", self.session.fresh_value());
                        Action::Put { key, value, lease: 0, previous: false }
                    }
                });
            }
            deletes = !deletes;
            let txn = Action::Txn { compares: Vec::new(), success, failure: Vec::new() };
            self.session.perform(txn).await;
            tokio::select! {
                () = self.session.rest(REST_MAX) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}
