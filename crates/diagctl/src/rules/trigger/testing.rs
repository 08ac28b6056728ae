//! A test bench for single triggers.

use super::View;
use crate::rules::readings::Readings;
use crate::state::samples::{Marks, Named};
use crate::state::schedule::RuleState;

/// The number of bytes in a MiB.
pub const MIB: u64 = 1 << 20;

/// Readings, marks and a clock that the test advances.
#[derive(Default)]
pub struct Bench {
    pub now_ms: u64,
    pub readings: Readings,
    pub rule: RuleState,
    pub marks: Marks,
    pub named: Named,
}

impl Bench {
    /// The view that a trigger evaluates.
    pub fn view(&self) -> View<'_> {
        View {
            now_ms: self.now_ms,
            first_seen_ms: 0,
            name: "r",
            rule: &self.rule,
            marks: &self.marks,
            readings: &self.readings,
            named: &self.named,
            subject: "1@1",
            requested: false,
        }
    }

    /// Lets a trigger record this poll.
    pub fn observe(&mut self, take: impl FnOnce(View<'_>, &mut Marks)) {
        let mut marks = self.marks.clone();
        take(self.view(), &mut marks);
        self.marks = marks;
    }

    /// Lets a trigger update the rule's state before the evaluation.
    pub fn prepare(&mut self, take: impl FnOnce(View<'_>, &mut RuleState)) {
        self.fired(take);
    }

    /// Lets a trigger update the rule's state after the rule fired.
    pub fn fired(&mut self, take: impl FnOnce(View<'_>, &mut RuleState)) {
        let mut rule = self.rule.clone();
        take(self.view(), &mut rule);
        self.rule = rule;
    }
}
