//! The configuration that fits a machine. Pure: facts in, text out.

use std::fmt::Write;
use std::path::Path;

use super::machine::Machine;
use crate::config::EXAMPLE;
use crate::units::size;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The line of the example with which its rules begin.
const RULES: &str = "# This rule is in force";

/// The largest heap dump takes this part of its process on disk: a twentieth, twice the measured share.
const DUMP_SHARE: u64 = 20;

/// Heap dumps that the store has room for.
const DUMPS_KEPT: u64 = 10;

/// The settings are those of the example, with its comments, but for those that depend on the machine. The rules are written anew.
pub fn fitting(machine: &Machine, store: &Path) -> String {
    let (settings, _) = EXAMPLE.split_once(RULES).unwrap_or((EXAMPLE, ""));
    // Its first paragraph is about the example.
    let settings = settings.split_once("\n\n").map_or(settings, |(_, rest)| rest);
    let dir = toml::Value::from(store.to_string_lossy().into_owned()).to_string();
    let settings = replace(settings, "dir", &dir);
    let settings = replace(&settings, "max_use", &format!("\"{}\"", in_toml(max_use(machine))));
    format!("{}\n{settings}{}", head(machine), rules(machine))
}

/// The hard limit of the store: ten of the largest heap dumps, at least 1 GiB, but at most a quarter of what is free.
pub fn max_use(machine: &Machine) -> u64 {
    let wanted = (largest_possible(machine) / DUMP_SHARE * DUMPS_KEPT).max(GIB);
    let allowed = machine.disk.map_or(wanted, |(free, _)| wanted.min(free / 4));
    if allowed >= GIB { allowed / GIB * GIB } else { (allowed / MIB).max(64) * MIB }
}

// A process cannot exceed its limit. Without one, it is expected to double at most.
fn largest_possible(machine: &Machine) -> u64 {
    let doubled = machine.largest().map_or(0, |process| process.rss.saturating_mul(2));
    machine.limit().map_or(doubled, |(limit, _)| limit)
}

fn head(machine: &Machine) -> String {
    let mut text =
        "# Configuration of diagctl, written by `diagctl init` for this machine. Every value is the default, except \
                    `dir`, `max_use`,\n# the budgets, and the rules. Check it with `diagctl config check`.\n#\n"
            .to_owned();
    for line in found(machine) {
        _ = writeln!(text, "# - {line}");
    }
    text
}

/// Describes the findings, a line each.
pub fn found(machine: &Machine) -> Vec<String> {
    let mut lines = Vec::new();
    for role in machine.roles() {
        let of_role: Vec<_> = machine.processes.iter().filter(|process| process.role == role).collect();
        let Some(largest) = of_role.iter().map(|process| process.rss).max() else { continue };
        let processes = if of_role.len() == 1 { "process" } else { "processes, the largest" };
        let limit = of_role.iter().filter_map(|process| process.limit.as_ref()).map(|(limit, _)| *limit).min();
        let limit = limit.map_or("no memory limit".to_owned(), |limit| format!("a memory limit of {}", size(limit)));
        lines.push(format!("{}: {} {processes} of {}; {limit}", role.name(), of_role.len(), size(largest)));
    }
    if lines.is_empty() {
        lines.push("neither Puma nor Sidekiq is running".to_owned());
        lines.extend(machine.own_limit.map(|limit| format!("memory limit here: {}", size(limit))));
    }
    match machine.jemalloc() {
        Some(true) => lines.push("allocator: jemalloc".to_owned()),
        Some(false) => lines.push("allocator: that of the C library".to_owned()),
        None => {}
    }
    if let Some((free, total)) = machine.disk {
        lines.push(format!("disk: {} of {} free for the store", size(free), size(total)));
    }
    lines
}

fn rules(machine: &Machine) -> String {
    let allocator = if machine.jemalloc() == Some(false) { "malloc_info" } else { "jemalloc_stats" };
    let roles: Vec<String> = machine.roles().into_iter().map(|role| format!("\"{}\"", role.name())).collect();
    let (above, why) = threshold(machine);
    let mut text = format!(
        "# Numbers over time, from the largest process.
[[rules]]
name = \"routine\"
reports = [\"{allocator}\", \"gc_stat\", \"smaps\", \"threads\"]
trigger.timer = {{ every = \"2h\", jitter = \"10m\", initial_delay = \"15m\" }}
select = \"largest\"

# The reports that `diagctl diagnose` and `diagctl heap trend` need, every hour. A few KB; a forked child counts the objects, in about 0.15 s of
# CPU time a million.
[[rules]]
name = \"summary\"
reports = [\"heap_summary\", \"smaps\", \"gc_stat\", \"{allocator}\", \"siblings\", \"cgroup\"]
trigger.timer = {{ every = \"1h\", jitter = \"5m\", initial_delay = \"5m\" }}
select = \"largest\"

# A heap dump shows what fills the memory of a process.
[[rules]]
name = \"heap-on-growth\"
reports = [\"{allocator}\", \"gc_stat\", \"threads\", \"smaps\", \"heap_dump\"]
match = {{ role = [{}] }}
trigger.memory_usage = {{ of = \"process\", metric = \"rss\", above = \"{above}\" }}   # {why}
for = \"30s\"                       # at every poll during this time
limits = {{ cooldown = \"10m\", per_process = \"1h\", max_count = 5, window = \"24h\" }}
mode = \"enforce\"                  # or \"dry_run\": everything but the capture
",
        roles.join(", ")
    );
    if machine.limit().is_some() {
        text.push_str(
            "
[[rules]]
name = \"container-filling-up\"
reports = [\"smaps_rollup\", \"cgroup\", \"siblings\", \"threads\"]
trigger.memory_usage = { of = \"cgroup\", above = [\"70%\", \"80%\", \"90%\"], rearm_below = \"60%\" }   # each level once
",
        );
    }
    _ = writeln!(
        text,
        "
# The reports of a `diagctl request` that names none.
[[rules]]
name = \"asked-for\"
reports = [\"heap_dump\", \"{allocator}\", \"gc_stat\", \"threads\", \"smaps\", \"siblings\"]
trigger.on_demand = {{ min_interval = \"1m\" }}"
    );
    text
}

// Of the limit, a fifth more than the share of one process, for no more than 80% can be had before the kernel acts.
fn threshold(machine: &Machine) -> (String, String) {
    match (machine.limit(), machine.largest()) {
        (Some((limit, 1)), _) => ("80%".into(), format!("of the memory limit, {}", size(limit))),
        (Some((limit, sharing)), _) => {
            let percent = (120 / sharing).clamp(5, 80);
            (format!("{percent}%"), format!("of the memory limit, {}, which {sharing} processes share", size(limit)))
        }
        (None, Some(largest)) => {
            let most = machine.memory.map_or(u64::MAX, |memory| memory / 5 * 4);
            let above = largest.rss.saturating_mul(2).max(GIB).min(most);
            (in_toml(above), "no memory limit applies; twice the largest process now, or 1 GiB".into())
        }
        (None, None) => {
            let above = machine.memory.map_or(GIB, |memory| GIB.min(memory / 5 * 4));
            (in_toml(above), "change it: no process was running and no memory limit applies".into())
        }
    }
}

fn in_toml(bytes: u64) -> String {
    if bytes.is_multiple_of(GIB) && bytes > 0 { format!("{}GiB", bytes / GIB) } else { format!("{}MiB", bytes / MIB) }
}

// Replaces the value on the line that begins with the key, and keeps its comment.
fn replace(text: &str, key: &str, value: &str) -> String {
    let start = format!("{key} = ");
    let line = |line: &str| match line.strip_prefix(&start) {
        None => line.to_owned(),
        Some(rest) => {
            let comment = rest.split_once('#').map_or(String::new(), |(_, comment)| format!("#{comment}"));
            format!("{:<34}{comment}", format!("{start}{value} ")).trim_end().to_owned()
        }
    };
    text.lines().map(line).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::super::machine::{Process, Role};
    use super::*;
    use crate::config::{Place, examine};

    fn process(role: Role, rss: u64, jemalloc: Option<bool>, limit: Option<u64>) -> Process {
        Process { role, rss, uid: Some(1000), jemalloc, limit: limit.map(|limit| (limit, "/group".into())) }
    }

    fn machines() -> Vec<(&'static str, Machine)> {
        let bare = Machine { memory: Some(16 * GIB), disk: Some((60 * GIB, 100 * GIB)), ..Machine::default() };
        let with = |processes: Vec<Process>| Machine { processes, ..bare.clone() };
        let four = vec![process(Role::Puma, 400 * MIB, Some(true), Some(2 * GIB)); 4];
        vec![
            ("bare", bare.clone()),
            ("nothing is known", Machine::default()),
            ("small disk", Machine { disk: Some((300 * MIB, GIB)), ..bare.clone() }),
            ("full disk", Machine { disk: Some((0, GIB)), ..bare.clone() }),
            ("four in a container", with(four.clone())),
            ("many in a container", with(vec![process(Role::Puma, GIB, None, Some(32 * GIB)); 40])),
            ("alone in a container", with(four[..1].to_vec())),
            ("no limit", with(vec![process(Role::Sidekiq, 3 * GIB, Some(false), None)])),
            ("nearly all memory", with(vec![process(Role::Sidekiq, 15 * GIB, Some(false), None)])),
            ("a limit and nothing running", Machine { own_limit: Some(512 * MIB), ..bare }),
        ]
    }

    #[test]
    fn every_machine_gets_a_file_without_a_problem_or_a_warning() {
        for (name, machine) in machines() {
            let text = fitting(&machine, Path::new("/srv/a \"quoted\" store"));
            let examined = examine(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{text}"));
            assert!(examined.problems.is_empty(), "{name}: {:?}", examined.problems);
            let place = Place {
                host: machine.memory,
                memory: machine.limit().map(|(limit, _)| limit).or(machine.memory),
                disk: machine.disk.map(|(_, total)| total),
                ..Place::default()
            };
            let warnings = examined.config.warnings(&examined.positions, &place);
            assert!(warnings.is_empty(), "{name}: {warnings:?}\n{text}");
            assert_eq!(examined.config.dir, Path::new("/srv/a \"quoted\" store"), "{name}");
            assert_eq!(examined.config.retention.max_use, max_use(&machine), "{name}");
        }
    }

    #[test]
    fn every_machine_takes_each_hour_what_a_diagnosis_needs() {
        for (name, machine) in machines() {
            let examined =
                examine(&fitting(&machine, Path::new("/srv/store"))).unwrap_or_else(|why| panic!("{name}: {why:?}"));
            let rule = examined.config.rules.iter().find(|rule| *rule.name == *"summary").unwrap();
            for report in ["heap_summary", "smaps", "gc_stat", "siblings", "cgroup"] {
                assert!(rule.reports.iter().any(|one| **one == *report), "{name}: {report}");
            }
        }
    }

    #[test]
    fn thresholds_follow_the_limit_and_the_number_of_processes() {
        let above = |name: &str| {
            let machine = machines().into_iter().find(|(of, _)| *of == name).unwrap().1;
            threshold(&machine).0
        };
        let table = [
            ("four in a container", "30%"),
            ("many in a container", "5%"),
            ("alone in a container", "80%"),
            ("no limit", "6GiB"),
            ("nearly all memory", "13107MiB"),
            ("bare", "1GiB"),
            ("a limit and nothing running", "80%"),
        ];
        for (name, expected) in table {
            assert_eq!(above(name), expected, "{name}");
        }
    }

    #[test]
    fn the_store_has_room_for_dumps_and_leaves_the_disk_to_others() {
        let sizes: Vec<(&str, String)> =
            machines().into_iter().map(|(name, machine)| (name, in_toml(max_use(&machine)))).collect();
        for (name, expected) in
            [("bare", "1GiB"), ("small disk", "75MiB"), ("full disk", "64MiB"), ("many in a container", "15GiB")]
        {
            assert!(sizes.contains(&(name, expected.into())), "{name} {sizes:?}");
        }
    }

    #[test]
    fn a_file_in_words() {
        let (_, machine) = machines().into_iter().find(|(name, _)| *name == "four in a container").unwrap();
        insta::assert_snapshot!(fitting(&machine, Path::new("/var/lib/diagctl")));
    }
}
