//! `--identity`: the keys of the person who reads encrypted reports.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::remote::hints::shell_word;
use super::{Context, Failure, from_environment, output};
use crate::cli::error::printable;
use crate::exit_code::Exit;
use diagctl_store::encryption::{BadIdentities, Identities, MAX_IDENTITIES};

/// The variable that names the file where no option does.
const VARIABLE: &str = "DIAGCTL_IDENTITY";

/// The option of commands that read reports.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Key {
    /// File with the age identity that reads encrypted reports, or `-` for stdin [env: DIAGCTL_IDENTITY]
    #[arg(long, global = true, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl Key {
    /// Returns true if the identity comes from stdin.
    pub fn is_stdin(&self) -> bool {
        self.file().is_some_and(|file| file == Path::new("-"))
    }

    fn file(&self) -> Option<PathBuf> {
        self.identity.clone().or_else(|| from_environment(VARIABLE))
    }

    // A key in place of a file's name is never shown, and not used: the process list and the shell's history have it.
    fn refuse_a_key(&self, given: &Path) -> Result<(), Failure> {
        if !diagctl_fs::has_secret_key(&given.to_string_lossy()) {
            return Ok(());
        }
        let by = if self.identity.is_some() { "--identity" } else { VARIABLE };
        let message = format!("{by} is a secret key, and must be the name of a file with it");
        Err(Failure::new(Exit::Usage, message).hint(
            "write the key to a file that only you can read (chmod 600), or pipe it: … | diagctl … --identity -; others on this \
             machine may have seen it in the list of processes",
        ))
    }

    /// Reads the identities for the stores that this context opens. Must be called while this process is still the caller: the
    /// owner of a store need not be allowed to read them.
    pub fn unlock(&self, cx: &Context) -> Result<(), Failure> {
        let Some(file) = self.file() else { return Ok(()) };
        self.refuse_a_key(&file)?;
        leave_no_core();
        let by = if self.identity.is_some() { "--identity" } else { VARIABLE };
        cx.unlock(Arc::new(read(&file, by)?));
        Ok(())
    }
}

// A limit of one byte also holds for a program that takes core files from a pipe, unlike zero. The process stays dumpable: otherwise
// it could not find the program beside its own, through /proc/self/exe.
fn leave_no_core() {
    let limit = getrlimit(Resource::Core);
    // Best effort.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(limit.current.map_or(1, |now| now.min(1))), ..limit });
}

fn read(path: &Path, by: &str) -> Result<Identities, Failure> {
    let is_stdin = path == Path::new("-");
    let failed = |source: std::io::Error| {
        let hint = unreadable(source.kind(), path, by);
        Failure::io("read the identity file", path, source).hint(hint)
    };
    let mut text = Vec::new();
    let read = if is_stdin {
        if std::io::stdin().is_terminal() {
            output::note("paste the identity, and end it with ^D");
        }
        std::io::stdin().take(MAX_IDENTITIES + 1).read_to_end(&mut text)
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_IDENTITIES + 1).read_to_end(&mut text)
    };
    read.map_err(failed)?;
    let name = if is_stdin { "stdin".to_owned() } else { path.to_string_lossy().into_owned() };
    let shown = printable(&name);
    if text.len() as u64 > MAX_IDENTITIES {
        return Err(Failure::new(Exit::Usage, format!("{shown} is too large for an identity file"))
            .hint("name the file that `age-keygen -o FILE` wrote"));
    }
    Identities::parse(&name, &text)
        .map_err(|why| Failure::new(Exit::Usage, format!("{shown} is no identity file: {why}")).hint(hint(why, &shown)))
}

fn unreadable(kind: ErrorKind, path: &Path, by: &str) -> String {
    let file = shell_word(&path.to_string_lossy());
    match kind {
        ErrorKind::PermissionDenied => {
            format!(
                "`ls -l {file}` shows who may read it; or pipe it to the same command: sudo cat {file} | diagctl … --identity -"
            )
        }
        _ => format!(
            "{by} must name the file that `age-keygen -o FILE` wrote for one of the recipients; `diagctl show latest` shows them"
        ),
    }
}

fn hint(why: BadIdentities, file: &str) -> String {
    match why {
        BadIdentities::Protected => {
            format!("decrypt it into a pipe to the same command: age -d {file} | diagctl … --identity -")
        }
        BadIdentities::Encrypted => format!(
            "decrypt it, with the identity that it is encrypted to, into a pipe to the same command: age -d -i IDENTITY {file} | diagctl … \
             --identity -"
        ),
        BadIdentities::Ssh | BadIdentities::OtherKind(_) => format!(
            "fetch the report as it is stored, and decrypt it with age: diagctl fetch --raw ID:REPORT -o - | age -d -i {file}"
        ),
        _ => "name the file that `age-keygen -o FILE` wrote".to_owned(),
    }
}
