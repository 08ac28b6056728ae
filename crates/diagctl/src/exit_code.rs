//! The exit statuses, the same for every command. `diagctl help exit-codes` prints [`HELP`].

/// How a command ended. The number is part of the contract with scripts and plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or the lease was granted.
    Ok = 0,
    /// Failed; stderr says what and why.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// Nothing matched: no such capture, report or request.
    NoMatch = 4,
    /// Done in part: a capture with a failed or damaged report, some of several ids.
    Partial = 5,
    /// The store was written by a newer version.
    NewerStore = 6,
    /// Not granted; the verdict says why.
    NotGranted = 10,
}

/// The text of `diagctl help exit-codes`.
pub const HELP: &str = "\
Exit statuses of every diagctl command:

   0  done, or granted
   1  failed; stderr says what and why
   2  usage: the command line is wrong
   3  configuration: a file or a value in it is wrong
   4  nothing matched: no such capture, report or filter result
   5  done in part: a capture with a failed or damaged report, or some of
      several ids
   6  the store was written by a newer version of diagctl
  10  not granted: the verdict and its reason are on stdout

`run` that is ended by a signal hands it on to its command, gives the capture up
and ends by it: 128 + its number in a shell.
";
