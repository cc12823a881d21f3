//! Clients that move amounts between accounts, in transactions that must see both unchanged.

use std::time::Duration;

use onefold_checker::history::{Accounts, Action, Answer, Compare, Record, Span};
use onefold_types::Revision;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio_util::sync::CancellationToken;

use super::session::Session;

const ACCOUNTS: usize = 5;
const AMOUNT_AT_FIRST: i64 = 100;
const REST_MAX: Duration = Duration::from_millis(60);

/// A client of accounts.
pub struct TransferClient {
    pub session: Session,
    pub prefix: String,
}

impl TransferClient {
    /// The accounts and their sum.
    pub fn accounts(prefix: &str) -> Accounts {
        let total = AMOUNT_AT_FIRST * i64::try_from(ACCOUNTS).unwrap_or(0);
        Accounts { span: Span::prefix(prefix), total, count: ACCOUNTS }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.session.rest(REST_MAX).await;
            let read =
                Action::Range { span: Span::prefix(&self.prefix), at: None, serializable: false };
            let Some((_, Answer::Range(accounts))) = self.session.ask(read).await else { continue };
            let action = match accounts.len() {
                0 => self.open(),
                _ => self.transfer(&accounts),
            };
            if let Some(action) = action {
                self.session.perform(action).await;
            }
        }
    }

    /// Opens all accounts at once, unless somebody was faster.
    fn open(&mut self) -> Option<Action> {
        let key = |number: usize| format!("{}{number}", self.prefix);
        let compares = vec![Compare::Modified { key: key(0), at: Revision::ZERO }];
        let keys: Vec<String> = (0..ACCOUNTS).map(key).collect();
        let success = keys.into_iter().map(|key| self.put(key, AMOUNT_AT_FIRST)).collect();
        Some(Action::Txn { compares, success, failure: Vec::new() })
    }

    fn transfer(&mut self, accounts: &[Record]) -> Option<Action> {
        let pair: Vec<&Record> = accounts.choose_multiple(&mut self.session.random, 2).collect();
        let [from, to] = pair[..] else { return None };
        let amount = |record: &Record| record.value.split(':').next()?.parse::<i64>().ok();
        let (from_amount, to_amount) = (amount(from)?, amount(to)?);
        let moved = self.session.random.random_range(0..=from_amount.max(0));
        let unchanged =
            |record: &Record| Compare::Modified { key: record.key.clone(), at: record.modified };
        let compares = vec![unchanged(from), unchanged(to)];
        let success = vec![
            self.put(from.key.clone(), from_amount - moved),
            self.put(to.key.clone(), to_amount + moved),
        ];
        let look = |record: &Record| Action::Range {
            span: Span::key(&record.key),
            at: None,
            serializable: false,
        };
        Some(Action::Txn { compares, success, failure: vec![look(from), look(to)] })
    }

    fn put(&mut self, key: String, amount: i64) -> Action {
        let value = format!("{amount}:{}", self.session.fresh_value());
        Action::Put { key, value, lease: 0, previous: false }
    }
}
