//! The users and roles as the store told them last.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::store::auth::AuthState;

/// The users and roles as the store told them last: at least as new as what readers see of a commit
/// before it, and perhaps not as new as a view that was just taken.
#[derive(Default)]
pub(crate) struct Known {
    is_enabled: AtomicBool,
    changes: AtomicU64,
    state: RwLock<Arc<AuthState>>,
}

impl Known {
    /// Takes what the store tells.
    pub(crate) fn set(&self, state: AuthState) {
        let is_enabled = state.switch.is_enabled;
        // Nothing under the lock panics.
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.is_enabled.store(is_enabled, Ordering::Release);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The users and roles.
    pub(crate) fn state(&self) -> Arc<AuthState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether authentication is on.
    pub(crate) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Acquire)
    }

    /// How often the store has told.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}
