//! `webhook`: posts the record of a capture, which is on stdin, to the URL of `[on_capture]`. `diagctl` runs it after a capture.
//!
//! The URL and the headers may be secrets: no message has any of them. Redirects are not followed, because they would carry the
//! record and the headers to somebody else.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diagctl_fs as fs;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::output::Exit;

/// The environment variable with the settings as JSON.
const VARIABLE: &str = "DIAGCTL_WEBHOOK";

/// Maximum size of a file with a URL or headers, bytes.
const MAX_FILE: u64 = 64 << 10;

/// Maximum size of a record, bytes.
const MAX_RECORD: u64 = 16 << 20;

/// Post the record of a capture to a URL, for the hook on_capture
#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Deserialize)]
struct Settings {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    url_file: Option<PathBuf>,
    #[serde(default)]
    headers_file: Option<PathBuf>,
    timeout_ms: u64,
    attempts: u32,
    capture: String,
}

/// How an attempt failed.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    why: String,
    again: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If the settings cannot be used, or the last attempt failed.
pub async fn run() -> Result<Exit> {
    let text = std::env::var(VARIABLE).map_err(|_| Error::NoSettings)?;
    let settings: Settings = serde_json::from_str(&text).map_err(|e| Error::Settings(e.to_string()))?;
    let (url, headers) = (settings.url()?, settings.headers()?);
    let mut record = Vec::new();
    std::io::stdin().take(MAX_RECORD).read_to_end(&mut record).map_err(Error::Runtime)?;
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(Duration::from_millis(settings.timeout_ms))
        .user_agent(concat!("diagctl/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::Webhook { why: chain(&e.without_url()), attempts: 0 })?;
    for attempt in 1.. {
        let Err(failed) = post(&client, &url, &headers, &record).await else { return Ok(Exit::Ok) };
        if !failed.again || attempt >= settings.attempts {
            return Err(Error::Webhook { why: failed.why, attempts: attempt });
        }
        tokio::time::sleep(pause(attempt, fs::random_u64()?)).await;
    }
    Ok(Exit::Ok)
}

async fn post(client: &Client, url: &Url, headers: &HeaderMap, record: &[u8]) -> std::result::Result<(), Failed> {
    let sent = client.post(url.clone()).headers(headers.clone()).body(record.to_vec()).send().await;
    match sent {
        Ok(answer) => judge(answer.status()),
        Err(e) if e.is_timeout() => Err(Failed { why: "it did not answer in time".into(), again: true }),
        Err(e) => Err(Failed { again: !e.is_builder(), why: chain(&e.without_url()) }),
    }
}

fn judge(status: StatusCode) -> std::result::Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let again = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    let more = if status.is_redirection() { "; redirects are not followed" } else { "" };
    Err(Failed { why: format!("it answered {status}{more}"), again })
}

// Doubles with each attempt. The half is random, so that the processes of a deploy do not come back at once.
fn pause(attempt: u32, random: u64) -> Duration {
    let longest = (1000_u64 << attempt.min(4)) / 2;
    Duration::from_millis(longest / 2 + random % (longest / 2 + 1))
}

// The outer errors of the client say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}

impl Settings {
    fn url(&self) -> Result<Url> {
        let (text, from) = match (&self.url, &self.url_file) {
            (Some(url), _) => (url.clone(), "on_capture.webhook".to_owned()),
            (None, Some(file)) => (read(file)?, file.display().to_string()),
            (None, None) => return Err(Error::NoSettings),
        };
        let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.ok_or(Error::Secret { from, what: "is not a URL that begins with https:// or http://" })
    }

    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(&self.capture) {
            headers.insert("x-diagctl-capture", id);
        }
        let Some(file) = &self.headers_file else { return Ok(headers) };
        let wrong = || Error::Secret { from: file.display().to_string(), what: "has a line that is not `Name: value`" };
        for line in read(file)?.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
            let mut value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(headers)
    }
}

fn read(file: &Path) -> Result<String> {
    let failed = |source| Error::Read { path: file.to_owned(), source };
    let mut text = String::new();
    std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: Option<&str>, headers: &str) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let (url_file, headers_file) = (dir.path().join("url"), dir.path().join("headers"));
        std::fs::write(&url_file, "https://hooks.example/T0/secret\n").unwrap();
        std::fs::write(&headers_file, headers).unwrap();
        let settings = Settings {
            url: url.map(str::to_owned),
            url_file: Some(url_file),
            headers_file: Some(headers_file),
            timeout_ms: 1000,
            attempts: 5,
            capture: "20260101T000000000Z-aaaaaaaa".into(),
        };
        (dir, settings)
    }

    #[test]
    fn the_url_and_the_headers_may_be_in_files() {
        let (_dir, settings) =
            settings(None, "# for the proxy\nAuthorization: Bearer s3cret\n\nContent-Type: text/x\n");
        assert_eq!(settings.url().unwrap().path(), "/T0/secret");
        let headers = settings.headers().unwrap();
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!((headers.len(), &headers["content-type"]), (3, &HeaderValue::from_static("text/x")));
        assert!(!format!("{headers:?}").contains("s3cret"));
    }

    #[test]
    fn a_url_or_header_that_is_none_is_told_without_what_it_is() {
        for (url, headers) in [("ftp://secret", ""), ("secret", ""), ("http://h", "secret"), ("http://h", "se cret: x")]
        {
            let (_dir, settings) = settings(Some(url), headers);
            let error = settings.url().map(drop).and_then(|()| settings.headers().map(drop)).unwrap_err();
            assert!(!error.to_string().contains("cret"), "{error}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let table =
            [(200, None), (204, None), (301, Some(false)), (404, Some(false)), (429, Some(true)), (503, Some(true))];
        for (status, expected) in table {
            let judged = judge(StatusCode::from_u16(status).unwrap());
            assert_eq!(judged.err().map(|failed| failed.again), expected, "{status}");
        }
    }

    #[test]
    fn four_pauses_take_less_than_a_minute() {
        let all: Duration = (1..5).map(|attempt| pause(attempt, u64::MAX)).sum();
        assert!(all < Duration::from_secs(60), "{all:?}");
        assert_eq!(pause(1, 0), Duration::from_millis(500));
    }
}
