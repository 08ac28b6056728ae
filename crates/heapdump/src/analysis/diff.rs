//! Differences between two or three dumps of one process: growth, and objects that came and stayed.
//!
//! An object is the same in two dumps if its address, type, class and, where allocations were traced, generation are the same.
//! Addresses are used again, so a new object at the address of a freed one of its class passes for an old one.

use std::collections::HashMap;
use std::hash::BuildHasher as _;

use foldhash::fast::{FixedState, RandomState};

use super::address::ObjectIndex;
use super::classes::Class;
use super::held::Amount;
use super::memory::Graph;
use super::reach::Reach;

/// The identities of the reachable objects of a dump, so that the graph itself can be dropped.
#[derive(Debug, Default)]
pub struct Inhabitants {
    /// Addresses with a hash of the rest, ascending.
    objects: Vec<(u64, u32)>,
}

impl Inhabitants {
    /// Takes the identities of the reachable objects.
    pub fn new(graph: &Graph, reach: &Reach) -> Self {
        let mut objects: Vec<(u64, u32)> = graph
            .all()
            .filter(|object| reach.number(*object).is_some())
            .map(|object| identity(graph, object))
            .collect();
        objects.sort_unstable();
        Self { objects }
    }

    /// Returns true if the dump has this object of another dump.
    pub fn has(&self, graph: &Graph, object: ObjectIndex) -> bool {
        self.objects.binary_search(&identity(graph, object)).is_ok()
    }

    /// The objects of this dump that another does not have.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut others = other.objects.iter().copied().peekable();
        let is_new = |identity: &&(u64, u32)| {
            while others.next_if(|other| other < *identity).is_some() {}
            others.peek() != Some(*identity)
        };
        Self { objects: self.objects.iter().filter(is_new).copied().collect() }
    }

    /// The number of objects.
    pub fn count(&self) -> usize {
        self.objects.len()
    }
}

fn identity(graph: &Graph, object: ObjectIndex) -> (u64, u32) {
    let class = match graph.classes()[graph.class(object) as usize] {
        Class::Real(address) => address,
        Class::Internal(..) => 0,
    };
    let generation = graph.columns().generations.get(object as usize).copied().unwrap_or_default();
    // The same in each dump that this program compares.
    let hash = FixedState::with_seed(0).hash_one((class, graph.kind(object).0, generation));
    (graph.address(object), hash as u32)
}

/// The addresses of the classes of a dump. They tell whether two dumps are of one process: classes stay where they are, unless the heap
/// is compacted, and the kernel gives each program other addresses.
#[derive(Debug, Default)]
pub struct Landmarks {
    classes: HashMap<String, u64, RandomState>,
}

/// Fewer classes of one name tell nothing.
const FEWEST_LANDMARKS: usize = 8;

impl Landmarks {
    /// Takes the classes of a dump that have a name.
    pub fn new(graph: &Graph) -> Self {
        let named = |class: &Class| match class {
            Class::Real(address) => Some((graph.own_name(graph.find(*address)?)?.into_owned(), *address)),
            Class::Internal(..) => None,
        };
        Self { classes: graph.classes().iter().filter_map(named).collect() }
    }

    /// Returns true if most classes of the same name are elsewhere.
    pub fn differ(&self, other: &Self) -> bool {
        let both = self.classes.iter().filter_map(|(name, address)| Some((*address, *other.classes.get(name)?)));
        let (same, elsewhere): (Vec<_>, Vec<_>) = both.partition(|(here, there)| here == there);
        same.len() + elsewhere.len() >= FEWEST_LANDMARKS && same.len() < elsewhere.len()
    }
}

/// Amounts by name, such as that of a class or the spelling of a path.
pub type ByName = HashMap<String, Amount, RandomState>;

/// The change of one name from one dump to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The class or path.
    pub name: String,
    /// Its objects before.
    pub before: Amount,
    /// Its objects after.
    pub after: Amount,
}

impl Change {
    /// More objects than before.
    pub fn objects(&self) -> i64 {
        self.after.objects as i64 - self.before.objects as i64
    }

    /// More bytes than before.
    pub fn bytes(&self) -> i64 {
        self.after.bytes.min(i64::MAX as u64) as i64 - self.before.bytes.min(i64::MAX as u64) as i64
    }
}

/// The changes, the largest growth first.
pub fn changes(mut before: ByName, after: ByName) -> Vec<Change> {
    let mut changes: Vec<Change> = after
        .into_iter()
        .map(|(name, after)| Change { before: before.remove(&name).unwrap_or_default(), name, after })
        .collect();
    changes.extend(before.into_iter().map(|(name, before)| Change { name, before, after: Amount::default() }));
    changes.retain(|change| change.before != change.after);
    changes.sort_unstable_by(|a, b| {
        (b.bytes(), b.objects()).cmp(&(a.bytes(), a.objects())).then_with(|| a.name.cmp(&b.name))
    });
    changes
}

/// Sums objects by name. Objects of different groups with one name are summed up.
pub fn by_name(
    graph: &Graph,
    objects: impl Iterator<Item = ObjectIndex>,
    groups: usize,
    group: impl Fn(ObjectIndex) -> Option<u32>,
    name: impl Fn(u32) -> String,
) -> ByName {
    let mut amounts = vec![Amount::default(); groups];
    for object in objects {
        if let Some(group) = group(object) {
            amounts[group as usize].add(graph.size(object));
        }
    }
    let mut named = ByName::default();
    for (group, amount) in amounts.iter().enumerate().filter(|(_, amount)| amount.objects > 0) {
        let sum = named.entry(name(group as u32)).or_default();
        sum.objects += amount.objects;
        sum.bytes = sum.bytes.saturating_add(amount.bytes);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::application;

    fn inhabitants(graph: &Graph) -> Inhabitants {
        Inhabitants::new(graph, &graph.reach())
    }

    #[test]
    fn new_objects_that_stay_are_those_of_the_second_and_third_dump() {
        let (a, b, c) = (application(10), application(15), application(13));
        let new = inhabitants(&b).without(&inhabitants(&a));
        assert_eq!(new.count(), 10, "five users and their names");
        let stayed: Vec<_> = c.all().filter(|object| new.has(&c, *object)).map(|object| c.address(object)).collect();
        assert_eq!(stayed, (10..13).flat_map(|i| [0x10_0000 + i * 80, 0x10_0028 + i * 80]).collect::<Vec<u64>>());
    }

    #[test]
    fn changes_are_sorted_by_growth_and_what_is_equal_is_left_out() {
        let names = |graph: &Graph| {
            let reach = graph.reach();
            let reachable = reach.numbers().map(|number| reach.object(number));
            let class = |object| Some(graph.class(object));
            by_name(graph, reachable, graph.classes().len(), class, |class| graph.class_name(class).into_owned())
        };
        let changes = changes(names(&application(10)), names(&application(15)));
        let short: Vec<_> = changes.iter().map(|c| (c.name.as_str(), c.objects(), c.bytes())).collect();
        assert_eq!(short, [("String", 5, 200), ("User", 5, 200)]);
    }
    #[test]
    fn dumps_of_two_processes_have_their_classes_elsewhere() {
        let at = |base: u64, classes: u64| Landmarks {
            classes: (0..classes).map(|class| (class.to_string(), base + class * 40)).collect(),
        };
        assert!(at(0, 20).differ(&at(1 << 40, 10)));
        assert!(!at(0, 20).differ(&at(0, 10)), "a process that has loaded more");
        assert!(!at(0, 20).differ(&at(1 << 40, 7)), "too few to tell");
        assert_eq!(Landmarks::new(&application(1)).classes.len(), 4);
    }
}
