//! Finds the objects that the roots hold, depth first and without recursion.

use super::address::{NONE, ObjectIndex};
use super::edges::Edges;

/// The number of the virtual root in the order of a search: it refers to all roots, and no object has this number.
pub const ROOT: u32 = 0;

/// Not 0: the kernel gives memory of zeros page by page twice, once when it is read and once when it is written.
const NOT_FOUND: u32 = u32::MAX;

/// The reachable objects in the order in which a depth-first search found them.
#[derive(Debug)]
pub struct Reach {
    /// The objects by their numbers. The first is the virtual root, which is no object.
    order: Vec<ObjectIndex>,
    /// The numbers of the objects; [`NOT_FOUND`] for those that were not found.
    numbers: Vec<u32>,
}

impl Reach {
    /// The number of reachable objects.
    pub fn objects(&self) -> usize {
        self.order.len() - 1
    }

    /// All numbers that objects have, ascending.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        // At most u32::MAX objects exist.
        1..self.order.len() as u32
    }

    /// The reachable objects in the order of their indices.
    pub fn objects_found(&self) -> impl Iterator<Item = ObjectIndex> + '_ {
        (0..).zip(&self.numbers).filter(|(_, number)| **number != NOT_FOUND).map(|(object, _)| object)
    }

    /// The object of a number.
    #[inline]
    pub fn object(&self, number: u32) -> ObjectIndex {
        self.order[number as usize]
    }

    /// The number of an object, if it is reachable.
    #[inline]
    pub fn number(&self, object: ObjectIndex) -> Option<u32> {
        Some(self.numbers[object as usize]).filter(|number| *number != NOT_FOUND)
    }
}

/// Is told of each edge of a search. Vertices are given by their numbers.
pub trait Visitor {
    /// An edge to a vertex that was found by it: an object. Its number is the next one.
    fn tree(&mut self, from: u32, to: u32, object: ObjectIndex);
    /// An edge to a vertex that was found before.
    fn again(&mut self, from: u32, to: u32);
}

impl Visitor for () {
    fn tree(&mut self, _: u32, _: u32, _: ObjectIndex) {}
    fn again(&mut self, _: u32, _: u32) {}
}

/// A vertex whose edges are being followed.
#[derive(Clone, Copy)]
struct Frame {
    object: ObjectIndex,
    number: u32,
    /// The next explicit reference.
    next: u32,
}

/// Searches from the roots. Takes memory for the objects, however deep the graph is.
pub fn search(edges: &Edges, roots: impl IntoIterator<Item = ObjectIndex>, visitor: &mut impl Visitor) -> Reach {
    let objects = edges.objects();
    let mut search = Search {
        edges,
        reach: Reach { order: Vec::with_capacity(objects + 1), numbers: vec![NOT_FOUND; objects] },
        stack: Vec::new(),
        visitor,
    };
    search.reach.order.push(NONE);
    for root in roots {
        search.edge(ROOT, root);
        search.exhaust();
    }
    search.reach
}

struct Search<'a, V> {
    edges: &'a Edges,
    reach: Reach,
    stack: Vec<Frame>,
    visitor: &'a mut V,
}

impl<V: Visitor> Search<'_, V> {
    // Follows an edge. Returns true if it leads to a new vertex with edges of its own, which is then on the stack.
    #[inline]
    fn edge(&mut self, from: u32, object: ObjectIndex) -> bool {
        let number = self.reach.numbers[object as usize];
        if number != NOT_FOUND {
            self.visitor.again(from, number);
            return false;
        }
        let number = self.reach.order.len() as u32;
        self.reach.numbers[object as usize] = number;
        self.reach.order.push(object);
        self.visitor.tree(from, number, object);
        let range = self.edges.range(object);
        if range.is_empty() {
            // Most objects only refer to their class, which most often was found before.
            let class = self.edges.class_of(object);
            if class == NONE {
                return false;
            }
            let known = self.reach.numbers[class as usize];
            if known != NOT_FOUND {
                self.visitor.again(number, known);
                return false;
            }
        }
        self.stack.push(Frame { object, number, next: range.start as u32 });
        true
    }

    fn exhaust(&mut self) {
        'deeper: while let Some(frame) = self.stack.last().copied() {
            let range = self.edges.range(frame.object);
            for place in frame.next as usize..range.end {
                if self.edge(frame.number, self.edges.target(place)) {
                    let parent = self.stack.len() - 2;
                    self.stack[parent].next = place as u32 + 1;
                    continue 'deeper;
                }
            }
            // The class comes last, so the frame is not needed any more.
            self.stack.pop();
            let class = self.edges.class_of(frame.object);
            if class != NONE {
                self.edge(frame.number, class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::Random;

    #[test]
    fn what_the_roots_do_not_hold_is_not_reached() {
        // 0 → 1 → 2 → 0, 3 → 1; 4 is the class of 2.
        let edges = Edges::new(vec![0, 1, 2, 3, 4, 4], vec![1, 2, 0, 1], vec![NONE, NONE, 0, NONE, NONE], vec![4]);
        let reach = search(&edges, [1], &mut ());
        let reached: Vec<_> = (0..5).map(|object| reach.number(object).is_some()).collect();
        assert_eq!(reached, [true, true, true, false, true]);
        assert_eq!(reach.objects(), 4);
    }

    #[test]
    fn numbers_are_in_preorder_and_every_edge_is_told_once() {
        #[derive(Default)]
        struct Told(Vec<(u32, u32)>, Vec<u32>);
        impl Visitor for Told {
            fn tree(&mut self, from: u32, to: u32, _: ObjectIndex) {
                assert_eq!(to as usize, self.1.len() + 1);
                self.1.push(from);
                self.0.push((from, to));
            }
            fn again(&mut self, from: u32, to: u32) {
                // In a depth-first search an edge to a higher number leads to a descendant.
                let parents = &self.1;
                let up = |v: u32| std::iter::successors(Some(v), |v| v.checked_sub(1).map(|at| parents[at as usize]));
                assert!(from >= to || up(to).any(|v| v == from), "{from} → {to}");
                self.0.push((from, to));
            }
        }
        let mut random = Random::new(7);
        for _ in 0..300 {
            let (edges, roots) = random.edges(30);
            let mut told = Told::default();
            let reach = search(&edges, roots.iter().copied(), &mut told);
            let mut expected: Vec<(u32, u32)> =
                roots.iter().filter_map(|root| Some((ROOT, reach.number(*root)?))).collect();
            for number in reach.numbers() {
                expected.extend(edges.of(reach.object(number)).filter_map(|to| Some((number, reach.number(to)?))));
            }
            expected.sort_unstable();
            told.0.sort_unstable();
            assert_eq!(told.0, expected);
        }
    }

    #[test]
    fn a_list_of_a_million_objects_takes_no_stack() {
        let objects = 1_000_000u32;
        let edges =
            Edges::new((0..=objects).map(|i| i.min(objects - 1)).collect(), (1..objects).collect(), vec![], vec![]);
        assert_eq!(search(&edges, [0], &mut ()).objects(), objects as usize);
    }
}
