//! The only module that writes to stdout and stderr.
//!
//! Results go to stdout, diagnostics to stderr. A closed pipe is not an error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::cli::error::{Failure, printable, steers};
use crate::exit_code::Exit;

/// The result of a command that completed: exit status and text for stdout.
#[derive(Debug)]
pub struct Done {
    exit: Exit,
    text: String,
}

impl Done {
    /// Creates a text result.
    pub fn text(mut text: String) -> Self {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self { exit: Exit::Ok, text }
    }

    /// Creates a JSON result on one line.
    pub fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let text =
            serde_json::to_string(value).map_err(|e| Failure::failed(format!("cannot encode the result: {e}")))?;
        Ok(Self::text(printable_json(text)))
    }

    /// Creates a result as JSON or as text.
    pub fn either<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Result<Self, Failure> {
        if json { Self::json(value) } else { Ok(Self::text(text(value))) }
    }

    /// Creates an empty result.
    pub fn silent() -> Self {
        Self::text(String::new())
    }

    /// Changes the exit status.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// Escapes characters that JSON allows but a terminal acts on: DEL, the C1 controls (0x9b begins a control sequence), and
/// characters that reorder a line. They occur only inside strings.
pub fn printable_json(json: String) -> String {
    if json.is_ascii() && !json.contains('\x7f') {
        return json;
    }
    let escape = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escape).collect()
}

/// Writes a result and returns its exit status.
pub fn finish(done: Done) -> Exit {
    match io::stdout().lock().write_all(done.text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            fail(&Failure::failed(format!("cannot write to stdout: {e}")))
        }
        _ => done.exit,
    }
}

/// Prints a failure on stderr and returns its exit status.
pub fn fail(failure: &Failure) -> Exit {
    let (red, cyan, reset) = if colour(&io::stderr()) { ("\x1b[31;1m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
    let message: Vec<String> = failure.message.lines().map(printable).collect();
    let mut text = format!("{red}diagctl: {reset}{}\n", message.join("\n"));
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{cyan}  hint: {reset}{}\n", printable(hint)));
    }
    let _ = io::stderr().write_all(text.as_bytes());
    failure.exit
}

/// Prints messages from clap: help and the version on stdout, errors in the command line on stderr. The errors quote arguments,
/// which clap itself would pass to the terminal unescaped.
pub fn usage(e: &clap::Error) -> Exit {
    if e.use_stderr() {
        let text: Vec<String> = e.render().to_string().lines().map(printable).collect();
        let _ = writeln!(io::stderr(), "{}", text.join("\n"));
        return Exit::Usage;
    }
    match e.print() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            fail(&Failure::failed(format!("cannot write to stdout: {e}")))
        }
        _ => Exit::Ok,
    }
}

/// Prints a note on stderr that is not a failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "diagctl: {}", printable(text));
}

/// Returns stdout for streamed data. The caller treats a closed pipe as the end.
pub fn stdout() -> impl Write {
    io::stdout().lock()
}

/// Streams a result to stdout. A closed pipe ends the stream and is not an error.
pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("cannot write to stdout: {e}"))),
        _ => Ok(()),
    }
}

/// Returns true if stderr is a terminal. Progress is shown only then.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Returns true if output to stdout may be coloured.
pub fn colours() -> bool {
    colour(&io::stdout())
}

fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Describes a process for people: its role and, if it has one, its name within the role.
pub fn who(role: &str, name: &str) -> String {
    [role, name].join(" ").trim_end().to_owned()
}

/// Formats a table with aligned columns and no lines. Columns whose index is in `right` are right-aligned.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    let last = header.len().saturating_sub(1);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if i == last { 0 } else { 2 }));
        if right.contains(&i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A table like that of [`table`], for rows that are not all in memory. A first pass finds the widths, and each row is then
/// formatted by itself.
#[derive(Debug)]
pub struct Columns {
    widths: Vec<usize>,
    right: &'static [usize],
}

impl Columns {
    /// Creates columns as wide as their headings. Columns whose index is in `right` are right-aligned.
    pub fn new(header: &[&str], right: &'static [usize]) -> Self {
        Self { widths: header.iter().map(|cell| cell.width()).collect(), right }
    }

    /// Widens the columns to fit a row.
    pub fn widen(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).width());
        }
    }

    /// Formats a row.
    pub fn line(&self, row: &[impl AsRef<str>]) -> String {
        let mut line = String::new();
        for (i, (width, cell)) in self.widths.iter().zip(row).enumerate() {
            let cell = printable(cell.as_ref());
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            let (before, after) = if self.right.contains(&i) { (blanks.as_str(), "") } else { ("", blanks.as_str()) };
            line.extend([before, &cell, after, "  "]);
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_rows_look_like_a_table() {
        let header = ["ID", "SIZE", "NOTE"];
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        for rows in [
            vec![],
            vec![row(["a", "1", ""])],
            vec![row(["a", "1.00 KiB", "x\ty"]), row(["日本", "7", ""]), row(["", "", "a long note"])],
        ] {
            let mut columns = Columns::new(&header, &[1]);
            rows.iter().for_each(|row| columns.widen(row));
            let mut lines = vec![columns.line(&header)];
            lines.extend(rows.iter().map(|row| columns.line(row)));
            assert_eq!(lines.join("\n"), table(&header, rows, &[1]));
        }
    }

    #[test]
    fn json_has_the_same_text_without_terminal_escapes() {
        let text = "a\u{9b}2J\x7f\u{202e}\x1b[2J\n ü 日";
        let Done { text: json, .. } = Done::json(&[text]).unwrap();
        assert!(!json.trim_end().chars().any(steers), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
