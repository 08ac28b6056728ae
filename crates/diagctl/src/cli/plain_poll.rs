//! Parses the command line of a poll without clap if it has the plain form that plugins use: `--dir DIR acquire --lease-fd=3
//! --pid=42 …`. Every process runs this command every few seconds, and clap took a quarter of the instructions of a poll. Every
//! other command line is left to clap, which also words the errors.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Global, acquire};

/// Returns what clap would return for these arguments if they are a plain poll, otherwise `None`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<(Global, acquire::Args)> {
    let mut arguments = arguments.into_iter().map(|argument| argument.into_string().ok());
    let mut global = Global::default();
    loop {
        let flag = match arguments.next()?? {
            word if word == "acquire" => break,
            flag => flag,
        };
        let value = arguments.next()??;
        let place = match flag.as_str() {
            "--dir" => &mut global.dir,
            "--config" => &mut global.config,
            _ => return None,
        };
        if value.is_empty() || value.starts_with('-') {
            return None;
        }
        once(place, PathBuf::from(value))?;
    }
    let (mut lease_fd, mut pid, mut role, mut name) = (None, None, None, None);
    let (mut gauge, mut event) = (Vec::new(), Vec::new());
    for argument in arguments {
        let argument = argument?;
        let (flag, value) = argument.split_once('=').filter(|(_, value)| !value.is_empty())?;
        match flag {
            "--lease-fd" => once(&mut lease_fd, value.parse().ok()?)?,
            "--pid" => once(&mut pid, value.parse().ok()?)?,
            "--role" => once(&mut role, value.to_owned())?,
            "--name" => once(&mut name, value.to_owned())?,
            "--gauge" => gauge.push(value.to_owned()),
            "--event" => event.push(value.to_owned()),
            _ => return None,
        }
    }
    // The role and the name are optional; their defaults are defined for clap, which parses a poll without them.
    let (lease_fd, pid, role, name) = (lease_fd?, pid?, role?, name?);
    Some((global, acquire::Args { lease_fd, pid, role, name, gauge, event, answer_event: None, off: false }))
}

// A repeated argument is an error, which clap reports.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;
    use std::os::unix::ffi::OsStringExt;

    fn plain(line: &str) -> Option<(Global, acquire::Args)> {
        parse(line.split(' ').map(OsString::from))
    }

    // `Debug` shows every field of both structs.
    fn by_clap(line: &str) -> Result<String, String> {
        let cli = Cli::try_parse_from(format!("diagctl {line}").split(' ')).map_err(|e| e.to_string())?;
        let Command::Acquire(args) = cli.command else { return Err("another command".into()) };
        Ok(format!("{:?}", (cli.global, args)))
    }

    #[test]
    fn the_plain_parser_agrees_with_clap_on_plugin_polls() {
        for line in [
            "--dir /s acquire --lease-fd=3 --pid=42 --role=puma --name=worker-0",
            "--dir s acquire --lease-fd=3 --pid=42 --role=puma --name=worker-0 --gauge=puma.backlog=1 --gauge=a=-2.5 --event=x",
            "acquire --event=a --event=b --name==x= --role=- --pid=4294967295 --lease-fd=-1",
            "--config c.toml --dir /s acquire --lease-fd=+3 --pid=007 --role=pümä --name=--dir",
        ] {
            let read = plain(line).unwrap_or_else(|| panic!("not plain: {line}"));
            assert_eq!(Ok(format!("{read:?}")), by_clap(line), "{line}");
        }
    }

    #[test]
    fn all_other_arguments_are_left_to_clap() {
        let poll = "acquire --lease-fd=3 --pid=42 --role=puma --name=w";
        assert!(plain(poll).is_some());
        for line in [
            "",
            "acquire",
            "list",
            "--help",
            "--dir /s --dir /t acquire --lease-fd=3 --pid=42 --role=puma --name=w",
            "--dir  acquire --lease-fd=3 --pid=42 --role=puma --name=w",
            "--dir -x acquire --lease-fd=3 --pid=42 --role=puma --name=w",
            "--dir=/s acquire --lease-fd=3 --pid=42 --role=puma --name=w",
            "acquire --lease-fd=3 --pid=42 --name=w",
            "acquire --lease-fd=3 --pid=42 --role=puma",
            "acquire --lease-fd=3 --pid=4294967296 --role=puma --name=w",
            "acquire --lease-fd=3 --pid=42 --role=puma --name=",
            &format!("{poll} --pid=42"),
            &format!("{poll} --gauge a=1"),
            &format!("{poll} --help"),
            &format!("{poll} --dir /s"),
            &format!("{poll} --"),
            &format!("{poll} more"),
            &format!("{poll} --even=x"),
        ] {
            assert!(plain(line).is_none(), "{line}");
        }
        let not_text = OsString::from_vec(vec![b'-', 0xff]);
        assert!(parse(poll.split(' ').map(OsString::from).chain([not_text])).is_none());
    }
}
