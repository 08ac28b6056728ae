//! `diagctl heap top` of a summary: counts without references.

use diagctl_heapdump::summary::{Amount, Group, Groups, Summary};
use serde::Serialize;

use super::grouping::{By, Sort};
use super::{Done, Failure};
use crate::cli::error::printable;
use crate::cli::output;
use crate::exit_code::Exit;
use crate::units::size;

const TAKE_A_DUMP: &str = "take a dump with `diagctl request heap_dump --reason '…' --wait`";

/// The part of a summary to show, and how.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// The groups.
    pub by: By,
    /// Their order.
    pub sort: Option<Sort>,
    /// The most of them.
    pub limit: usize,
    /// Print JSON.
    pub json: bool,
    /// The heading of their names.
    pub heading: &'static str,
}

#[derive(Serialize)]
struct View<'s> {
    schema: u32,
    dump: &'s str,
    /// Tells it from the view of a dump.
    source: &'static str,
    producer: &'s str,
    ruby: &'s str,
    complete: bool,
    objects: u64,
    bytes: u64,
    old: u64,
    old_bytes: u64,
    free_slots: u64,
    free_bytes: u64,
    groups: Vec<Row<'s>>,
    /// Groups that the limit left out.
    left_out: usize,
    /// Small groups that are not in the summary.
    not_kept: u64,
}

#[derive(Serialize)]
struct Row<'s> {
    name: &'s str,
    count: u64,
    shallow: u64,
    old: u64,
    old_bytes: u64,
}

/// Shows the largest groups of a summary.
pub fn top(dump: &str, summary: &Summary, show: &Show) -> Result<Done, Failure> {
    let groups = match show.by {
        By::Class => &summary.classes,
        By::Type => &summary.types,
        By::Site => &summary.sites,
        By::Generation => &summary.generations,
    };
    if show.sort == Some(Sort::Retained) {
        let message =
            format!("{} is a summary: it has no references, so it cannot say what is retained", printable(dump));
        return Err(Failure::new(Exit::Usage, message).hint(TAKE_A_DUMP));
    }
    if groups.groups.is_empty() && matches!(show.by, By::Site | By::Generation) {
        output::note("the allocations were not traced: see ObjectSpace.trace_object_allocations_start");
    }
    let view = view(dump, summary, groups, show);
    let exit = if summary.complete { Exit::Ok } else { Exit::Partial };
    Ok(Done::either(show.json, &view, |view| text(view, show.heading))?.with_exit(exit))
}

fn view<'s>(dump: &'s str, summary: &'s Summary, groups: &'s Groups, show: &Show) -> View<'s> {
    let mut sorted: Vec<&Group> = groups.groups.iter().collect();
    let key = |amount: &Amount| match show.sort {
        Some(Sort::Count) => (amount.count, amount.bytes),
        _ => (amount.bytes, amount.count),
    };
    sorted.sort_by_key(|group| (std::cmp::Reverse(key(&group.amount)), &group.name));
    let cut = sorted.len().saturating_sub(show.limit);
    sorted.truncate(show.limit);
    let row = |group: &'s Group| {
        let Amount { count, bytes, old, old_bytes } = group.amount;
        Row { name: &group.name, count, shallow: bytes, old, old_bytes }
    };
    let Amount { count, bytes, old, old_bytes } = summary.objects;
    View {
        schema: 1,
        dump,
        source: super::input::SUMMARY,
        producer: &summary.producer,
        ruby: &summary.ruby,
        complete: summary.complete,
        objects: count,
        bytes,
        old,
        old_bytes,
        free_slots: summary.free_slots,
        free_bytes: summary.free_bytes,
        groups: sorted.into_iter().map(row).collect(),
        left_out: cut,
        not_kept: groups.left_out,
    }
}

fn text(view: &View<'_>, heading: &str) -> String {
    let mut text = format!(
        "{}, {}; survived three collections: {}, {}\n",
        super::objects(view.objects),
        size(view.bytes),
        view.old,
        size(view.old_bytes)
    );
    if !view.complete {
        text.push_str("the summary is of a part of the heap: its producer was stopped, or damaged\n");
    }
    text.push_str("a summary has no references: garbage counts, and it cannot say what is retained\n");
    text.push_str("or what keeps an object; `diagctl request heap_dump` takes a dump\n\n");
    let row = |row: &Row<'_>| {
        vec![row.count.to_string(), size(row.shallow), row.old.to_string(), size(row.old_bytes), row.name.to_owned()]
    };
    let rows: Vec<Vec<String>> = view.groups.iter().map(row).collect();
    let header = ["COUNT", "SHALLOW", "OLD", "OLD BYTES", heading];
    text.push_str(&output::table(&header, &rows, &[0, 1, 2, 3], &[2]));
    text.push_str(&super::left_out(view.left_out));
    if view.not_kept > 0 {
        text.push_str(&format!("\n({} smaller ones are not in the summary)", view.not_kept));
    }
    text
}
