//! The checksum of the table's own small files.

use crc_fast::CrcAlgorithm;

/// CRC32C.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let checksum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(checksum).expect("a CRC of 32 bits fits 32 bits")
}
