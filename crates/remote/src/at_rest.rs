//! Encryption of what the remote stores: what it says itself, and what the newest capture shows. For `diagctl doctor --remote`.

use diagctl_observe::clock;
use diagctl_store::meta;

use crate::bucket::Bucket;
use crate::captures;
use crate::error::Result;
use crate::integrity;
use crate::keys;

/// The time in which a capture is looked for, milliseconds: a month.
const RECENT_MS: i64 = 30 * 86_400_000;

/// The findings, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The text.
    pub text: String,
    /// True if a reader of the bare disks of the remote may read reports.
    pub is_open: bool,
    /// True if there was nothing to look at.
    pub is_unknown: bool,
}

/// Looks at the newest capture of the last month, and at what the remote said to the last write.
pub async fn find(bucket: &Bucket, url: &str) -> Found {
    let said =
        integrity::said_encryption().or_else(|| url.starts_with("gs://").then(|| "Google always does".to_owned()));
    let (of_remote, remote_encrypts) = match said {
        Some(how) => (format!("the remote encrypts what it stores ({how}), for whoever may read it"), true),
        None => ("the remote does not say that it encrypts what it stores".to_owned(), false),
    };
    let (of_captures, encrypted) = match newest(bucket).await {
        Ok(Some((name, 0, _, all))) => {
            (format!("diagctl encrypted no report of the newest capture ({name}), which has {all}"), Some(false))
        }
        Ok(Some((name, some, recipients, all))) => {
            let plural = if recipients == 1 { "" } else { "s" };
            (
                format!(
                    "encrypted reports of the newest capture ({name}): {some} of {all}, to {recipients} recipient{plural}"
                ),
                Some(true),
            )
        }
        Ok(None) => ("no capture of the last month is there to look at".to_owned(), None),
        Err(error) if error.is_denied() => {
            ("the credentials may not read captures, to see if they are encrypted".to_owned(), None)
        }
        Err(error) => (format!("no capture was looked at: {error}"), None),
    };
    Found {
        text: format!("{of_captures}; {of_remote}"),
        is_open: encrypted == Some(false) && !remote_encrypts,
        is_unknown: encrypted.is_none() && !remote_encrypts,
    }
}

// Its name, the number of its encrypted reports, that of all recipients, and that of its reports.
async fn newest(bucket: &Bucket) -> Result<Option<(String, usize, usize, usize)>> {
    let since = clock::utc(clock::Reading::take(String::new()).wall_ms.saturating_sub(RECENT_MS));
    let listing = captures::read(bucket, Some(keys::day(&since)), None).await?;
    let Some(entry) = listing.newest_first().next() else { return Ok(None) };
    let base = keys::capture(&entry.created, &entry.host, entry.id.as_str());
    let Some(record) = bucket.read(&format!("{base}/meta.json"), meta::MAX_FILE).await? else { return Ok(None) };
    let Ok(meta) = meta::parse(std::path::Path::new(&base), &record) else { return Ok(None) };
    let stored = || meta.reports.iter().filter(|report| report.file.is_some());
    let encrypted = stored().filter(|report| report.encryption.is_some()).count();
    Ok(Some((format!("{}/{}", entry.host, entry.id), encrypted, meta.recipients.len(), stored().count())))
}
