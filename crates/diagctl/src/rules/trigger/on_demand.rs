//! `on_demand`: a person asked for a capture. Gives such requests a rule of their own, with the reports they get if they name
//! none, and a minimum interval.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{Condition, Facts, Outcome, View};
use crate::section::Section;

/// The keys of `on_demand`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDemand {
    /// The minimum time between two captures of the rule.
    pub min_interval: Duration,
}

impl Condition for OnDemand {
    fn parse(keys: &Section<'_>) -> Option<Self> {
        let min_interval = keys.duration("min_interval").unwrap_or_default();
        keys.finish();
        Some(Self { min_interval })
    }

    /// Holds while a request is pending.
    fn evaluate(&self, _path: &str, view: View<'_>) -> Outcome {
        if view.requested {
            return Outcome::Holds(Facts { reason: "a request waits".into(), ..Facts::default() });
        }
        Outcome::Waits(Facts { reason: "no request waits".into(), ..Facts::default() }, None)
    }

    fn is_about_the_process(&self) -> bool {
        false
    }

    fn is_sampled(&self) -> bool {
        false
    }
}
