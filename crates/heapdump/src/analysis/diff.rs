//! Differences between two or three dumps of one process: growth, and objects that came and stayed.
//!
//! An object is the same in two dumps if its address, type, class and, where allocations were traced, generation are the same.
//! Addresses are used again, so a new object at the address of a freed one of its class passes for an old one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, Hash};

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
    (graph.address(object), hash_of((class, graph.kind(object).0, generation)) as u32)
}

// The same in each dump that this program compares.
fn hash_of(of: impl Hash) -> u64 {
    FixedState::with_seed(0).hash_one(of)
}

/// The addresses of the classes of a dump. They tell whether two dumps are of one process: classes stay where they are, unless the heap
/// is compacted, and the kernel gives each program other addresses.
#[derive(Debug, Default)]
pub struct Landmarks {
    /// Addresses by a hash of the name.
    classes: HashMap<u64, u64, RandomState>,
}

/// Fewer classes of one name tell nothing.
const FEWEST_LANDMARKS: usize = 8;

impl Landmarks {
    /// Takes the classes of a dump that have a name.
    pub fn new(graph: &Graph) -> Self {
        let named = |class: &Class| match class {
            Class::Real(address) => Some((hash_of(&graph.own_name(graph.find(*address)?)?), *address)),
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

/// The objects of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The first group that has the name.
    pub group: u32,
    /// The objects of all groups that have it.
    pub amount: Amount,
}

/// Sums by a hash of the name: the names of all paths of a dump would take far more memory than the few that are shown.
pub type Sums = HashMap<u64, Sum, RandomState>;

/// The change of one name from one dump to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The first group of the later dump that has the name.
    pub group: u32,
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

/// The changes of what the later dump has, in no order.
pub fn changes(before: &Sums, after: &Sums) -> Vec<Change> {
    let change = |(name, after): (&u64, &Sum)| {
        let before = before.get(name).map_or_else(Amount::default, |before| before.amount);
        Change { group: after.group, before, after: after.amount }
    };
    after.iter().map(change).filter(|change| change.before != change.after).collect()
}

/// The first of many rows with their names: the largest by a key, and by name where the key is the same. Only their names are held.
pub fn largest<T, K: Ord>(
    rows: impl IntoIterator<Item = T>,
    limit: usize,
    key: impl Fn(&T) -> K,
    name: impl Fn(&T) -> String,
) -> Vec<(String, T)> {
    let mut largest: BTreeMap<(Reverse<K>, String), T> = BTreeMap::new();
    for row in rows {
        let key = Reverse(key(&row));
        let is_full = largest.len() >= limit;
        if is_full && largest.last_key_value().is_none_or(|((last, _), _)| *last < key) {
            continue;
        }
        largest.insert((key, name(&row)), row);
        if is_full {
            largest.pop_last();
        }
    }
    largest.into_iter().map(|((_, name), row)| (name, row)).collect()
}

/// Sums objects by name. Objects of different groups with one name are summed up.
pub fn by_name(
    graph: &Graph,
    objects: impl Iterator<Item = ObjectIndex>,
    groups: usize,
    group: impl Fn(ObjectIndex) -> Option<u32>,
    name: impl Fn(u32) -> String,
) -> ByName {
    let mut named = ByName::default();
    for (group, amount) in amounts(graph, objects, groups, group) {
        named.entry(name(group)).or_default().plus(amount);
    }
    named
}

/// Sums objects like [`by_name`], without holding the names.
pub fn sums(
    graph: &Graph,
    objects: impl Iterator<Item = ObjectIndex>,
    groups: usize,
    group: impl Fn(ObjectIndex) -> Option<u32>,
    name: impl Fn(u32) -> String,
) -> Sums {
    let mut sums = Sums::default();
    for (group, amount) in amounts(graph, objects, groups, group) {
        let sum = sums.entry(hash_of(name(group))).or_insert(Sum { group, amount: Amount::default() });
        sum.amount.plus(amount);
    }
    sums
}

// The groups that have objects.
fn amounts(
    graph: &Graph,
    objects: impl Iterator<Item = ObjectIndex>,
    groups: usize,
    group: impl Fn(ObjectIndex) -> Option<u32>,
) -> impl Iterator<Item = (u32, Amount)> {
    let mut amounts = vec![Amount::default(); groups];
    for object in objects {
        if let Some(group) = group(object) {
            amounts[group as usize].add(graph.size(object));
        }
    }
    (0..).zip(amounts).filter(|(_, amount)| amount.objects > 0)
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
        let by_class = |graph: &Graph| {
            let reach = graph.reach();
            let reachable = reach.numbers().map(|number| reach.object(number));
            let class = |object| Some(graph.class(object));
            sums(graph, reachable, graph.classes().len(), class, |class| graph.class_name(class).into_owned())
        };
        let later = application(15);
        let changes = changes(&by_class(&application(10)), &by_class(&later));
        let name = |change: &Change| later.class_name(change.group).into_owned();
        let largest = |limit| largest(changes.iter().copied(), limit, Change::bytes, name);
        let short: Vec<_> = largest(10).into_iter().map(|(name, c)| (name, c.objects(), c.bytes())).collect();
        assert_eq!(short, [("String".to_owned(), 5, 200), ("User".to_owned(), 5, 200)]);
        assert_eq!(largest(1).first().map(|(name, _)| name.as_str()), Some("String"));
        assert_eq!((largest(1).len(), largest(0).len()), (1, 0));
    }

    #[test]
    fn names_are_made_only_of_rows_that_may_be_shown() {
        let made = std::cell::Cell::new(0);
        let name = |row: &u64| {
            made.set(made.get() + 1);
            row.to_string()
        };
        let shown = largest((0..10_000u64).rev(), 2, |row| *row, name);
        assert_eq!(shown, [("9999".to_owned(), 9999), ("9998".to_owned(), 9998)]);
        assert_eq!(made.get(), 2);
    }

    #[test]
    fn groups_with_one_name_are_one_sum() {
        let graph = application(10);
        let sums = sums(&graph, graph.all(), graph.objects(), Some, |object| (object % 2).to_string());
        assert_eq!((sums.len(), sums.values().map(|sum| sum.amount.objects).sum::<u64>()), (2, graph.objects() as u64));
    }

    #[test]
    fn dumps_of_two_processes_have_their_classes_elsewhere() {
        let at = |base: u64, classes: u64| Landmarks {
            classes: (0..classes).map(|class| (class, base + class * 40)).collect(),
        };
        assert!(at(0, 20).differ(&at(1 << 40, 10)));
        assert!(!at(0, 20).differ(&at(0, 10)), "a process that has loaded more");
        assert!(!at(0, 20).differ(&at(1 << 40, 7)), "too few to tell");
        assert_eq!(Landmarks::new(&application(1)).classes.len(), 4);
    }
}
