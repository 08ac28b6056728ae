//! Formats a trend for people.

use diagctl_heapdump::summary::trend::{Series, Trend};

use super::By;
use super::figures::{LEAST_SPAN_MS, signed};
use super::view::View;
use super::{Args, counted_as};
use crate::cli::error::printable;
use crate::cli::output::{self, who};
use crate::cli::wrap::wrapped;
use crate::units::{duration, size};

/// The most bars of a sparkline: the table fits 80 columns.
const BARS: usize = 12;

fn sparkline(figures: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = figures.len().div_ceil(BARS).max(1);
    // The last one always shows.
    let mut shown: Vec<u64> = figures.iter().rev().step_by(step).copied().collect();
    shown.reverse();
    let (least, most) = (shown.iter().min().copied().unwrap_or(0), shown.iter().max().copied().unwrap_or(0));
    let level = |figure: &u64| ((figure - least) * 7).checked_div(most - least).unwrap_or(0) as usize;
    shown.iter().map(|figure| LEVELS[level(figure).min(7)]).collect()
}

/// Formats the verdict and the table.
pub(super) fn render(view: &View, trend: &Trend, args: &Args) -> String {
    let of = match view.old_only {
        _ if args.by == By::Root => "reachable objects, by the root of the shortest path to each",
        true => "objects that survived three collections",
        false => "all objects, garbage too",
    };
    let mut text = format!(
        "process {} {}: {} over {}\nfigures: {of}\n\n",
        view.pid,
        who(&view.role, &view.name),
        counted_as(view.summaries.len(), args.by),
        duration(view.over_ms)
    );
    if let Some(release) = view.summaries.last().and_then(|taken| taken.release.as_ref()) {
        text = text.replacen('\n', &format!(", release {}\n", printable(release)), 1);
    }
    let said = match view.verdict {
        "leak" => "Leak:",
        "grows" => "It grows, but no group of objects grows in each summary.",
        _ => "No steady growth: nothing grows in each summary.",
    };
    let of_dumps = if args.by == By::Root { "dump" } else { "summary" };
    text.push_str(&said.replace("summary", of_dumps));
    for reason in &view.because {
        text.push('\n');
        text.push_str(wrapped("  - ", &printable(reason)).trim_end());
    }
    text.push_str("\n\n");
    let heading = match args.by {
        By::Class => "CLASS",
        By::Type => "TYPE",
        By::Site => "SITE",
        By::Generation => "GENERATION",
        By::Root => "ROOT",
    };
    let row = |series: &Series| {
        vec![
            sparkline(&series.bytes),
            size(series.bytes.last().copied().unwrap_or(0)),
            signed(series.growth()),
            if view.over_ms < LEAST_SPAN_MS { "-".to_owned() } else { format!("{}/h", signed(series.per_hour.into())) },
            match series.leaks() {
                // All together are no leak of one group.
                true if std::ptr::eq(series, &raw const trend.all) => "grows",
                true => "yes",
                false => "",
            }
            .to_owned(),
            series.name.clone(),
        ]
    };
    let shown = std::iter::once(&trend.all).chain(trend.groups.iter().take(args.limit));
    let rows: Vec<Vec<String>> = shown.map(row).collect();
    text.push_str(&output::table(&["TREND", "NOW", "GROWTH", "SLOPE", "LEAK", heading], &rows, &[1, 2, 3], &[3, 1]));
    text.push_str(&super::super::left_out(view.left_out));
    if !view.releases.is_empty() {
        text.push_str("\n\nOther releases:\n");
        for release in &view.releases {
            text.push_str(&format!("  {}\n", printable(&release.sentence())));
        }
        text.truncate(text.trim_end().len());
    }
    if !view.next.is_empty() {
        text.push_str(&format!("\n\nNext:\n  {}\n", view.next.join("\n  ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_shows_the_last_figure_and_at_most_twelve() {
        assert_eq!(sparkline(&[0, 50, 100]), "▁▄█");
        assert_eq!(sparkline(&[5, 5, 5]), "▁▁▁");
        let many: Vec<u64> = (0..100).collect();
        let line = sparkline(&many);
        assert!(line.chars().count() <= BARS && line.ends_with('█'), "{line}");
    }
}
