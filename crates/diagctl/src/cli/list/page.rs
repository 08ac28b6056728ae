//! The table of `list`.

use super::captures::Captures;
use super::filter::Sort;
use crate::cli::Failure;
use crate::cli::columns::Columns;
use crate::cli::output;
use crate::cli::times::{Times, age};
use crate::units::size;
use diagctl_store::index::{Entry, EntryReport};

/// The listing for people: the numbers of the captures and the column widths, both from a first pass over the captures.
pub struct Page<'a> {
    times: &'a Times,
    now_ms: u64,
    order: Sort,
    remote: bool,
    created: String,
    columns: Columns,
    numbers: Vec<usize>,
    /// The number of captures that match, shown or not.
    pub matched: usize,
    bytes: u64,
}

impl<'a> Page<'a> {
    /// Begins a page. That of the remote shows the machines instead of the pins, which belong to a store.
    pub fn new(times: &'a Times, now_ms: u64, order: Sort, remote: bool) -> Self {
        let created = format!("CREATED ({})", times.name());
        let columns = Columns::new(&header(&created, remote), &[2, 5, 7]).cutting(&CUT);
        Self { times, now_ms, order, remote, created, columns, numbers: Vec::new(), matched: 0, bytes: 0 }
    }

    /// Adds a capture, up to the limit.
    pub fn add(&mut self, number: usize, entry: &Entry, limit: usize) {
        self.matched += 1;
        if self.numbers.len() < limit {
            self.columns.widen(&self.row(entry));
            self.numbers.push(number);
            self.bytes = self.bytes.saturating_add(entry.disk_bytes);
        }
    }

    /// Prints the page.
    pub(super) fn print(&mut self, listing: &Captures<'_>) -> Result<(), Failure> {
        if self.numbers.is_empty() {
            return Ok(());
        }
        // The column that orders the captures is looked for first.
        let least = if self.remote { OPTIONAL_OF_REMOTE } else { OPTIONAL };
        let mut optional = vec![column(self.order)];
        optional.extend(least.into_iter().filter(|i| *i != column(self.order)));
        self.columns.fit(output::columns(), &optional);
        output::stream(|out| {
            writeln!(out, "{}", self.columns.line(&header(&self.created, self.remote)))?;
            // Captures that were deleted after the first pass are left out.
            for entry in self.numbers.iter().filter_map(|number| listing.entry(*number)) {
                let mut row = self.row(&entry);
                if !self.columns.fits(REPORTS, &row[REPORTS]) {
                    row[REPORTS] = marks_first(&entry);
                }
                writeln!(out, "{}", self.columns.line(&row))?;
            }
            if let Some(note) = self.columns.note(&header(&self.created, self.remote)) {
                writeln!(out, "{note}")?;
            }
            writeln!(out, "\n{}", self.sum())
        })
    }

    fn row(&self, entry: &Entry) -> Vec<String> {
        let mut row = row(entry, self.times, self.now_ms);
        if self.remote {
            row[HOST] = or_dash(&entry.host);
        }
        row
    }

    fn sum(&self) -> String {
        let count = match (self.numbers.len(), self.matched) {
            (1, 1) => "1 capture".to_owned(),
            (shown, matched) if shown == matched => format!("{shown} captures, {} first", self.order.first()),
            (shown, matched) => format!("the {} {shown} of {matched} captures", self.order.first()),
        };
        let zone = match self.times.name() {
            "UTC" => "times are UTC".to_owned(),
            zone => format!("times are {zone}, --utc for UTC"),
        };
        format!("{count}; {} on disk; {zone}", size(self.bytes))
    }
}

/// Columns that a narrow terminal may not show, the most important first.
const OPTIONAL: [usize; 9] = [2, 4, 6, REPORTS, 3, 7, 8, 5, 1];

/// The same for captures in the remote.
const OPTIONAL_OF_REMOTE: [usize; 9] = [HOST, 2, 4, 6, REPORTS, 3, 7, 5, 1];

/// Columns whose long cells are cut: the name, the rule, the machine and the reports.
const CUT: [usize; 4] = [4, 6, HOST, REPORTS];

/// The column of the machine, or of the pin.
const HOST: usize = 8;

/// The column of the reports.
const REPORTS: usize = 9;

fn header(created: &str, remote: bool) -> [&str; 10] {
    let host = if remote { "HOST" } else { "PINNED" };
    ["ID", created, "AGE", "ROLE", "NAME", "PID", "RULE", "ON DISK", host, "REPORTS"]
}

fn row(entry: &Entry, times: &Times, now_ms: u64) -> Vec<String> {
    let report = |r: &EntryReport| format!("{}{}", named(r), of_content(r.values, r.encrypted));
    let reports: Vec<String> = entry.reports.iter().map(report).collect();
    vec![
        entry.id.to_string(),
        times.show(&entry.created),
        age(entry.store_ms, now_ms),
        or_dash(&entry.role),
        or_dash(&entry.worker),
        entry.pid.to_string(),
        or_dash(&entry.rule),
        size(entry.disk_bytes),
        if entry.pinned { "pinned" } else { "" }.into(),
        or_dash(&reports.join(" ")),
    ]
}

fn named(report: &EntryReport) -> String {
    format!("{}{}", report.name, if report.error.is_some() { "!" } else { "" })
}

fn of_content(values: bool, encrypted: bool) -> &'static str {
    match (values, encrypted) {
        (true, true) => "(values,encrypted)",
        (true, false) => "(values)",
        (false, true) => "(encrypted)",
        (false, false) => "",
    }
}

// The reports for a cell that is cut: it keeps what a person has to know about the capture before fetching it.
fn marks_first(entry: &Entry) -> String {
    let any = |is_so: fn(&EntryReport) -> bool| entry.reports.iter().any(is_so);
    let marks = of_content(any(|report| report.values), any(|report| report.encrypted));
    let names: Vec<String> = entry.reports.iter().map(named).collect();
    [marks, &names.join(" ")].join(" ").trim_start().to_owned()
}

// The column that orders the captures.
fn column(order: Sort) -> usize {
    match order {
        Sort::Age => 2,
        Sort::Role => 3,
        Sort::Name => 4,
        Sort::Pid => 5,
        Sort::Rule => 6,
        Sort::Size => 7,
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::list::tests::entry;

    #[test]
    fn a_cell_that_is_cut_keeps_its_marks() {
        let mut entry = entry();
        assert_eq!(marks_first(&entry), "gc_stat jemalloc_stats!");
        entry.reports[0].encrypted = true;
        assert_eq!(row(&entry, &Times::new(true), 1)[REPORTS], "gc_stat(encrypted) jemalloc_stats!");
        assert_eq!(marks_first(&entry), "(encrypted) gc_stat jemalloc_stats!");
        entry.reports[1].values = true;
        assert_eq!(marks_first(&entry), "(values,encrypted) gc_stat jemalloc_stats!");
    }

    #[test]
    fn columns_are_aligned_and_show_zone_order_and_failures() {
        let plain = Entry { pid: 7, pinned: false, worker: String::new(), ..entry() };
        let times = Times::new(true);
        let mut page = Page::new(&times, 91_000, Sort::Age, false);
        let entries = [entry(), plain, entry()];
        entries.iter().enumerate().for_each(|(number, entry)| page.add(number, entry, 2));
        let rows = entries[..2].iter().map(|entry| page.columns.line(&row(entry, &times, 91_000)));
        let head = page.columns.line(&header(&page.created, false));
        let text = [head].into_iter().chain(rows).chain([page.sum()]).collect::<Vec<_>>().join("\n");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("CREATED (UTC)"), "{text}");
        let column = lines[0].find("REPORTS").unwrap();
        for line in &lines[1..3] {
            assert_eq!(line.find("gc_stat jemalloc_stats!"), Some(column), "{text}");
        }
        assert!(lines[1].contains("2026-11-22 10:15:30  1m 30s"), "{text}");
        assert_eq!(lines.last(), Some(&"the newest 2 of 3 captures; 8.00 KiB on disk; times are UTC"));
    }
}
