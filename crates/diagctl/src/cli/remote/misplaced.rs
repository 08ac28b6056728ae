//! `--remote` where it is not taken, and a URL after it, which clap explains with advice that leads nowhere.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::hints;
use crate::cli::Failure;
use crate::exit_code::Exit;

/// Explains an error of the command line, if it is about `--remote`.
pub fn explain(error: &clap::Error) -> Option<Failure> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else { return None };
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match error.kind() {
        ErrorKind::UnknownArgument if argument == "--remote" => Some(not_taken(&words)),
        ErrorKind::UnknownArgument if argument.contains("://") && words.iter().any(|word| word == "--remote") => {
            Some(url())
        }
        ErrorKind::TooManyValues if argument == "--remote" => Some(url()),
        _ => None,
    }
}

/// The failure if a URL follows `--remote`.
pub fn url() -> Failure {
    Failure::new(Exit::Usage, "--remote takes no URL: the bucket is that of the configuration")
        .hint(super::how_to_name_one())
}

fn not_taken(words: &[String]) -> Failure {
    let (options, command) = parts(words);
    let (message, hint) = match command {
        "pin" => (
            "a capture in the remote cannot be pinned: pin is for a store".to_owned(),
            "pin it in its store before it ships, and `diagctl gc --remote` keeps it; `diagctl fetch --remote HOST/ID -o DIRECTORY` keeps a \
             copy"
                .to_owned(),
        ),
        "unpin" => (
            "a capture in the remote cannot be unpinned: unpin is for a store".to_owned(),
            "`diagctl rm --remote --force HOST/ID` deletes one that was pinned when it was shipped".to_owned(),
        ),
        _ => (
            format!("{command} is for a store of this machine, and takes no --remote"),
            format!("commands that take it: {}, doctor", hints::commands()),
        ),
    };
    Failure::new(Exit::Usage, message).hint(hints::with_options(&hint, &options))
}

// The global options of a command line, as a shell takes them, and its command.
fn parts(words: &[String]) -> (String, &str) {
    let (mut options, mut command): (Vec<String>, Option<&str>) = (Vec::new(), None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, value) =
            word.split_once('=').map_or((word.as_str(), None), |(option, value)| (option, Some(value)));
        match option {
            "--config" | "--dir" => {
                let value = value.or_else(|| words.next().map(String::as_str)).unwrap_or_default();
                options.push(format!("{option} {}", hints::shell_word(value)));
            }
            _ if word.starts_with('-') => {}
            _ => command = command.or(Some(word)),
        }
    }
    (options.join(" "), command.unwrap_or("diagctl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_and_the_global_options_are_found_in_any_order() {
        let table = [
            ("pin --remote latest", ""),
            ("--config pin.toml --dir=x pin --remote", "--config pin.toml --dir x"),
            ("--remote pin latest --config=a", "--config a"),
        ];
        for (line, options) in table {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(parts(&words), (options.to_owned(), "pin"), "{line}");
        }
    }
}
