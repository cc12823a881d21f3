//! A cluster that does what it is told, or refuses.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use onefold_etcd::{ClusterControl, ControlError};

/// Notes what it was asked, and refuses everything once it is told how.
#[derive(Default)]
pub(crate) struct TestControl {
    asked: Mutex<Vec<String>>,
    refusal: Mutex<Option<ControlError>>,
    downgrade: Mutex<Option<String>>,
}

impl TestControl {
    pub(crate) fn refuse(&self, error: ControlError) {
        *lock(&self.refusal) = Some(error);
    }

    /// What was asked since this was last called.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.asked))
    }

    fn note(&self, what: String) -> Result<(), ControlError> {
        lock(&self.asked).push(what);
        lock(&self.refusal).clone().map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics with it")
}

#[async_trait]
impl ClusterControl for TestControl {
    async fn refresh(&self) -> Result<(), ControlError> {
        self.note("refresh".to_owned())
    }

    async fn add_member(&self, address: String, as_learner: bool) -> Result<u64, ControlError> {
        self.note(format!("add {address} {as_learner}"))?;
        Ok(2)
    }

    async fn remove_member(&self, member: u64) -> Result<(), ControlError> {
        self.note(format!("remove {member}"))
    }

    async fn move_member(&self, member: u64, address: String) -> Result<(), ControlError> {
        self.note(format!("move {member} {address}"))
    }

    async fn promote_member(&self, member: u64) -> Result<(), ControlError> {
        self.note(format!("promote {member}"))
    }

    async fn move_leader(&self, to: u64) -> Result<(), ControlError> {
        self.note(format!("lead {to}"))
    }

    async fn set_downgrade(&self, target: Option<String>) -> Result<(), ControlError> {
        *lock(&self.downgrade) = target;
        Ok(())
    }

    async fn downgrade(&self) -> Result<Option<String>, ControlError> {
        Ok(lock(&self.downgrade).clone())
    }
}
