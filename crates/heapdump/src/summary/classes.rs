//! Objects by class, while they are counted.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Amount, MAX_GROUPS};
use crate::record::{NameId, Type};

/// Places for classes that were met lately. A heap has few classes with many objects.
const RECENT: usize = 512;

/// The class of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// The address of the class, and the type of its objects where that matters.
    At(u64, Type),
    /// Objects that have none.
    Internal(Type, NameId),
    /// Those of classes beyond the limit.
    Other,
}

impl Class {
    fn place(self) -> usize {
        let mixed = match self {
            Self::At(address, kind) => address ^ u64::from(kind.0) << 40,
            Self::Internal(kind, name) => u64::from(name.0) << 8 | u64::from(kind.0),
            Self::Other => 0,
        };
        mixed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes()
            .first_chunk::<2>()
            .map_or(0, |top| usize::from(u16::from_be_bytes(*top)) % RECENT)
    }
}

/// The objects of each class.
#[derive(Debug)]
pub(super) struct Classes {
    /// Positions in `amounts`.
    known: HashMap<Class, usize, RandomState>,
    amounts: Vec<Amount>,
    recent: Box<[(Class, usize)]>,
}

impl Default for Classes {
    fn default() -> Self {
        let recent = vec![(Class::Other, usize::MAX); RECENT].into_boxed_slice();
        Self { known: HashMap::default(), amounts: Vec::new(), recent }
    }
}

impl Classes {
    /// Adds objects of a class.
    #[inline]
    pub fn add(&mut self, class: Class, amount: Amount) {
        if let Some((recent, position)) = self.recent.get(class.place()).copied()
            && recent == class
            && let Some(known) = self.amounts.get_mut(position)
        {
            return known.add(amount);
        }
        self.look_up(class, amount);
    }

    #[cold]
    fn look_up(&mut self, class: Class, amount: Amount) {
        let key = if self.known.len() < MAX_GROUPS || self.known.contains_key(&class) { class } else { Class::Other };
        let position = *self.known.entry(key).or_insert_with(|| {
            self.amounts.push(Amount::default());
            self.amounts.len() - 1
        });
        if let Some(known) = self.amounts.get_mut(position) {
            known.add(amount);
        }
        if let Some(place) = self.recent.get_mut(class.place()) {
            *place = (class, position);
        }
    }

    /// The classes with their objects, in no order.
    pub fn groups(&self) -> impl Iterator<Item = (Class, Amount)> {
        self.known.iter().map(|(class, position)| (*class, self.amounts.get(*position).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_classes_are_counted_as_a_map_counts_them() {
        let (mut classes, mut expected) = (Classes::default(), HashMap::<Class, u64>::new());
        for n in 0..100_000u64 {
            let number = n.wrapping_mul(0x9e37_79b9) % 3000;
            let class = if number % 7 == 0 {
                Class::Internal(Type::IMEMO, NameId(9))
            } else {
                Class::At(number * 40, Type::NONE)
            };
            classes.add(class, Amount { count: 1, ..Amount::default() });
            *expected.entry(class).or_default() += 1;
        }
        assert_eq!(classes.groups().map(|(class, amount)| (class, amount.count)).collect::<HashMap<_, _>>(), expected);
    }

    #[test]
    fn classes_beyond_the_limit_are_counted_together() {
        let mut classes = Classes::default();
        let one = Amount { count: 1, ..Amount::default() };
        for n in 0..MAX_GROUPS as u64 + 10 {
            classes.add(Class::At(n * 8 + 8, Type::NONE), one);
        }
        classes.add(Class::At(8, Type::NONE), one);
        let groups: HashMap<_, _> = classes.groups().collect();
        assert_eq!((groups[&Class::Other].count, groups[&Class::At(8, Type::NONE)].count), (10, 2));
    }
}
