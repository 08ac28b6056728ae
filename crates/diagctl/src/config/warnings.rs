//! Warnings about a valid configuration that cannot work as intended: thresholds that this machine cannot reach or that always
//! hold, rules that their own limits never let fire, keys that contradict each other. `config check` and `status` report them.
//! A running process goes on, because the rest of the file works and may suit another machine.

mod crowding;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Rule};
use crate::rules::decide::Costs;
use crate::rules::memory::Metric;
use crate::rules::trigger::Trigger;
use crate::section::Problem;
use crate::units::{Amount, duration, ms, size};
use diagctl_store::encryption_record;

pub use surroundings::{Kind, Named};

/// Facts about the machine and the store that a configuration is for. An unknown fact raises no warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The machine's memory, bytes.
    pub host: Option<u64>,
    /// The memory that a process on the machine can use, bytes.
    pub memory: Option<u64>,
    /// The size of the store's filesystem, bytes.
    pub disk: Option<u64>,
    /// The record of encryption in the store; `None` if reports were never encrypted.
    pub encryption: Option<encryption_record::Record>,
    /// Set if the group that may read the store does not exist.
    pub no_such_group: bool,
    /// Programs, files and directories that the configuration names and the machine lacks, with the reason.
    pub missing: BTreeMap<String, &'static str>,
    /// Gauges that processes have reported; empty if nothing is recorded.
    pub gauges: BTreeSet<String>,
}

/// A key of a section or rule, the problem with it, and the hint.
type Warning = (String, String, &'static str);

impl Config {
    /// Returns everything that cannot work in this place. `positions` are those of the rules in the document.
    pub fn warnings(&self, positions: &[usize], place: &Place) -> Vec<Problem> {
        let of_rules = self.rules.iter().enumerate().flat_map(|(i, rule)| {
            let position = positions.get(i).copied().unwrap_or(i);
            let warnings = self.of_rule(rule, place).into_iter();
            warnings.map(move |(key, message, hint)| (format!("rules[{position}].{key}"), message, hint))
        });
        let all = self.of_sections(place).into_iter().chain(self.of_surroundings(place)).chain(of_rules);
        all.map(|(path, message, hint)| Problem { path, message, hint: Some(hint.to_owned()), line: None }).collect()
    }

    /// Returns the names of rules with a share of the memory limit. Without a limit it is a share of the host's memory.
    pub fn rules_with_shares(&self) -> Vec<&str> {
        let has_shares = |rule: &&Rule| {
            let mut found = false;
            rule.trigger.visit(&mut |trigger| {
                found |= match trigger {
                    Trigger::MemoryUsage(usage) => usage.metric != Metric::HostUsed && usage.has_shares(),
                    Trigger::MemoryProjection(projection) => matches!(projection.margin, Amount::Percent(_)),
                    _ => false,
                };
            });
            found
        };
        self.rules.iter().filter(has_shares).map(|rule| &*rule.name).collect()
    }

    fn of_sections(&self, place: &Place) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warning = |key: &str, message: String, hint| warnings.push((key.to_owned(), message, hint));
        for (key, amount) in
            [("guards.min_free_disk", self.guards.min_free_disk), ("retention.keep_free", self.retention.keep_free)]
        {
            let hint = "nothing can ever be captured; 15% is usual";
            match (amount, place.disk) {
                (Amount::Percent(percent), _) if percent >= 100.0 => {
                    warning(key, "no filesystem ever has 100% free".into(), hint);
                }
                (Amount::Bytes(bytes), Some(disk)) if bytes >= disk => {
                    let message = format!("{} is not less than the whole filesystem ({})", size(bytes), size(disk));
                    warning(key, message, hint);
                }
                _ => {}
            }
        }
        if let Some(group) = self.group.as_ref().filter(|_| place.no_such_group) {
            let message = format!("there is no group {group:?} on this machine");
            warning(
                "group",
                message,
                "no command can create the store without it; create the group, or remove the key",
            );
        }
        if self.guards.max_rss == Some(0) {
            let hint = "no heap dump can ever be taken; remove the key to disable the guard";
            warning("guards.max_rss", "every process is larger than 0 B".into(), hint);
        }
        if self.guards.max_cpu_pressure == Some(0.0) {
            let hint = "some waiting is normal; 50% is already high";
            warning("guards.max_cpu_pressure", "0% refuses whenever any process has waited for a CPU".into(), hint);
        }
        if self.limits.budget_hour > self.limits.budget_day {
            let (hour, day) = (self.limits.budget_hour, self.limits.budget_day);
            let message = format!("{hour} is more than budget_day = {day}, so it never limits anything");
            warning("limits.budget_hour", message, "make it smaller than budget_day");
        }
        warnings
    }

    fn of_rule(&self, rule: &Rule, place: &Place) -> Vec<Warning> {
        let mut warnings = Vec::new();
        rule.trigger.visit(&mut |trigger| self.of_trigger(trigger, place, &mut warnings));
        let units: u32 = rule.reports.iter().map(|name| self.cost_of(name)).sum();
        for (name, budget) in [("budget_hour", self.limits.budget_hour), ("budget_day", self.limits.budget_day)] {
            // Budgets do not apply to requests.
            if units > budget && !matches!(rule.trigger, Trigger::OnDemand(_)) {
                let message = format!("a capture costs {units} units, more than limits.{name} = {budget}");
                warnings.push((
                    "reports".into(),
                    message,
                    "the rule can never fire; raise the budget, or capture fewer reports",
                ));
            }
        }
        warnings.extend(self.crowded_out(rule));
        warnings.extend(self.always_covered(rule));
        warnings.extend(self.too_large(rule));
        let (cooldown, per_process) = (rule.limits.cooldown, rule.limits.per_process);
        if let Some(per_process) = per_process.filter(|least| *least <= cooldown) {
            let message = format!(
                "{} is not longer than the cooldown of {}, which applies to all processes",
                duration(ms(per_process)),
                duration(ms(cooldown))
            );
            warnings.push((
                "limits.per_process".into(),
                message,
                "per_process has no effect; make it longer, or remove it",
            ));
        }
        if let Some(message) = idle_count(rule) {
            let hint = "max_count has no effect; use a longer window, or remove it";
            warnings.push(("limits.max_count".into(), message, hint));
        }
        warnings
    }

    fn of_trigger(&self, trigger: &Trigger, place: &Place, warnings: &mut Vec<Warning>) {
        let mut warning = |key: &str, message: String, hint: &'static str| {
            warnings.push((format!("trigger.{}.{key}", trigger.name()), message, hint));
        };
        let too_high = |key: &str, metric: Metric, bytes: u64, warning: &mut dyn FnMut(&str, String, &'static str)| {
            let (whose, memory) = if metric == Metric::HostUsed {
                ("this machine has", place.host)
            } else {
                ("a process can have here", place.memory)
            };
            if let Some(memory) = memory.filter(|memory| bytes > *memory) {
                let message = format!("{} is more than {whose} ({})", size(bytes), size(memory));
                warning(
                    key,
                    message,
                    "the rule can never fire; use a share like \"80%\", or check with --elsewhere if this is for another machine",
                );
            }
        };
        match trigger {
            Trigger::MemoryUsage(usage) => {
                for amount in &usage.above {
                    match *amount {
                        Amount::Bytes(0) => warning("above", "0 B is always exceeded".into(), ALWAYS),
                        Amount::Percent(share) if share <= 0.0 => {
                            warning("above", "0% is always exceeded".into(), ALWAYS);
                        }
                        Amount::Percent(share) if share >= 100.0 => {
                            warning("above", "nothing is more than 100% of the limit".into(), "90% is already late");
                        }
                        Amount::Bytes(bytes) => too_high("above", usage.metric, bytes, &mut warning),
                        Amount::Percent(_) => {}
                    }
                }
            }
            Trigger::MemoryGrowth(growth) => too_high("min", growth.metric, growth.min, &mut warning),
            Trigger::HighWater(high_water) => too_high("floor", high_water.metric, high_water.floor, &mut warning),
            Trigger::MemoryProjection(projection) => {
                let whole = match projection.margin {
                    Amount::Percent(share) => share >= 100.0,
                    Amount::Bytes(bytes) => place.memory.is_some_and(|memory| bytes >= memory),
                };
                if whole {
                    warning(
                        "margin",
                        format!("{} is the whole limit, so the condition always holds", projection.margin),
                        "10% is usual",
                    );
                }
            }
            Trigger::Timer(timer) if timer.every < self.poll_interval => {
                let (every, poll) = (duration(ms(timer.every)), duration(self.poll_ms()));
                let message =
                    format!("{every} is shorter than poll_interval = {poll}, so the timer is due at every poll");
                warning("every", message, "make it longer, or poll more often");
            }
            Trigger::Exec(exec) => {
                let program = exec.command.first().map(String::as_str).unwrap_or_default();
                if let Some(why) = place.missing.get(program) {
                    warning("command", format!("{program} {why}"), surroundings::ABSENT);
                }
            }
            Trigger::Gauge(gauge) if !place.gauges.is_empty() && !place.gauges.contains(&gauge.name) => {
                let seen = place.gauges.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let message = format!("no process has reported a gauge {:?} lately (seen: {seen})", gauge.name);
                warning(
                    "name",
                    message,
                    "the rule is skipped; use one of those gauges, or report this one with `c.gauge`",
                );
            }
            _ => {}
        }
    }
}

/// The hint for a condition that always holds.
const ALWAYS: &str = "the rule fires as often as its limits allow; use a timer instead";

// Returns a problem if the cooldown alone keeps the number of captures in the window below `max_count`.
fn idle_count(rule: &Rule) -> Option<String> {
    let max = u64::from(rule.limits.max_count?);
    let (cooldown, window) = (ms(rule.limits.cooldown), ms(rule.limits.window));
    (max > 1 && cooldown > 0 && cooldown.saturating_mul(max - 1) >= window).then(|| {
        format!("with a cooldown of {} there are never {max} captures in {}", duration(cooldown), duration(window))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn warnings(text: &str) -> Vec<String> {
        let (config, _) = parse(text).unwrap_or_else(|p| panic!("{p:?}"));
        let gauges = ["puma.backlog".to_owned()].into();
        let place = Place {
            host: Some(64 << 30),
            memory: Some(32 << 30),
            disk: Some(100 << 30),
            no_such_group: true,
            gauges,
            ..Place::default()
        };
        config.warnings(&[], &place).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn impossible_settings_are_reported_with_the_limiting_figure() {
        let rule = |trigger: &str| format!("[[rules]]\nname = \"r\"\nreports = [\"smaps\"]\ntrigger.{trigger}\n");
        let dump = "[[rules]]\nname = \"r\"\nreports = [\"heap_dump\"]\n";
        let usage = "memory_usage = { above = \"1GiB\" }";
        let table = [
            (
                rule("any = [ { memory_usage = { above = \"64GiB\" } } ]"),
                "rules[0].trigger.memory_usage.above: 64.0 GiB is more than a process can have here (32.0 GiB)",
            ),
            (rule("memory_usage = { above = [\"1GiB\", \"64GiB\"] }"), "above: 64.0 GiB"),
            (
                rule("high_water = { floor = \"33GiB\", step = \"1GiB\" }"),
                "rules[0].trigger.high_water.floor: 33.0 GiB",
            ),
            (
                rule("memory_usage = { of = \"host\", above = \"65GiB\" }"),
                "above: 65.0 GiB is more than this machine has (64.0 GiB)",
            ),
            (rule("memory_growth = { min = \"33GiB\", diff = \"1GiB\" }"), "trigger.memory_growth.min: 33.0 GiB"),
            (rule("memory_usage = { above = \"0%\" }"), "rules[0].trigger.memory_usage.above: 0% is always exceeded"),
            (rule("memory_usage = { above = \"0B\" }"), "above: 0 B is always exceeded"),
            (rule("memory_usage = { of = \"host\", above = \"100%\" }"), "above: nothing is more than 100%"),
            (
                rule("memory_projection = { margin = \"100%\" }"),
                "trigger.memory_projection.margin: 100% is the whole limit",
            ),
            (rule("memory_projection = { margin = \"32GiB\" }"), "margin: 32.0 GiB is the whole limit"),
            (rule("timer = { every = \"1s\" }"), "trigger.timer.every: 1s is shorter than poll_interval = 10s"),
            (rule("gauge = { name = \"puma.backlgo\", above = 1 }"), "\"puma.backlgo\" lately (seen: puma.backlog)"),
            (format!("[limits]\nbudget_hour = 9\n{dump}trigger.{usage}"), "more than limits.budget_hour = 9"),
            ("[limits]\nbudget_hour = 60".into(), "limits.budget_hour: 60 is more than budget_day = 50"),
            ("[guards]\nmin_free_disk = \"100%\"".into(), "guards.min_free_disk: no filesystem ever has 100% free"),
            ("[guards]\nmin_free_disk = \"100GiB\"".into(), "guards.min_free_disk: 100.0 GiB is not less than"),
            ("[retention]\nkeep_free = \"100%\"".into(), "retention.keep_free: no filesystem"),
            ("group = \"sre\"".into(), "group: there is no group \"sre\" on this machine"),
            ("[guards]\nmax_rss = \"0B\"".into(), "guards.max_rss: every process is larger"),
            ("[guards]\nmax_cpu_pressure = \"0%\"".into(), "guards.max_cpu_pressure: 0% refuses"),
            (
                format!("{}limits = {{ cooldown = \"1h\", per_process = \"1h\" }}", rule(usage)),
                "rules[0].limits.per_process: 1h is not longer than the cooldown of 1h",
            ),
            (
                format!("[guards]\nmax_rss = \"1GiB\"\n{dump}trigger.{usage}"),
                "rules[0].reports: the rule holds from 1.00 GiB on, but guards.max_rss = 1.00 GiB refuses a heap dump",
            ),
            (
                format!(
                    "{}{dump}name = \"dump\"\ntrigger.{usage}",
                    rule("timer = { every = \"30m\" }")
                        .replace("\"r\"", "\"often\"")
                        .replace("smaps", "smaps\", \"threads")
                )
                .replacen(
                    "name = \"r\"\nreports = [\"heap_dump\"]\n",
                    "reports = [\"heap_dump\"]\n",
                    1,
                ),
                "rules[1].reports: a capture costs 10 units, but the timers of other rules (often) use 96 of limits.budget_day = 50",
            ),
            (
                format!(
                    "{}{}limits = {{ cooldown = \"1h\" }}",
                    rule("timer = { every = \"50m\" }"),
                    rule(usage).replace("\"r\"", "\"s\"")
                ),
                "rules[1].limits.cooldown: rule r captures the same reports every 50m, which starts the cooldown of 1h anew",
            ),
            (
                format!("{}limits = {{ cooldown = \"6h\", max_count = 5, window = \"1d\" }}", rule(usage)),
                "never 5 captures in 1d",
            ),
        ];
        for (text, expected) in table {
            let found = warnings(&text);
            assert!(found.len() == 1 && found[0].contains(expected), "{expected:?} in {found:?}");
            assert!(found[0].contains("\n    hint: "), "{found:?}");
        }
    }

    #[test]
    fn warnings_are_reported_beside_problems() {
        let text = "[[rules]]\nreports = [\"smaps\"]\n[[rules]]\nreports = [3]\ntrigger.any = [ \
                    { timer = { every = \"often\" } }, { memory_usage = { above = \"0%\" } } ]";
        let examined = crate::config::examine(text).unwrap_or_else(|p| panic!("{p:?}"));
        let wrong: Vec<&str> = examined.problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "rules[0].name",
            "rules[0].trigger",
            "rules[1].reports",
            "rules[1].trigger.any[0].timer.every",
            "rules[1].name",
        ];
        assert!(expected.iter().all(|path| wrong.contains(path)), "{wrong:?}");
        let warnings = examined.config.warnings(&examined.positions, &Place::default());
        assert_eq!(warnings[0].path, "rules[1].trigger.memory_usage.above");
    }

    #[test]
    fn working_settings_raise_no_warning() {
        let body = |trigger: &str| {
            format!(
                "[[rules]]\nname = \"r\"\nreports = [\"heap_dump\"]\nlimits = {{ cooldown = \"10m\", max_count = 5 }}\ntrigger.{trigger}"
            )
        };
        for trigger in [
            "memory_usage = { above = \"1GiB\" }",
            "memory_pressure = { above = \"0%\" }",
            "memory_usage = { of = \"host\", above = \"33GiB\" }",
            "gauge = { name = \"puma.backlog\", above = 0 }",
        ] {
            assert_eq!(warnings(&body(trigger)), [""; 0]);
        }
        // Requests spend budgets but are not refused by them.
        assert_eq!(warnings(&format!("[limits]\nbudget_hour = 0\n{}", body("on_demand = {}"))), [""; 0]);
        // Nothing is known about the place.
        let (config, _) = parse(&body("gauge = { name = \"any\", above = 0 }")).unwrap();
        assert_eq!(config.warnings(&[], &Place::default()), []);
        assert_eq!(parse(crate::config::EXAMPLE).unwrap().0.warnings(&[], &Place::default()), []);
    }
}
