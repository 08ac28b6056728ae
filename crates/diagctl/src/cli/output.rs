//! The only module that writes to stdout and stderr.
//!
//! Results go to stdout, diagnostics to stderr. A closed pipe is not an error.

use anyhow::Context as _;
use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::columns::Columns;
use super::wrap;
use crate::cli::error::{Failure, printable, steers};
use crate::exit_code::Exit;
use crate::sys;
use diagctl_fs::without_secrets;

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
        json(value).map(Self::text)
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

/// Encodes a result as JSON on one line.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).context("cannot encode the result")?;
    Ok(printable_json(text))
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
    let print = || io::stdout().lock().write_all(done.text.as_bytes()).and_then(|()| io::stdout().flush());
    let printed = if done.text.is_empty() { Ok(()) } else { usable_stdout().and_then(|()| print()) };
    match printed {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => fail(&unprintable(&e)),
        _ => done.exit,
    }
}

/// Prints a failure on stderr and returns its exit status.
pub fn fail(failure: &Failure) -> Exit {
    if failure.message.is_empty() {
        return failure.exit;
    }
    let (red, cyan, reset) = if colour(&io::stderr()) { ("\x1b[31;1m", "\x1b[36m", "\x1b[0m") } else { ("", "", "") };
    let message: Vec<String> = without_secrets(&failure.message).lines().map(printable).collect();
    let mut text = format!("{red}diagctl: {reset}{}\n", message.join("\n"));
    if let Some(hint) = failure.hint.as_deref().map(without_secrets) {
        text.push_str(&format!("{cyan}  hint: {reset}{}\n", printable(&hint)));
    }
    let _ = io::stderr().write_all(text.as_bytes());
    failure.exit
}

/// Prints messages from clap: help and the version on stdout, errors in the command line on stderr. The errors quote arguments,
/// which clap itself would pass to the terminal unescaped.
pub fn usage(e: &clap::Error) -> Exit {
    if e.use_stderr() {
        let text: Vec<String> = without_secrets(&e.render().to_string()).lines().map(printable).collect();
        let _ = writeln!(io::stderr(), "{}", text.join("\n"));
        return Exit::Usage;
    }
    match usable_stdout().and_then(|()| e.print()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => fail(&unprintable(&e)),
        _ => Exit::Ok,
    }
}

/// Prints a note on stderr that is not a failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "diagctl: {}", printable(&without_secrets(text)));
}

// A closed stdout has been replaced by /dev/null, to which everything can be written.
fn usable_stdout() -> io::Result<()> {
    if sys::stdout_was_closed() { Err(io::Error::other("it is closed")) } else { Ok(()) }
}

/// Returns stdout for streamed data. The caller treats a closed pipe as the end.
pub fn stdout() -> io::Result<impl Write> {
    usable_stdout().map(|()| io::stdout().lock())
}

/// The failure of a command that could not print its result.
pub fn unprintable(why: &io::Error) -> Failure {
    Failure::failed(format!("cannot write to stdout: {why}"))
}

/// Streams a result to stdout. A closed pipe ends the stream and is not an error.
pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::with_capacity(64 << 10, Pipe { out: io::stdout().lock(), is_closed: false });
    match usable_stdout().and_then(|()| write(&mut out)).and_then(|()| out.flush()) {
        Err(e) if !out.get_ref().is_closed => Err(unprintable(&e)),
        _ => Ok(()),
    }
}

/// A writer that remembers that its reader has gone: the libraries that write formats wrap the error in their own.
struct Pipe<W> {
    out: W,
    is_closed: bool,
}

impl<W: Write> Pipe<W> {
    fn noting<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.is_closed |= result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let result = self.out.write(data);
        self.noting(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.noting(result)
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

/// Prose is not broken into lines that are shorter than this.
const LEAST_COLUMNS: usize = 20;

/// Formats prose for people, with a line end: the mark, then the text. In a terminal the text is broken at blanks, and its further lines
/// are indented by `indent` columns, which is the width of the mark. In a pipe or a file it takes one line.
pub fn prose(mark: &str, indent: usize, text: &str) -> String {
    indented(mark, indent, &wrap::broken(room_beside(indent), text))
}

/// Does the same for a row that is printed before the next one is known. A word that is longer than a line is broken, too.
pub fn row(mark: &str, indent: usize, text: &str) -> String {
    indented(mark, indent, &wrap::fitted(room_beside(indent), text))
}

fn room_beside(indent: usize) -> usize {
    columns().map_or(usize::MAX, |columns| columns.saturating_sub(indent).max(LEAST_COLUMNS))
}

fn indented(mark: &str, indent: usize, lines: &[String]) -> String {
    let blank = " ".repeat(indent);
    let lines = lines.iter().enumerate();
    lines.map(|(i, line)| format!("{}{line}\n", if i == 0 { mark } else { &blank })).collect()
}

/// Formats a table with aligned columns and no lines. Columns whose index is in `right` are right-aligned. In a narrow terminal,
/// columns in `optional`, the most important first, are left out if they do not fit, and named below the table. A last column that is
/// not among them holds text, which is broken where the terminal ends.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize], optional: &[usize]) -> String {
    table_in(columns(), header, rows, right, (optional, &[]))
}

/// Formats a table like [`table`]. Long cells of the columns in `cut`, which are optional, too, are cut before a column is left out.
pub fn table_with_cuts(header: &[&str], rows: &[Vec<String>], optional: &[usize], cut: &[usize]) -> String {
    table_in(columns(), header, rows, &[], (optional, cut))
}

/// Formats a table like [`table_with_cuts`] without the columns of which nothing is known: a dash in each row.
pub fn table_of_known(
    header: &[&str],
    rows: &[Vec<String>],
    right: &[usize],
    (optional, cut): (&[usize], &[usize]),
) -> String {
    let known: Vec<usize> = (0..header.len()).filter(|at| rows.iter().any(|row| row[*at] != "-")).collect();
    let kept =
        |columns: &[usize]| columns.iter().filter_map(|at| known.iter().position(|k| k == at)).collect::<Vec<_>>();
    let header: Vec<&str> = known.iter().map(|at| header[*at]).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| known.iter().map(|at| row[*at].clone()).collect()).collect();
    table_in(columns(), &header, &rows, &kept(right), (&kept(optional), &kept(cut)))
}

fn table_in(
    columns: Option<usize>,
    header: &[&str],
    rows: &[Vec<String>],
    right: &[usize],
    (optional, cut): (&[usize], &[usize]),
) -> String {
    let mut fitting = Columns::new(header, &[]).cutting(cut);
    rows.iter().for_each(|row| fitting.widen(row));
    fitting.fit(columns, optional);
    let shown = &fitting.shown;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(shown.iter().map(|i| header[*i]).collect::<Vec<_>>());
    let room = fitting.room_for_text(columns, optional);
    for row in rows {
        let cell = |i: &usize| match room {
            Some(room) if *i + 1 == row.len() => wrap::fitted(room, &row[*i]).join("\n"),
            _ => fitting.cell(*i, &row[*i]),
        };
        table.add_row(shown.iter().map(cell).collect::<Vec<_>>());
    }
    let last = shown.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { 2 }));
        if right.contains(&shown[at]) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = table.trim_fmt();
    if let Some(note) = fitting.note(header) {
        text.push_str(&format!("\n{note}"));
    }
    text
}

/// Returns the width of the terminal, or what COLUMNS says; none in a pipe or a file, which take lines of any length.
pub fn columns() -> Option<usize> {
    if cfg!(test) {
        // Not that of whoever runs the unit tests.
        return None;
    }
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    told.or_else(|| rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)))
        .filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_whose_reader_has_gone_is_known_by_the_error_of_the_system() {
        struct Gone(io::ErrorKind);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for (kind, expected) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)] {
            let mut out = Pipe { out: Gone(kind), is_closed: false };
            // The library of the flame graph returns an error of its own.
            let wrapped = out.write(b"x").map_err(|e| io::Error::other(e.to_string()));
            assert_eq!((wrapped.is_err(), out.is_closed), (true, expected), "{kind}");
        }
    }

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
            assert_eq!(lines.join("\n"), table(&header, &rows, &[1], &[]));
        }
    }

    #[test]
    fn a_narrow_table_leaves_out_the_least_important_columns_and_names_them() {
        let header = ["ID", "AGE", "ROLE", "REASON"];
        let rows = [vec!["a".repeat(28), "2d 1h".into(), "sidekiq".into(), "x".repeat(50)]];
        let table = |columns| table_in(columns, &header, &rows, &[1], (&[1, 2], &[]));
        let first = |columns| table(columns).lines().next().unwrap_or_default().to_owned();
        // 28 + 2 + 5 + 2 + 7 + 2 + 40
        for (columns, expected) in [
            (None, "ID AGE ROLE REASON"),
            (Some(86), "ID AGE ROLE REASON"),
            (Some(85), "ID AGE REASON"),
            (Some(20), "ID REASON"),
        ] {
            let shown = first(columns).split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(shown, expected, "{columns:?}");
        }
        assert!(
            table(Some(20)).ends_with("(left out to fit the\nterminal: AGE, ROLE;\nsee --json)"),
            "{}",
            table(Some(20))
        );
        assert!(!table(None).contains("left out") && table(None).contains(&"x".repeat(50)), "{}", table(None));
    }

    #[test]
    fn json_has_the_same_text_without_terminal_escapes() {
        let text = "a\u{9b}2J\x7f\u{202e}\x1b[2J\n ü 日";
        let Done { text: json, .. } = Done::json(&[text]).unwrap();
        assert!(!json.trim_end().chars().any(steers), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
