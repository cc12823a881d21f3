//! Which reducer gets a key.

/// The partition of a key among `partitions`: the 64-bit FNV-1a hash of its bytes, mixed by the
/// finalizer of MurmurHash3, modulo the number of partitions.
///
/// It is part of what a job's output looks like (which key is in which `part-r-…`), so it never
/// changes.
pub(crate) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a key needs a partition to go to");
    if partitions == 1 {
        return 0;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in key {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((hash ^ (hash >> 33)) % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_never_change() {
        let of = |key: &str| partition_of(key.as_bytes(), 7);
        assert_eq!(["", "a", "the", "onefold"].map(of), [1, 1, 6, 2]);
    }

    #[test]
    fn keys_spread_evenly() {
        let mut sizes = [0_u32; 8];
        for number in 0..8000 {
            sizes[partition_of(format!("key{number}").as_bytes(), 8) as usize] += 1;
        }
        assert!(sizes.iter().all(|&size| (850..1150).contains(&size)), "{sizes:?}");
    }
}
