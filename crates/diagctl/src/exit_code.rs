//! The exit statuses, the same for every command. `diagctl help exit-codes` prints [`HELP`].

/// The outcome of a command. The numbers are part of the contract with scripts and plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, or the lease was granted.
    Ok = 0,
    /// Failure; stderr says what failed and why.
    Failed = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The configuration is invalid.
    Config = 3,
    /// Nothing matched: no such capture, report or request.
    NoMatch = 4,
    /// Partial success: a capture with a failed or damaged report, or only some of several ids. Not of `verify`: to find damage is its failure.
    Partial = 5,
    /// The store was written by a newer version.
    NewerStore = 6,
    /// Not granted; the verdict says why.
    NotGranted = 10,
}

/// The text of `diagctl help exit-codes`.
pub const HELP: &str = "\
Exit statuses of all diagctl commands:

   0  success, or granted
   1  failure; stderr says why. Also: `verify` found damage, or a check of
      `doctor` failed; the output names them
   2  the command line is invalid
   3  the configuration is invalid
   4  no match: no such capture or report, an ambiguous prefix of an ID, or
      nothing passes the filters
   5  partial success: a report of a capture that was made, fetched or analysed
      failed or is damaged, or a command worked for some of several captures
   6  the store was written by a newer version of diagctl
  10  not granted; the output gives the reason

`run` passes SIGTERM, SIGINT and SIGHUP on to its command, discards the capture
when the command has ended, and ends with the same signal: 128 + its number in
a shell.
";
