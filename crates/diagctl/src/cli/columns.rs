//! The columns of a table: their widths, and those that fit a terminal.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::cli::error::printable;
use crate::cli::wrap;

/// Text is not broken into lines that are shorter than this.
const LEAST_TEXT: usize = 20;

/// A last column of text gets this many columns before others are shown beside it, or so many beside columns that can be cut.
const TEXT: usize = 40;
const TEXT_BESIDE_CUTS: usize = 24;

/// A cell that can be cut keeps this many columns, and gets the modest width before the text gets its full one.
const LEAST_CUT: usize = 11;
const MODEST_CUT: usize = 24;

/// The columns of a table. A first pass over the rows finds the widths, and each row is then formatted by itself, so that the rows need
/// not all be in memory.
#[derive(Debug)]
pub struct Columns {
    /// The widest cell of each column.
    widths: Vec<usize>,
    /// The width of each column as shown.
    room: Vec<usize>,
    /// The indices of the columns that are shown.
    pub shown: Vec<usize>,
    right: &'static [usize],
    cut: Vec<usize>,
    /// The columns of the terminal, if it is one.
    terminal: Option<usize>,
}

impl Columns {
    /// Creates columns as wide as their headings. Columns whose index is in `right` are right-aligned.
    pub fn new(header: &[&str], right: &'static [usize]) -> Self {
        let widths: Vec<usize> = header.iter().map(|cell| cell.width()).collect();
        Self {
            room: widths.clone(),
            widths,
            shown: (0..header.len()).collect(),
            right,
            cut: Vec::new(),
            terminal: None,
        }
    }

    /// Allows long cells of these columns to be cut.
    pub fn cutting(self, cut: &[usize]) -> Self {
        Self { cut: cut.to_vec(), ..self }
    }

    /// Widens the columns to fit a row.
    pub fn widen(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).width());
        }
        self.room.clone_from(&self.widths);
    }

    /// Leaves out what does not fit into so many columns, of those in `optional`, which begins with the most important.
    pub fn fit(&mut self, columns: Option<usize>, optional: &[usize]) {
        self.terminal = columns;
        let Some(columns) = columns else { return };
        let text = self.text(optional);
        // In a narrow terminal, figures are worth more than text without line breaks.
        let least_text = if self.cut.is_empty() { TEXT } else { TEXT_BESIDE_CUTS }.min(columns / 2).max(LEAST_TEXT);
        for (i, room) in self.room.iter_mut().enumerate() {
            let least = if text == Some(i) { least_text } else { LEAST_CUT };
            if text == Some(i) || self.cut.contains(&i) {
                *room = (*room).min(least);
            }
        }
        self.shown.retain(|i| !optional.contains(i));
        // The last column has no space after it.
        let end = columns + 2;
        let mut used: usize = self.shown.iter().map(|i| self.room[*i] + 2).sum();
        for i in optional {
            if used + self.room[*i] + 2 <= end {
                used += self.room[*i] + 2;
                self.shown.push(*i);
            }
        }
        // The rest of the line goes to what was cut, the most important first.
        let mut left = end.saturating_sub(used);
        let cut: Vec<usize> = self.shown.iter().copied().filter(|i| self.cut.contains(i)).collect();
        let modest = cut.iter().map(|i| (*i, MODEST_CUT));
        let full = cut.iter().map(|i| (*i, usize::MAX));
        for (i, most) in modest.chain(text.map(|i| (i, TEXT))).chain(full) {
            let more = self.widths[i].min(most).saturating_sub(self.room[i]).min(left);
            self.room[i] += more;
            left -= more;
        }
        self.shown.sort_unstable();
    }

    fn text(&self, optional: &[usize]) -> Option<usize> {
        self.widths.len().checked_sub(1).filter(|last| !optional.contains(last))
    }

    /// Returns the columns of the terminal that are left for a last column of text; none where everything fits.
    pub fn room_for_text(&self, columns: Option<usize>, optional: &[usize]) -> Option<usize> {
        let text = self.text(optional)?;
        let others: usize = self.shown.iter().filter(|i| **i != text).map(|i| self.room[*i] + 2).sum();
        let room = columns?.saturating_sub(others).max(LEAST_TEXT);
        (self.widths[text] > room).then_some(room)
    }

    /// Names the columns that were left out or cut, if any were.
    pub fn note(&self, header: &[&str]) -> Option<String> {
        let names = |is_meant: &dyn Fn(usize) -> bool| {
            let names: Vec<&str> = (0..header.len()).filter(|i| is_meant(*i)).map(|i| header[i]).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let left_out =
            names(&|i| !self.shown.contains(&i)).map(|names| format!("left out to fit the terminal: {names}"));
        let cut = names(&|i| self.cut.contains(&i) && self.shown.contains(&i) && self.room[i] < self.widths[i]);
        let cut = cut.map(|names| format!("cut: {names}"));
        let both: Vec<String> =
            left_out.into_iter().chain(cut).map(|what| self.broken(&format!("({what}; see --json)"))).collect();
        (!both.is_empty()).then(|| both.join("\n"))
    }

    fn broken(&self, text: &str) -> String {
        wrap::broken(self.terminal.unwrap_or(usize::MAX).max(LEAST_TEXT), text).join("\n")
    }

    /// Returns true if a cell of a column that can be cut is shown in full.
    pub fn fits(&self, column: usize, text: &str) -> bool {
        printable(text).width() <= self.room[column]
    }

    /// Formats a cell, cut to its column.
    pub fn cell(&self, column: usize, text: &str) -> String {
        let text = printable(text);
        let room = self.room[column];
        if !self.cut.contains(&column) || text.width() <= room {
            return text;
        }
        let mut width = 1;
        let fits = |c: &char| {
            width += c.width().unwrap_or(0);
            width <= room
        };
        text.chars().take_while(fits).chain(['…']).collect()
    }

    /// Formats a row.
    pub fn line(&self, row: &[impl AsRef<str>]) -> String {
        let mut line = String::new();
        for i in &self.shown {
            let cell = self.cell(*i, row[*i].as_ref());
            let blanks = " ".repeat(self.room[*i].saturating_sub(cell.width()));
            let (before, after) = if self.right.contains(i) { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
            line.extend([before, &cell, after, "  "]);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 5] = ["ID", "AGE", "REPORTS", "REASON", "STATUS"];

    fn rows() -> Vec<Vec<String>> {
        vec![
            vec!["a".repeat(28), "2d 1h".into(), "heap_dump gc_stat".into(), "日本".repeat(20), "waits ".repeat(10)],
            vec!["b".repeat(28), "1s".into(), "smaps".into(), "short".into(), "x".into()],
        ]
    }

    // The columns as shown, the first row but for its text, and the note.
    fn fitted(columns: usize) -> (String, String, String) {
        let mut fitted = Columns::new(&HEADER, &[]).cutting(&[2, 3]);
        rows().iter().for_each(|row| fitted.widen(row));
        fitted.fit(Some(columns), &[2, 3, 1]);
        let shown = fitted.shown.iter().map(|i| HEADER[*i]).collect::<Vec<_>>().join(" ");
        let row = &rows()[0];
        let cells: Vec<String> = fitted.shown.iter().filter(|i| **i < 4).map(|i| fitted.cell(*i, &row[*i])).collect();
        let text = fitted.room_for_text(Some(columns), &[2, 3, 1]).unwrap_or(60);
        let width = cells.iter().map(|cell| cell.width() + 2).sum::<usize>() + text;
        assert!(width <= columns.max(50), "{width} columns for {columns}");
        (shown, cells[1..].join("|"), fitted.note(&HEADER).unwrap_or_default())
    }

    #[test]
    fn long_cells_are_cut_before_a_column_is_left_out_and_a_note_says_so() {
        let table = [
            (200, "ID AGE REPORTS REASON STATUS", format!("2d 1h|heap_dump gc_stat|{}", "日本".repeat(20)), ""),
            (
                80,
                "ID REPORTS REASON STATUS",
                "heap_dump …|日本日本日…".into(),
                "(left out to fit the terminal: AGE; see --json)\n(cut: REPORTS, REASON; see --json)",
            ),
            (
                100,
                "ID AGE REPORTS REASON STATUS",
                "2d 1h|heap_dump gc_stat|日本日本日本日本…".into(),
                "(cut: REASON; see --json)",
            ),
            (60, "ID STATUS", String::new(), "(left out to fit the terminal: AGE, REPORTS, REASON; see\n--json)"),
        ];
        for (columns, shown, cells, note) in table {
            assert_eq!(fitted(columns), (shown.to_owned(), cells, note.to_owned()), "{columns}");
        }
    }
}
