//! The text after the file is written: what was found, and what to paste where.

use std::path::Path;

use super::file;
use super::machine::{Machine, Role};
use crate::cli::error::printable;
use crate::config::DEFAULT_FILE;
use crate::users::user_name;

/// Names the file, what was found, and the steps to the first capture.
pub fn text(machine: &Machine, path: &Path, store: &Path) -> String {
    let mut text = format!("Wrote {}.\n\nFound:\n", shown(path));
    for line in file::found(machine) {
        text.push_str(&format!("  {}\n", printable(&line)));
    }
    text.push_str("\nNext:\n");
    for (number, step) in steps(machine, path, store).into_iter().enumerate() {
        text.push_str(&format!("  {}. {}\n", number + 1, step.replace('\n', "\n     ")));
    }
    text
}

fn steps(machine: &Machine, path: &Path, store: &Path) -> Vec<String> {
    let user = machine.processes.iter().find_map(|process| process.uid).map(user_name);
    // Instead of a name, `sudo` takes #1000, and `install` 1000.
    let user = user.map_or("USER".to_owned(), |user| printable(&user).replace("uid ", "#"));
    let mut steps = Vec::new();
    if !store.exists() {
        steps.push(format!(
            "Create the store, for the user of the processes:\n  install -d -m 0700 -o {} {}",
            user.trim_start_matches('#'),
            shown(store)
        ));
    }
    for role in machine.roles() {
        steps.push(match role {
            Role::Puma => {
                "Puma. Gemfile:\n  gem \"puma-plugin-diagctl\"\nconfig/puma.rb:\n  plugin :diagctl".to_owned()
            }
            Role::Sidekiq => "Sidekiq. Gemfile:\n  gem \"sidekiq-diagctl\"\nconfig/initializers/diagctl.rb:\n  \
                              Sidekiq.configure_server { |config| Diagctl::Sidekiq.install(config, job_rss: true) }"
                .to_owned(),
        });
    }
    let mut environment = "DIAGCTL_ENABLED=1".to_owned();
    if path != Path::new(DEFAULT_FILE) {
        environment.push_str(&format!(" DIAGCTL_CONFIG={}", shown(path)));
    }
    steps.push(format!("Set in the environment of the processes, and restart them:\n  {environment}"));
    let config = if path == Path::new(DEFAULT_FILE) { String::new() } else { format!(" --config {}", shown(path)) };
    let by = if user == "root" || user == "USER" { String::new() } else { format!("sudo -u {user} ") };
    steps.push(format!(
        "Once they run, ask what would stop captures, even if you have asked before, then for one:\n  \
         {by}diagctl{config} doctor\n  {by}diagctl{config} request --reason \"first try\" --wait"
    ));
    steps
}

// A path as a shell takes it.
fn shown(path: &Path) -> String {
    let path = printable(&path.display().to_string());
    let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+:@%".contains(&b));
    if plain { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::super::machine::Process;
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_steps_in_words() {
        let process = |role, uid| Process { role, rss: 100 << 20, uid, jemalloc: Some(true), limit: None };
        let machine = Machine {
            processes: vec![process(Role::Puma, Some(0)), process(Role::Sidekiq, Some(0))],
            ..Machine::default()
        };
        let store = Config::default().dir.join("not/there");
        insta::assert_snapshot!(text(&machine, Path::new(DEFAULT_FILE), &store));
        insta::assert_snapshot!(text(&Machine::default(), Path::new("/srv/my app/diagctl.toml"), &store));
    }
}
