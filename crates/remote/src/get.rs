//! `get`: brings captures from the remote into a view, which is a store that `diagctl` reads like any other.
//!
//! Another machine wrote what is in the remote, so nothing is believed: a record must describe the capture that was asked for, and
//! every file must have the size and the checksum that the record names. Otherwise nothing of it is kept.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use diagctl_store::meta::{self, Meta, Report};
use diagctl_store::{Id, units};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::cache::{Cache, Reserved};
use crate::error::{Error, Result};
use crate::foreign;
use crate::keys;
use crate::output::{self, Exit};
use crate::settings::Settings;

/// Number of captures, and of files of each, that are fetched at once.
const AT_ONCE: usize = 4;

/// No content of gzip is more than 1,032 times as long as its file.
const MOST_OF_GZIP: u64 = 1100;

/// A block of zstd has at least 4 bytes, and at most 128 KiB of content.
const MOST_OF_ZSTD: u64 = 32_768;

/// Content that is let through whatever its file is, bytes.
const SMALL: u64 = 64 << 20;

/// The longest name of a file, bytes.
const LONGEST_NAME: usize = 255;

/// More bytes than this take so long that a person wants to know why.
const MUCH: u64 = 64 << 20;

/// Bring captures from the remote, for the commands of `diagctl` with --remote
///
/// Reads a line of JSON for each capture from stdin, and an empty one. Prints the directory of the view, and keeps it until stdin ends.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the cache
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Size of the cache, bytes
    #[arg(long, value_name = "BYTES")]
    most: u64,
    /// Bring what the remote has, even if it differs from its record, past the cache. For `diagctl verify`
    #[arg(long)]
    unchecked: bool,
}

/// A capture that is asked for.
#[derive(Debug, Deserialize)]
struct Wanted {
    id: Id,
    created: String,
    host: String,
    /// The reports, or `null` for all. The record comes always.
    #[serde(default)]
    reports: Option<Vec<String>>,
    /// Reports that are left out of all.
    #[serde(default)]
    without: Vec<String>,
}

/// A file that was not brought although the remote has it.
#[derive(Debug, Serialize)]
struct Refused {
    id: Id,
    file: String,
    why: String,
}

/// Runs the command.
///
/// # Errors
///
/// If a capture is not there, or is not what it should be. Then there is no view.
pub async fn run(args: &Args, settings: &Settings) -> Result<Exit> {
    let bucket = Bucket::open(&settings.remote)?;
    let cache = Cache::open(&args.cache, args.most)?;
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut stdin = std::io::stdin().lock();
    for line in stdin.by_ref().lines() {
        let line = line.map_err(Error::Runtime)?;
        if line.is_empty() {
            break;
        }
        wanted.push(serde_json::from_str(&line).map_err(|e| Error::Asked(e.to_string()))?);
    }
    let (view, _lock) = cache.new_view()?;
    let fetch = Fetch { bucket: &bucket, cache: &cache, view: &view };
    let fetched =
        if args.unchecked { fetch.unchecked(&wanted).await } else { fetch.all(&wanted).await.map(|()| Vec::new()) };
    let refused = fetched.inspect_err(|_| {
        // Removed by the next command if this fails.
        let _ = fs::remove_dir_all(&view);
    })?;
    let place = |wanted: &Wanted| format!("{}/{}", settings.remote.url.trim_end_matches('/'), wanted.base());
    let places: Vec<String> = wanted.iter().map(place).collect();
    let brought = serde_json::json!({ "view": view, "places": places, "refused": refused });
    output::say_raw(&brought.to_string()).map_err(Error::Runtime)?;
    // The caller ends it when it has locked the view, or is killed.
    let _ = stdin.read_to_end(&mut Vec::new());
    Ok(Exit::Ok)
}

struct Fetch<'a> {
    bucket: &'a Bucket,
    cache: &'a Cache,
    view: &'a Path,
}

impl Fetch<'_> {
    async fn all(&self, wanted: &[Wanted]) -> Result<()> {
        make_dir(&self.view.join("reports"))?;
        let captures = stream::iter(wanted).map(|wanted| self.capture(wanted)).buffer_unordered(AT_ONCE);
        captures.try_collect::<Vec<()>>().await?;
        // Last: a view with this file is complete.
        write(&self.view.join("FORMAT"), format!("{}\n", diagctl_store::FORMAT).as_bytes())
    }

    async fn capture(&self, wanted: &Wanted) -> Result<()> {
        let base = wanted.base();
        let key = format!("{base}/meta.json");
        let Some(record) = self.bucket.read(&key, meta::MAX_FILE).await? else {
            return Err(Error::NoCapture { id: wanted.id, host: wanted.host.clone() });
        };
        let dir = self.view.join("reports").join(wanted.id.as_str());
        let meta = parse(&dir, &key, &record)?;
        let untrue = |why: String| Error::Untrue { key: key.clone(), why };
        make_dir(&dir)?;
        let files: Vec<&Report> = meta.reports.iter().filter(|report| wanted.wants(report)).collect();
        for report in &files {
            check(report).map_err(&untrue)?;
        }
        let missing: Vec<&Report> = self.link(&files, &dir)?;
        let bytes = missing.iter().map(|report| report.stored_bytes).fold(0, u64::saturating_add);
        let reserved = &self.cache.make_room(bytes)?;
        if bytes > MUCH {
            output::note(&format!("fetching {} of capture {} …", units::size(bytes), wanted.id));
        }
        let fetched =
            stream::iter(missing).map(|report| self.file(&base, report, &dir, reserved)).buffer_unordered(AT_ONCE);
        fetched.try_collect::<Vec<()>>().await?;
        match write(&dir.join("meta.json"), &record) {
            Err(_) if fs::read(dir.join("meta.json")).is_ok_and(|there| there == record) => Ok(()),
            written => written,
        }
    }

    // Brings captures as they are. `diagctl verify` then says what is wrong with them. Returns the files that could not be brought.
    async fn unchecked(&self, wanted: &[Wanted]) -> Result<Vec<Refused>> {
        make_dir(&self.view.join("reports"))?;
        let mut refused = Vec::new();
        for wanted in wanted {
            let (base, dir) = (wanted.base(), self.view.join("reports").join(wanted.id.as_str()));
            let mut refuse = |file: &str, why| refused.push(Refused { id: wanted.id, file: file.to_owned(), why });
            make_dir(&dir)?;
            let key = format!("{base}/meta.json");
            let record = match self.bucket.read(&key, meta::MAX_FILE).await {
                Err(error) if foreign::is_of_object(&error) => {
                    refuse("meta.json", error.to_string());
                    continue;
                }
                read => read?,
            };
            let Some(record) = record else { continue };
            let meta = match parse(&dir, &key, &record) {
                Err(Error::Untrue { why, .. }) => {
                    refuse("meta.json", why);
                    continue;
                }
                Err(Error::Newer { .. }) => None,
                parsed => Some(parsed?),
            };
            write(&dir.join("meta.json"), &record)?;
            // Whoever reads the view sees that a newer version wrote it.
            let Some(meta) = meta else { continue };
            let files = meta.reports.iter().filter(|report| wanted.wants(report));
            let brought = async |report| Ok::<_, Error>((report, self.file_unchecked(&base, report, &dir).await?));
            let mut brought = stream::iter(files).map(brought).buffer_unordered(AT_ONCE);
            while let Some((report, why)) = brought.try_next().await? {
                if let Some(why) = why {
                    refuse(of(report).0, why);
                }
            }
        }
        write(&self.view.join("FORMAT"), format!("{}\n", diagctl_store::FORMAT).as_bytes())?;
        Ok(refused)
    }

    // One that is too long is brought until that shows. Returns the reason if it cannot be brought.
    async fn file_unchecked(&self, base: &str, report: &Report, dir: &Path) -> Result<Option<String>> {
        if let Err(why) = check(report) {
            return Ok(Some(why));
        }
        let (file, _) = of(report);
        let (path, key) = (dir.join(file), format!("{base}/{file}"));
        match self.shortness(&key, report).await {
            Err(error) if foreign::is_of_object(&error) => return Ok(Some(error.to_string())),
            Ok(None) => {}
            short => return short,
        }
        let reserved = self.cache.reserve(report.stored_bytes)?;
        let mut out = create(&path)?;
        let mut left = report.stored_bytes + 1;
        let poured = self.bucket.pour(&key, report.stored_bytes + 1, |chunk| {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= most as u64;
            reserved.written(most);
            out.write_all(&chunk[..most]).map_err(failed(&path))
        });
        let why = match poured.await {
            Ok(Some(())) | Err(Error::TooLarge { .. }) => return Ok(None),
            Ok(None) => None,
            Err(error) if foreign::is_of_object(&error) => Some(error.to_string()),
            Err(error) => return Err(error),
        };
        fs::remove_file(&path).map_err(failed(&path))?;
        Ok(why)
    }

    // A record may claim a size for which no disk has room. Returns the difference if the file is shorter.
    async fn shortness(&self, key: &str, report: &Report) -> Result<Option<String>> {
        if report.stored_bytes > MUCH
            && let Some(found) = self.bucket.stat(key).await?
            && found.bytes < report.stored_bytes
        {
            return Ok(Some(format!("it has {} bytes, {} were recorded", found.bytes, report.stored_bytes)));
        }
        Ok(None)
    }

    // Links what the cache has, and returns the others.
    fn link<'m>(&self, files: &[&'m Report], dir: &Path) -> Result<Vec<&'m Report>> {
        let mut missing = Vec::new();
        for report in files {
            let (file, sha256) = of(report);
            if !self.cache.link(sha256, report.stored_bytes, &dir.join(file))? {
                missing.push(*report);
            }
        }
        Ok(missing)
    }

    async fn file(&self, base: &str, report: &Report, dir: &Path, reserved: &Reserved) -> Result<()> {
        let (file, sha256) = of(report);
        let key = format!("{base}/{file}");
        let mut incoming = self.cache.receive()?;
        let poured = self.bucket.pour(&key, report.stored_bytes, |chunk| {
            reserved.written(chunk.len());
            incoming.add(chunk)
        });
        let poured = poured.await;
        let why = match poured {
            Ok(Some(())) => self.cache.keep(incoming, sha256, report.stored_bytes, &dir.join(file))?,
            Ok(None) => return Err(Error::Missing { key }),
            Err(Error::TooLarge { most, .. }) => Some(format!("it has more than the {most} bytes that were recorded")),
            Err(error) => return Err(error),
        };
        why.map_or(Ok(()), |why| Err(Error::Untrue { key, why }))
    }
}

impl Wanted {
    fn base(&self) -> String {
        keys::capture(&self.created, &self.host, self.id.as_str())
    }

    fn wants(&self, report: &Report) -> bool {
        let named = |names: &[String]| names.iter().any(|name| report.name == **name);
        report.file.is_some() && self.reports.as_deref().is_none_or(named) && !named(&self.without)
    }
}

// The file and the checksum of a report that has both.
fn of(report: &Report) -> (&str, &str) {
    (report.file.as_deref().unwrap_or_default(), report.sha256.as_deref().unwrap_or_default())
}

// Parses the record at a key. It must be that of the capture to which the key belongs.
fn parse(dir: &Path, key: &str, record: &[u8]) -> Result<Meta> {
    let untrue = |why: String| Error::Untrue { key: key.to_owned(), why };
    let meta = match meta::parse(dir, record) {
        Err(diagctl_store::Error::NewerFile { found, known, .. }) => {
            return Err(Error::Newer { key: key.to_owned(), found, known });
        }
        parsed => parsed.map_err(|e| untrue(reason(&e)))?,
    };
    if keys::capture(&meta.created, &meta.host, meta.id.as_str()) + "/meta.json" != key {
        return Err(untrue(format!("it describes a capture of {} at {}", meta.host, meta.created)));
    }
    match meta.repeated_file() {
        Some(file) => Err(untrue(format!("two reports name {file}"))),
        None => Ok(meta),
    }
}

// Refuses a report that could not have been written by diagctl.
fn check(report: &Report) -> std::result::Result<(), String> {
    let (file, sha256) = of(report);
    if ["meta.json", "pinned", "shipped"].contains(&file) {
        return Err(format!("report {} has the file {file}", report.name));
    }
    if file.len() > LONGEST_NAME {
        return Err(format!("report {} has a file whose name has {} bytes", report.name, file.len()));
    }
    if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("report {} has no checksum", report.name));
    }
    let ratio = if report.encoding == "gzip" { MOST_OF_GZIP } else { MOST_OF_ZSTD };
    let most = report.stored_bytes.saturating_mul(ratio).max(SMALL);
    if report.raw_bytes > most {
        return Err(format!(
            "report {} claims that {} bytes decompress to {}",
            report.name, report.stored_bytes, report.raw_bytes
        ));
    }
    Ok(())
}

// The path in a view says nothing to a person.
fn reason(error: &diagctl_store::Error) -> String {
    match error {
        diagctl_store::Error::DamagedMeta { why, .. } => why.clone(),
        other => other.to_string(),
    }
}

fn make_dir(path: &Path) -> Result<()> {
    // A capture may be asked for twice, for two of its reports.
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(failed(path))
}

fn write(path: &Path, data: &[u8]) -> Result<()> {
    create(path)?.write_all(data).map_err(failed(path))
}

fn create(path: &Path) -> Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Cache { path, why: source.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_diagctl_cannot_have_written_is_refused() {
        let good = Report {
            file: Some("smaps.txt.gz".into()),
            sha256: Some("ab".repeat(32)),
            stored_bytes: 1000,
            raw_bytes: 5000,
            ..Report::new("smaps".parse().unwrap())
        };
        assert_eq!(check(&good), Ok(()));
        let [gzip, zstd] = ["gzip", "zstd"].map(|encoding| Report { encoding: encoding.into(), ..good.clone() });
        let table = [
            (Report { sha256: None, ..good.clone() }, "has no checksum"),
            (Report { sha256: Some("../x".into()), ..good.clone() }, "has no checksum"),
            (Report { file: Some("meta.json".into()), ..good.clone() }, "has the file meta.json"),
            (Report { file: Some("pinned".into()), ..good }, "has the file pinned"),
            (
                Report { raw_bytes: 300_000_000, stored_bytes: 9171, ..gzip.clone() },
                "9171 bytes decompress to 300000000",
            ),
            (Report { raw_bytes: 1 << 40, ..zstd.clone() }, "1000 bytes decompress to 1099511627776"),
        ];
        // Zeros.
        assert_eq!(check(&Report { raw_bytes: 300_000_000, stored_bytes: 9171, ..zstd }), Ok(()));
        assert_eq!(check(&Report { raw_bytes: 300_000_000, stored_bytes: 292_000, ..gzip }), Ok(()));
        for (report, expected) in table {
            assert!(check(&report).unwrap_err().contains(expected), "{expected}");
        }
    }
}
