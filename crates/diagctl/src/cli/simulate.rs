//! `simulate`: replays recorded samples through the rule engine to show what a configuration would have done.

mod replay;

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::Context;
use super::output::{self, Done};
use super::times::Times;
use crate::cli::error::{Failure, printable};
use crate::exit_code::Exit;
use crate::history::Recorded;
use crate::units::{duration, size};
use replay::{Simulation, simulate, usual_step};

/// The maximum size of the input, in bytes. No store records as much.
const MAX_SAMPLES: u64 = 1 << 30;

/// Replay recorded samples and print what would have been captured
///
/// Uses the rules of the configuration (--config). The lease is always free, and memory and disk always suffice: only rules,
/// limits and selection decide. Commands of `exec` triggers are not run. Exit status 4: there are no samples.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  diagctl samples | diagctl simulate --config new.toml --samples -")]
pub struct Args {
    /// Output of `diagctl samples`: a file, a pipe, or `-` for stdin
    #[arg(long, value_name = "FILE")]
    samples: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show times in UTC instead of the local time zone
    #[arg(long)]
    utc: bool,
}

pub fn run(cx: &Context, args: &Args) -> Result<Done, Failure> {
    let mut recorded = read(args)?;
    recorded.sort_by_key(|sample| sample.at);
    if let Some(step) = usual_step(&recorded)
        && step > 3 * cx.config().poll_ms()
    {
        output::note(&format!(
            "the samples are {} apart, but poll_interval is {}, so a `for` never holds; set poll_interval to the recorded interval",
            duration(step),
            duration(cx.config().poll_ms())
        ));
    }
    let simulation = simulate(cx, &recorded);
    Done::either(args.json, &simulation, |simulation| text(simulation, args.utc))
}

fn read(args: &Args) -> Result<Vec<Recorded>, Failure> {
    let name = printable(&args.samples.to_string_lossy());
    let cannot = |e: std::io::Error| Failure::failed(format!("cannot read the samples from {name}: {e}"));
    // The path comes from the user: unlike a file in a store, it may be a pipe, a terminal, or a link to either.
    let source: Box<dyn Read> = if args.samples.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(&args.samples).map_err(cannot)?)
    };
    let mut data = Vec::new();
    source.take(MAX_SAMPLES + 1).read_to_end(&mut data).map_err(cannot)?;
    if data.len() as u64 > MAX_SAMPLES {
        return Err(Failure::failed(format!("{name} has more than {} of samples", size(MAX_SAMPLES)))
            .hint("a store records far less; split the file into parts of a few days"));
    }
    let lines = data.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    let recorded: Vec<Recorded> = lines
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|e| {
                Failure::failed(format!("{name}, line {}: not a sample: {e}", i + 1))
                    .hint("write one JSON object per line, as `diagctl samples` does")
            })
        })
        .collect::<Result<_, _>>()?;
    if recorded.is_empty() {
        return Err(Failure::new(Exit::NoMatch, format!("{name} has no samples"))
            .hint("`diagctl samples` prints the samples of a store, once processes have polled it"));
    }
    Ok(recorded)
}

fn text(simulation: &Simulation, utc: bool) -> String {
    let times = Times::new(utc);
    let (from, to) = (times.show(&simulation.from), times.show(&simulation.to));
    let (samples, processes) = (simulation.samples, simulation.processes);
    let mut text = format!("{samples} samples of {processes} processes, {from} to {to} ({})\n\n", times.name());
    if simulation.fired.is_empty() {
        text.push_str("Nothing would have been captured.\n");
    } else {
        let rows = simulation.fired.iter().map(|fired| {
            let worker = format!("{} {}", fired.role, fired.worker);
            vec![times.show(&fired.at), fired.rule.clone(), fired.pid.to_string(), worker, fired.reason.clone()]
        });
        text.push_str(&output::table(
            &[&format!("AT ({})", times.name()), "RULE", "PID", "WORKER", "REASON"],
            &rows.collect::<Vec<_>>(),
            &[2],
            &[3, 2],
        ));
        text.push('\n');
    }
    let rows = simulation.answers.iter().map(|(rule, verdicts)| {
        let counts: Vec<String> = verdicts.iter().map(|(verdict, n)| format!("{verdict} {n}")).collect();
        let count = simulation.fired.iter().filter(|fired| &fired.rule == rule).count();
        vec![rule.clone(), count.to_string(), counts.join(", ")]
    });
    text.push('\n');
    text.push_str(&output::table(&["RULE", "CAPTURES", "POLLS ANSWERED"], &rows.collect::<Vec<_>>(), &[1], &[]));
    text
}
