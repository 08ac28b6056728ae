//! Suggested commands, as they are for the remote: a person who reads there has no store.

/// The commands that take `--remote`.
const COMMANDS: [&str; 10] = ["list", "show", "fetch", "diagnose", "compare", "heap", "verify", "request", "rm", "gc"];

/// Returns a command line for the remote. `host` is the machine of the process that it names by its pid.
pub fn of_command(command: &str, host: Option<&str>) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    let [program, name, ..] = words.as_slice() else { return command.to_owned() };
    if *program != "diagctl" || !COMMANDS.contains(name) || words.contains(&"--remote") {
        return command.to_owned();
    }
    let is_request = *name == "request";
    // There is no pid of another machine.
    if let Some(at) = words.iter().position(|word| *word == "--pid").filter(|_| is_request) {
        words.drain(at..(at + 2).min(words.len()));
    }
    let mut option = vec!["--remote"];
    option.extend(host.filter(|_| is_request).into_iter().flat_map(|host| ["--host", host]));
    // Before the text of a reason.
    let at = words.iter().position(|word| word.starts_with("--reason")).unwrap_or(words.len());
    words.splice(at..at, option);
    words.join(" ")
}

/// Returns a hint, in which each command between backquotes is for the remote.
pub fn of_hint(hint: &str, host: Option<&str>) -> String {
    let parts = hint.split('`').enumerate();
    let parts: Vec<String> =
        parts.map(|(i, part)| if i % 2 == 1 { of_command(part, host) } else { part.to_owned() }).collect();
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
            assert_eq!(of_command(command, Some("web-1")), expected);
        }
        assert_eq!(
            of_hint("`diagctl list` shows them; `latest:X` or `diagctl request x --reason …` helps", None),
            "`diagctl list --remote` shows them; `latest:X` or `diagctl request x --remote --reason …` helps"
        );
    }
}
