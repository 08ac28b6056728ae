//! `diagctl gc`: applies retention now, or shows what it would do.

mod remote;

use serde::Serialize;

use super::output::{self, Done};
use super::view;
use super::{Context, Failure};
use crate::units::size;
use diagctl_store::inventory::Inventory;
use diagctl_store::retention::{Pressure, Verdict};
use diagctl_store::{Access, cleanup};

/// Apply the retention limits now
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl gc --dry-run\n  diagctl gc\n  diagctl gc --remote --max-age 90d --dry-run"
)]
pub struct Args {
    /// Only show what would be deleted and kept, with the reasons
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: remote::RemoteArgs,
}

/// The verdicts on captures.
#[derive(Serialize)]
struct View<R> {
    schema: u32,
    dry_run: bool,
    /// The deleted captures, then the kept ones, each group oldest first.
    captures: Vec<R>,
    deleted: usize,
    freed_bytes: u64,
    kept: usize,
    kept_bytes: u64,
}

impl<R> View<R> {
    fn with<'a, S: From<&'a R>>(&'a self) -> View<S> {
        let captures = self.captures.iter().map(Into::into).collect();
        let Self { schema, dry_run, deleted, freed_bytes, kept, kept_bytes, .. } = *self;
        View { schema, dry_run, captures, deleted, freed_bytes, kept, kept_bytes }
    }

    fn total(&self) -> String {
        let (deletes, keeps) = if self.dry_run { ("would delete", "would keep") } else { ("deleted", "kept") };
        format!(
            "{deletes} {} ({}), {keeps} {} ({})",
            count(self.deleted),
            size(self.freed_bytes),
            count(self.kept),
            size(self.kept_bytes)
        )
    }
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    if args.remote.remote {
        return remote::run(cx, args);
    }
    let store = cx.open(if args.dry_run { Access::Read } else { Access::Write })?;
    let (_, now) = cx.peek(&store)?;
    if !args.dry_run {
        diagctl_store::trash::empty(&store)?;
        cleanup::shrink_quarantine(&store)?;
        cleanup::remove_stale_temporaries(&store, &now);
    }
    let mut stock = Inventory::check(&store, !args.dry_run)?;
    let mut plan = stock.plan(&store, now.store_ms, 0, Pressure::Routine, None)?;
    if !args.dry_run {
        stock.apply(&store, &mut plan)?;
    }
    let outcome = outcome(stock.verdicts(&plan), args.dry_run);
    Done::either(args.json, &outcome.with::<view::Retained<'_>>(), |_| text(&outcome))
}

fn outcome(mut plan: Vec<Verdict>, dry_run: bool) -> View<Verdict> {
    plan.sort_by_key(|verdict| verdict.keep);
    let kept = plan.iter().filter(|verdict| verdict.keep);
    let deleted = plan.iter().filter(|verdict| !verdict.keep);
    View {
        schema: 1,
        dry_run,
        kept: kept.clone().count(),
        kept_bytes: kept.map(|verdict| verdict.disk_bytes).sum(),
        deleted: deleted.clone().count(),
        freed_bytes: deleted.map(|verdict| verdict.disk_bytes).sum(),
        captures: plan,
    }
}

fn text(outcome: &View<Verdict>) -> String {
    let word = if outcome.dry_run { "delete" } else { "deleted" };
    // A plan also shows what is kept; after the fact, `list` does that.
    let rows: Vec<Vec<String>> = outcome
        .captures
        .iter()
        .filter(|verdict| outcome.dry_run || !verdict.keep)
        .map(|verdict| {
            let action = if verdict.keep { "keep" } else { word };
            let reason = verdict.reasons.join("; ");
            vec![action.to_owned(), verdict.id.to_string(), size(verdict.disk_bytes), reason]
        })
        .collect();
    let total = outcome.total();
    if rows.is_empty() {
        return total;
    }
    format!("{}\n\n{total}", output::table(&["ACTION", "CAPTURE", "SIZE", "REASON"], &rows, &[2], &[2]))
}

pub(super) fn count(n: usize) -> String {
    if n == 1 { "1 capture".into() } else { format!("{n} captures") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_are_listed_first_with_reasons_and_totals() {
        let verdict = |n: u64, keep: bool, reason: &str| Verdict {
            id: format!("20260101T000000000Z-{n:08x}").parse().unwrap(),
            keep,
            reasons: vec![reason.into()],
            cause: None,
            disk_bytes: 1024,
        };
        let plan = vec![
            verdict(1, true, "pinned"),
            verdict(2, false, "older than max_age 14d (15d)"),
            verdict(3, true, "last heap_dump"),
        ];
        let dry = text(&outcome(plan.clone(), true));
        let lines: Vec<&str> = dry.lines().collect();
        assert!(
            lines[1].starts_with("delete  20260101T000000000Z-00000002")
                && lines[1].ends_with("older than max_age 14d (15d)"),
            "{dry}"
        );
        assert!(lines[2].starts_with("keep    20260101T000000000Z-00000001") && lines[2].ends_with(" pinned"), "{dry}");
        assert_eq!(lines.last(), Some(&"would delete 1 capture (1.00 KiB), would keep 2 captures (2.00 KiB)"));
        let done = text(&outcome(plan, false));
        assert!(
            !done.contains("heap_dump") && done.ends_with("deleted 1 capture (1.00 KiB), kept 2 captures (2.00 KiB)"),
            "{done}"
        );
    }
}
