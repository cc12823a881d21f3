//! How much of a group's log is not applied yet.

use std::collections::VecDeque;

use onefold_types::LogIndex;

/// The entries after the last applied one, and their bytes. As long as the part of the core's log
/// that it mirrors.
#[derive(Debug, Default)]
pub(super) struct Unapplied {
    entries: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl Unapplied {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An entry was added to the log; it replaces what was there from its index on.
    pub(super) fn logged(&mut self, index: LogIndex, bytes: usize) {
        while let Some((_, replaced)) = self.entries.pop_back_if(|(last, _)| *last >= index) {
            self.bytes -= replaced;
        }
        self.entries.push_back((index, bytes));
        self.bytes += bytes;
    }

    /// Everything up to an index is applied.
    pub(super) fn applied(&mut self, index: LogIndex) {
        while let Some((_, bytes)) = self.entries.pop_front_if(|(first, _)| *first <= index) {
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_were_replaced_do_not_count() {
        let mut unapplied = Unapplied::default();
        for index in 1..=10 {
            unapplied.logged(LogIndex(index), 100);
        }
        unapplied.applied(LogIndex(4));
        assert_eq!(unapplied.bytes(), 600);
        unapplied.logged(LogIndex(7), 1);
        assert_eq!(unapplied.bytes(), 201);
        unapplied.applied(LogIndex(7));
        assert_eq!(unapplied.bytes(), 0);
    }
}
