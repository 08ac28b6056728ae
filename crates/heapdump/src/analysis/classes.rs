//! The classes of objects. An object without a class is counted under its type.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::{NONE, ObjectIndex};
use crate::record::{NameId, Type};

/// The number of a class in the class table.
pub type ClassNumber = u32;

/// A class, or what takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The class at this address.
    Real(u64),
    /// Memory of the virtual machine, and other objects without a class: their type, and its kind if there is one.
    Internal(Type, NameId),
}

/// The class table.
#[derive(Debug, Default)]
pub struct Classes {
    table: Vec<Class>,
    numbers: HashMap<Class, ClassNumber, RandomState>,
    /// The numbers of classes seen lately, by the low bits of their addresses.
    cache: Vec<(u64, ClassNumber)>,
    /// The names of classes and modules.
    names: HashMap<ObjectIndex, NameId, RandomState>,
    /// The modules that are instances of a class. Of a singleton class there is one.
    modules: HashMap<ClassNumber, ObjectIndex, RandomState>,
}

const CACHED: usize = 1 << 10;

impl Classes {
    /// Returns the number of a class, and adds the class if it is new.
    pub fn number(&mut self, class: Class) -> ClassNumber {
        // There are not more classes than objects.
        let next = self.table.len() as ClassNumber;
        let number = *self.numbers.entry(class).or_insert(next);
        if number == next {
            self.table.push(class);
        }
        number
    }

    /// Returns the number of the class at an address.
    #[inline]
    pub fn at(&mut self, address: u64) -> ClassNumber {
        let slot = (address >> 3) as usize & (CACHED - 1);
        if let Some((known, number)) = self.cache.get(slot)
            && *known == address
        {
            return *number;
        }
        self.at_first(address, slot)
    }

    #[cold]
    fn at_first(&mut self, address: u64, slot: usize) -> ClassNumber {
        let number = self.number(Class::Real(address));
        self.cache.resize(CACHED, (0, 0));
        self.cache[slot] = (address, number);
        number
    }

    /// Names a class or module, which is an instance of a class itself.
    pub fn name(&mut self, object: ObjectIndex, name: NameId, class: ClassNumber) {
        self.names.insert(object, name);
        self.modules.entry(class).or_insert(object);
    }

    /// The first module that is an instance of a class.
    pub fn module_of(&self, class: ClassNumber) -> Option<ObjectIndex> {
        self.modules.get(&class).copied()
    }

    /// The name of a class or module, if it has one.
    pub fn name_of(&self, object: ObjectIndex) -> Option<NameId> {
        self.names.get(&object).copied()
    }

    /// The classes by number.
    pub fn table(&self) -> &[Class] {
        &self.table
    }

    /// The objects that the classes are, by number.
    pub fn objects(&self, find: impl Fn(u64) -> Option<ObjectIndex>) -> Vec<ObjectIndex> {
        let object = |class: &Class| match class {
            Class::Real(address) => find(*address).unwrap_or(NONE),
            Class::Internal(..) => NONE,
        };
        self.table.iter().map(object).collect()
    }
}
