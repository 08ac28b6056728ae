//! Checksums inside small JSON files, to detect a file that is damaged but still parses. A flipped digit in a date could
//! otherwise delete a capture or make a limit be forgotten.
//!
//! A sealed object begins with `{"check":"xxxxxxxx",`: the CRC-32 of everything that follows. The result is still JSON. An
//! object without a checksum is accepted, because a person may have edited it.

const HEAD: &[u8] = b"{\"check\":\"";
const HEX: usize = 8;
const TAIL: &[u8] = b"\",";

/// Adds a checksum to an encoded object, which must have at least one field.
pub fn seal(json: &[u8]) -> Vec<u8> {
    let body = json.strip_prefix(b"{").unwrap_or(json);
    let mut sealed = Vec::with_capacity(json.len() + HEAD.len() + HEX + TAIL.len());
    sealed.extend_from_slice(HEAD);
    sealed.extend_from_slice(format!("{:08x}", crc(body)).as_bytes());
    sealed.extend_from_slice(TAIL);
    sealed.extend_from_slice(body);
    sealed
}

/// Returns true if the object matches its checksum, or has none.
pub fn is_whole(sealed: &[u8]) -> bool {
    let Some((check, body)) = sealed.strip_prefix(HEAD).and_then(|rest| rest.split_at_checked(HEX)) else {
        return true;
    };
    let expected = format!("{:08x}", crc(body.strip_prefix(TAIL).unwrap_or(body)));
    check == expected.as_bytes()
}

/// Computes the CRC-32 that gzip uses. Not flate2's version: that detects the processor's features before the first byte, and
/// under a hypervisor each of the seven `cpuid` instructions costs 10 to 30 µs, together a quarter of a poll.
pub fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ CRC_OF_BYTE[usize::from(crc as u8 ^ byte)])
}

const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_equals_gzips() {
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut theirs = flate2::Crc::new();
        theirs.update(&bytes);
        assert_eq!((crc(&bytes), crc(b"")), (theirs.sum(), 0));
    }

    #[test]
    fn every_bit_flip_is_detected_or_harmless() {
        let json = br#"{"schema":1,"store_ms":1790000000000}"#;
        let sealed = seal(json);
        assert!(is_whole(&sealed) && is_whole(json));
        let value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
        assert_eq!((value["schema"].as_u64(), value["store_ms"].as_u64()), (Some(1), Some(1_790_000_000_000)));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_whole(&damaged) || damaged.ends_with(&json[1..]), "bit {bit}");
        }
    }
}
