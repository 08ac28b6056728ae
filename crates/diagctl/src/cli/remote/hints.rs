//! Suggested commands, as they are for the remote: a person who reads there has no store.

/// The commands that take `--remote`.
const COMMANDS: [&str; 10] = ["list", "show", "fetch", "diagnose", "compare", "heap", "verify", "request", "rm", "gc"];

/// The commands with a form that works on the remote.
pub fn commands() -> String {
    COMMANDS.join(", ")
}

/// How the commands are to be changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct As<'a> {
    /// The global options that were given, as a shell takes them.
    pub options: &'a str,
    /// The machine of the process that a command names by its pid.
    pub host: Option<&'a str>,
}

/// Returns a word as a shell takes it.
pub fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns a command line for the remote.
pub fn of_command(command: &str, how: As<'_>) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    let [program, name, ..] = words.as_slice() else { return command.to_owned() };
    if *program != "diagctl" || !COMMANDS.contains(name) || words.contains(&"--remote") {
        return with(how.options, command);
    }
    let is_request = *name == "request";
    // There is no pid of another machine.
    if let Some(at) = words.iter().position(|word| *word == "--pid").filter(|_| is_request) {
        words.drain(at..(at + 2).min(words.len()));
    }
    let mut option = vec!["--remote"];
    option.extend(how.host.filter(|_| is_request).into_iter().flat_map(|host| ["--host", host]));
    // Before the text of a reason.
    let at = words.iter().position(|word| word.starts_with("--reason")).unwrap_or(words.len());
    words.splice(at..at, option);
    with(how.options, &words.join(" "))
}

// Adds the global options to a command line without any.
fn with(options: &str, command: &str) -> String {
    match command.strip_prefix("diagctl ") {
        Some(rest) if !options.is_empty() && !rest.starts_with("--") => format!("diagctl {options} {rest}"),
        _ => command.to_owned(),
    }
}

/// Returns a hint, in which each command between backquotes is for the remote.
pub fn of_hint(hint: &str, how: As<'_>) -> String {
    each_command(hint, |command| of_command(command, how))
}

/// Returns a hint, in which each command between backquotes has these global options.
pub fn with_options(hint: &str, options: &str) -> String {
    each_command(hint, |command| with(options, command))
}

fn each_command(hint: &str, change: impl Fn(&str) -> String) -> String {
    let parts = hint.split('`').enumerate();
    let parts: Vec<String> = parts.map(|(i, part)| if i % 2 == 1 { change(part) } else { part.to_owned() }).collect();
    parts.join("`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_command_is_one_that_works_with_the_remote() {
        let table = [
            ("diagctl list", "diagctl list --remote"),
            ("diagctl list --remote", "diagctl list --remote"),
            ("diagctl fetch ID:smaps -o -", "diagctl fetch ID:smaps -o - --remote"),
            (
                "diagctl request smaps --pid 12 --reason 'who is it?' --wait",
                "diagctl request smaps --remote --host web-1 --reason 'who is it?' --wait",
            ),
            ("diagctl request smaps --pid 12", "diagctl request smaps --remote --host web-1"),
            ("diagctl samples --since 24h | grep rss", "diagctl samples --since 24h | grep rss"),
            ("export A=b", "export A=b"),
        ];
        for (command, expected) in table {
            assert_eq!(of_command(command, As { options: "", host: Some("web-1") }), expected);
        }
        assert_eq!(
            of_hint("`diagctl list` shows them; `latest:X` or `diagctl request x --reason …` helps", As::default()),
            "`diagctl list --remote` shows them; `latest:X` or `diagctl request x --remote --reason …` helps"
        );
        // What works on a node only is not written as a command of this machine.
        let on_a_node = "`heap trend --by root` works where the store is";
        assert_eq!(of_hint(on_a_node, As::default()), on_a_node);
        let how = As { options: "--config 'my file.toml'", host: None };
        assert_eq!(
            of_hint(
                "`diagctl list` shows them; `diagctl config check` says what is wrong; `latest:X` or `ls` helps",
                how
            ),
            "`diagctl --config 'my file.toml' list --remote` shows them; `diagctl --config 'my file.toml' config check` says what is \
             wrong; `latest:X` or `ls` helps"
        );
    }

    #[test]
    fn a_word_is_quoted_if_a_shell_would_take_it_apart() {
        for (word, expected) in [("a/b.toml", "a/b.toml"), ("my file", "'my file'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(shell_word(word), expected);
        }
    }
}
