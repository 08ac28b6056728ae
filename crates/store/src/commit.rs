//! Publishes a staged capture. An acknowledged capture is durable.
//!
//! The order of the steps is essential: sync the data, sync `meta.json`, sync the staging directory, rename it into `reports/`
//! without replacing, sync both parent directories. Measured on a power cut: without the sync of the files they are empty
//! afterwards, and without the sync of the directories the rename is lost. If a sync fails, the capture fails.
//!
//! The record is written as `.meta.json` and gets its name when it is whole, so that whoever continues after a crash neither
//! takes half of it for a file of the application nor does the work again.

use crate::ReportName;
use crate::trash;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::fs::FileType as Kind;

use crate::catalog::{self, NewRecord};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::report_kind::{FileType, HEAP_SUMMARY};
use crate::staging::{self, Grant};
use crate::writer::{self, Room};
use crate::{Store, meta};
use diagctl_fs::checksum;
use diagctl_fs::{self as fs, Spot};

/// The record until it is whole. A name with a dot is diagctl's own.
const RECORD: &str = ".meta.json";

/// The dumper's report at the end of the dump.
#[derive(Debug, Default)]
pub struct Told {
    /// Reports that could not be made, with the reason.
    pub failed: BTreeMap<ReportName, String>,
    /// The `cost.…` values.
    pub cost: BTreeMap<String, serde_json::Value>,
    /// The `took.…` values: milliseconds by report.
    pub took: BTreeMap<ReportName, serde_json::Number>,
    /// The `note.…` values: how a report was made, by report.
    pub notes: BTreeMap<ReportName, String>,
    /// The `versions.…` values.
    pub versions: BTreeMap<String, String>,
    /// All other values.
    pub labels: BTreeMap<String, String>,
    /// The reason why the dump broke off. It is the error of every report that was not delivered.
    pub broken_off: Option<String>,
}

/// Publishes a staged capture and returns its record.
pub fn publish(store: &Store, grant: &Grant, told: &Told) -> Result<meta::Meta> {
    let id = &grant.meta.id;
    let staging = store.own_staging(id)?;
    let mut room = Room::of(store, grant)?;
    if told.broken_off.is_none() {
        take_promised_files(store, &mut room, &staging, grant, told)?;
    }
    let mut reports = gather(&staging, grant, told)?;
    if told.broken_off.is_none() {
        reports.extend(take_raw_files(store, &mut room, &staging, &reports)?);
    } else {
        // Nobody knows whether these are whole.
        for file in raw_files(&staging, &reports)? {
            fs::remove(&staging.join(file))?;
        }
    }
    let is_encrypted = reports.iter().any(|report| report.encryption.is_some());
    let encryption = grant.encryption.as_ref().filter(|_| is_encrypted);
    let recipients = encryption.map(|encryption| encryption.recipients.clone()).unwrap_or_default();
    let mut meta = meta::Meta { reports, recipients, ..grant.meta.clone() };
    meta.cost.extend(told.cost.clone());
    meta.cost.insert("raw_bytes".into(), meta.reports.iter().map(|r| r.raw_bytes).sum::<u64>().into());
    meta.cost.insert("stored_bytes".into(), meta.reports.iter().map(|r| r.stored_bytes).sum::<u64>().into());
    meta.versions.extend(told.versions.clone());
    // Those of the grant, which the operator set, come first.
    for (name, value) in &told.labels {
        meta.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    hide_secrets(&mut meta);
    match sync_and_rename(store, &staging, &meta) {
        Err(full) if full.is_no_space() => {
            room.make(1 << 20)?;
            sync_and_rename(store, &staging, &meta)?;
        }
        other => other?,
    }
    Ok(meta)
}

// The record stays readable where reports are encrypted, and travels to the remote. An application may put anything into it.
fn hide_secrets(meta: &mut meta::Meta) {
    let reports = meta.reports.iter_mut().flat_map(|report| [report.error.as_mut(), report.note.as_mut()]).flatten();
    let named = meta.labels.values_mut().chain(meta.versions.values_mut());
    let own = [&mut meta.role, &mut meta.worker, &mut meta.trigger.reason];
    for text in named.chain(own).chain(reports) {
        *text = fs::without_secrets(text).into_owned();
    }
}

/// Publishes what is whole in the staging directory of a dumper that is dead. Returns `None`, and changes nothing, if no report
/// is whole. A publication that was under way is completed.
pub fn salvage(store: &Store, id: Id, told: &Told) -> Result<Option<meta::Meta>> {
    let staging = store.own_staging(&id)?;
    if let Some(meta) = unfinished(&staging) {
        rename_into_place(store, &staging, &meta)?;
        return Ok(Some(meta));
    }
    let mut grant = staging::read(&staging)?;
    // A sidecar that cannot be read counts as none.
    let is_whole =
        |name| staging::read_sidecar(&staging, name).ok().flatten().is_some_and(|report| report.file.is_some());
    if !grant.planned.iter().any(|name| !told.failed.contains_key(name) && is_whole(name)) {
        return Ok(None);
    }
    // Others may have been published since the grant.
    grant.reports_bytes = None;
    publish(store, &grant, told).map(Some)
}

// Reads the record of a publication that was interrupted after the data and the record were synced.
fn unfinished(staging: &Spot) -> Option<meta::Meta> {
    let named = |name: &str| {
        let data = fs::read_bounded(&staging.join(name), meta::MAX_FILE).ok()?;
        meta::parse(staging.path(), &data).ok()
    };
    // A file of that name beside a grant is the application's.
    named(RECORD).or_else(|| named("meta.json").filter(|_| staging::read(staging).is_err()))
}

// Makes one entry for every promised report: verified data, or the reason why there is none.
fn gather(staging: &Spot, grant: &Grant, told: &Told) -> Result<Vec<meta::Report>> {
    let mut reports = Vec::new();
    let extra = told.failed.keys().filter(|name| !grant.planned.contains(name));
    for name in grant.planned.iter().chain(extra) {
        let noted = staging::read_sidecar(staging, name)?;
        let report = match (told.failed.get(name), noted) {
            (Some(error), noted) => {
                if let Some(file) = noted.and_then(|report| report.file) {
                    fs::remove(&staging.join(file))?;
                }
                meta::Report::failed(name.clone(), error)
            }
            (None, None) => {
                meta::Report::failed(name.clone(), told.broken_off.as_deref().unwrap_or("it was not delivered"))
            }
            (None, Some(report)) => verified(staging, report)?,
        };
        let took_ms = told.took.get(name).cloned().or(report.took_ms);
        let note = told.notes.get(name).cloned().or(report.note);
        reports.push(meta::Report { took_ms, note, ..report });
    }
    reports.extend(summary_beside(staging, grant, &reports)?);
    Ok(reports)
}

// Returns the summary that was made while the heap dump was stored, which nobody promised. Without the dump it is nothing.
fn summary_beside(staging: &Spot, grant: &Grant, reports: &[meta::Report]) -> Result<Option<meta::Report>> {
    let name = ReportName::from_text(HEAP_SUMMARY);
    if reports.iter().any(|report| report.name == name) || grant.planned.contains(&name) {
        return Ok(None);
    }
    if !reports.iter().any(|report| report.name == *HEAP_DUMP && report.file.is_some()) {
        let _ = staging::release(staging, &name);
        return Ok(None);
    }
    let noted = staging::read_sidecar(staging, &name).ok().flatten();
    noted
        .map(|report| verified(staging, report))
        .transpose()
        .map(|report| report.filter(|report| report.file.is_some()))
}

fn verified(staging: &Spot, report: meta::Report) -> Result<meta::Report> {
    let Some(file) = &report.file else { return Ok(report) };
    let (sha256, length) = writer::hash_file(&staging.join(file))?;
    if Some(&sha256) == report.sha256.as_ref() && length == report.stored_bytes {
        return Ok(report);
    }
    fs::remove(&staging.join(file))?;
    Ok(meta::Report::failed(report.name, "its file changed after it was written"))
}

// Takes promised reports that the dumper staged as plain files of that name, such as `threads.txt`, instead of using `put`.
fn take_promised_files(store: &Store, room: &mut Room<'_>, staging: &Spot, grant: &Grant, told: &Told) -> Result<()> {
    for file in raw_files(staging, &[])? {
        let name = file.to_str().and_then(plain_stem).unwrap_or_default();
        let Some(name) = grant.planned.iter().find(|planned| **planned == name) else { continue };
        if !told.failed.contains_key(name) && staging::read_sidecar(staging, name)?.is_none() {
            let form = store.options().file_type(name);
            let report = take_raw_file(store, room, staging, &file, name, &form)?;
            staging::write_sidecar(staging, &report)?;
        }
    }
    Ok(())
}

// `threads.txt` → `threads`. Returns nothing for a compressed file, which may be the leftover of a killed `put`.
fn plain_stem(file: &str) -> Option<&str> {
    let (stem, extension) = file.split_once('.').unwrap_or((file, ""));
    (!extension.contains('.') && !matches!(extension, "gz" | "zst" | "age")).then_some(stem)
}

/// A report that `take_raw_files` does not accept in any form.
const HEAP_DUMP: &str = "heap_dump";

// Turns files that a command wrote into DIAGCTL_CAPTURE_DIR into reports, compressed like all others.
fn take_raw_files(
    store: &Store,
    room: &mut Room<'_>,
    staging: &Spot,
    known: &[meta::Report],
) -> Result<Vec<meta::Report>> {
    let mut reports: Vec<meta::Report> = Vec::new();
    for file in raw_files(staging, known)? {
        let used: Vec<&ReportName> = known.iter().chain(&reports).map(|report| &report.name).collect();
        let extension = Path::new(&file).extension().and_then(|e| e.to_str()).unwrap_or_default();
        let (mut name, mut form) = (unused_name(&file.to_string_lossy(), &used), FileType::of_file(extension));
        // A request for a heap dump must get one. In its own form it is checked line by line, or summarized.
        let is_heap = name == *HEAP_DUMP || name == *HEAP_SUMMARY;
        if is_heap && matches!(extension, "" | "json" | "jsonl" | "ndjson") {
            form = store.options().file_type(&name);
        } else if is_heap {
            name = unused_name(&file.to_string_lossy().replace('.', "_"), &used);
        }
        reports.push(take_raw_file(store, room, staging, &file, &name, &form)?);
    }
    Ok(reports)
}

// Lists the files in the directory that are not diagctl's own.
fn raw_files(staging: &Spot, known: &[meta::Report]) -> Result<Vec<OsString>> {
    let is_known =
        |name: &OsString| known.iter().any(|report| report.file.as_ref().is_some_and(|file| name == file.as_str()));
    let mut names: Vec<OsString> = fs::read_dir(staging)?
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| !name.as_encoded_bytes().starts_with(b".") && !is_known(name))
        .collect();
    names.sort();
    Ok(names)
}

fn take_raw_file(
    store: &Store,
    room: &mut Room<'_>,
    staging: &Spot,
    file: &OsStr,
    name: &ReportName,
    form: &FileType,
) -> Result<meta::Report> {
    let path = staging.join(file);
    let is_file = path.stat().is_ok_and(|stat| Kind::from_raw_mode(stat.st_mode).is_file());
    let opened =
        if is_file { fs::open_read(&path) } else { Err(fs::Error::NotRegular { path: path.path().to_owned() }) };
    let mut data = match opened {
        Ok(data) => data,
        Err(error) => {
            // A file that could not be stored is not deleted.
            let why = match &error {
                fs::Error::NotRegular { .. } => "it is no regular file".to_owned(),
                fs::Error::Io { source, .. } => format!("it cannot be read: {source}"),
                other => other.to_string(),
            };
            trash::quarantine(store, &path, &format!("capture {}: {why}", staging.display()))?;
            let shown = diagctl_fs::printable(&file.to_string_lossy());
            return Ok(meta::Report::failed(name.clone(), format!("{shown} is in quarantine/: {why}")));
        }
    };
    // The compressed file may need the same name.
    let raw = staging.join(format!(".{name}.raw"));
    fs::rename_noreplace(&path, &raw)?;
    let report = writer::store_as(room, staging, name, form, &mut data, &|| None);
    fs::remove(&raw)?;
    Ok(report.unwrap_or_else(|failure| meta::Report::failed(name.clone(), failure.to_string())))
}

// `a.log` becomes report `a`; `a.txt` in the same capture becomes `a_txt`.
fn unused_name(file: &str, used: &[&ReportName]) -> ReportName {
    let stem = file.split('.').next().unwrap_or_default();
    let numbered = (2..).map(|n| ReportName::from_text(&format!("{stem:.40}_{n}")));
    let mut names = [stem, file].map(ReportName::from_text).into_iter().chain(numbered);
    // There is always a next number.
    names.find(|name| !used.contains(&name)).unwrap_or_else(|| ReportName::from_text(stem))
}

fn sync_and_rename(store: &Store, staging: &Spot, meta: &meta::Meta) -> Result<()> {
    for report in &meta.reports {
        if let Some(file) = &report.file {
            let path = staging.join(file);
            fs::open_read(&path)?.sync_all().map_err(|e| Error::io("sync", path.path(), e))?;
        }
    }
    write_meta(staging, meta)?;
    rename_into_place(store, staging, meta)
}

// Everything in the directory is synced but the directory itself.
fn rename_into_place(store: &Store, staging: &Spot, meta: &meta::Meta) -> Result<()> {
    for entry in fs::read_dir(staging)? {
        let name = entry.name.to_string_lossy();
        if name.starts_with('.') && name != RECORD {
            fs::remove(&staging.join(entry.name))?;
        }
    }
    let record = staging.join("meta.json");
    match fs::rename(&staging.join(RECORD), &record) {
        // A first attempt has renamed it. Without a record, the directory would be no capture.
        Err(e) if e.is_not_found() => drop(fs::stat(&record)?),
        other => other?,
    }
    // A command may have changed the mode.
    fs::set_dir_mode(staging, store.directory_mode()?)?;
    fs::sync_dir(staging)?;
    let published = store.report_dir(&meta.id);
    let rename = || Ok(fs::rename_noreplace(staging, &published)?);
    catalog::publish(store, &NewRecord::of(meta, fs::occupied_tree(staging)), rename)?;
    let synced = fs::sync_dir(&store.path("reports")).and_then(|()| fs::sync_dir(&store.path("staging")));
    if synced.is_err() {
        // A capture that a power cut may undo is not acknowledged, so it must not be listed either.
        fs::rename_noreplace(&published, staging)?;
    }
    Ok(synced?)
}

fn write_meta(staging: &Spot, meta: &meta::Meta) -> Result<()> {
    let path = staging.join(RECORD);
    // A first attempt that found the disk full may have left a file.
    fs::remove(&path)?;
    let data = serde_json::to_vec_pretty(meta).map_err(Error::encode("meta.json"))?;
    let data = checksum::seal(&data);
    if data.len() as u64 > meta::MAX_FILE {
        // A larger record could not be read back.
        return Err(Error::TooManyReports {
            capture: meta.id,
            reports: meta.reports.len(),
            bytes: data.len() as u64,
            most: meta::MAX_FILE,
        });
    }
    let mut file: File = fs::create_new(&path)?;
    fs::widen_like_parent(&file, &path)?;
    file.write_all(&data).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", path.path(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_files_never_get_the_same_report_name() {
        let used = ["a", "b", "b_log"].map(ReportName::from_text);
        let used: Vec<&ReportName> = used.iter().collect();
        assert_eq!(unused_name("c.log", &used), "c");
        assert_eq!(unused_name("a.log", &used), "a_log");
        assert_eq!(unused_name("b.log", &used), "b_2");
    }

    #[test]
    fn an_oversized_record_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let staging = Spot::hold(dir.path()).unwrap();
        let report = meta::Report::failed(ReportName::from_text("r"), "x".repeat(1 << 20));
        let mut meta = meta::Meta { reports: vec![report; 3], ..meta::Meta::default() };
        write_meta(&staging, &meta).unwrap();
        meta.reports.push(meta.reports[0].clone());
        let failure = write_meta(&staging, &meta).unwrap_err();
        assert!(matches!(failure, Error::TooManyReports { reports: 4, .. }), "{failure}");
        assert!(failure.to_string().contains("4 reports") && failure.to_string().contains("4.00 MiB"), "{failure}");
        assert!(!staging.join(RECORD).exists() && !staging.join("meta.json").exists());
    }

    #[test]
    fn a_promised_report_may_be_an_uncompressed_file_of_its_name() {
        for (file, stem) in [
            ("threads.txt", Some("threads")),
            ("threads", Some("threads")),
            ("threads.txt.gz", None),
            ("threads.gz", None),
            ("threads.zst", None),
        ] {
            assert_eq!(plain_stem(file), stem, "{file}");
        }
    }

    #[test]
    fn file_names_become_report_names() {
        for (file, name) in [
            ("slow-queries.csv", "slow_queries"),
            ("Heap.json", "heap"),
            ("9lives", "file_9lives"),
            ("meta.json", "file_meta"),
        ] {
            assert_eq!(unused_name(file, &[]), name);
        }
    }
}
