//! A tree whose vertices know their parents, seen from the top down.

use super::reach::ROOT;

const NO_CHILD: u32 = u32::MAX;

/// A tree of vertices.
#[derive(Debug)]
pub struct Tree {
    first: Vec<u32>,
    next: Vec<u32>,
}

impl Tree {
    /// Turns the tree over. Children are in the order of their numbers.
    ///
    /// `first` and `next` are columns for the vertices, with any content: their memory is used again.
    pub fn new(parents: &[u32], mut first: Vec<u32>, mut next: Vec<u32>) -> Self {
        first.fill(NO_CHILD);
        next.fill(NO_CHILD);
        for number in (1..parents.len() as u32).rev() {
            let head = &mut first[parents[number as usize] as usize];
            next[number as usize] = std::mem::replace(head, number);
        }
        Self { first, next }
    }

    /// Calls `visit` for each vertex but the virtual root, parents first. Needs no stack.
    pub fn walk(&self, parents: &[u32], mut visit: impl FnMut(Step)) {
        let mut at = ROOT;
        let mut to = self.first[at as usize];
        loop {
            if to == NO_CHILD {
                if at == ROOT {
                    return;
                }
                visit(Step::Leave(at));
                to = self.next[at as usize];
                at = parents[at as usize];
            } else if self.first[to as usize] == NO_CHILD {
                visit(Step::Leaf(to));
                to = self.next[to as usize];
            } else {
                visit(Step::Enter(to));
                at = to;
                to = self.first[at as usize];
            }
        }
    }
}

/// A step of [`Tree::walk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The vertex dominates nothing.
    Leaf(u32),
    /// The vertex dominates others, which follow.
    Enter(u32),
    /// All that the vertex dominates is done.
    Leave(u32),
}
