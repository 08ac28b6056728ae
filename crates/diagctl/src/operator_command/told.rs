//! The hook: a command that is told something on stdin. What it prints matters only if it fails.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::{READ_BYTES, Running, has_news, quote};
use diagctl_fs::printable;

/// Runs a command with this input and these variables. The error says how it failed, and the beginning of what it printed.
pub fn tell(command: &[String], timeout_ms: u64, environment: &[(&str, String)], input: &[u8]) -> Result<(), String> {
    let program = command.first().map(|name| printable(name)).unwrap_or_default();
    // A file, because the command may not read it.
    let mut file = memfd_create("stdin", MemfdFlags::CLOEXEC).map(File::from).map_err(|e| e.to_string())?;
    file.write_all(input).and_then(|()| file.rewind()).map_err(|e| e.to_string())?;
    let (mut reader, writer) = io::pipe().map_err(|e| e.to_string())?;
    let same = writer.try_clone().map_err(|e| e.to_string())?;
    let mut running = Running::start(command, timeout_ms, |command| {
        command.stdin(file).stdout(writer).stderr(same).envs(environment.iter().map(|(name, value)| (name, value)));
    })
    .map_err(|how| format!("{program} {how}"))?;
    let mut said = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while !running.is_over() {
        // Read to the end, so that the command does not wait; little of it is kept.
        match has_news(&reader) {
            Ok(true) => match reader.read(&mut buffer) {
                Ok(0) | Err(_) => std::thread::sleep(Duration::from_millis(2)),
                Ok(n) => keep_beginning(&mut said, &buffer[..n]),
            },
            Ok(false) => {}
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    let ended = running.end();
    // Nobody writes any more.
    while said.len() < READ_BYTES && matches!(has_news(&reader), Ok(true)) {
        match reader.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => keep_beginning(&mut said, &buffer[..n]),
        }
    }
    ended.map_err(|how| format!("{program} {how}{}", quote(&said)))
}

fn keep_beginning(said: &mut Vec<u8>, more: &[u8]) {
    said.extend_from_slice(&more[..more.len().min(READ_BYTES - said.len())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(script: &str, timeout_ms: u64) -> Result<(), String> {
        tell(&["/bin/sh", "-c", script].map(str::to_owned), timeout_ms, &[("ASKED", "yes".into())], b"{\"id\":1}")
    }

    #[test]
    fn a_hook_reads_its_input_and_its_failure_has_the_beginning_of_what_it_printed() {
        assert_eq!(told("read line; [ \"$line$ASKED\" = '{\"id\":1}yes' ]", 10_000), Ok(()));
        assert_eq!(told("exec <&- >&- 2>&-; sleep 0.1", 10_000), Ok(()));
        for (script, how) in [
            ("echo out; echo err >&2; exit 1", "/bin/sh ended with exit status: 1: out err"),
            ("sleep 600", "/bin/sh was killed after its time-out of 300ms"),
            ("exec >&- 2>&-; sleep 600", "/bin/sh was killed after its time-out of 300ms"),
        ] {
            assert_eq!(told(script, 300).unwrap_err(), how, "{script}");
        }
        let flood = told("head -c 50000000 /dev/zero | tr '\\0' x; exit 3", 60_000).unwrap_err();
        assert!(flood.starts_with("/bin/sh ended with exit status: 3: xxx") && flood.len() < 400, "{flood}");
        let endless = told("yes", 300).unwrap_err();
        assert!(endless.starts_with("/bin/sh was killed after its time-out of 300ms: y y"), "{endless}");
        let steered =
            told("printf '\\033]0;x\\007\\303\\n\\342\\200\\256AGE-SECRET-KEY-1QQ'; exit 1", 10_000).unwrap_err();
        assert!(!steered.chars().any(diagctl_fs::steers) && !steered.contains("1QQ"), "{steered:?}");
        let missing = tell(&["/nonexistent".into()], 1000, &[], b"").unwrap_err();
        assert!(missing.starts_with("/nonexistent cannot be run: No such file"), "{missing}");
        let folder = tell(&["/etc/passwd".into()], 1000, &[], b"").unwrap_err();
        assert!(folder.starts_with("/etc/passwd cannot be run: Permission denied"), "{folder}");
    }
}
