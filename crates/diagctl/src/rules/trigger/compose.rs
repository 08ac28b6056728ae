//! `any` and `all`.

use super::{Facts, Outcome, Trigger, View};

pub(super) fn any(parts: &[Trigger], path: &str, view: View<'_>) -> Outcome {
    let mut waiting = Facts::default();
    let mut next = None::<u64>;
    let mut unreadable = None;
    for (i, part) in parts.iter().enumerate() {
        match part.evaluate(&format!("{path}.{i}"), view) {
            Outcome::Holds(facts) => return Outcome::Holds(facts),
            Outcome::Waits(facts, at) => {
                waiting.join(facts, "; ");
                next = [next, at].into_iter().flatten().min();
            }
            Outcome::Unreadable(why) => unreadable = Some(why),
        }
    }
    match unreadable {
        Some(why) => Outcome::Unreadable(why),
        None => Outcome::Waits(waiting, next),
    }
}

pub(super) fn all(parts: &[Trigger], path: &str, view: View<'_>) -> Outcome {
    let mut holding = Facts::default();
    let mut waiting = None::<(Facts, Option<u64>)>;
    for (i, part) in parts.iter().enumerate() {
        match part.evaluate(&format!("{path}.{i}"), view) {
            Outcome::Holds(facts) => holding.join(facts, " and "),
            Outcome::Waits(facts, at) => {
                let entry = waiting.get_or_insert_default();
                entry.0.join(facts, "; ");
                // `all` cannot hold before the last of its waiting parts; a part without a time does not count.
                entry.1 = entry.1.max(at);
            }
            Outcome::Unreadable(why) => return Outcome::Unreadable(why),
        }
    }
    match waiting {
        Some((facts, at)) => Outcome::Waits(facts, at),
        None => Outcome::Holds(holding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::memory::Metric;
    use crate::rules::trigger::{MemoryUsage, testing};
    use crate::units::Amount;

    fn usage(metric: Metric, above: u64) -> Trigger {
        Trigger::MemoryUsage(MemoryUsage { metric, above: vec![Amount::Bytes(above)], rearm_below: None })
    }

    #[test]
    fn any_and_all_combine_and_an_unreadable_part_hides_no_true_one() {
        let mut bench = testing::Bench::default();
        bench.readings.memory.set(Metric::Rss, Ok(100));
        bench.readings.memory.set(Metric::HostUsed, Err("no meminfo".into()));
        let view = bench.view();
        let (yes, no, blind) = (usage(Metric::Rss, 50), usage(Metric::Rss, 200), usage(Metric::HostUsed, 1));
        let table = [
            (Trigger::Any(vec![no.clone(), yes.clone()]), "holds"),
            (Trigger::Any(vec![no.clone(), no.clone()]), "waits"),
            (Trigger::Any(vec![blind.clone(), yes.clone()]), "holds"),
            (Trigger::Any(vec![blind.clone(), no.clone()]), "unreadable"),
            (Trigger::All(vec![yes.clone(), yes.clone()]), "holds"),
            (Trigger::All(vec![yes.clone(), no.clone()]), "waits"),
            (Trigger::All(vec![yes, blind]), "unreadable"),
        ];
        for (trigger, expected) in table {
            let got = match trigger.evaluate("t", view) {
                Outcome::Holds(_) => "holds",
                Outcome::Waits(..) => "waits",
                Outcome::Unreadable(_) => "unreadable",
            };
            assert_eq!(got, expected, "{trigger:?}");
        }
    }
}
