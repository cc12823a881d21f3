//! A piece's body: pairs of key and value, each with their lengths in front, little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use onefold_table::{Batch, KeyRange, Order, TableError, View};

use crate::wire::SnapshotTotal;

/// The checksum of a piece.
pub(crate) fn crc32c(body: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, body)).expect("a CRC-32 has 32 bits")
}

/// A piece that was read.
pub(crate) struct Piece {
    pub(crate) body: Bytes,
    pub(crate) total: SnapshotTotal,
    /// Where the next piece begins; none after the last pair.
    pub(crate) rest: Option<KeyRange>,
}

/// Reads the pairs of a range up to a number of bytes, at least one if there is any.
///
/// # Errors
/// When the table can't be read.
pub(crate) fn read(
    view: &dyn View,
    range: KeyRange,
    bytes_max: usize,
) -> Result<Piece, TableError> {
    let mut body = BytesMut::with_capacity(bytes_max);
    let mut total = SnapshotTotal::default();
    let mut last: Option<Bytes> = None;
    for pair in view.scan(range.clone(), Order::Ascending) {
        let (key, value) = pair?;
        let bytes = 8 + key.len() + value.len();
        if last.is_some() && body.len() + bytes > bytes_max {
            let rest = last.map(|last| range.rest_after(last));
            return Ok(Piece { body: body.freeze(), total, rest });
        }
        body.put_u32_le(length(&key));
        body.put_u32_le(length(&value));
        body.put_slice(&key);
        body.put_slice(&value);
        total.add(&SnapshotTotal { pairs: 1, bytes: (key.len() + value.len()) as u64 });
        last = Some(key);
    }
    Ok(Piece { body: body.freeze(), total, rest: None })
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).expect("keys and values of a table are far shorter")
}

impl SnapshotTotal {
    pub(crate) fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.bytes += other.bytes;
    }
}

/// The writes of a piece, and what it holds; `None` when it is malformed.
pub(crate) fn parse(body: &Bytes) -> Option<(Batch, SnapshotTotal)> {
    let mut batch = Batch::new();
    let mut total = SnapshotTotal::default();
    let mut at = 0;
    while at < body.len() {
        let key_bytes = number(body, at)?;
        let value_bytes = number(body, at + 4)?;
        let key_end = (at + 8).checked_add(key_bytes)?;
        let end = key_end.checked_add(value_bytes).filter(|end| *end <= body.len())?;
        // Copied, so that a small pair in a table in memory does not hold the whole piece.
        batch.put(
            Bytes::copy_from_slice(&body[at + 8..key_end]),
            Bytes::copy_from_slice(&body[key_end..end]),
        );
        total.add(&SnapshotTotal { pairs: 1, bytes: (key_bytes + value_bytes) as u64 });
        at = end;
    }
    Some((batch, total))
}

fn number(body: &Bytes, at: usize) -> Option<usize> {
    let bytes = body.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use onefold_table::{MemoryTable, Table};

    use super::*;

    fn table() -> MemoryTable {
        let table = MemoryTable::new();
        let mut batch = Batch::new();
        for number in 0..100_u32 {
            batch.put(number.to_be_bytes().to_vec(), vec![7; number as usize]);
        }
        table.write(batch).expect("memory does not fail");
        table
    }

    #[test]
    fn the_pieces_of_a_table_make_the_same_table() {
        let (from, to) = (table(), MemoryTable::new());
        let (mut sent, mut received) = (SnapshotTotal::default(), SnapshotTotal::default());
        let mut rest = Some(KeyRange::all());
        let mut pieces = 0;
        while let Some(range) = rest {
            let piece = read(&from, range, 200).expect("memory does not fail");
            assert!(piece.body.len() <= 200);
            let (batch, total) = parse(&piece.body).expect("it was just made");
            to.write(batch).expect("memory does not fail");
            sent.add(&piece.total);
            received.add(&total);
            rest = piece.rest;
            pieces += 1;
        }
        assert!(pieces > 20);
        assert_eq!(sent, received);
        let pairs = |table: &MemoryTable| {
            let pairs: Result<Vec<_>, _> = table.scan(KeyRange::all(), Order::Ascending).collect();
            pairs.expect("memory does not fail")
        };
        assert_eq!(pairs(&from), pairs(&to));
    }

    #[test]
    fn a_pair_larger_than_a_piece_travels_alone() {
        let piece = read(&table(), KeyRange::from(99_u32.to_be_bytes().to_vec()), 1);
        let piece = piece.expect("memory does not fail");
        assert_eq!((piece.total.pairs, piece.rest), (1, None));
    }

    #[test]
    fn a_cut_or_lying_body_is_malformed() {
        let piece = read(&table(), KeyRange::all(), 300).expect("memory does not fail");
        let good = (0..=piece.body.len()).filter(|&end| parse(&piece.body.slice(..end)).is_some());
        assert_eq!(good.count() as u64, piece.total.pairs + 1, "only cuts between pairs");
        assert!(parse(&Bytes::from_static(&[0xff; 8])).is_none());
    }
}
