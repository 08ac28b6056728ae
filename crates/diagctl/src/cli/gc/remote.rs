//! `diagctl gc --remote`: deletes old captures of all machines in the remote.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::View;
use crate::cli::output::{self, Done};
use crate::cli::{Context, Failure, remote};
use crate::exit_code::Exit;
use crate::units::{Invalid, ms, parse_size, parse_wait, size};

/// The options about the remote.
#[derive(Debug, clap::Args)]
pub struct RemoteArgs {
    /// Delete captures in the remote, of all machines, instead of those in this store
    #[arg(long)]
    pub remote: bool,
    /// With --remote: delete what was shipped longer ago than this (90d)
    #[arg(long, value_name = "AGE", requires = "remote", value_parser = parse_wait)]
    max_age: Option<Duration>,
    /// With --remote: delete the oldest until the others have at most this size (500GiB)
    #[arg(long, value_name = "SIZE", requires = "remote", value_parser = some_size)]
    max_use: Option<u64>,
}

/// The reason of captures for which no other is told.
const WITHIN: &str = "within all limits";

/// The verdict on a capture.
#[derive(Debug, Deserialize)]
struct Verdict {
    id: String,
    host: String,
    bytes: u64,
    keep: bool,
    reason: String,
}

/// The same as `gc` without --remote prints it.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    host: &'a str,
    keep: bool,
    reasons: Vec<&'a str>,
    disk_bytes: u64,
}

// Nobody means all captures of all machines. `rm --remote` takes IDs.
fn some_size(text: &str) -> Result<u64, Invalid> {
    match parse_size(text)? {
        0 => Err(Invalid::new("must be more than zero", "use a value like 500GiB")),
        bytes => Ok(bytes),
    }
}

pub(super) fn run(cx: &Context, args: &super::Args) -> Result<Done, Failure> {
    let RemoteArgs { max_age, max_use, .. } = args.remote;
    if max_age.is_none() && max_use.is_none() {
        return Err(Failure::new(
            Exit::Usage,
            "gc --remote needs --max-age or --max-use: the remote belongs to all machines",
        )
        .hint("`diagctl gc --remote --max-age 90d --dry-run` shows what would be deleted"));
    }
    let mut command = remote::command(cx)?;
    command.arg("gc").arg(format!("--by={}", crate::cli::request::invoking_user()));
    command.args(max_age.map(|age| format!("--max-age-ms={}", ms(age))));
    command.args(max_use.map(|bytes| format!("--max-use={bytes}")));
    command.args(args.dry_run.then_some("--dry-run"));
    let mut verdicts: Vec<Verdict> = remote::lines_of(command, "not everything was deleted")?;
    verdicts.sort_by(|a, b| (a.keep, &a.id).cmp(&(b.keep, &b.id)));
    let of = |keep: bool| verdicts.iter().filter(move |verdict| verdict.keep == keep);
    let bytes = |keep: bool| of(keep).map(|verdict| verdict.bytes).sum();
    let view = View {
        schema: 1,
        dry_run: args.dry_run,
        captures: verdicts.iter().map(row).collect(),
        deleted: of(false).count(),
        freed_bytes: bytes(false),
        kept: of(true).count(),
        kept_bytes: bytes(true),
    };
    Done::either(args.json, &view, |view| text(view, max_use))
}

fn row(verdict: &Verdict) -> Row<'_> {
    let reason = Some(verdict.reason.as_str()).filter(|reason| !reason.is_empty()).unwrap_or(WITHIN);
    let Verdict { id, host, bytes, keep, .. } = verdict;
    Row { id, host, keep: *keep, reasons: vec![reason], disk_bytes: *bytes }
}

// What is kept for no particular reason would fill the screen.
fn text(view: &View<Row<'_>>, max_use: Option<u64>) -> String {
    let told = view.captures.iter().filter(|row| !row.keep || row.reasons != [WITHIN]);
    let row = |row: &Row<'_>| {
        let action = match (view.dry_run, row.keep) {
            (true, true) => "keep",
            (true, false) => "delete",
            (false, true) => "kept",
            (false, false) => "deleted",
        };
        vec![action.to_owned(), row.id.to_owned(), row.host.to_owned(), size(row.disk_bytes), row.reasons.join("; ")]
    };
    let rows: Vec<Vec<String>> = told.map(row).collect();
    let mut total = view.total();
    if let Some(most) = max_use.filter(|most| view.kept_bytes > *most) {
        total = format!("{total}; that is more than {}, because no other may go", size(most));
    }
    if rows.is_empty() {
        return total;
    }
    format!(
        "{}\n\n{total}",
        output::table_with_cuts(&["ACTION", "CAPTURE", "HOST", "SIZE", "REASON"], &rows, &[2, 3], &[2])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_with_its_reason_and_a_cap_that_is_missed() {
        let row = |id, keep, reason| Row { id, host: "web-1", keep, reasons: vec![reason], disk_bytes: 907 };
        let captures = [
            row("20261128T100000001Z-aaaaaaaa", false, "shipped 90d 1h ago, longer than 90d"),
            row("20261128T100000002Z-aaaaaaaa", true, "pinned when it was shipped"),
            row("20261128T100000003Z-aaaaaaaa", true, WITHIN),
        ];
        let view = |dry_run| View {
            schema: 1,
            dry_run,
            captures: captures.iter().map(|row| Row { reasons: row.reasons.clone(), ..*row }).collect(),
            deleted: 1,
            freed_bytes: 907,
            kept: 2,
            kept_bytes: 1814,
        };
        let expected = "\
ACTION  CAPTURE                       HOST   SIZE   REASON
delete  20261128T100000001Z-aaaaaaaa  web-1  907 B  shipped 90d 1h ago, longer than 90d
keep    20261128T100000002Z-aaaaaaaa  web-1  907 B  pinned when it was shipped

would delete 1 capture (907 B), would keep 2 captures (1.77 KiB)";
        assert_eq!(text(&view(true), Some(2000)), expected);
        let capped = text(&view(false), Some(1000));
        assert!(capped.contains("\nkept "), "{capped}");
        assert!(
            capped.ends_with("kept 2 captures (1.77 KiB); that is more than 1000 B, because no other may go"),
            "{capped}"
        );
    }
}
