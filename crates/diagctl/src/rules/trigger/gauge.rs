//! `gauge`: a number that the application reports (`puma.backlog`, or one of its own) is above or below a threshold.

use super::{Condition, Facts, Outcome, View, figures};
use crate::section::Section;
use serde::{Deserialize, Serialize};

/// The keys of `gauge`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// The gauge's name.
    pub name: String,
    /// The trigger holds above this value.
    pub above: Option<f64>,
    /// The trigger holds below this value.
    pub below: Option<f64>,
}

impl Condition for Gauge {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let name = keys.text("name");
        let above = keys.number("above");
        let below = keys.number("below");
        keys.finish();
        if name.is_none() && !keys.has("name") {
            keys.problem("name", "missing", "name the gauge: name = \"puma.backlog\"");
        }
        if !keys.has("above") && !keys.has("below") {
            keys.problem("above", "neither above nor below is given", "use for example above = 10");
        }
        if let (Some(above), Some(below)) = (above, below)
            && below <= above
        {
            keys.problem(
                "below",
                format!("{below} is not greater than above = {above}: no number matches"),
                "use trigger.any to combine two ranges",
            );
        }
        if name.as_deref().is_some_and(|name| !super::is_application_name(name)) {
            keys.wrong_value(
                "name",
                "empty, too long, or has spaces",
                "use at most 128 letters, digits, `.`, `_` and `-`",
            );
        }
        Some(Self { name: name?, above, below })
    }

    /// Holds beyond the threshold.
    fn evaluate(&self, _path: &str, view: View<'_>) -> Outcome {
        let gauges = &view.readings.gauges;
        let Some(value) = gauges.get(&self.name).copied() else {
            let has =
                if gauges.is_empty() { "none".into() } else { gauges.keys().cloned().collect::<Vec<_>>().join(", ") };
            return Outcome::Unreadable(format!("this process hands in no gauge {:?} (it has {has})", self.name));
        };
        let above = self.above.is_none_or(|above| value > above);
        let below = self.below.is_none_or(|below| value < below);
        let holds = above && below;
        let range = [self.above.map(|n| format!("above {n}")), self.below.map(|n| format!("below {n}"))];
        let range = range.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        let reason = format!("gauge {} {value} is {}{range}", self.name, if holds { "" } else { "not " });
        let mut facts = Facts { reason, ..Facts::default() };
        let thresholds = [("above", self.above), ("below", self.below)];
        let figures = [(self.name.as_str(), Some(value))].into_iter().chain(thresholds);
        facts.observed.extend(figures.filter_map(|(name, value)| Some((name.to_owned(), figures::figure(value?)))));
        if holds { Outcome::Holds(facts) } else { Outcome::Waits(facts, None) }
    }

    fn is_about_the_process(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::trigger::testing::Bench;

    #[test]
    fn thresholds_are_exclusive_and_an_unknown_gauge_lists_the_known_ones() {
        let mut bench = Bench::default();
        bench.readings.gauges = [("puma.backlog".to_owned(), 5.0)].into();
        let gauge = |above, below| Gauge { name: "puma.backlog".into(), above, below };
        for (gauge, holds) in [
            (gauge(Some(4.0), None), true),
            (gauge(Some(5.0), None), false),
            (gauge(None, Some(5.5)), true),
            (gauge(Some(1.0), Some(4.0)), false),
        ] {
            assert_eq!(matches!(gauge.evaluate("t", bench.view()), Outcome::Holds(_)), holds, "{gauge:?}");
        }
        bench.readings.gauges = [("balance".to_owned(), -2.5)].into();
        let low = Gauge { name: "balance".into(), above: None, below: Some(-2.0) };
        let Outcome::Holds(facts) = low.evaluate("t", bench.view()) else { panic!("it is below") };
        assert_eq!(serde_json::to_string(&facts.observed).unwrap(), r#"{"balance":-2.5,"below":-2}"#);
        bench.readings.gauges = [("puma.backlog".to_owned(), 5.0)].into();
        let unknown = Gauge { name: "puma.backlgo".into(), above: Some(1.0), below: None };
        let Outcome::Unreadable(why) = unknown.evaluate("t", bench.view()) else { panic!("it is not there") };
        assert!(why.contains("puma.backlgo") && why.contains("it has puma.backlog"), "{why}");
    }
}
