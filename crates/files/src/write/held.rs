//! Chunks that writers on this node have bytes in, which no file refers to yet: they must not be
//! taken for garbage, however long a writer takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onefold_types::ChunkId;

/// The chunks that are held on a node, and how many writers hold each. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct HeldChunks(Arc<Mutex<BTreeMap<ChunkId, usize>>>);

impl HeldChunks {
    fn counts(&self) -> MutexGuard<'_, BTreeMap<ChunkId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held now.
    pub(crate) fn chunks(&self) -> Vec<ChunkId> {
        self.counts().keys().copied().collect()
    }

    /// A writer's holds, none yet.
    pub(super) fn holder(&self) -> Holder {
        Holder { held: self.clone(), chunks: Vec::new() }
    }
}

/// The holds of one writer; they end with it.
pub(super) struct Holder {
    held: HeldChunks,
    chunks: Vec<ChunkId>,
}

impl Holder {
    /// Holds a chunk.
    pub(super) fn hold(&mut self, chunk: ChunkId) {
        if self.chunks.last() != Some(&chunk) {
            self.chunks.push(chunk);
            *self.held.counts().entry(chunk).or_default() += 1;
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut counts = self.held.counts();
        for chunk in &self.chunks {
            if let Some(count) = counts.get_mut(chunk) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(chunk);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_held_until_its_last_holder_is_gone() {
        let held = HeldChunks::default();
        let (mut one, mut two) = (held.holder(), held.holder());
        for chunk in [1, 1, 2, 1] {
            one.hold(ChunkId(chunk));
        }
        two.hold(ChunkId(1));
        drop(one);
        assert_eq!(held.chunks(), vec![ChunkId(1)]);
        drop(two);
        assert!(held.chunks().is_empty());
    }
}
