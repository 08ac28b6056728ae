//! Random numbers, for names that nobody can guess.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::{Error, Result};

/// Returns eight hexadecimal digits from the kernel's random source.
pub fn random_hex() -> Result<String> {
    Ok(format!("{:08x}", random_u64()? as u32))
}

/// Returns a random number from the kernel's random source.
pub fn random_u64() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|e| Error::Random(e.into()))?;
    Ok(u64::from_ne_bytes(bytes))
}
