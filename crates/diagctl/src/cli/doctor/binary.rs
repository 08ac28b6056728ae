//! The check that the workers find this program.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::check::Check;
use crate::fsio::Spot;
use diagctl_store::writer;

/// Checks that a worker with this environment would run this same program.
pub fn binary(named: Option<PathBuf>, path: &str, this: &Path) -> Check {
    let id = "binary";
    if named.is_none() && is_of_a_gem(this) {
        return Check::ok(id, "this program belongs to the diagctl gem, whose workers run it")
            .seen("this", this.display().to_string());
    }
    let on_path = path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join("diagctl"));
    let found = named.clone().or_else(|| on_path.into_iter().find(|file| is_executable(file) && !is_ruby_script(file)));
    let by = if named.is_some() { "DIAGCTL_BIN" } else { "PATH" };
    let Some(found) = found else {
        return Check::warn(
            id,
            "diagctl is not in PATH, and DIAGCTL_BIN is not set: a worker with this environment cannot find diagctl",
            format!("add it to the PATH of the workers, or set DIAGCTL_BIN={}", this.display()),
        );
    };
    let check = if !is_executable(&found) {
        Check::fail(
            id,
            format!("{by} names {}, which is not executable", found.display()),
            format!("set DIAGCTL_BIN={}, with mode 0755", this.display()),
        )
    } else if !is_same(&found, this) {
        Check::warn(
            id,
            format!("{by} leads to {}, which is not this program ({})", found.display(), this.display()),
            "find out which one the workers run, and remove the other",
        )
    } else {
        Check::ok(id, format!("{by} leads to this program"))
    };
    check.seen("found", found.display().to_string()).seen("this", this.display().to_string())
}

// A gem of a platform has its program in exe/x86_64-linux, beside the Ruby script that starts it.
fn is_of_a_gem(program: &Path) -> bool {
    let exe = program.parent().and_then(Path::parent);
    exe.is_some_and(|exe| exe.ends_with("exe") && is_ruby_script(&exe.join("diagctl")))
}

// RubyGems writes such a script into PATH. Workers pass over it.
fn is_ruby_script(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(256).read_to_end(&mut head));
    let head = String::from_utf8_lossy(&head);
    let first = head.lines().next().unwrap_or_default();
    read.is_ok() && first.starts_with("#!") && (first.contains("ruby") || head.contains("# -*- ruby -*-"))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let (Ok(a), Ok(b)) = (fs::metadata(one), fs::metadata(other)) else { return false };
    (a.dev(), a.ino()) == (b.dev(), b.ino()) || {
        let hash =
            |path: &Path| fs::canonicalize(path).ok().and_then(|path| writer::hash_file(&Spot::outside(&path)).ok());
        a.len() == b.len() && hash(one).is_some_and(|one| Some(one) == hash(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::check::Status;

    #[test]
    fn the_program_on_the_workers_path_is_compared_with_this_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, content: &str, mode: u32| {
            let path = dir.path().join(name).join("diagctl");
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let this = program("a", "one", 0o755);
        let (copy, other, dead) = (program("b", "one", 0o755), program("c", "two", 0o755), program("d", "one", 0o644));
        let path = |file: &Path| file.parent().unwrap().display().to_string();
        let table = [
            (None, path(&this), Status::Ok),
            (None, path(&copy), Status::Ok),
            (None, path(&other), Status::Warn),
            (None, format!("{}:{}", path(&dead), path(&this)), Status::Ok),
            (None, path(&dead), Status::Warn),
            (Some(other.clone()), path(&this), Status::Warn),
            (Some(dead.clone()), path(&this), Status::Fail),
        ];
        for (named, path, status) in table {
            assert_eq!(binary(named.clone(), &path, &this).status, status, "{named:?} {path}");
        }
    }

    #[test]
    fn the_program_of_a_gem_needs_no_path_and_the_script_beside_it_is_passed_over() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = |name: &str, content: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let script = program("gem/exe/diagctl", "#!/usr/bin/env ruby\n");
        let of_gem = program("gem/exe/x86_64-linux/diagctl", "one");
        let (path, elsewhere) = (script.parent().unwrap().display().to_string(), program("bin/diagctl", "one"));
        assert_eq!(binary(None, "", &of_gem).status, Status::Ok);
        assert_eq!(binary(None, &path, &of_gem).status, Status::Ok);
        assert_eq!(binary(None, &path, &elsewhere).status, Status::Warn, "PATH has no program");
        assert_eq!(
            binary(None, &format!("{path}:{}", dir.path().join("bin").display()), &elsewhere).status,
            Status::Ok
        );
        assert_eq!(binary(Some(elsewhere), &path, &of_gem).status, Status::Ok, "a copy");
    }
}
