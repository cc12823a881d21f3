//! A piece's body: pairs of key and value, each with their lengths in front, little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use onefold_table::{KeyRange, Order, TableError, View};

/// Of key and value, in front of each pair.
const LENGTHS_BYTES: usize = 8;

/// The checksum of a piece.
pub(super) fn crc32c(body: &[u8]) -> u32 {
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, body)).expect("a CRC-32 has 32 bits")
}

/// Pairs that were read.
pub(super) struct Read {
    pub(super) body: Bytes,
    pub(super) pairs: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
    /// The last key, if there is any.
    pub(super) last: Option<Bytes>,
    /// Nothing follows in the range.
    pub(super) is_end: bool,
}

/// Reads the pairs of a range up to a number of bytes, at least one if there is any.
///
/// # Errors
/// When the table can't be read.
pub(super) fn read(view: &dyn View, range: KeyRange, bytes_max: usize) -> Result<Read, TableError> {
    let mut body = BytesMut::with_capacity(bytes_max);
    let (mut pairs, mut bytes, mut last) = (0, 0, None);
    let mut is_end = true;
    for pair in view.scan(range, Order::Ascending) {
        let (key, value) = pair?;
        if last.is_some() && body.len() + LENGTHS_BYTES + key.len() + value.len() > bytes_max {
            is_end = false;
            break;
        }
        body.put_u32_le(length(&key));
        body.put_u32_le(length(&value));
        body.put_slice(&key);
        body.put_slice(&value);
        pairs += 1;
        bytes += (key.len() + value.len()) as u64;
        last = Some(key);
    }
    Ok(Read { body: body.freeze(), pairs, bytes, last, is_end })
}

fn length(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).expect("keys and values of a table are far shorter")
}

/// The pairs of a piece; `None` when it is malformed.
pub(crate) fn parse(body: &Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut pairs = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let key_bytes = number(body, at)?;
        let value_bytes = number(body, at + 4)?;
        let key_start = at + LENGTHS_BYTES;
        let key_end = key_start.checked_add(key_bytes)?;
        let end = key_end.checked_add(value_bytes).filter(|end| *end <= body.len())?;
        // Copied, so that a small pair in a table in memory does not hold the whole piece.
        let key = Bytes::copy_from_slice(&body[key_start..key_end]);
        pairs.push((key, Bytes::copy_from_slice(&body[key_end..end])));
        at = end;
    }
    Some(pairs)
}

fn number(body: &Bytes, at: usize) -> Option<usize> {
    let bytes = body.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

#[cfg(test)]
mod tests {
    use onefold_table::{Batch, MemoryTable, Table};

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
    fn the_pieces_of_a_table_hold_its_pairs() {
        let table = table();
        let (mut range, mut found, mut pieces) = (KeyRange::all(), Vec::new(), 0);
        loop {
            let read = read(&table, range, 200).expect("memory does not fail");
            assert!(read.body.len() <= 200);
            let pairs = parse(&read.body).expect("it was just made");
            assert_eq!(pairs.len() as u64, read.pairs);
            found.extend(pairs);
            pieces += 1;
            if read.is_end {
                break;
            }
            range = KeyRange::after(read.last.expect("there is at least one pair"));
        }
        assert!(pieces > 20);
        let pairs: Result<Vec<_>, _> = table.scan(KeyRange::all(), Order::Ascending).collect();
        assert_eq!(found, pairs.expect("memory does not fail"));
    }

    #[test]
    fn a_pair_larger_than_a_piece_travels_alone() {
        let read = read(&table(), KeyRange::from(99_u32.to_be_bytes().to_vec()), 1);
        let read = read.expect("memory does not fail");
        assert_eq!((read.pairs, read.is_end), (1, true));
    }

    #[test]
    fn a_cut_or_lying_body_is_malformed() {
        let read = read(&table(), KeyRange::all(), 300).expect("memory does not fail");
        let good = (0..=read.body.len()).filter(|&end| parse(&read.body.slice(..end)).is_some());
        assert_eq!(good.count() as u64, read.pairs + 1, "only cuts between pairs");
        assert!(parse(&Bytes::from_static(&[0xff; 8])).is_none());
    }
}
