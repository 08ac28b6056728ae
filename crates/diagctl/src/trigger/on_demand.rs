//! `on_demand`: a request matched. It gives requests a rule of their own: which reports they get when they name
//! none, and how far apart they may be.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::{Facts, Outcome, View};
use crate::section::Section;

/// The keys of `on_demand`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDemand {
    /// Time between two captures of the rule, at least.
    pub min_interval: Duration,
}

impl OnDemand {
    /// Reads the keys.
    pub fn parse(keys: &Section<'_>) -> Self {
        let min_interval = keys.duration("min_interval").unwrap_or_default();
        keys.finish();
        Self { min_interval }
    }

    /// Holds when a request waits.
    pub fn evaluate(view: View<'_>) -> Outcome {
        if view.requested {
            return Outcome::Holds(Facts { reason: "a request waits".into(), ..Facts::default() });
        }
        Outcome::Waits(Facts { reason: "no request waits".into(), ..Facts::default() }, None)
    }
}
