//! The only place that writes stdout and stderr.
//!
//! stdout carries results, stderr diagnostics. A reader that went away (a closed pipe) is not an error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::error::{Failure, printable, steers};
use crate::exit_code::Exit;

/// A command that came to its end: its status and what goes to stdout.
#[derive(Debug)]
pub struct Done {
    exit: Exit,
    text: String,
}

impl Done {
    /// A text result.
    pub fn text(mut text: String) -> Self {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Self { exit: Exit::Ok, text }
    }

    /// A JSON result on one line.
    pub fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let text =
            serde_json::to_string(value).map_err(|e| Failure::failed(format!("cannot encode the result: {e}")))?;
        Ok(Self::text(printable_json(text)))
    }

    /// Text or JSON of the same result.
    pub fn either<T: Serialize>(json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Result<Self, Failure> {
        if json { Self::json(value) } else { Ok(Self::text(text(value))) }
    }

    /// No result.
    pub fn silent() -> Self {
        Self::text(String::new())
    }

    /// Ends with another status.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// JSON needs no escape for DEL, the C1 controls (0x9b begins a control sequence) and what reorders a line; a terminal does. Outside
/// of strings there are none of them.
pub fn printable_json(json: String) -> String {
    if json.is_ascii() && !json.contains('\x7f') {
        return json;
    }
    let escape = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    json.chars().map(escape).collect()
}

/// Writes a result and turns it into an exit status.
pub fn finish(done: Done) -> Exit {
    match io::stdout().lock().write_all(done.text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            fail(&Failure::failed(format!("cannot write to stdout: {e}")))
        }
        _ => done.exit,
    }
}

/// Tells a failure on stderr and turns it into an exit status.
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

/// What clap itself has to say: help and the version on stdout, what is wrong with the command line on stderr. The latter quotes
/// arguments, which clap would hand to a terminal as they are.
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

/// Tells something on stderr that is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "diagctl: {}", printable(text));
}

/// stdout for data that is streamed; the caller treats a closed pipe as the end.
pub fn stdout() -> impl Write {
    io::stdout().lock()
}

/// Whether a person watches stderr: only then is progress shown.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// Whether what goes to stdout may be coloured.
pub fn colours() -> bool {
    colour(&io::stdout())
}

fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A process as people know it: what it does and, where it has one, its name within the role.
pub fn who(role: &str, name: &str) -> String {
    [role, name].join(" ").trim_end().to_owned()
}

/// A last column of text, such as a reason, gets this many columns before others are shown beside it.
const TEXT_COLUMNS: usize = 40;

/// Aligned columns without lines; those whose index is in `right` are aligned to the right. In a narrow terminal, columns that do
/// not fit are left out and named below the table: of those in `optional`, which begins with the most important.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize], optional: &[usize]) -> String {
    fitted(header, rows, right, optional, columns())
}

fn fitted(
    header: &[&str],
    rows: &[Vec<String>],
    right: &[usize],
    optional: &[usize],
    columns: Option<usize>,
) -> String {
    let shown = columns.map_or_else(|| (0..header.len()).collect(), |columns| fit(header, rows, optional, columns));
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(shown.iter().map(|i| header[*i]).collect::<Vec<_>>());
    for row in rows {
        table.add_row(shown.iter().map(|i| printable(&row[*i])).collect::<Vec<_>>());
    }
    let last = shown.len().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { 2 }));
        if right.contains(&shown[at]) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let left_out: Vec<&str> = (0..header.len()).filter(|i| !shown.contains(i)).map(|i| header[i]).collect();
    let mut text = table.trim_fmt();
    if !left_out.is_empty() {
        text.push_str(&format!("\n(left out to fit the terminal: {}; see --json)", left_out.join(", ")));
    }
    text
}

// The columns that fit, in their order: all that are not optional, and then one after the other.
fn fit(header: &[&str], rows: &[Vec<String>], optional: &[usize], columns: usize) -> Vec<usize> {
    let length = |text: &str| printable(text).chars().count();
    let width = |i: usize| {
        let widest = rows.iter().map(|row| length(&row[i])).max().unwrap_or(0).max(length(header[i]));
        if i + 1 == header.len() && !optional.contains(&i) { widest.min(TEXT_COLUMNS) } else { widest }
    };
    let mut shown: Vec<usize> = (0..header.len()).filter(|i| !optional.contains(i)).collect();
    let mut used: usize = shown.iter().map(|i| width(*i) + 2).sum();
    for i in optional {
        // The last column has no space after it.
        if used + width(*i) <= columns {
            used += width(*i) + 2;
            shown.push(*i);
        }
    }
    shown.sort_unstable();
    shown
}

// The width of the terminal, or what COLUMNS says; none in a pipe or a file, which take lines of any length.
fn columns() -> Option<usize> {
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
    fn a_narrow_table_leaves_out_the_least_important_columns_and_names_them() {
        let header = ["ID", "AGE", "ROLE", "REASON"];
        let rows = [vec!["a".repeat(28), "2d 1h".into(), "sidekiq".into(), "x".repeat(50)]];
        let table = |columns| fitted(&header, &rows, &[1], &[1, 2], columns);
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
            table(Some(20)).ends_with("(left out to fit the terminal: AGE, ROLE; see --json)"),
            "{}",
            table(Some(20))
        );
        assert!(!table(None).contains("left out") && table(None).contains(&"x".repeat(50)), "{}", table(None));
    }

    #[test]
    fn json_holds_the_same_text_and_nothing_that_steers_a_terminal() {
        let text = "a\u{9b}2J\x7f\u{202e}\x1b[2J\n ü 日";
        let Done { text: json, .. } = Done::json(&[text]).unwrap();
        assert!(!json.trim_end().chars().any(steers), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [text]);
    }
}
