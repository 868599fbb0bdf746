//! CRC32C (Castagnoli, as in iSCSI, RFC 3720), which all records on disk are summed up by.

use crc_fast::{CrcAlgorithm, Digest};

/// Of the parts, one behind the other.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_of_rfc_3720() {
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(crc32c(&[&[0xFF; 32]]), 0x62A8_AB43);
        assert_eq!(crc32c(&[&rising]), 0x46DD_794E);
        assert_eq!(crc32c(&[&rising[..5], &[], &rising[5..]]), 0x46DD_794E);
    }
}
