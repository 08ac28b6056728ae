//! Random graphs for tests.

use super::address::{NONE, ObjectIndex};
use super::edges::Edges;

/// A small generator of pseudo-random numbers: the same seed gives the same graphs.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }

    /// References among at most `most` objects, with classes in half of the graphs, and roots.
    pub fn edges(&mut self, most: u32) -> (Edges, Vec<ObjectIndex>) {
        let objects = 1 + self.below(most);
        let density = 1 + self.below(4);
        let mut starts = vec![0];
        let mut targets = Vec::new();
        for _ in 0..objects {
            let degree = self.below(density + 1);
            targets.extend((0..degree).map(|_| self.below(objects)));
            starts.push(targets.len() as u32);
        }
        let class_objects: Vec<ObjectIndex> = (0..2 + self.below(2)).map(|_| self.below(objects)).collect();
        let classes = match self.below(2) {
            0 => Vec::new(),
            _ => (0..objects)
                .map(|_| match self.below(5) {
                    0 => NONE,
                    _ => self.below(class_objects.len() as u32),
                })
                .collect(),
        };
        let roots = (0..1 + self.below(3)).map(|_| self.below(objects)).collect();
        (Edges::new(starts, targets, classes, class_objects), roots)
    }
}
