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

    /// Entries up to `index` were applied. Answers how many those are.
    pub(super) fn applied(&mut self, index: LogIndex, bytes: usize) -> usize {
        let before = self.last();
        if index <= before {
            return 0;
        }
        let entries = index.get() - before.get();
        self.bytes += bytes;
        let start = self.steps.len().checked_sub(2).map_or(self.before, |at| self.steps[at].0);
        if let Some((last, step)) = self.steps.back_mut()
            && *step + bytes <= STEP_BYTES
            && index.get() - start.get() <= STEP_ENTRIES
        {
            *last = index;
            *step += bytes;
            return entries as usize;
        }
        // A long round is as many steps as it is worth, of about the same size.
        let count = entries.div_ceil(STEP_ENTRIES);
        for number in 1..count {
            let last = LogIndex(before.get() + number * STEP_ENTRIES);
            self.steps.push_back((last, bytes / count as usize));
        }
        self.steps.push_back((index, bytes - bytes / count as usize * (count as usize - 1)));
        entries as usize
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

    /// The last entry that must go so that at most so much is kept; nothing after `durable` goes.
    pub(super) fn excess(&self, keep_bytes_max: usize, durable: LogIndex) -> Option<LogIndex> {
        let mut kept_bytes = 0;
        for (last, bytes) in self.steps.iter().rev() {
            kept_bytes += bytes;
            if kept_bytes > keep_bytes_max {
                let through = (*last).min(durable);
                return (through > self.before).then_some(through);
            }
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

/// The size down to which the biggest must go so that all together are at most `total_max`.
pub(super) fn level(mut sizes: Vec<usize>, total_max: usize) -> usize {
    sizes.sort_unstable();
    let mut left = total_max;
    let count = sizes.len();
    for (place, size) in sizes.into_iter().enumerate() {
        // If all that are at least as big as this one had its size, would they fit?
        let share = left / (count - place);
        if size > share {
            return share;
        }
        left -= size;
    }
    usize::MAX
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
    fn an_excess_goes_so_that_no_more_than_allowed_is_kept() {
        let retained = retained();
        let all = LogIndex(20);
        assert_eq!(retained.excess(3 * STEP_BYTES, all), Some(LogIndex(17)));
        assert_eq!(retained.excess(3 * STEP_BYTES - 1, all), Some(LogIndex(18)));
        assert_eq!(retained.excess(0, all), Some(LogIndex(20)));
        assert_eq!(retained.excess(0, LogIndex(13)), Some(LogIndex(13)));
        assert_eq!(retained.excess(10 * STEP_BYTES, all), None);
    }

    #[test]
    fn the_biggest_go_down_to_one_level_and_the_small_stay() {
        assert_eq!(level(vec![10, 100, 30], 1000), usize::MAX);
        assert_eq!(level(vec![10, 100, 30], 100), 60);
        assert_eq!(level(vec![10, 100, 90], 100), 45);
        assert_eq!(level(vec![50; 4], 100), 25);
        assert_eq!(level(vec![], 0), usize::MAX);
        for total_max in 0..220 {
            let sizes = vec![1, 5, 20, 90, 100];
            let cut = level(sizes.clone(), total_max);
            let total: usize = sizes.into_iter().map(|size| size.min(cut)).sum();
            assert!(total <= total_max || cut == usize::MAX);
        }
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
