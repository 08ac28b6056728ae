//! Checks one capture.

use std::io;

use indicatif::ProgressBar;

use super::{Damage, Outcome, Unknown};
use crate::fsio;
use diagctl_store::index;
use diagctl_store::reader::{Interrupted, Representation, Stored};
use diagctl_store::{Error, Id, Store, meta};

pub(super) fn capture(store: &Store, id: &Id, bar: &ProgressBar, outcome: &mut Outcome) {
    let dir = store.report_dir(id);
    let record = match meta::read(&dir) {
        Ok(record) => record,
        Err(_) if !dir.exists() => return outcome.gone.push(*id),
        Err(Error::NewerFile { .. }) => return outcome.newer.push(*id),
        Err(e) => {
            outcome.captures += 1;
            let problem = e.to_string();
            let damage = Damage { capture: *id, file: "meta.json".into(), problem, ..Damage::default() };
            return outcome.damaged.push(damage);
        }
    };
    if let Some(file) = record.repeated_file() {
        outcome.captures += 1;
        let problem = format!("two reports name {file}");
        return outcome.damaged.push(Damage { capture: *id, file: "meta.json".into(), problem, ..Damage::default() });
    }
    for report in record.reports.iter().filter(|report| report.file.is_some()) {
        match verify(store, &record, report, bar) {
            Ok(bytes) => {
                outcome.files += 1;
                outcome.bytes += bytes;
            }
            Err(_) if !dir.exists() => return outcome.gone.push(*id),
            Err(damage) => outcome.damaged.push(*damage),
        }
    }
    outcome.captures += 1;
    let known = |name: &str| {
        let of_report = record.reports.iter().any(|report| report.file.as_deref() == Some(name));
        of_report || ["meta.json", index::PIN_FILE, index::SHIPPED_FILE].contains(&name)
    };
    let mut names: Vec<String> = fsio::children(&dir)
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .filter(|name| !known(name))
        .collect();
    names.sort();
    outcome.unknown.extend(names.into_iter().map(|file| Unknown { capture: *id, file }));
}

// Checks the stored bytes, then the decompressed content: the checksum alone would also match data that was never complete.
pub(super) fn verify(
    store: &Store,
    record: &meta::Meta,
    report: &meta::Report,
    bar: &ProgressBar,
) -> Result<u64, Box<Damage>> {
    let damage = |problem: String| {
        Box::new(Damage {
            capture: record.id,
            report: Some(report.name.clone()),
            file: report.file.clone().unwrap_or_default(),
            problem,
            expected_sha256: report.sha256.clone(),
            expected_bytes: Some(report.stored_bytes),
            ..Damage::default()
        })
    };
    let before = bar.position();
    let mut stored = Stored::open(store, record, &report.name).map_err(|e| damage(e.to_string()))?;
    let (found, bytes) = stored
        .digest(u64::MAX - 1, &mut |read| bar.set_position(before + read))
        .map_err(|e| damage(format!("cannot be read: {e}")))?;
    let differs = |problem: &str| {
        let damage = damage(problem.to_owned());
        Box::new(Damage { found_sha256: Some(found.clone()), found_bytes: Some(bytes), ..*damage })
    };
    if bytes != report.stored_bytes {
        return Err(differs("its length differs from the recorded one"));
    }
    match &report.sha256 {
        None => return Err(differs("no sha256 was recorded")),
        Some(recorded) if !recorded.eq_ignore_ascii_case(&found) => {
            return Err(differs("its sha256 differs from the recorded one"));
        }
        Some(_) => {}
    }
    // The content of an encrypted report is its readers' business: checking needs no key.
    if report.encryption.is_some() {
        return Ok(bytes);
    }
    let mut progress = |written| bar.set_position(before + bytes + written);
    match stored.copy(Representation::Content, &mut io::sink(), &mut progress) {
        Ok(_) => Ok(bytes),
        Err(Interrupted::Source(error)) => Err(damage(error.to_string())),
        Err(Interrupted::Output(e)) => Err(damage(e.to_string())),
    }
}
