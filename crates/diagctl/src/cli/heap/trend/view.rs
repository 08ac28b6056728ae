//! The verdict over summaries, and why.

use diagctl_heapdump::summary::trend::{Series, Trend};
use serde::Serialize;

use super::super::leak::Leak;
use super::figures::{LEAST_SPAN_MS, signed};
use super::points::Taken;
use super::releases::Release;
use super::{Args, By, counted_as};
use crate::units::size;

/// The share of the objects that came between two heap dumps that must still be there in a third to make them a leak.
const STAYS_PERCENT: u64 = 50;

/// Groups that a verdict names.
const NAMED: usize = 3;

#[derive(Serialize)]
pub(super) struct View {
    pub schema: u32,
    pub pid: u32,
    pub role: String,
    pub name: String,
    pub summaries: Vec<Taken>,
    pub over_ms: u64,
    /// The key of the groups.
    pub by: By,
    /// True if the figures leave out what did not survive three collections.
    pub old_only: bool,
    pub verdict: &'static str,
    pub because: Vec<String>,
    pub all: Row,
    pub groups: Vec<Row>,
    /// Groups that the limit left out.
    pub left_out: usize,
    /// The same of processes with the same name, of other releases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<Release>,
    /// The growth between the heap dumps of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leak: Option<Leak>,
    pub next: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Row {
    pub name: String,
    pub growth: i64,
    /// Bytes an hour; `null` over less than a minute.
    pub per_hour: Option<i64>,
    pub always_grows: bool,
    pub leaks: bool,
    pub bytes: Vec<u64>,
    pub counts: Vec<u64>,
}

impl Row {
    fn of(series: &Series, over_ms: u64) -> Self {
        Self {
            name: series.name.clone(),
            growth: i64::try_from(series.growth()).unwrap_or(i64::MAX),
            per_hour: (over_ms >= LEAST_SPAN_MS).then_some(series.per_hour),
            always_grows: series.always_grows,
            leaks: series.leaks(),
            bytes: series.bytes.clone(),
            counts: series.counts.clone(),
        }
    }
}

/// Other facts about the process.
pub(super) struct Besides {
    pub releases: Vec<Release>,
    pub leak: Option<Leak>,
    /// The newest capture of the process with a heap dump.
    pub dump: Option<String>,
    /// True if the captures are of the remote, which has no recorded polls.
    pub is_remote: bool,
}

/// Judges a trend.
pub(super) fn view(
    args: &Args,
    (pid, role, name): (u32, String, String),
    taken: Vec<Taken>,
    trend: &Trend,
    besides: Besides,
) -> View {
    let over_ms = match (taken.first(), taken.last()) {
        (Some(first), Some(last)) => last.store_ms.saturating_sub(first.store_ms),
        _ => 0,
    };
    let leaks: Vec<&Series> = trend.groups.iter().filter(|group| group.leaks()).collect();
    let rss = rss_growth(&taken);
    let mut because: Vec<String> =
        leaks.iter().take(NAMED).map(|leak| sentence(leak, &counted_as(taken.len(), args.by), over_ms, rss)).collect();
    because.extend(more(leaks.len().saturating_sub(NAMED)));
    if rss.is_none() {
        let why = match besides.is_remote {
            true => "no capture with smaps or smaps_rollup tells it at the first and the last summary",
            false => "neither a capture nor a recorded poll tells it at the first and the last summary",
        };
        because.push(format!("the growth of RSS is not known: {why}"));
    }
    because.extend(besides.leak.as_ref().map(Leak::sentence));
    let found = besides.leak.as_ref();
    let stays = found.and_then(|leak| leak.still_there_percent).is_some_and(|percent| percent >= STAYS_PERCENT);
    let verdict = match leaks.is_empty() && !stays {
        false => "leak",
        true if trend.all.leaks() || found.is_some() => "grows",
        true => "no_leak",
    };
    let next = leaks.first().map(|leak| {
        let to = if args.by == By::Class { leak.name.as_str() } else { "CLASS" };
        let to = to.replace('\'', "");
        match &besides.dump {
            Some(id) if args.by == By::Root => vec![format!("diagctl heap retained {id}")],
            Some(id) => vec![format!("diagctl heap path {id} '{to}'")],
            None => vec![
                format!("diagctl request heap_dump --pid {pid} --reason 'what keeps it?' --wait"),
                format!("diagctl heap path latest '{to}'"),
            ],
        }
    });
    View {
        schema: 1,
        pid,
        role,
        name,
        over_ms,
        by: args.by,
        old_only: trend.old_only,
        verdict,
        because,
        all: Row::of(&trend.all, over_ms),
        groups: trend.groups.iter().take(args.limit).map(|series| Row::of(series, over_ms)).collect(),
        left_out: trend.groups.len().saturating_sub(args.limit),
        releases: besides.releases,
        leak: besides.leak,
        next: next.unwrap_or_default(),
        summaries: taken,
    }
}

fn rss_growth(taken: &[Taken]) -> Option<i128> {
    Some(i128::from(taken.last()?.rss?) - i128::from(taken.first()?.rss?))
}

fn sentence(leak: &Series, summaries: &str, over_ms: u64, rss: Option<i128>) -> String {
    let (first, last) = (leak.bytes.first().copied().unwrap_or(0), leak.bytes.last().copied().unwrap_or(0));
    let mut text = format!("{} grows in each of {summaries}: from {} to {}", leak.name, size(first), size(last));
    if over_ms >= LEAST_SPAN_MS {
        text.push_str(&format!(", {} an hour", signed(leak.per_hour.into())));
    }
    match rss {
        Some(grown) if grown > 0 => {
            let share = leak.growth() * 100 / grown;
            text.push_str(&format!(
                "; {share} % of the growth of RSS, {}",
                size(u64::try_from(grown).unwrap_or(u64::MAX))
            ));
        }
        Some(_) => text.push_str("; RSS did not grow"),
        None => {}
    }
    text
}

// A sentence about the leaks that are not named.
fn more(leaks: usize) -> Option<String> {
    match leaks {
        0 => None,
        1 => Some("1 more grows in each of them".to_owned()),
        many => Some(format!("{many} more grow in each of them")),
    }
}

#[cfg(test)]
mod tests {
    use super::more;

    #[test]
    fn one_more_leak_is_in_the_singular() {
        let sentences = [0, 1, 2].map(more);
        assert_eq!(
            sentences.map(Option::unwrap_or_default),
            ["", "1 more grows in each of them", "2 more grow in each of them"]
        );
    }
}
