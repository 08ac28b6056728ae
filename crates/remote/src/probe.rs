//! Probes: small objects that are written to learn something about the remote, and deleted.

use diagctl_fs::random_hex;
use diagctl_observe::clock;
use diagctl_observe::proc::Proc;

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::keys;
use crate::output;

/// The clocks may differ by so much where something is deleted by age, milliseconds.
const SKEW_MS: u64 = 600_000;

/// Returns the key of this machine's probe for a purpose.
pub fn key(purpose: &str) -> String {
    format!("probes/{}.json", keys::node(&Proc::default().hostname(), purpose))
}

/// Returns the time by the clock of this machine, milliseconds.
pub fn local_ms() -> u64 {
    u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0)
}

/// Returns the time by the clock of the remote, milliseconds. With `is_plan`, the clock of this machine has to do where the credentials may not
/// write.
///
/// # Errors
///
/// If the two clocks differ by more than ten minutes: one is wrong, and nobody knows which objects were written under it.
pub async fn remote_ms(bucket: &Bucket, is_plan: bool) -> Result<u64> {
    let here = local_ms();
    let key = key(&format!("clock-{}", random_hex()?));
    match bucket.put(&key, "{}\n".into()).await {
        Err(error) if is_plan && error.is_denied() => {
            output::note("ages are by the clock of this machine, because the credentials may not write a probe");
            return Ok(here);
        }
        written => written?,
    }
    let probe = bucket.stat(&key).await;
    match bucket.delete(vec![key.clone()]).await {
        Err(error) if is_plan && error.is_denied() => {}
        deleted => deleted?,
    }
    let remote = probe?.ok_or(Error::NoClock { key })?.written_ms;
    if here.abs_diff(remote) > SKEW_MS {
        return Err(Error::Clocks { here, remote });
    }
    Ok(remote)
}
