//! `simulate`: replays recorded samples through the rule engine to show what a configuration would have done.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use super::output::{self, Done};
use super::times::Times;
use crate::cli::error::{Failure, printable};
use crate::clock::{self, Anchor, Reading};
use crate::exit_code::Exit;
use crate::history::Recorded;
use crate::rules::decide::{self, Inputs};
use crate::rules::guard::Figures;
use crate::rules::memory::Metric;
use crate::state::samples::Samples;
use crate::state::schedule::State;
use crate::units::{duration, size};
use diagctl_store::ProcessId;

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

#[derive(Serialize)]
struct Simulation {
    schema: u32,
    samples: usize,
    processes: usize,
    from: String,
    to: String,
    fired: Vec<Fired>,
    /// By rule: the number of polls with each verdict.
    answers: BTreeMap<String, BTreeMap<&'static str, usize>>,
}

#[derive(Serialize)]
struct Fired {
    at: String,
    rule: String,
    pid: u32,
    role: String,
    worker: String,
    reports: Vec<diagctl_store::ReportName>,
    reason: String,
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

fn simulate(cx: &Context, recorded: &[Recorded]) -> Simulation {
    let (mut state, mut samples) = (State::default(), Samples::default());
    let mut fired = Vec::new();
    let mut answers: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
    let host = cx.proc.hostname();
    for sample in recorded {
        let (process, readings) = sample.replay();
        let wall_ms = i64::try_from(sample.at).unwrap_or(i64::MAX);
        let reading = Reading { wall_ms, boot_ms: sample.at, boot_id: "simulation".into() };
        let now = Anchor::place(state.clock.as_ref(), reading);
        let figures = Figures {
            rss: readings.memory.get(Metric::Rss).unwrap_or(0),
            available_memory: u64::MAX,
            free_disk: u64::MAX / 2,
            total_disk: u64::MAX / 2,
            ..Figures::default()
        };
        let inputs = Inputs {
            settings: cx.config().settings(),
            process: &process,
            readings: &readings,
            requests: &[],
            figures: &figures,
            host: &host,
            now: &now,
            // The jitter is the same in every run.
            seed: sample.at ^ u64::from(sample.pid),
            state: &state,
            sample: samples.processes.get(&process.id),
            others: &samples,
        };
        let decision = decide::decide(inputs);
        for answer in &decision.answers {
            *answers.entry(answer.rule.clone()).or_default().entry(answer.verdict.name()).or_default() += 1;
        }
        let dry = decision.answers.iter().filter(|answer| answer.dry_run);
        let would: Vec<(String, String)> = dry.map(|a| (a.rule.clone(), a.reason.clone())).collect();
        let mut changes = decision.changes;
        let plan = decision.plans.into_iter().next();
        if let Some(plan) = &plan {
            changes = decide::charge(Inputs { state: &changes.state, sample: Some(&changes.sample), ..inputs }, plan);
        }
        state = changes.state;
        samples.processes.insert(process.id, changes.sample);
        for (rule, reason) in plan.map(|plan| (plan.rule.to_string(), plan.reason)).into_iter().chain(would) {
            let reports =
                cx.config().rules.iter().find(|r| *r.name == rule).map(|r| r.reports.clone()).unwrap_or_default();
            fired.push(Fired {
                at: clock::utc(wall_ms),
                rule,
                pid: sample.pid,
                role: sample.role.clone(),
                worker: sample.name.clone(),
                reports,
                reason,
            });
        }
    }
    let at =
        |sample: Option<&Recorded>| sample.map(|s| clock::utc(i64::try_from(s.at).unwrap_or(0))).unwrap_or_default();
    let processes: BTreeSet<ProcessId> = recorded.iter().map(Recorded::process).collect();
    Simulation {
        schema: 1,
        samples: recorded.len(),
        processes: processes.len(),
        from: at(recorded.first()),
        to: at(recorded.last()),
        fired,
        answers,
    }
}

// Returns the median interval between two samples of one process.
fn usual_step(recorded: &[Recorded]) -> Option<u64> {
    let mut last: BTreeMap<ProcessId, u64> = BTreeMap::new();
    let mut steps = Vec::new();
    for sample in recorded {
        if let Some(before) = last.insert(sample.process(), sample.at) {
            steps.push(sample.at - before);
        }
    }
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied()
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
