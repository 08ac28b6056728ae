//! What is valid and yet can never work: thresholds that this machine cannot reach, rules that their own limits never let fire.
//! `config check` reports it; a running process goes on, for it may run elsewhere.

use super::reader::Problem;
use super::{Config, Rule};
use crate::trigger::Trigger;
use crate::units::{Amount, duration, ms, size};

impl Config {
    /// Everything that can never work on a machine with so much memory, in bytes.
    pub fn doubts(&self, host_total: u64) -> Vec<Problem> {
        let mut doubts = Vec::new();
        for (i, rule) in self.rules.iter().enumerate() {
            let mut doubt = |key: &str, message: String, hint: &str| {
                doubts.push(Problem { path: format!("rules[{i}].{key}"), message, hint: Some(hint.to_owned()) });
            };
            rule.trigger.visit(&mut |trigger| {
                if let Some(level) = lowest_level(trigger).filter(|level| *level > host_total) {
                    let message = format!("{} is more than this machine has ({})", size(level), size(host_total));
                    doubt(
                        &format!("trigger.{}", trigger.name()),
                        message,
                        "it can never fire here; use a share like \"80%\", or check it with --elsewhere",
                    );
                }
            });
            let units: u32 = rule.reports.iter().map(|name| self.cost_of(name)).sum();
            for (name, budget) in [("budget_hour", self.limits.budget_hour), ("budget_day", self.limits.budget_day)] {
                if units > budget {
                    let message = format!("a capture costs {units} units, more than all of limits.{name} = {budget}");
                    doubt("reports", message, "it can never fire; raise the budget, or capture less");
                }
            }
            if let Some(message) = idle_count(rule) {
                doubt("limits.max_count", message, "the count limits nothing; make the window longer, or leave it out");
            }
        }
        doubts
    }
}

fn lowest_level(trigger: &Trigger) -> Option<u64> {
    match trigger {
        Trigger::MemoryUsage(usage) => match usage.above.first() {
            Some(Amount::Bytes(level)) => Some(*level),
            _ => None,
        },
        Trigger::MemoryGrowth(growth) => Some(growth.min),
        Trigger::HighWater(high_water) => Some(high_water.floor),
        _ => None,
    }
}

// A cooldown that alone keeps the number of captures in the window below the count.
fn idle_count(rule: &Rule) -> Option<String> {
    let max = u64::from(rule.limits.max_count?);
    let (cooldown, window) = (ms(rule.limits.cooldown), ms(rule.limits.window));
    (max > 1 && cooldown > 0 && cooldown.saturating_mul(max - 1) >= window).then(|| {
        format!("with a cooldown of {} there are never {max} captures in {}", duration(cooldown), duration(window))
    })
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn what_can_never_fire_is_told_with_the_figure_that_prevents_it() {
        let rule = |body: &str| format!("[[rules]]\nname = \"r\"\n{body}\n");
        let usage = "trigger.memory_usage = { above = \"1GiB\" }";
        let table = [
            (
                rule("reports = [\"smaps\"]\ntrigger.any = [ { memory_usage = { above = \"64GiB\" } } ]"),
                "rules[0].trigger.memory_usage: 64.0 GiB is more than this machine has (32.0 GiB)",
            ),
            (
                rule("reports = [\"smaps\"]\ntrigger.high_water = { floor = \"33GiB\", step = \"1GiB\" }"),
                "rules[0].trigger.high_water: 33.0 GiB",
            ),
            (
                format!("[limits]\nbudget_hour = 9\n{}", rule(&format!("reports = [\"heap_dump\"]\n{usage}"))),
                "more than all of limits.budget_hour = 9",
            ),
            (
                rule(&format!(
                    "reports = [\"smaps\"]\n{usage}\nlimits = {{ cooldown = \"6h\", max_count = 5, window = \"1d\" }}"
                )),
                "never 5 captures in 1d",
            ),
        ];
        for (text, expected) in table {
            let (config, _) = parse(&text).unwrap_or_else(|p| panic!("{p:?}"));
            let doubts: Vec<String> = config.doubts(32 << 30).iter().map(ToString::to_string).collect();
            assert!(doubts.len() == 1 && doubts[0].contains(expected), "{expected:?} in {doubts:?}");
        }
        let sound =
            rule(&format!("reports = [\"heap_dump\"]\n{usage}\nlimits = {{ cooldown = \"10m\", max_count = 5 }}"));
        assert_eq!(parse(&sound).unwrap().0.doubts(32 << 30), []);
    }
}
