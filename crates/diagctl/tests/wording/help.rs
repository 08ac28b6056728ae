//! Help: of the program, of every command that the program lists, and of the exit statuses.

use std::collections::BTreeSet;
use std::path::Path;

use super::environment::{BIN, Environment, assert_fits, compare};

fn help(arguments: &[&str]) -> String {
    let output = Environment::new().command(BIN).args(arguments).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_fits(&text, &arguments.join(" "));
    text
}

// The commands listed under `Commands:`, each with its subcommands.
fn commands(parents: &[&str]) -> Vec<Vec<String>> {
    let text = help(&[parents, &["--help"]].concat());
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .flat_map(|name| {
            let path = [parents, &[name]].concat();
            let own = path.iter().map(|word| (*word).to_owned()).collect();
            std::iter::once(own).chain(commands(&path)).collect::<Vec<Vec<String>>>()
        })
        .collect()
}

#[test]
fn help_of_every_command() {
    let mut expected = BTreeSet::new();
    for path in commands(&[]) {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let text = help(&[&path[..], &["--help"]].concat());
        assert_eq!(help(&[&["help"], &path[..]].concat()), text, "{path:?}: `help COMMAND` and `COMMAND --help`");
        let name = path.join("-");
        compare(&format!("help/{name}"), text.trim_end());
        // People call all but those of the plugins.
        if !["acquire", "put", "walker", "finalize", "abort"].contains(&name.as_str()) {
            assert!(text.contains("\nExamples:\n  "), "{name} --help has no examples");
        }
        expected.insert(format!("{name}.snap"));
    }
    assert!(expected.len() > 20, "{expected:?}");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wording/snapshots/help");
    let kept = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let kept: BTreeSet<String> = kept.filter(|name| name.ends_with(".snap")).collect();
    assert_eq!(kept, expected, "a snapshot of a command that is gone");
}

#[test]
fn help_of_the_program() {
    compare("help", help(&["--help"]).trim_end());
    assert_eq!(help(&["help"]), help(&["--help"]));
}

#[test]
fn exit_statuses() {
    compare("help_exit_codes", help(&["help", "exit-codes"]).trim_end());
}
