//! `walker`: hands the heap walker to a dumper, and remembers where it crashed.

use sha2::{Digest, Sha256};

use super::Context;
use super::output::{self, Done};
use crate::cli::error::Failure;
use crate::grant::capture;
use diagctl_store::Access;
use diagctl_store::lease::Lease;
use diagctl_store::walker_failures::{self, WalkerFailure};

/// Write the heap walker to stdout (used by dumpers)
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Capture ID that `acquire` printed
    capture: String,
    /// The Ruby that is to load it
    #[arg(long, value_name = "DESCRIPTION")]
    ruby: String,
    /// Do not write it, but record that it failed in this Ruby, and how
    #[arg(long, value_name = "REASON")]
    failed: Option<String>,
    /// Descriptor that holds the lease
    #[arg(long, value_name = "N")]
    lease_fd: i32,
}

/// The walker, made by build.rs from crates/heapwalk: one shared object for every Ruby and every C library.
const WALKER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/heapwalk.so"));

pub fn run(cx: &Context, args: Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    capture::join(&store, &lease, &args.capture)?;
    let Args { capture, ruby, failed, .. } = args;
    let walker: String = Sha256::digest(WALKER).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Some(reason) = failed {
        walker_failures::add(&store, WalkerFailure { ruby, walker, reason, capture })?;
        return Ok(Done::silent());
    }
    if let Some(WalkerFailure { reason, capture, .. }) = walker_failures::find(&store, &ruby, &walker) {
        let file = store.path(walker_failures::FILE);
        return Err(Failure::failed(format!("{reason} in capture {capture}, with this Ruby")).hint(format!(
            "another version of diagctl or of Ruby is tried again, as is this one without {}",
            file.display()
        )));
    }
    output::stream(|out| out.write_all(WALKER))?;
    Ok(Done::silent())
}
