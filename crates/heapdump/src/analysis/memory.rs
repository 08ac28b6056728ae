//! The heap graph in memory, in columns of a few bytes for each object and reference.

use std::borrow::Cow;

use super::address::{Index, ObjectIndex, Packed, Pages};
use super::classes::{Class, ClassNumber, Classes};
use super::edges::Edges;
use super::reach::{self, Reach};
use super::sizes::Sizes;
use crate::record::{Flags, FreeSlots, NameId, NameKind, Page, Site, SiteId, Type};
use crate::tables::{Names, Sites};

/// Columns that only some commands need. A column that was not wanted is empty.
#[derive(Debug, Default)]
pub struct Columns {
    /// The sizes of slots, bytes.
    pub slots: Vec<u16>,
    /// Flags of the collector and of the objects.
    pub flags: Vec<Flags>,
    /// The allocation sites of the objects.
    pub sites: Vec<SiteId>,
    /// After how many collections the objects were allocated; 0 if that was not traced.
    pub generations: Vec<u32>,
    /// The strings whose content has a hash, in the order of the objects.
    pub hashes: Vec<(ObjectIndex, u64)>,
    /// The numbers of elements or bytes of the objects that have them, in the order of the objects.
    pub lengths: Vec<(ObjectIndex, u64)>,
    /// Slots without objects.
    pub free: Vec<FreeSlots>,
    /// The pages of the heap, if the dump has them.
    pub pages: Vec<Page>,
    /// The names of the explicit references, in their order.
    pub labels: Vec<NameId>,
}

/// A reference from outside the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The kind: `vm`, `machine_context`, `global_tbl`, …
    pub category: NameId,
    /// Its name, such as that of a global variable, or the empty name.
    pub label: NameId,
    /// The object that it holds.
    pub object: ObjectIndex,
}

/// Data about the dump as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// References to addresses at which there is no object.
    pub dangling: u64,
    /// Objects at an address that no object can have, or that another object has.
    pub misplaced: u64,
    /// Slots without an object.
    pub free_slots: u64,
    /// Their bytes, as far as their sizes are known.
    pub free_bytes: u64,
}

/// A heap graph.
#[derive(Debug, Default)]
pub struct Graph {
    pub(super) pages: Pages,
    pub(super) index: Index,
    pub(super) addresses: Vec<Packed>,
    pub(super) kinds: Vec<Type>,
    pub(super) sizes: Sizes,
    pub(super) classes: Classes,
    pub(super) edges: Edges,
    pub(super) roots: Vec<Root>,
    pub(super) names: Names,
    pub(super) sites: Sites,
    pub(super) columns: Columns,
    pub(super) facts: Facts,
}

impl Graph {
    /// The number of objects, reachable or not.
    pub fn objects(&self) -> usize {
        self.addresses.len()
    }

    /// All objects.
    pub fn all(&self) -> std::ops::Range<ObjectIndex> {
        // The builder refuses more objects than that.
        0..self.addresses.len() as ObjectIndex
    }

    /// The address of an object.
    pub fn address(&self, object: ObjectIndex) -> u64 {
        self.pages.unpack(self.addresses[object as usize])
    }

    /// The object at an address.
    pub fn find(&self, address: u64) -> Option<ObjectIndex> {
        self.pages.find(address).and_then(|packed| self.index.find(packed))
    }

    /// The type of an object.
    pub fn kind(&self, object: ObjectIndex) -> Type {
        self.kinds[object as usize]
    }

    /// The size of an object with what it has allocated, bytes.
    #[inline]
    pub fn size(&self, object: ObjectIndex) -> u64 {
        self.sizes.of(object)
    }

    /// The number of an object's class in the class table.
    #[inline]
    pub fn class(&self, object: ObjectIndex) -> ClassNumber {
        self.edges.class_number(object)
    }

    /// The class table.
    pub fn classes(&self) -> &[Class] {
        self.classes.table()
    }

    /// The name of a class in the class table. The singleton class of a module is called by that, and another class without a name by
    /// its address, as Ruby does.
    pub fn class_name(&self, class: ClassNumber) -> Cow<'_, str> {
        match self.classes()[class as usize] {
            Class::Real(address) => match self.find(address).and_then(|object| self.own_name(object)) {
                Some(name) => name,
                None => match self.classes.module_of(class).and_then(|module| self.own_name(module)) {
                    Some(name) => format!("#<Class:{name}>").into(),
                    None => format!("#<Class:{address:#x}>").into(),
                },
            },
            Class::Internal(kind, NameId::NONE) => format!("({})", type_name(kind)).into(),
            Class::Internal(kind, name) => format!("({} {})", type_name(kind), self.text(name)).into(),
        }
    }

    /// The names of the classes that have at most so many bytes.
    pub fn short_class_names(&self, most_bytes: usize) -> impl Iterator<Item = Cow<'_, str>> {
        let numbers = 0..self.classes().len() as ClassNumber;
        // A name that is not UTF-8 gets longer as text.
        numbers.filter(move |class| self.bytes_of_name(*class) <= most_bytes).map(|class| self.class_name(class))
    }

    // The bytes of the name by which a class is called: its own, or that of the module of which it is the singleton class.
    fn bytes_of_name(&self, class: ClassNumber) -> usize {
        let name = match self.classes()[class as usize] {
            Class::Real(address) => {
                let own = self.find(address).and_then(|object| self.classes.name_of(object));
                own.or_else(|| self.classes.name_of(self.classes.module_of(class)?))
            }
            Class::Internal(_, name) => Some(name),
        };
        name.map_or(0, |name| self.names.get(name).1.len())
    }

    /// The name of an object that is itself a class or a module.
    pub fn own_name(&self, object: ObjectIndex) -> Option<Cow<'_, str>> {
        self.classes.name_of(object).map(|name| self.text(name))
    }

    /// The references.
    pub fn edges(&self) -> &Edges {
        &self.edges
    }

    /// The name of the explicit reference at a place.
    pub fn label(&self, place: usize) -> NameId {
        self.columns.labels.get(place).copied().unwrap_or_default()
    }

    /// The roots.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The objects that the roots hold directly; all objects if the dump has lost its roots.
    pub fn held_by_roots(&self) -> impl Iterator<Item = ObjectIndex> + Clone + '_ {
        let all = if self.roots.is_empty() { self.all() } else { 0..0 };
        self.roots.iter().map(|root| root.object).chain(all)
    }

    /// The text of a name.
    pub fn text(&self, name: NameId) -> Cow<'_, str> {
        self.names.text(name)
    }

    /// The kind of a name.
    pub fn name_kind(&self, name: NameId) -> NameKind {
        self.names.get(name).0
    }

    /// An allocation site.
    pub fn site(&self, site: SiteId) -> Site {
        self.sites.get(site)
    }

    /// The number of allocation sites with the unknown one, which has the id 0.
    pub fn sites(&self) -> usize {
        self.sites.len() + 1
    }

    /// The optional columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Data about the dump as a whole.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Finds the reachable objects.
    pub fn reach(&self) -> Reach {
        reach::search(&self.edges, self.held_by_roots(), &mut ())
    }
}

/// The name of a type.
pub fn type_name(kind: Type) -> &'static str {
    kind.name().unwrap_or("UNKNOWN")
}

#[cfg(test)]
mod tests {
    use crate::analysis::testing::{Heap, object};
    use crate::record::Type;

    #[test]
    fn short_class_names_leave_out_long_ones_and_the_singleton_classes_called_by_them() {
        let mut heap = Heap::new();
        let long = "L".repeat(201);
        heap.class(0x1000, "Short", &[]).class(0x1028, &long, &[]);
        for (at, class) in [(0x2000, 0x1000), (0x2028, 0x1028), (0x2050, 0)] {
            heap.add(object(at, Type::OBJECT, class), &[]);
        }
        // A module and its singleton class, which has no name.
        let name = heap.name(crate::record::NameKind::Text, &long);
        heap.add(crate::record::Object { name, ..object(0x2078, Type::MODULE, 0x3000) }, &[]);
        let graph = heap.finish();
        assert_eq!(graph.short_class_names(200).collect::<Vec<_>>(), ["(CLASS)", "Short", "(OBJECT)"]);
        assert_eq!(graph.short_class_names(201).count(), 5);
    }
}
