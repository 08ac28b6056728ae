//! The names of objects, the same for every program that reads the bucket.
//!
//! ```text
//! captures/<day>/<host>/<id>/<file>          the reports of a capture; meta.json comes last and commits it
//! manifests/<day>/<host>~<random>.jsonl      the captures of a day that one store shipped, a line of the index each
//! manifests/<day>/~deleted~<random>.jsonl    the captures of a day that a person deleted; no host begins with a tilde
//! merged/<day>/<random>.jsonl.gz            the manifests of a day, quoted, so that a reader needs few requests
//! nodes/<host>~<random>.json                 a store that obeys requests
//! requests/<id>~<expires>.json               a request; its name says until when it counts
//! requests/<id>~<expires>~cancelled.json     it was cancelled, and by whom
//! answers/<id>/<host>~<random>.json          what became of it there
//! ```

use diagctl_observe::clock;
use diagctl_store::Id;

/// An object in the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key, without the prefix of the remote.
    pub key: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Another one whenever it is written: the ETag, or the time of a file. Empty if the remote has none.
    pub version: String,
    /// The time at which it was written, by the remote's clock, milliseconds.
    pub written_ms: u64,
}

/// Returns the prefix of a capture's objects. `created` is RFC 3339.
pub fn capture(created: &str, host: &str, id: &str) -> String {
    format!("captures/{}/{}/{id}", day(created), part(host))
}

/// Returns the key of a manifest.
pub fn manifest(day: &str, host: &str, random: &str) -> String {
    format!("manifests/{day}/{}~{random}.jsonl", part(host))
}

/// Returns the key of a list of deleted captures.
pub fn deleted(day: &str, random: &str) -> String {
    format!("manifests/{day}/~deleted~{random}.jsonl")
}

/// Returns the key of a merged manifest.
pub fn merged(day: &str, random: &str) -> String {
    format!("merged/{day}/{random}.jsonl.gz")
}

/// Returns true if a key is that of a list of deleted captures.
pub fn is_deleted(key: &str) -> bool {
    key.rsplit('/').next().is_some_and(|name| name.starts_with("~deleted~"))
}

/// Returns the name of a store that obeys requests.
pub fn node(host: &str, random: &str) -> String {
    format!("{}~{random}", part(host))
}

/// Returns the key of a request. The expiry is UTC in the form of an id.
pub fn request(id: &str, expires: &str) -> String {
    format!("requests/{id}~{expires}.json")
}

/// Returns the id and the expiry of a request from its key.
pub fn of_request(key: &str) -> Option<(&str, &str)> {
    let (id, expires) = key.strip_prefix("requests/")?.strip_suffix(".json")?.split_once('~')?;
    let is_time =
        expires.len() == 19 && expires.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T' || byte == b'Z');
    (Id::parse(id).is_some() && is_time).then_some((id, expires))
}

/// Returns the key of the cancellation of a request.
pub fn cancellation(id: &str, expires: &str) -> String {
    format!("requests/{id}~{expires}~cancelled.json")
}

/// Returns the id and the expiry of a request that was cancelled, from the key of the cancellation.
pub fn of_cancellation(key: &str) -> Option<(&str, &str)> {
    let (id, expires) = key.strip_prefix("requests/")?.strip_suffix("~cancelled.json")?.split_once('~')?;
    Id::parse(id).map(|_| (id, expires))
}

/// Returns the time until an expiry, milliseconds. For what is no time, it is as long as it gets.
pub fn time_until(expires: &str, now_ms: u64) -> u64 {
    clock::parse_compact_utc(expires).map_or(u64::MAX, |at| u64::try_from(at).unwrap_or(0).saturating_sub(now_ms))
}

/// Returns the key of an answer.
pub fn answer(id: &str, node: &str) -> String {
    format!("answers/{id}/{node}.json")
}

/// The day of a time that is none.
pub const NO_DAY: &str = "0000-00-00";

/// Returns the day of a time.
pub fn day(created: &str) -> &str {
    let is_day = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    created.get(..10).filter(is_day).unwrap_or(NO_DAY)
}

/// Returns the name of a host in keys. A host chooses its name, which must not become a path or need an escape.
pub fn part(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let name: String = name.chars().take(128).map(safe).collect();
    if name.trim_matches('.').is_empty() { "unknown".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_day_and_a_host_that_is_one_plain_name() {
        let id = "20261128T101530123Z-7f3a9c2e";
        let table = [
            ("web-1.example", "web-1.example"),
            ("../../etc", ".._.._etc"),
            ("..", "unknown"),
            ("", "unknown"),
            ("a b/ü%", "a_b___"),
        ];
        for (host, expected) in table {
            let key = capture("2026-11-28T10:15:30.123Z", host, id);
            assert_eq!(key, format!("captures/2026-11-28/{expected}/{id}"));
        }
        assert_eq!(day("../../../../x"), "0000-00-00");
        assert_eq!(day(""), "0000-00-00");
    }
}
