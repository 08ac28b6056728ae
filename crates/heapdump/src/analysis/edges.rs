//! The references between objects, four bytes each.

use super::address::{NONE, ObjectIndex};

/// The references of all objects: explicit ones, and the reference of each object to its class, which is derived from its class.
#[derive(Debug, Default)]
pub struct Edges {
    /// The position of each object's first reference in `targets`, and the end of the last ones.
    starts: Vec<u32>,
    targets: Vec<ObjectIndex>,
    /// The class of each object, as an index into `class_objects`. Empty if references to classes are left out.
    classes: Vec<u32>,
    class_objects: Vec<ObjectIndex>,
}

impl Edges {
    /// Creates references. `starts` has one element more than there are objects and ascends to the length of `targets`;
    /// `classes` has one element for each object or is empty.
    pub fn new(
        starts: Vec<u32>,
        targets: Vec<ObjectIndex>,
        classes: Vec<u32>,
        class_objects: Vec<ObjectIndex>,
    ) -> Self {
        Self { starts, targets, classes, class_objects }
    }

    /// The number of objects.
    pub fn objects(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The number of explicit references.
    pub fn explicit(&self) -> usize {
        self.targets.len()
    }

    /// The places of an object's explicit references.
    #[inline]
    pub fn range(&self, object: ObjectIndex) -> std::ops::Range<usize> {
        let at = object as usize;
        self.starts[at] as usize..self.starts[at + 1] as usize
    }

    /// The object that the reference at a place leads to.
    #[inline]
    pub fn target(&self, place: usize) -> ObjectIndex {
        self.targets[place]
    }

    /// The object's explicit references.
    #[inline]
    pub fn explicit_of(&self, object: ObjectIndex) -> &[ObjectIndex] {
        &self.targets[self.range(object)]
    }

    /// The class object of an object, or [`NONE`].
    #[inline]
    pub fn class_of(&self, object: ObjectIndex) -> ObjectIndex {
        let class = self.classes.get(object as usize).copied().unwrap_or(NONE);
        self.class_objects.get(class as usize).copied().unwrap_or(NONE)
    }

    /// The class of an object as a number in the class table, or [`NONE`].
    pub fn class_number(&self, object: ObjectIndex) -> u32 {
        self.classes.get(object as usize).copied().unwrap_or(NONE)
    }

    /// All objects that an object refers to, its class last.
    pub fn of(&self, object: ObjectIndex) -> impl Iterator<Item = ObjectIndex> + '_ {
        let class = self.class_of(object);
        self.explicit_of(object).iter().copied().chain((class != NONE).then_some(class))
    }
}
