//! The requests that count, as the names of the objects in `requests/` say.
//!
//! Whoever may write requests may also write a flood of them, and what has expired stays until the bucket's lifecycle rule deletes it. So what does
//! not count is left out before anything is cut off.

use std::collections::BTreeMap;

use diagctl_observe::clock;

use crate::bucket::Bucket;
use crate::error::Result;
use crate::keys;

/// The most names that are looked at: twenty requests to S3, and a few megabytes.
pub const MOST: usize = 20_000;

/// Requests last a day, and the clocks of two machines may differ.
const WINDOW_MS: i64 = 25 * 3_600_000;

/// A request that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its key.
    pub key: String,
    /// Its id.
    pub id: String,
    /// Its expiry.
    pub expires: String,
}

/// The requests that count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// They themselves, oldest first.
    pub requests: Vec<Named>,
    /// The keys of cancellations that count, by the ids of their requests.
    pub cancelled: BTreeMap<String, String>,
    /// True if there is more than was looked at.
    pub is_cut: bool,
}

/// Returns what the names of requests begin with that are too old to count at a time, milliseconds, or come before it.
pub fn oldest(now_ms: i64) -> String {
    clock::compact_utc(now_ms.saturating_sub(WINDOW_MS))
}

/// Lists the requests that count at a time, milliseconds, and their cancellations.
pub async fn list(bucket: &Bucket, now_ms: i64) -> Result<Counting> {
    list_some(bucket, now_ms, MOST).await
}

async fn list_some(bucket: &Bucket, now_ms: i64, most: usize) -> Result<Counting> {
    let at = |ms: i64| clock::compact_utc(now_ms.saturating_add(ms));
    let (now, latest) = (at(0), at(WINDOW_MS));
    // An id begins with its time.
    let counts = |key: &str| {
        let named = keys::of_request(key).or_else(|| keys::of_cancellation(key));
        named.is_some_and(|(id, expires)| id < latest.as_str() && expires > now.as_str() && expires < latest.as_str())
    };
    let (keys, is_cut) = bucket.list_after("requests", &oldest(now_ms), most, counts).await?;
    let mut counting = Counting { is_cut, ..Counting::default() };
    for key in keys {
        if let Some((id, expires)) = keys::of_request(&key) {
            let (id, expires) = (id.to_owned(), expires.to_owned());
            counting.requests.push(Named { key, id, expires });
        } else if let Some((id, _)) = keys::of_cancellation(&key) {
            counting.cancelled.insert(id.to_owned(), key);
        }
    }
    Ok(counting)
}

/// Says that there are more requests than are looked at.
pub fn too_many() -> String {
    format!(
        "requests/ in the remote has more than {MOST} objects of the last 25h, and those that sort after them are not seen: see who writes \
         them, and delete what is not wanted"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_860_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn id(at_ms: i64, number: usize) -> String {
        format!("{}-{number:08x}", clock::compact_utc(at_ms))
    }

    async fn put(bucket: &Bucket, key: &str) {
        bucket.put(key, "{}".into()).await.unwrap();
    }

    #[tokio::test]
    async fn what_has_expired_hides_no_request_and_neither_do_cancellations() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().to_owned().into());
        std::fs::create_dir(dir.path().join("requests")).unwrap();
        let (past, later) = (clock::compact_utc(NOW_MS - 1), clock::compact_utc(NOW_MS + HOUR_MS));
        for number in 0..2500 {
            let id = id(NOW_MS - 2 * HOUR_MS, number);
            for key in [keys::request(&id, &past), keys::cancellation(&id, &past)] {
                std::fs::write(dir.path().join(key), "{}").unwrap();
            }
        }
        let wanted = id(NOW_MS - 1000, 1);
        put(&bucket, &keys::request(&wanted, &later)).await;
        put(&bucket, &keys::cancellation(&wanted, &later)).await;
        let far = clock::compact_utc(NOW_MS + 30 * HOUR_MS);
        let garbage = [
            keys::request(&id(NOW_MS, 2), &far),
            keys::request(&id(NOW_MS + 30 * HOUR_MS, 3), &later),
            "requests/x.json".into(),
            "requests/~~cancelled.json".into(),
        ];
        for key in garbage {
            put(&bucket, &key).await;
        }
        let found = list(&bucket, NOW_MS).await.unwrap();
        let ids: Vec<&str> = found.requests.iter().map(|named| named.id.as_str()).collect();
        assert_eq!((ids, found.is_cut), (vec![wanted.as_str()], false));
        assert_eq!(found.cancelled.keys().collect::<Vec<_>>(), [&wanted]);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_is_kept_and_that_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let bucket = Bucket::Directory(dir.path().to_owned().into());
        for number in 0..12 {
            put(&bucket, &keys::request(&id(NOW_MS, number), &clock::compact_utc(NOW_MS + HOUR_MS))).await;
        }
        let found = list_some(&bucket, NOW_MS, 10).await.unwrap();
        assert_eq!((found.requests.len(), found.is_cut), (10, true));
        let found = list_some(&bucket, NOW_MS, 12).await.unwrap();
        assert_eq!((found.requests.len(), found.is_cut), (12, false));
    }
}
