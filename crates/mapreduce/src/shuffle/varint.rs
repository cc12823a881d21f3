//! LEB128 numbers: seven bits a byte, the low ones first.

/// Bytes of the longest encoding of a 64-bit number.
pub(super) const BYTES_MAX: usize = 10;

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number at the start of `bytes`; the number and the bytes it took. `None` when it is cut
/// off or does not fit 64 bits.
pub(super) fn get(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (position, &byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if position == BYTES_MAX - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, position + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_broken_ones_do_not() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(get(&bytes), Some((value, bytes.len())));
            assert_eq!(get(&bytes[..bytes.len() - 1]), None, "{value} cut off");
        }
        assert_eq!(get(&[0xff; 10]), None);
        assert_eq!(get(&[0x80; 11]), None);
    }
}
