//! The conditions of rules. Each trigger is one file: its keys, its pure evaluation, its tests.
//!
//! To add a trigger, write a file with a type that implements [`Condition`], and add one line to `triggers!` below.

mod compose;
mod condition;
mod figures;
mod outcome;
#[cfg(test)]
mod testing;

pub use condition::Condition;
pub use figures::is_application_name;
pub use outcome::{Facts, Observed, Outcome, View};

use compose::{all, any};
use serde::{Deserialize, Serialize};

use crate::rules::memory::Wanted;
use crate::section::Section;
use crate::state::samples::Marks;
use crate::state::schedule::RuleState;

macro_rules! triggers {
    ($($(#[$doc:meta])* $key:ident: $condition:ident,)*) => {
        $(mod $key;)*
        $(pub use $key::$condition;)*

        /// A condition, possibly composed of others.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub enum Trigger {
            $($(#[$doc])* $condition($condition),)*
            /// At least one of these holds.
            Any(Vec<Trigger>),
            /// All of these hold at the same poll.
            All(Vec<Trigger>),
        }

        impl Trigger {
            /// The names of all triggers.
            #[cfg(any(test, fuzzing))]
            pub const NAMES: &[&str] = &[$(stringify!($key),)* "any", "all"];

            // Every key is asked for, so that each is known to the hints for misspelt keys.
            fn parse_conditions(section: &Section<'_>) -> Vec<Option<Self>> {
                let mut found = Vec::new();
                $(if let Some(keys) = section.section(stringify!($key)) {
                    found.push($condition::parse(&keys).map(Self::$condition));
                })*
                found
            }

            // The single condition, unless this is a composition.
            fn condition(&self) -> Option<&dyn Condition> {
                match self {
                    $(Self::$condition(condition) => Some(condition),)*
                    Self::Any(_) | Self::All(_) => None,
                }
            }

            /// Evaluates the condition. `path` identifies this trigger's marks within its rule.
            pub fn evaluate(&self, path: &str, view: View<'_>) -> Outcome {
                match self {
                    $(Self::$condition(condition) => condition.evaluate(path, view),)*
                    Self::Any(parts) => any(parts, path, view),
                    Self::All(parts) => all(parts, path, view),
                }
            }

            /// Returns the name in reports and messages, which is the key in the configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$condition(_) => stringify!($key),)*
                    Self::Any(_) => "any",
                    Self::All(_) => "all",
                }
            }
        }
    };
}

// The order is part of the cached configuration, which only the same version of the program reads.
triggers! {
    /// A timer is due.
    timer: Timer,
    /// Memory is above a level.
    memory_usage: MemoryUsage,
    /// Memory is above a baseline.
    memory_growth: MemoryGrowth,
    /// Memory has reached a new maximum.
    high_water: HighWater,
    /// Memory is about to reach the limit.
    memory_projection: MemoryProjection,
    /// The kernel counted an event in the cgroup.
    memory_event: MemoryEvent,
    /// Tasks are stalled for memory.
    memory_pressure: MemoryPressure,
    /// A number from the application is beyond a threshold.
    gauge: Gauge,
    /// The application named an event.
    event: Event,
    /// An operator's command exited with 0.
    exec: Exec,
    /// A person asked for a capture.
    on_demand: OnDemand,
}

impl Trigger {
    /// Parses a trigger table, which must contain exactly one trigger.
    pub fn parse(section: &Section<'_>) -> Option<Self> {
        let mut found = Self::parse_conditions(section);
        for (key, compose) in [("any", Self::Any as fn(Vec<Self>) -> Self), ("all", Self::All)] {
            if let Some(parts) = section.sections(key) {
                if parts.is_empty() {
                    section.problem(key, "the list is empty", "add at least one trigger");
                }
                // Invalid parts are left out. The file is rejected anyway, and warnings about the valid parts are reported as
                // well.
                found.push(Some(compose(parts.iter().filter_map(Self::parse).collect())));
            }
        }
        section.finish();
        match section.keys().len() {
            1 => found.pop().flatten(),
            0 => {
                section.problem("timer", "no trigger is given", "use for example trigger.timer = { every = \"2h\" }");
                None
            }
            _ => {
                let keys = section.keys().join(", ");
                section.problem(
                    "any",
                    format!("a rule has one trigger, this one has several ({keys})"),
                    "combine them: trigger.any = [ { … }, { … } ] or trigger.all = [ … ]",
                );
                None
            }
        }
    }

    // Every single condition in the trigger, with its path.
    fn each<'t>(&'t self, path: &str, see: &mut dyn FnMut(&str, &'t dyn Condition)) {
        if let Self::Any(parts) | Self::All(parts) = self {
            for (i, part) in parts.iter().enumerate() {
                part.each(&format!("{path}.{i}"), see);
            }
        }
        if let Some(condition) = self.condition() {
            see(path, condition);
        }
    }

    /// Updates the rule's state before an evaluation: sets new timers and re-arms levels. `seed` is random.
    pub fn prepare(&self, path: &str, view: View<'_>, seed: u64, state: &mut RuleState) {
        self.each(path, &mut |path, condition| condition.prepare(path, view, seed, state));
    }

    /// Updates the rule's state after the rule fired: moves due timers on and disarms crossed levels.
    pub fn fired(&self, path: &str, view: View<'_>, seed: u64, state: &mut RuleState) {
        self.each(path, &mut |path, condition| condition.fired(path, view, seed, state));
    }

    /// Records this poll's figures for the next one. They belong to the process's sample and are volatile.
    pub fn observe(&self, path: &str, view: View<'_>, marks: &mut Marks) {
        self.each(path, &mut |path, condition| condition.observe(path, view, marks));
    }

    /// Visits this trigger and all triggers in it.
    pub fn visit<'t>(&'t self, see: &mut dyn FnMut(&'t Self)) {
        see(self);
        if let Self::Any(parts) | Self::All(parts) = self {
            for part in parts {
                part.visit(see);
            }
        }
    }

    fn conditions(&self) -> Vec<&dyn Condition> {
        let mut conditions = Vec::new();
        self.visit(&mut |trigger| conditions.extend(trigger.condition()));
        conditions
    }

    /// Adds the figures that the trigger needs.
    pub fn want(&self, wanted: &mut Wanted) {
        self.visit(&mut |trigger| {
            if let Some(condition) = trigger.condition() {
                condition.want(wanted);
            }
        });
    }

    /// Returns true if part of the trigger depends on the polling process itself, so that it can hold for one process and not
    /// for another.
    pub fn is_about_the_process(&self) -> bool {
        self.conditions().iter().any(|condition| condition.is_about_the_process())
    }

    /// Returns true if only timers, requests and events decide, so that nothing has to be sampled between two due times.
    pub fn is_timers_only(&self) -> bool {
        !self.conditions().iter().any(|condition| condition.is_sampled())
    }

    /// Returns the commands in the trigger, by path.
    pub fn execs<'t>(&'t self, path: &str) -> Vec<(String, &'t Exec)> {
        match self {
            Self::Exec(exec) => vec![(path.to_owned(), exec)],
            Self::Any(parts) | Self::All(parts) => {
                parts.iter().enumerate().flat_map(|(i, part)| part.execs(&format!("{path}.{i}"))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the events that the trigger watches.
    pub fn events(&self) -> Vec<&str> {
        let mut events = Vec::new();
        self.visit(&mut |trigger| {
            if let Self::Event(event) = trigger {
                events.push(event.name.as_str());
            }
        });
        events
    }

    /// Returns the trigger's `on_demand` part, if a request can fire it.
    pub fn on_demand(&self) -> Option<&OnDemand> {
        let mut found = None;
        self.visit(&mut |trigger| {
            if let Self::OnDemand(on_demand) = trigger {
                found = Some(on_demand);
            }
        });
        found
    }
}
