//! `diagctl completions`: scripts that complete its command lines.

use clap_complete::Shell;

use super::Failure;
use super::output::Done;

const EXAMPLES: &str = "\
Examples:
  diagctl completions bash > /usr/share/bash-completion/completions/diagctl
  diagctl completions zsh > /usr/share/zsh/vendor-completions/_diagctl
  diagctl completions fish > ~/.config/fish/completions/diagctl.fish";

/// Print a script that completes command lines in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) -> Result<Done, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "diagctl", &mut script);
    Ok(Done::text(String::from_utf8_lossy(&script).into_owned()))
}
