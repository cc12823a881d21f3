//! What clients of a whole store ask for.

use onefold_checker::history::{Action, Answer, Compare, Span};
use onefold_replica::SessionTag;
use onefold_types::{NodeId, Revision};

use super::{
    super::{
        checker::{Checked, Violation},
        coverage::Branch,
        event::{Ask, Freshness, Outcome, Query},
        history::OpId,
        sabotage::Sabotage,
        world::World,
    },
    words::{self, Asking},
};

/// Keys are named by numbers below this.
const KEYS: u64 = 6;

/// Transactions within transactions.
const DEPTH_MAX: u32 = 2;

fn key(number: u64) -> String {
    format!("k{}{number}", number % 2)
}

impl World {
    /// What a client of a store asks for next, and how fresh the answer must be.
    pub(in super::super) fn ask_of_store(&mut self, group: usize, op: OpId) -> (Ask, Freshness) {
        let mut values = 0;
        let action = match self.is_healed {
            // What is asked in the end must not keep a lease alive.
            true => self.put(op, &mut values, None),
            false => self.action(group, op, &mut values),
        };
        let session = self.clients[op.client as usize].session();
        let is_tagged = self.is_healed || self.random.chance(self.plan.store.tagged);
        let mut freshness = Freshness::Linearizable;
        if let Action::Range { serializable: true, .. } = &action {
            freshness = Freshness::Local;
        }
        let ask = match words::asking(&self.sabotaged(&action)) {
            Asking::Command(command) => Ask::Write {
                tag: is_tagged.then_some(SessionTag {
                    session,
                    sequence: op.number,
                    acknowledged_below: op.number,
                }),
                command,
            },
            Asking::Range(request) => Ask::Read { query: Query::Range(request), freshness },
            Asking::Txn(request) => Ask::Read { query: Query::Txn(request), freshness },
            Asking::KeepAlive(lease) => Ask::KeepAlive(lease),
        };
        self.accounts[group].begins(op, action, self.now);
        (ask, freshness)
    }

    /// What is asked for where a client asks for this.
    fn sabotaged(&self, action: &Action) -> Action {
        match (self.sabotage, action.clone()) {
            (Some(Sabotage::TxnHalfDone), Action::Txn { compares, mut success, failure }) => {
                success.truncate(success.len().div_ceil(2));
                Action::Txn { compares, success, failure }
            }
            (Some(Sabotage::CompactionTakesMore), Action::Compact { at }) => {
                Action::Compact { at: at.next() }
            }
            (_, action) => action,
        }
    }

    fn action(&mut self, group: usize, op: OpId, values: &mut u64) -> Action {
        let lease = self.lease(group);
        if let Some(lease) = lease
            && self.random.chance(self.plan.store.keep_alives)
        {
            return Action::KeepAlive { lease };
        }
        match self.random.within(0..=99) {
            0..25 => self.put(op, values, lease),
            25..33 => Action::Delete { span: self.span(), previous: self.random.chance(500) },
            33..55 => self.txn(group, op, values, DEPTH_MAX),
            55..78 => self.range(group),
            78..82 => {
                let end = self.accounts[group].end().get();
                // Now and then one that is refused.
                let at = (end + 1).saturating_sub(self.random.within(0..=30)).max(1);
                Action::Compact { at: Revision(at) }
            }
            82..94 => {
                let ttl_seconds = self.random.within(1..=self.plan.store.ttl_seconds_max);
                Action::Grant { ttl_seconds }
            }
            94..97 => match lease {
                Some(lease) => Action::Revoke { lease },
                None => self.put(op, values, None),
            },
            _ => self.put(op, values, lease),
        }
    }

    /// One of the leases that were granted last.
    fn lease(&mut self, group: usize) -> Option<u64> {
        let leases = &self.accounts[group].leases;
        let newest = leases.len().saturating_sub(4);
        let newest = leases[newest..].to_vec();
        (!newest.is_empty()).then(|| self.random.pick(&newest))
    }

    fn put(&mut self, op: OpId, values: &mut u64, lease: Option<u64>) -> Action {
        let number = self.random.within(0..=KEYS - 1);
        let is_leased = self.random.chance(400);
        let lease = lease.filter(|_| is_leased).unwrap_or(0);
        let previous = self.random.chance(500);
        self.put_to(key(number), op, values, lease, previous)
    }

    /// A value is written once only, by which it is known who wrote it.
    fn put_to(
        &mut self,
        key: String,
        op: OpId,
        values: &mut u64,
        lease: u64,
        previous: bool,
    ) -> Action {
        *values += 1;
        let padding = self.random.within(0..=self.plan.value_bytes_max) as usize;
        let value = format!("{}.{}.{values}:{:padding$}", op.client, op.number, "");
        Action::Put { key, value, lease, previous }
    }

    fn span(&mut self) -> Span {
        match self.random.within(0..=9) {
            0..=5 => Span::key(key(self.random.within(0..=KEYS - 1))),
            6 => Span::prefix("k0"),
            7 => Span::prefix("k1"),
            8 => {
                let from = key(self.random.within(0..=KEYS - 1));
                Span { from, until: Some("l".to_owned()) }
            }
            _ => Span::everything(),
        }
    }

    fn range(&mut self, group: usize) -> Action {
        let end = self.accounts[group].end().get();
        let at = match self.random.within(0..=9) {
            0..=5 => None,
            // Now and then one that is to come.
            _ => Some((end + 1).saturating_sub(self.random.within(0..=40)).max(1)),
        };
        let serializable = self.random.chance(200);
        Action::Range { span: self.span(), at: at.map(Revision), serializable }
    }

    /// Reads and writes several keys, each at most once.
    fn txn(&mut self, group: usize, op: OpId, values: &mut u64, depth: u32) -> Action {
        let mut compares = Vec::new();
        for _ in 0..self.random.within(0..=3) {
            let key = key(self.random.within(0..=KEYS - 1));
            let known = self.accounts[group].known.get(&key);
            let (value, at) = known.map_or((String::new(), Revision::ZERO), |record| {
                (record.value.clone(), record.modified)
            });
            compares.push(match self.random.chance(500) {
                true => Compare::Value { key, value },
                false => Compare::Modified { key, at },
            });
        }
        // Each branch has its own keys, and so have transactions within it.
        let mut free: Vec<u64> = (0..KEYS).collect();
        let success = self.branch(group, op, values, depth, &mut free);
        let mut free: Vec<u64> = (0..KEYS).collect();
        let failure = self.branch(group, op, values, depth, &mut free);
        Action::Txn { compares, success, failure }
    }

    fn branch(
        &mut self,
        group: usize,
        op: OpId,
        values: &mut u64,
        depth: u32,
        free: &mut Vec<u64>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..self.random.within(0..=4) {
            if free.is_empty() {
                break;
            }
            let place = self.random.within(0..=free.len() as u64 - 1) as usize;
            let kind = self.random.within(0..=9);
            if kind < 7 {
                let key = key(free.swap_remove(place));
                actions.push(match kind {
                    0..=4 => {
                        let previous = self.random.chance(500);
                        self.put_to(key, op, values, 0, previous)
                    }
                    _ => Action::Delete { span: Span::key(key), previous: self.random.chance(500) },
                });
            } else if kind < 9 || depth == 0 {
                actions.push(Action::Range { span: self.span(), at: None, serializable: false });
            } else {
                actions.push(self.inner_txn(group, op, values, depth - 1, free));
            }
        }
        actions
    }

    fn inner_txn(
        &mut self,
        group: usize,
        op: OpId,
        values: &mut u64,
        depth: u32,
        free: &mut Vec<u64>,
    ) -> Action {
        self.coverage.hit(Branch::TxnNested);
        let key = key(self.random.within(0..=KEYS - 1));
        let known = self.accounts[group].known.get(&key);
        let at = known.map_or(Revision::ZERO, |record| record.modified);
        let at = if self.random.chance(500) { at } else { Revision(at.get() + 1) };
        let compares = vec![Compare::Modified { key, at }];
        let success = self.branch(group, op, values, depth, free);
        let failure = self.branch(group, op, values, depth, free);
        Action::Txn { compares, success, failure }
    }

    /// An answer of a store reaches the client that waits for it.
    pub(in super::super) fn store_answered(
        &mut self,
        group: usize,
        op: OpId,
        node: NodeId,
        outcome: Outcome,
    ) -> Checked {
        let answered = match outcome {
            Outcome::Written(answer) => words::answered(&answer),
            Outcome::Answered(answered) => answered,
            other => {
                let detail = format!("{op} got {other:?}");
                return Err(Violation { invariant: "answers fit their questions", detail });
            }
        };
        let account = &mut self.accounts[group];
        if let Ok((_, Answer::Granted { lease, .. })) = &answered {
            account.leases.push(*lease);
        }
        match (&answered, account.action(op)) {
            (Ok((_, Answer::Txn { .. })), _) => self.coverage.hit(Branch::TxnAnswered),
            (Ok((_, Answer::KeptAlive { ttl_seconds: 1.. })), _) => {
                self.coverage.hit(Branch::LeaseRenewed);
            }
            (Ok(_), Some(Action::Range { at: Some(_), .. })) => {
                self.coverage.hit(Branch::PastRead);
            }
            (Ok(_), Some(Action::Compact { .. })) => self.coverage.hit(Branch::HistoryCompacted),
            (Err(onefold_checker::history::Refusal::Compacted), _) => {
                self.coverage.hit(Branch::CompactedRefused);
            }
            _ => {}
        }
        self.accounts[group].answered(op, node, answered, self.now);
        self.history.checked += 1;
        Ok(())
    }
}
