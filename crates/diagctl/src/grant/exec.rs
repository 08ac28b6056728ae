//! The commands of `exec` triggers: which are due, and what they answered.

use std::collections::BTreeMap;

use diagctl_store::{Error, Process, Result, Store};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::fsio;
use crate::operator_command;
use crate::rules::readings::ExecAnswer;
use crate::rules::trigger::Exec;
use crate::state::files::load_state;

/// The last run of a command of an `exec` trigger.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LastRun {
    /// When it began, milliseconds on the store's time line.
    at: u64,
    /// Its answer; none while it runs.
    answer: Option<ExecAnswer>,
}

/// The last run of each command, by rule and path.
fn load_execs(store: &Store) -> BTreeMap<String, LastRun> {
    let data = fsio::read_bounded(&store.path("execs.json"), 1 << 20).unwrap_or_default();
    serde_json::from_slice(&data).unwrap_or_default()
}

/// Keeps the last runs. Under the state lock.
fn save_execs(store: &Store, execs: &BTreeMap<String, LastRun>) -> Result<()> {
    let data = serde_json::to_vec(execs).map_err(Error::encode("execs.json"))?;
    Ok(fsio::overwrite(&store.path("execs.json"), &data)?)
}

/// Runs the commands of `exec` triggers that are due. Returns their answers and the last answers of all others. Each command is
/// claimed under the lock and run outside it, so that only one of several processes runs it.
pub fn run_commands(cx: &Context, store: &Store, process: &Process) -> Result<BTreeMap<String, ExecAnswer>> {
    let rules = cx.config().rules.iter().filter(|rule| rule.matching.accepts(&process.role, &process.name));
    let declared: Vec<(String, &Exec)> = rules
        .flat_map(|rule| {
            let execs = rule.trigger.execs(rule.trigger.name());
            execs.into_iter().map(|(path, exec)| (format!("{}|{path}", rule.name), exec))
        })
        .collect();
    if declared.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut answers = BTreeMap::new();
    let mut due: Vec<(String, &Exec)> = Vec::new();
    {
        let _guard = store.lock()?;
        let (state, _) = load_state(store)?;
        let now_ms = cx.now(&state).store_ms;
        let mut last_runs = load_execs(store);
        for (key, exec) in declared {
            let last = last_runs.remove(&key);
            if last.as_ref().is_none_or(|last| now_ms.saturating_sub(last.at) >= exec.every_ms) {
                last_runs.insert(key.clone(), LastRun { at: now_ms, answer: None });
                due.push((key, exec));
            } else if let Some(last) = last {
                answers.extend(last.answer.clone().map(|answer| (key.clone(), ExecAnswer { past: true, ..answer })));
                last_runs.insert(key, last);
            }
        }
        if !due.is_empty() {
            save_execs(store, &last_runs)?;
        }
    };
    if due.is_empty() {
        return Ok(answers);
    }
    let new = operator_command::run(due);
    operator_command::kill_remains();
    // The answers are saved for people; the poll uses them even if they cannot be saved.
    let _ = remember(store, &new);
    answers.extend(new);
    Ok(answers)
}

fn remember(store: &Store, answers: &BTreeMap<String, ExecAnswer>) -> Result<()> {
    let _guard = store.lock()?;
    let mut last_runs = load_execs(store);
    for (key, answer) in answers {
        last_runs.entry(key.clone()).or_default().answer = Some(answer.clone());
    }
    save_execs(store, &last_runs)
}
