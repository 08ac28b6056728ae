//! The names of rules.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize};

/// The rule name of captures that were requested and have no rule of their own.
pub const ON_DEMAND: &str = "on_demand";

/// The name of a rule, under which its state and its captures are kept: 1 to 64 ASCII letters, digits, `-`, `_` and `.`. Two names
/// are diagctl's own, for captures without a rule: `on_demand` and `run`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleName(String);

impl RuleName {
    /// Reads a name; `None` if it does not have the form of one.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = !name.is_empty()
            && name.len() <= 64
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        fits.then(|| Self(name.to_owned()))
    }

    /// The name of captures that were requested and have no rule of their own.
    pub fn on_demand() -> Self {
        Self(ON_DEMAND.into())
    }

    /// The name of the rule that applies if the configuration has none.
    pub fn routine() -> Self {
        Self("routine".into())
    }

    /// The name of captures of `diagctl run`.
    pub fn run() -> Self {
        Self("run".into())
    }
}

impl TryFrom<String> for RuleName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name).ok_or_else(|| format!("{} is not the name of a rule", diagctl_fs::quoted(&name)))
    }
}

impl From<RuleName> for String {
    fn from(name: RuleName) -> Self {
        name.0
    }
}

impl Deref for RuleName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RuleName {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq<str> for RuleName {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for RuleName {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_three_other_characters() {
        for good in ["heap-on-growth", "A.b_9", "9", &RuleName::on_demand(), &RuleName::run()] {
            assert_eq!(RuleName::parse(good).unwrap(), *good);
        }
        for bad in ["", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(RuleName::parse(bad).is_none(), "{bad}");
        }
    }
}
