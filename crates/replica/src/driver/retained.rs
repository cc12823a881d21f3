//! How much of a group's log is applied and still kept.

use std::collections::VecDeque;

use onefold_types::LogIndex;

/// Apply rounds smaller than this are counted together.
const STEP_BYTES: usize = 64 << 10;
const STEP_ENTRIES: u64 = 256;

/// Applied entries after the log's first, in steps of some kilobytes.
#[derive(Debug)]
pub(super) struct Retained {
    /// The last entry that is gone.
    before: LogIndex,
    /// The last entry of each step, and the bytes of its entries.
    steps: VecDeque<(LogIndex, usize)>,
    bytes: usize,
}

impl Retained {
    /// Nothing is kept after this entry.
    pub(super) fn after(before: LogIndex) -> Self {
        Self { before, steps: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn entries(&self) -> u64 {
        self.last().get() - self.before.get()
    }

    fn last(&self) -> LogIndex {
        self.steps.back().map_or(self.before, |(last, _)| *last)
    }

    /// Entries up to `index` were applied.
    pub(super) fn applied(&mut self, index: LogIndex, bytes: usize) {
        let before = self.last();
        if index <= before {
            return;
        }
        self.bytes += bytes;
        let start = self.steps.len().checked_sub(2).map_or(self.before, |at| self.steps[at].0);
        if let Some((last, step)) = self.steps.back_mut()
            && *step + bytes <= STEP_BYTES
            && index.get() - start.get() <= STEP_ENTRIES
        {
            *last = index;
            *step += bytes;
            return;
        }
        // A long round is as many steps as it is worth, of about the same size.
        let count = (index.get() - before.get()).div_ceil(STEP_ENTRIES);
        for number in 1..count {
            let last = LogIndex(before.get() + number * STEP_ENTRIES);
            self.steps.push_back((last, bytes / count as usize));
        }
        self.steps.push_back((index, bytes - bytes / count as usize * (count as usize - 1)));
    }

    /// The last entry that may go when so much is kept, and nothing after `durable` goes.
    pub(super) fn surplus(
        &self,
        keep_bytes: usize,
        keep_entries: u64,
        durable: LogIndex,
    ) -> Option<LogIndex> {
        let mut kept_bytes = 0;
        let newest = self.last();
        for (last, bytes) in self.steps.iter().rev() {
            if kept_bytes >= keep_bytes || newest.get() - last.get() >= keep_entries {
                let through = (*last).min(durable);
                return (through > self.before).then_some(through);
            }
            kept_bytes += bytes;
        }
        None
    }

    /// Entries up to `through` are gone.
    pub(super) fn compacted(&mut self, through: LogIndex) {
        while let Some((_, bytes)) = self.steps.pop_front_if(|(last, _)| *last <= through) {
            self.bytes -= bytes;
        }
        self.before = self.before.max(through);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retained() -> Retained {
        let mut retained = Retained::after(LogIndex(10));
        for index in 11..=20 {
            retained.applied(LogIndex(index), STEP_BYTES);
        }
        retained
    }

    #[test]
    fn what_is_kept_is_bounded_by_bytes_and_by_entries() {
        let retained = retained();
        let all = LogIndex(20);
        assert_eq!(retained.surplus(3 * STEP_BYTES, 100, all), Some(LogIndex(17)));
        assert_eq!(retained.surplus(usize::MAX, 4, all), Some(LogIndex(16)));
        assert_eq!(retained.surplus(usize::MAX, 100, all), None);
        assert_eq!(retained.surplus(0, 0, all), Some(LogIndex(20)));
    }

    #[test]
    fn nothing_goes_that_is_not_durable() {
        let retained = retained();
        assert_eq!(retained.surplus(0, 0, LogIndex(13)), Some(LogIndex(13)));
        assert_eq!(retained.surplus(0, 0, LogIndex(10)), None);
    }

    #[test]
    fn compaction_forgets_whole_steps() {
        let mut retained = retained();
        retained.compacted(LogIndex(15));
        assert_eq!((retained.entries(), retained.bytes()), (5, 5 * STEP_BYTES));
        retained.compacted(LogIndex(20));
        assert_eq!((retained.entries(), retained.bytes()), (0, 0));
        retained.applied(LogIndex(21), 1);
        assert_eq!((retained.entries(), retained.bytes()), (1, 1));
    }

    #[test]
    fn a_long_round_can_go_in_part() {
        let mut retained = Retained::after(LogIndex(0));
        retained.applied(LogIndex(10_000), 1_000_001);
        let through = retained.surplus(usize::MAX, 1000, LogIndex(10_000)).expect("a surplus");
        assert!((8_500..=9_000).contains(&through.get()), "{through}");
        retained.compacted(LogIndex(10_000));
        assert_eq!((retained.entries(), retained.bytes()), (0, 0));
    }

    #[test]
    fn small_rounds_share_a_step() {
        let mut retained = Retained::after(LogIndex(0));
        for index in 1..=10_000 {
            retained.applied(LogIndex(index), 100);
        }
        assert!(retained.steps.len() <= 50, "{} steps", retained.steps.len());
        assert_eq!((retained.entries(), retained.bytes()), (10_000, 1_000_000));
    }
}
