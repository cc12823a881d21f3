//! Cutting files into ranges that are read where their bytes are.

use std::collections::BTreeMap;

use onefold_types::{ChunkId, NodeId};

use crate::api::{FilePath, Split};
use crate::namespace::{Content, Extent};

/// The ranges of one file. A range ends with a chunk when that makes it between a half and one and a
/// half of the target.
pub(super) fn split(
    file: &FilePath,
    etag: &str,
    content: &Content,
    target: u64,
    replicas: &BTreeMap<ChunkId, Vec<NodeId>>,
) -> Vec<Split> {
    let target = target.max(1);
    let make = |offset, length, hosts| Split {
        file: file.clone(),
        etag: etag.to_owned(),
        offset,
        length,
        hosts,
    };
    let Content::Extents(extents) = content else {
        let size = content.size();
        let starts = (0..size).step_by(usize::try_from(target).unwrap_or(usize::MAX));
        return starts.map(|at| make(at, target.min(size - at), Vec::new())).collect();
    };
    let mut splits = Vec::new();
    let (mut start, mut length) = (0, 0);
    let mut inside: Vec<Extent> = Vec::new();
    for extent in extents {
        let mut rest = *extent;
        while rest.length > 0 {
            let missing = target - length;
            // The rest of this extent goes along whole when it is not much more than is missing.
            let all = u64::from(rest.length) <= missing + target / 2;
            let take = if all { rest.length } else { missing as u32 };
            inside.push(Extent { length: take, ..rest });
            rest = Extent { offset: rest.offset + take, length: rest.length - take, ..rest };
            length += u64::from(take);
            if length >= target {
                splits.push(make(start, length, hosts(&inside, replicas)));
                (start, length) = (start + length, 0);
                inside.clear();
            }
        }
    }
    if length > 0 {
        splits.push(make(start, length, hosts(&inside, replicas)));
    }
    splits
}

/// The nodes with the most of the bytes, best first.
fn hosts(extents: &[Extent], replicas: &BTreeMap<ChunkId, Vec<NodeId>>) -> Vec<NodeId> {
    let mut bytes: BTreeMap<NodeId, u64> = BTreeMap::new();
    for extent in extents {
        for node in replicas.get(&extent.chunk).into_iter().flatten() {
            *bytes.entry(*node).or_default() += u64::from(extent.length);
        }
    }
    let mut hosts: Vec<_> = bytes.into_iter().collect();
    hosts.sort_by_key(|(node, bytes)| (std::cmp::Reverse(*bytes), *node));
    hosts.into_iter().map(|(node, _)| node).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn splits(lengths: &[u32], target: u64) -> Vec<(u64, u64)> {
        let extent = |(place, length): (usize, &u32)| Extent {
            chunk: ChunkId(place as u64),
            offset: 0,
            length: *length,
        };
        let content = Content::Extents(lengths.iter().enumerate().map(extent).collect());
        let file = "/bucket/key".parse().unwrap();
        let splits = split(&file, "e", &content, target, &BTreeMap::new());
        splits.into_iter().map(|split| (split.offset, split.length)).collect()
    }

    #[test]
    fn splits_follow_chunks_and_cover_the_file() {
        assert_eq!(splits(&[100, 100, 20], 100), vec![(0, 100), (100, 100), (200, 20)]);
        assert_eq!(splits(&[140, 100], 100), vec![(0, 140), (140, 100)]);
        assert_eq!(splits(&[250], 100), vec![(0, 100), (100, 150)]);
        assert_eq!(splits(&[30, 30, 30, 30], 60), vec![(0, 60), (60, 60)]);
        assert_eq!(splits(&[1, 1], 1), vec![(0, 1), (1, 1)]);
        assert_eq!(splits(&[], 10), vec![]);
    }

    #[test]
    fn hosts_are_ordered_by_the_bytes_they_hold() {
        let extents = [
            Extent { chunk: ChunkId(1), offset: 0, length: 10 },
            Extent { chunk: ChunkId(2), offset: 0, length: 30 },
        ];
        let replicas = BTreeMap::from([
            (ChunkId(1), vec![NodeId(1), NodeId(2)]),
            (ChunkId(2), vec![NodeId(2), NodeId(3)]),
        ]);
        assert_eq!(hosts(&extents, &replicas), vec![NodeId(2), NodeId(3), NodeId(1)]);
    }
}
