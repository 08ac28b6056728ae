//! The reachable part of a graph with its dominators and retained sizes, and the totals of the whole.

use super::address::ObjectIndex;
use super::dominators::{self, Dominators};
use super::memory::Graph;
use super::reach::{ROOT, Reach};
use super::retained;

/// Counts and bytes of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Objects.
    pub objects: u64,
    /// Their own bytes. Saturates where sizes are false.
    pub bytes: u64,
}

impl Amount {
    /// Adds one object.
    pub fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds other objects.
    pub fn plus(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The totals of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The objects that the roots hold.
    pub reachable: Amount,
    /// Garbage that the collector has not freed yet.
    pub unreachable: Amount,
}

impl Totals {
    /// Adds up a graph.
    pub fn new(graph: &Graph, reach: &Reach) -> Self {
        let mut totals = Self::default();
        for object in graph.all() {
            let part = match reach.number(object) {
                Some(_) => &mut totals.reachable,
                None => &mut totals.unreachable,
            };
            part.add(graph.size(object));
        }
        totals
    }

    /// All objects.
    pub fn all(&self) -> Amount {
        Amount {
            objects: self.reachable.objects + self.unreachable.objects,
            bytes: self.reachable.bytes.saturating_add(self.unreachable.bytes),
        }
    }
}

/// The reachable objects, their dominators and what each retains.
#[derive(Debug)]
pub struct Held {
    /// The reachable objects.
    pub reach: Reach,
    /// Their dominators.
    pub dominators: Dominators,
    /// The retained bytes by number; first the sum of all.
    pub retained: Vec<u64>,
}

impl Held {
    /// Analyses a graph.
    pub fn new(graph: &Graph) -> Self {
        let (reach, dominators) = dominators::dominators(graph.edges(), graph.held_by_roots());
        let retained = retained::sizes(&dominators, &reach, |object| graph.size(object));
        Self { reach, dominators, retained }
    }

    /// The bytes that an object retains; none if it is unreachable.
    pub fn retained(&self, object: ObjectIndex) -> Option<u64> {
        self.reach.number(object).map(|number| self.retained[number as usize])
    }

    /// The objects that retain most, the largest first. Objects of equal sizes are in the order of the search, so that an object
    /// comes after its dominator.
    pub fn largest(&self, limit: usize) -> Vec<ObjectIndex> {
        let mut numbers: Vec<u32> = self.reach.numbers().collect();
        let order = |number: &u32| (std::cmp::Reverse(self.retained[*number as usize]), *number);
        if limit < numbers.len() {
            numbers.select_nth_unstable_by_key(limit, order);
            numbers.truncate(limit);
        }
        numbers.sort_unstable_by_key(order);
        numbers.into_iter().map(|number| self.reach.object(number)).collect()
    }

    /// The number of objects that an object dominates, itself among them.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![1u32; self.dominators.vertices()];
        for number in self.reach.numbers().rev() {
            counts[self.dominators.of(number) as usize] += counts[number as usize];
        }
        counts[ROOT as usize] -= 1;
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::application;

    #[test]
    fn totals_and_the_largest_dominators_add_up() {
        let graph = application(10);
        let held = Held::new(&graph);
        let totals = Totals::new(&graph, &held.reach);
        assert_eq!((totals.all().objects, totals.unreachable.objects), (graph.objects() as u64, 1));
        assert_eq!(totals.reachable.bytes, held.retained[0]);
        let largest: Vec<u64> = held.largest(4).into_iter().map(|object| graph.address(object)).collect();
        assert_eq!(largest[..3], [0x1000, 0x1050, 0x2000]);
        assert_eq!(u64::from(held.counts()[0]), totals.reachable.objects);
        assert_eq!(held.largest(usize::MAX).len() as u64, totals.reachable.objects);
        assert_eq!(held.retained(graph.find(0x3000).unwrap()), None);
    }
}
