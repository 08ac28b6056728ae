//! The trait that every trigger implements.

use super::{Outcome, View};
use crate::rules::memory::Wanted;
use crate::section::Section;
use crate::state::samples::Marks;
use crate::state::schedule::RuleState;

/// A single condition with the keys that an operator sets. Most conditions need `parse`, `evaluate` and `want` only.
///
/// `path` identifies the condition within its rule: marks are kept under it. `seed` is random.
pub trait Condition {
    /// Parses the keys. Problems are recorded in the section.
    fn parse(keys: &Section<'_>) -> Option<Self>
    where
        Self: Sized;

    /// Evaluates the condition. Pure.
    fn evaluate(&self, path: &str, view: View<'_>) -> Outcome;

    /// Adds the figures that the evaluation needs.
    fn want(&self, _wanted: &mut Wanted) {}

    /// Updates the rule's state before an evaluation: sets a new timer, re-arms a level.
    fn prepare(&self, _path: &str, _view: View<'_>, _seed: u64, _state: &mut RuleState) {}

    /// Updates the rule's state after the rule fired: moves a due timer on, disarms a crossed level.
    fn fired(&self, _path: &str, _view: View<'_>, _seed: u64, _state: &mut RuleState) {}

    /// Records this poll's figures for the next one: baselines, and values from which changes are computed. They belong to the
    /// process's sample and are volatile.
    fn observe(&self, _path: &str, _view: View<'_>, _marks: &mut Marks) {}

    /// Returns true if the condition depends on the polling process itself, so that it can hold for one process and not for
    /// another. Then `select` chooses among the processes for which it holds.
    fn is_about_the_process(&self) -> bool;

    /// Returns true if the condition has to be looked at often, because it can begin to hold at any time without notice.
    fn is_sampled(&self) -> bool {
        true
    }
}
