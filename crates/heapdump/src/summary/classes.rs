//! Objects by class, while they are counted.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{Amount, MAX_GROUPS};
use crate::record::{Flags, NameId, Type};

/// Places for classes that were met lately. A heap has few classes with many objects.
const RECENT: usize = 512;

/// The class and the type of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// The address of the class.
    At(u64, Type),
    /// Objects that have none.
    Internal(Type, NameId),
    /// Those of classes beyond the limit.
    Other(Type),
}

impl Class {
    /// Returns the class of an object of this type, at this address or 0, and with this name.
    #[inline]
    pub fn of(kind: Type, class: u64, name: NameId) -> Self {
        match kind {
            Type::IMEMO | Type::NODE => Self::Internal(kind, name),
            _ if class == 0 => Self::Internal(kind, NameId::NONE),
            _ => Self::At(class, kind),
        }
    }

    /// The type of the objects.
    pub fn kind(self) -> Type {
        let (Self::At(_, kind) | Self::Internal(kind, _) | Self::Other(kind)) = self;
        kind
    }

    fn place(self) -> usize {
        let mixed = match self {
            Self::At(address, kind) => address ^ u64::from(kind.0) << 40,
            Self::Internal(kind, name) => u64::from(name.0) << 8 | u64::from(kind.0),
            Self::Other(kind) => u64::from(kind.0),
        };
        mixed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .to_be_bytes()
            .first_chunk::<2>()
            .map_or(0, |top| usize::from(u16::from_be_bytes(*top)) % RECENT)
    }
}

/// The number and bytes of the young objects of a class, then of the old ones.
pub(super) type Amounts = [(u64, u64); 2];

/// The objects of each class.
#[derive(Debug)]
pub(super) struct Classes {
    /// Positions in `amounts`.
    known: HashMap<Class, usize, RandomState>,
    amounts: Vec<Amounts>,
    recent: Box<[(Class, usize)]>,
}

impl Default for Classes {
    fn default() -> Self {
        let recent = vec![(Class::Other(Type::NONE), usize::MAX); RECENT].into_boxed_slice();
        Self { known: HashMap::default(), amounts: Vec::new(), recent }
    }
}

impl Classes {
    /// Adds an object of a class.
    #[inline]
    pub fn add(&mut self, class: Class, size: u64, flags: Flags) {
        let position = match self.recent.get(class.place()) {
            Some((recent, position)) if *recent == class => *position,
            _ => self.look_up(class),
        };
        if let Some([young, old]) = self.amounts.get_mut(position) {
            let (count, bytes) = if flags.has(Flags::OLD) { old } else { young };
            *count += 1;
            *bytes = bytes.saturating_add(size);
        }
    }

    /// Adds objects of a class: the number and bytes of the young ones, then of the old ones.
    pub fn add_counted(&mut self, class: Class, amounts: Amounts) {
        let position = self.look_up(class);
        for ((count, bytes), more) in self.amounts.get_mut(position).into_iter().flatten().zip(amounts) {
            *count = count.saturating_add(more.0);
            *bytes = bytes.saturating_add(more.1);
        }
    }

    #[cold]
    fn look_up(&mut self, class: Class) -> usize {
        let is_counted = self.known.len() < MAX_GROUPS || self.known.contains_key(&class);
        let key = if is_counted { class } else { Class::Other(class.kind()) };
        let position = *self.known.entry(key).or_insert_with(|| {
            self.amounts.push(Amounts::default());
            self.amounts.len() - 1
        });
        if let Some(place) = self.recent.get_mut(class.place()) {
            *place = (class, position);
        }
        position
    }

    /// The classes with their objects, in no order.
    pub fn groups(&self) -> impl Iterator<Item = (Class, Amount)> {
        self.known.iter().map(|(class, position)| {
            let [(young, young_bytes), (old, old_bytes)] = self.amounts.get(*position).copied().unwrap_or_default();
            let (count, bytes) = (young + old, young_bytes.saturating_add(old_bytes));
            (*class, Amount { count, bytes, old, old_bytes })
        })
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
            classes.add(class, 1, Flags::default());
            *expected.entry(class).or_default() += 1;
        }
        assert_eq!(classes.groups().map(|(class, amount)| (class, amount.count)).collect::<HashMap<_, _>>(), expected);
    }

    #[test]
    fn classes_beyond_the_limit_are_counted_together() {
        let mut classes = Classes::default();
        for n in 0..MAX_GROUPS as u64 + 10 {
            classes.add(Class::At(n * 8 + 8, Type::HASH), 40, Flags::default());
        }
        classes.add(Class::At(8, Type::HASH), 60, Flags::OLD);
        let groups: HashMap<_, _> = classes.groups().collect();
        assert_eq!(groups[&Class::Other(Type::HASH)].count, 10);
        assert_eq!(groups[&Class::At(8, Type::HASH)], Amount { count: 2, bytes: 100, old: 1, old_bytes: 60 });
    }
}
