//! How growth is told.

use crate::units::size;

/// Over a shorter time there is no slope, milliseconds: an hour would be guessed from it.
pub(super) const LEAST_SPAN_MS: u64 = 60_000;

/// A size with its sign.
pub(super) fn signed(bytes: i128) -> String {
    let text = size(u64::try_from(bytes.unsigned_abs()).unwrap_or(u64::MAX));
    if bytes < 0 { format!("-{text}") } else { format!("+{text}") }
}
