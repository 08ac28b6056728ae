//! Formats the deaths for people.

use super::{Entry, View};
use crate::cli::error::printable;
use crate::cli::output::{self, who};
use crate::cli::times::age;
use crate::units::size;

/// Formats the table.
pub(super) fn render(view: &View) -> String {
    if view.deaths.is_empty() {
        return String::new();
    }
    let header = ["LAST SEEN", "PID", "PROCESS", "RSS", "PEAK", "LIMIT", "ENDED", "RUNNING", "CAPTURES"];
    let row = |entry: &Entry| {
        let death = &entry.death;
        let running = death.running.list();
        vec![
            format!("{} ago", age(0, entry.last_seen_ago_ms)),
            death.pid.to_string(),
            who(&death.role, &death.name),
            size(death.rss_bytes),
            size(death.peak_bytes),
            death.limit_bytes.map_or_else(|| "-".into(), size),
            entry.ended.clone(),
            if running.is_empty() { "-".into() } else { running.join(", ") },
            entry.captures.len().to_string(),
        ]
    };
    let rows: Vec<_> = view.deaths.iter().map(row).collect();
    let mut text =
        format!("{}\n", output::table_of_known(&header, &rows, &[1, 3, 4, 5, 8], (&[6, 7, 8, 4, 5], &[6, 7])));
    for entry in &view.deaths {
        if let Some(path) = &entry.crash_report {
            text.push_str(&format!(
                "\nRuby's crash report of {}: {}\n",
                entry.death.pid,
                printable(&path.display().to_string())
            ));
        }
    }
    if let Some(id) = view.deaths.iter().find_map(|entry| entry.captures.first()) {
        text.push_str(&format!("\nNext:\n  diagctl diagnose {id}\n"));
    }
    text
}
