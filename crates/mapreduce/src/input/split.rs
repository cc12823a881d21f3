//! Which map task reads what.

use std::collections::BTreeMap;

use onefold_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::api::limits::SPLIT_FILES_MAX;

/// Most bytes that the description of one split takes where jobs are stored.
const INPUT_BYTES_MAX: usize = 256 << 10;

/// Bytes that a range's description takes besides its strings, at most.
const RANGE_OVERHEAD_BYTES: usize = 32;

/// Splits that wait to be filled up at once; each is for another set of hosts.
const OPEN_SPLITS_MAX: usize = 64;

/// Hosts of a split that are remembered.
const HOSTS_MAX: usize = 5;

/// A range of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRange {
    /// `/BUCKET/KEY…`, or a path of the machine in a local run.
    pub(crate) file: String,
    /// The file's ETag when the job was prepared: what is read must still be that.
    pub(crate) etag: String,
    /// First byte.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// What one map task reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapInput {
    /// Ranges, one after the other.
    pub(crate) ranges: Vec<FileRange>,
    /// Nodes that hold most of the bytes, best first; empty when any node is as good.
    pub(crate) hosts: Vec<NodeId>,
}

impl MapInput {
    /// Bytes of all ranges.
    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.length).sum()
    }
}

/// Puts ranges of files together to splits: large ranges are splits of their own, small ones are
/// gathered with others that lie on the same nodes.
pub(crate) struct SplitPlanner {
    target_bytes: u64,
    /// By best host; ranges without hosts under `None`.
    open: BTreeMap<Option<NodeId>, Open>,
    full: Vec<MapInput>,
}

#[derive(Default)]
struct Open {
    ranges: Vec<FileRange>,
    bytes: u64,
    described_bytes: usize,
    /// Bytes that each node holds.
    hosts: BTreeMap<NodeId, u64>,
}

impl SplitPlanner {
    /// A planner of splits of about `target_bytes`, and never more unless one range has more.
    pub(crate) fn new(target_bytes: u64) -> Self {
        Self { target_bytes: target_bytes.max(1), open: BTreeMap::new(), full: Vec::new() }
    }

    /// Adds a range. `hosts` are the nodes that hold its bytes, best first.
    pub(crate) fn add(&mut self, range: FileRange, hosts: &[NodeId]) {
        if range.length == 0 {
            return;
        }
        // Any of its hosts will do: join the fullest split that is open there.
        let open_at =
            |host: &NodeId| self.open.get(&Some(*host)).map(|open| (open.bytes, Some(*host)));
        let joined = hosts.iter().filter_map(open_at).max_by_key(|(bytes, _)| *bytes);
        let slot = joined.map_or_else(|| hosts.first().copied(), |(_, host)| host);
        let described_bytes = range.file.len() + range.etag.len() + RANGE_OVERHEAD_BYTES;
        if let Some(open) = self.open.get(&slot) {
            let fits = open.bytes + range.length <= self.target_bytes
                && open.ranges.len() < SPLIT_FILES_MAX
                && open.described_bytes + described_bytes <= INPUT_BYTES_MAX;
            if !fits {
                self.close(slot);
            }
        }
        let open = self.open.entry(slot).or_default();
        for &host in hosts {
            *open.hosts.entry(host).or_default() += range.length;
        }
        open.bytes += range.length;
        open.described_bytes += described_bytes;
        open.ranges.push(range);
        if open.bytes >= self.target_bytes {
            self.close(slot);
        } else if self.open.len() > OPEN_SPLITS_MAX {
            let fullest = self.open.iter().max_by_key(|(_, open)| open.bytes);
            let fullest = fullest.map(|(&slot, _)| slot).expect("there are open splits");
            self.close(fullest);
        }
    }

    /// Splits so far, open ones included.
    pub(crate) fn len(&self) -> usize {
        self.full.len() + self.open.len()
    }

    /// All the splits; the largest first, so that the last tasks to run are short.
    pub(crate) fn finish(mut self) -> Vec<MapInput> {
        while let Some((&slot, _)) = self.open.first_key_value() {
            self.close(slot);
        }
        self.full.sort_by_key(|input| std::cmp::Reverse(input.bytes()));
        self.full
    }

    fn close(&mut self, slot: Option<NodeId>) {
        let Some(open) = self.open.remove(&slot) else { return };
        let mut hosts: Vec<(NodeId, u64)> = open.hosts.into_iter().collect();
        hosts.sort_by_key(|&(host, bytes)| (std::cmp::Reverse(bytes), host));
        let hosts = hosts.into_iter().take(HOSTS_MAX).map(|(host, _)| host).collect();
        self.full.push(MapInput { ranges: open.ranges, hosts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(file: &str, length: u64) -> FileRange {
        FileRange { file: file.to_owned(), etag: String::new(), offset: 0, length }
    }

    fn plan(target: u64, ranges: &[(&str, u64, &[u64])]) -> Vec<(Vec<String>, Vec<u64>)> {
        let mut planner = SplitPlanner::new(target);
        for (file, length, hosts) in ranges {
            let hosts: Vec<NodeId> = hosts.iter().map(|&host| NodeId(host)).collect();
            planner.add(range(file, *length), &hosts);
        }
        let splits = planner.finish().into_iter();
        splits
            .map(|split| {
                let files = split.ranges.into_iter().map(|range| range.file).collect();
                (files, split.hosts.into_iter().map(NodeId::get).collect())
            })
            .collect()
    }

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn large_ranges_stay_alone_and_small_ones_are_gathered_by_host() {
        let splits = plan(
            100,
            &[
                ("a", 100, &[1, 2]),
                ("b", 30, &[1]),
                ("c", 40, &[2]),
                ("d", 20, &[1]),
                ("e", 50, &[2]),
            ],
        );
        assert_eq!(splits[0], (files(&["a"]), vec![1, 2]));
        assert!(splits.contains(&(files(&["b", "d"]), vec![1])));
        assert!(splits.contains(&(files(&["c", "e"]), vec![2])));
        assert_eq!(splits.len(), 3);
    }

    #[test]
    fn a_split_never_exceeds_the_target_by_gathering() {
        let splits = plan(100, &[("a", 60, &[]), ("b", 60, &[]), ("c", 300, &[]), ("d", 0, &[])]);
        let mut names: Vec<_> = splits.into_iter().map(|(files, _)| files).collect();
        names.sort();
        assert_eq!(names, [files(&["a"]), files(&["b"]), files(&["c"])]);
    }

    #[test]
    fn many_small_files_are_bounded_by_number_and_by_description() {
        let mut planner = SplitPlanner::new(u64::MAX);
        let long = "x".repeat(1000);
        for _ in 0..600 {
            planner.add(range(&long, 1), &[]);
        }
        for number in 0..2500 {
            planner.add(range(&number.to_string(), 1), &[]);
        }
        let splits = planner.finish();
        assert_eq!(splits.iter().map(|split| split.ranges.len()).sum::<usize>(), 3100);
        for split in splits {
            assert!(split.ranges.len() <= SPLIT_FILES_MAX);
            let bytes: usize = split.ranges.iter().map(|range| range.file.len()).sum();
            assert!(bytes <= INPUT_BYTES_MAX);
        }
    }
}
