//! How groups and keyspaces share what a node has once.
//!
//! The rule is that of shared packet buffers (Choudhury and Hahne, "Dynamic queue length thresholds
//! for shared-memory packet switches", 1998): a group may hold as much as is still free. One busy
//! group gets half, two get a third each, and whoever comes next always finds as much room as each
//! of the busy ones has, without anybody counting groups or setting shares.

/// Whether a group that holds `own` of `total` may take `more`, where there is room for `total_max`.
#[must_use]
pub const fn allows(own: usize, more: usize, total: usize, total_max: usize) -> bool {
    own.saturating_add(more) <= total_max.saturating_sub(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of some groups gets that take as much as they may, one unit in turn.
    fn greedy(groups: usize, total_max: usize) -> Vec<usize> {
        let mut held = vec![0; groups];
        loop {
            let before = held.clone();
            for group in 0..groups {
                let total = held.iter().sum();
                if allows(held[group], 1, total, total_max) {
                    held[group] += 1;
                }
            }
            if held == before {
                return held;
            }
        }
    }

    #[test]
    fn busy_groups_get_equal_shares_and_leave_one_free() {
        for groups in [1, 2, 3, 9] {
            let held = greedy(groups, 1_000);
            let share = 1_000 / (groups + 1);
            assert!(held.iter().all(|held| held.abs_diff(share) <= 1), "{groups}: {held:?}");
            let total: usize = held.iter().sum();
            assert!(allows(0, share - 1, total, 1_000), "a quiet group finds room");
            assert!(total <= 1_000);
        }
    }

    #[test]
    fn nothing_overflows() {
        assert!(!allows(usize::MAX, usize::MAX, 0, 10));
        assert!(!allows(0, 1, usize::MAX, 10));
        assert!(allows(0, 0, 10, 10));
    }
}
