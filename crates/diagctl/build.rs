//! Compiles the heap walker into one shared object, which the program contains (`src/cli/walker.rs`).
//!
//! Cargo cannot do it: the object is no_std and without a C library, while the program has both and other linker flags. It needs
//! nothing but the two crates and `core`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Needs no C library at run time: it finds `memcpy` and four more functions in the one that Ruby has loaded.
const LINK: [&str; 4] = ["-nostdlib", "-nostartfiles", "-Wl,--hash-style=both", "-Wl,-z,now"];

fn main() -> Result<(), String> {
    let crates = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let (format, walker) = (crates.join("heapdump/src"), crates.join("heapwalk/src"));
    for source in [&format, &walker] {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let library = out.join("libdiagctl_heapdump.rlib");
    compile("diagctl_heapdump", "rlib", &format, &library, |_| ())?;
    compile("diagctl_heapwalk", "cdylib", &walker, &out.join("heapwalk.so"), |rustc| {
        rustc.args(["--cfg", "freestanding", "-C", "lto=fat", "-C", "strip=symbols"]);
        rustc.arg("--extern").arg(format!("diagctl_heapdump={}", library.display()));
        rustc.args(LINK.iter().flat_map(|argument| ["-C".to_owned(), format!("link-arg={argument}")]));
        if let Some(linker) = env::var_os("RUSTC_LINKER") {
            rustc.arg(format!("-Clinker={}", linker.display()));
        }
    })
}

fn compile(name: &str, kind: &str, source: &Path, to: &Path, more: impl FnOnce(&mut Command)) -> Result<(), String> {
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", name, "--crate-type", kind, "--target", &variable("TARGET")?]);
    rustc.args(["-C", "opt-level=3", "-C", "codegen-units=1", "-C", "panic=abort", "-C", "relocation-model=pic"]);
    rustc.args(["--cap-lints", "allow", "-o"]).arg(to).arg(source.join("lib.rs"));
    more(&mut rustc);
    let status = rustc.status().map_err(|e| format!("cannot run {rustc:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{rustc:?} ended with {status}")) }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|e| format!("Cargo sets {name}: {e}"))
}
