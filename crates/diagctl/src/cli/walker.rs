//! `walker`: hands the heap walker to a dumper, and remembers where it crashed and where it works.

use sha2::{Digest, Sha256};

use super::Context;
use super::output::{self, Done};
use crate::cli::error::Failure;
use crate::grant::capture;
use diagctl_store::Access;
use diagctl_store::lease::Lease;
use diagctl_store::walkers::{self, Pair, WalkerFailure};

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
    /// Do not write it, but record that it proved itself in this Ruby, and walked
    #[arg(long, conflicts_with = "failed")]
    proven: bool,
    /// Descriptor that holds the lease
    #[arg(long, value_name = "N")]
    lease_fd: i32,
}

/// The walker, made by build.rs from crates/heapwalk: one shared object for every Ruby and every C library.
const WALKER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/heapwalk.so"));

/// Follows the walker, which a loader does not mind, if it need not prove itself in this Ruby again.
const PROVEN: &[u8] = b"\nproven\n";

pub fn run(cx: &Context, args: Args) -> Result<Done, Failure> {
    let store = cx.open(Access::Write)?;
    let lease = Lease::inherited(args.lease_fd, store.dir(), store.owner())?;
    capture::join(&store, &lease, &args.capture)?;
    let walker = Sha256::digest(WALKER).iter().map(|byte| format!("{byte:02x}")).collect();
    let Args { capture, ruby, failed, proven, .. } = args;
    let pair = Pair { ruby, walker };
    if let Some(reason) = failed {
        walkers::add_failure(&store, WalkerFailure { pair, reason, capture })?;
        return Ok(Done::silent());
    }
    if proven {
        walkers::add_proof(&store, pair)?;
        return Ok(Done::silent());
    }
    if let Some(WalkerFailure { reason, capture, .. }) = walkers::failure(&store, &pair) {
        let file = store.path(walkers::FILE);
        return Err(Failure::failed(format!("{reason} in capture {capture}, with this Ruby")).hint(format!(
            "another version of diagctl or of Ruby is tried again, as is this one without {}",
            file.display()
        )));
    }
    output::stream(|out| {
        out.write_all(WALKER)?;
        if walkers::is_proven(&store, &pair) { out.write_all(PROVEN) } else { Ok(()) }
    })?;
    Ok(Done::silent())
}
