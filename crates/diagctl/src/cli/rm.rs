//! `diagctl rm`: deletes captures.

use super::output::{self, Done};
use super::remote;
use super::remote::view::{From, Target};
use super::{Context, Failure};
use crate::cli::error::quoted;
use crate::exit_code::Exit;
use diagctl_store::catalog::{Catalog, Stamp};
use diagctl_store::events::{self, Event};
use diagctl_store::index;
use diagctl_store::{Access, Id, Store, reader};

/// Delete captures
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  diagctl rm latest\n  diagctl list -q --rule routine | xargs diagctl rm\n  diagctl rm --remote web-1/20261128T041936157Z-af22a2f7"
)]
pub struct Args {
    /// Capture IDs, unique prefixes, or `latest`
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Delete pinned captures too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    from: From,
}

/// With more captures than this, the index is not rewritten for a few deletions.
const MANY: u64 = 1000;

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let by = super::request::invoking_user();
    if args.from.is_remote() {
        return of_remote(cx, args, &by);
    }
    let store = cx.open(Access::Write)?;
    let targets = each(&store, &args.ids);
    let done = outcome(targets, |id| delete(&store, id, args.force, &by))?;
    // The captures are gone even if this fails. On a full disk their lines stay in the index, and readers skip them. In a large
    // store the lines stay until there are enough of them.
    let is_large =
        Catalog::current(&store).is_some_and(|catalog| catalog.totals().captures > MANY && !catalog.is_stale());
    if !is_large {
        let _ = index::compact(&store, &mut Stamp::of_index(&store));
    }
    Ok(done)
}

fn of_remote(cx: &Context, args: &Args, by: &str) -> Result<Done, Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for id in &args.ids {
        let target = args.from.resolve_for_deletion(cx, id)?;
        if let Some(report) = &target.report {
            let message = format!("{} is a report, but this command takes whole captures", quoted(report));
            return Err(Failure::new(Exit::Usage, message).hint(format!("use the capture ID, {}", target.entry.id)));
        }
        if target.entry.pinned && !args.force {
            let message = format!("capture {} was pinned when it was shipped", target.entry.id);
            return Err(Failure::failed(message).hint("use --force"));
        }
        targets.push(target);
    }
    // It prints what it has deleted.
    remote::delete(cx, &targets, by)?;
    Ok(Done::silent())
}

fn delete(store: &Store, id: &Id, force: bool, by: &str) -> Result<String, Failure> {
    let dir = store.report_dir(id);
    // Checks the marker, because the index may lag behind it.
    if !force && dir.join(index::PIN_FILE).exists() {
        return Err(Failure::failed(format!("capture {id} is pinned"))
            .hint(format!("run `diagctl unpin {id}` first, or use --force")));
    }
    if !dir.exists() {
        return Err(Failure::new(Exit::NoMatch, format!("capture {id} is already gone")));
    }
    diagctl_store::trash::discard_capture(store, *id, None)?;
    let about = Event::about("deleted", id, &format!("by {by} with diagctl rm"));
    events::record(store, &Event { cause: "person".into(), ..about });
    Ok(format!("deleted {id}"))
}

/// Resolves each id on a command line. All are resolved before anything is done, so that `latest` means the capture that was
/// the latest at the start.
pub fn each(store: &Store, ids: &[String]) -> Vec<Result<Id, Failure>> {
    let mut found = Vec::new();
    for text in ids {
        let target = reader::resolve(store, text).map_err(Failure::from).and_then(|target| match target.report {
            None => Ok(target.id),
            Some(_) => {
                let message = format!("{} is a report, but this command takes whole captures", quoted(text));
                Err(Failure::new(Exit::Usage, message).hint(format!("use the capture ID, {}", target.id)))
            }
        });
        let again = matches!(&target, Ok(id) if found.iter().any(|f| matches!(f, Ok(earlier) if earlier == id)));
        if !again {
            found.push(target);
        }
    }
    found
}

/// Applies an action to several captures and prints a line for each. If some fail, the exit status is `Partial`.
pub fn outcome(
    targets: Vec<Result<Id, Failure>>,
    act: impl Fn(&Id) -> Result<String, Failure>,
) -> Result<Done, Failure> {
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for target in targets {
        match target.and_then(|id| act(&id)) {
            Ok(line) => lines.push(line),
            Err(failure) => failures.push(failure),
        }
    }
    if lines.is_empty() && failures.len() == 1 {
        return Err(failures.remove(0));
    }
    let exit = match failures.first() {
        None => Exit::Ok,
        Some(_) if !lines.is_empty() => Exit::Partial,
        Some(first) if failures.iter().all(|failure| failure.exit == first.exit) => first.exit,
        Some(_) => Exit::Failed,
    };
    for failure in &failures {
        output::note(&failure.message);
    }
    Ok(Done::text(lines.join("\n")).with_exit(exit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use diagctl_store::meta::Meta;

    const A: &str = "20260101T000000000Z-aaaaaaaa";
    const B: &str = "20260101T000000001Z-bbbbbbbb";

    fn ended(store: &Store, ids: &[&str], refused: &[&str]) -> String {
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        let result = outcome(each(store, &ids), |id| {
            if refused.contains(&id.as_str()) { Err(Failure::failed("pinned")) } else { Ok(format!("deleted {id}")) }
        });
        result.map_or_else(|failure| format!("{failure:?}"), |done| format!("{done:?}"))
    }

    #[test]
    fn the_exit_status_distinguishes_all_some_and_none() {
        let table: [(&[&str], &[&str], Exit); 8] = [
            (&[A, B], &[], Exit::Ok),
            (&["latest", B], &[], Exit::Ok),
            (&[A, "2001"], &[], Exit::Partial),
            (&[A, B], &[B], Exit::Partial),
            (&["2001"], &[], Exit::NoMatch),
            (&["2001", "2002"], &[], Exit::NoMatch),
            (&["2001", A], &[A], Exit::Failed),
            (&["latest:heap_dump"], &[], Exit::NoMatch),
        ];
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(diagctl_store::StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        for (sequence, id) in [(1, A), (2, B)] {
            let id = id.parse().unwrap();
            let meta = Meta { id, sequence, ..Meta::default() };
            std::fs::create_dir(store.report_dir(&id).path()).unwrap();
            let record = store.report_dir(&id).join("meta.json");
            std::fs::write(record.path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        }
        for (ids, refused, expected) in table {
            let ended = ended(&store, ids, refused);
            assert!(ended.contains(&format!("exit: {expected:?},")), "{ids:?} {refused:?} {ended}");
        }
    }
}
