//! What the store knows about itself.

use onefold_table::{TableError, View};
use onefold_types::{Revision, Term};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::import::Import;
use super::keys::{self, EventId};
use super::stored::damaged;
use super::usage::Usage;
use crate::KvError;

/// The format of the record of a store that stands open to all.
const FORMAT: u8 = 3;

/// The format of a store's state while it is filled by an import: the state, then the import.
const FORMAT_IMPORTING: u8 = 4;

/// The format while authentication is on: the state, then the auth revision, then the import if
/// there is one.
const FORMAT_WITH_AUTH: u8 = 5;

/// The revision of an empty store, as etcd counts.
const REVISION_FIRST: Revision = Revision(1);

/// What the store knows about itself, in one record beside the data it describes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The oldest readable revision; zero when nothing was compacted yet.
    pub(crate) compacted: Revision,
    /// Up to where compaction has removed records: everything for this `compacted`.
    pub(crate) swept: Revision,
    /// Where the sweep goes on, as revision and operation within it.
    pub(crate) sweep_from: (Revision, u32),
    /// The term whose leader may expire leases.
    pub(crate) lessor_term: Term,
    /// Counts the lease ids that the store chose.
    pub(crate) leases_named: u64,
    /// The room that the store takes.
    pub(crate) usage: Usage,
    /// The auth revision while authentication is on. It is here so that a reader, who needs this
    /// record anyhow, knows in the same view whether to ask what the caller may do.
    #[serde(skip)]
    pub(crate) enforced: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            revision: REVISION_FIRST,
            compacted: Revision::ZERO,
            swept: Revision::ZERO,
            sweep_from: (Revision::ZERO, 0),
            lessor_term: Term::ZERO,
            leases_named: 0,
            usage: Usage::default(),
            enforced: None,
        }
    }
}

impl State {
    /// The state in a view, for whoever reads the view with it; that of an empty store if there is
    /// none yet.
    ///
    /// # Errors
    /// [`KvError::Importing`] when what the view shows is not whole yet.
    pub(crate) fn read(view: &dyn View) -> Result<Self, StoreError> {
        match Self::read_with_import(view)? {
            (state, None) => Ok(state),
            (_, Some(_)) => Err(KvError::Importing.into()),
        }
    }

    /// The state in a view, and the import that fills it.
    pub(crate) fn read_with_import(view: &dyn View) -> Result<(Self, Option<Import>), TableError> {
        let Some(stored) = view.get(keys::STATE)? else { return Ok((Self::default(), None)) };
        let read = match stored.split_first() {
            Some((&FORMAT, record)) => postcard::from_bytes(record).map(|state| (state, None)),
            Some((&FORMAT_IMPORTING, record)) => {
                postcard::from_bytes(record).map(|(state, import)| (state, Some(import)))
            }
            Some((&FORMAT_WITH_AUTH, record)) => {
                let read = postcard::from_bytes::<(Self, _, _)>(record);
                read.map(|(state, revision, import)| {
                    (Self { enforced: Some(revision), ..state }, import)
                })
            }
            _ => {
                return Err(damaged(
                    "the store's state (perhaps that of another version of the program)",
                ));
            }
        };
        read.map_err(|_| damaged("the store's state"))
    }

    /// The record of this state, and of the import that fills the store.
    pub(crate) fn encode(&self, import: Option<&Import>) -> Vec<u8> {
        let encoded = match (self.enforced, import) {
            (Some(revision), import) => {
                postcard::to_extend(&(self, revision, import), vec![FORMAT_WITH_AUTH])
            }
            (None, None) => postcard::to_extend(self, vec![FORMAT]),
            (None, Some(import)) => postcard::to_extend(&(self, import), vec![FORMAT_IMPORTING]),
        };
        encoded.expect("numbers always serialize")
    }

    /// Where the sweep of the event log goes on.
    pub(crate) fn sweep_from(&self) -> EventId {
        EventId { revision: self.sweep_from.0, sub: self.sweep_from.1 }
    }

    /// Whether compacted history is still in the table.
    pub(crate) fn sweep_is_due(&self) -> bool {
        self.swept < self.compacted
    }

    /// The revision to read at: the asked one if it is readable, the present one for zero.
    pub(crate) fn readable(&self, asked: Revision) -> Result<Revision, KvError> {
        if asked == Revision::ZERO {
            Ok(self.revision)
        } else if asked > self.revision {
            Err(KvError::FutureRevision { requested: asked, current: self.revision })
        } else if asked < self.compacted {
            Err(KvError::Compacted { requested: asked, compacted: self.compacted })
        } else {
            Ok(asked)
        }
    }
}
