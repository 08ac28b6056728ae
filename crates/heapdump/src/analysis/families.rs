//! Families of paths: objects whose shortest paths read alike belong to one family, so that a hundred thousand sessions in one array
//! are one line.
//!
//! A family is a chain of steps, each the class of an object and the name of the reference to it. A step that repeats one shortly
//! before, as in a linked list, does not make the chain longer.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::{NONE, ObjectIndex};
use super::memory::{Graph, Root};
use super::paths::{self, Label, Link, Paths, SPELLED};

/// The number of a family.
pub type Family = u32;

/// How far back a step is looked for that it repeats.
const LOOP: usize = 16;

/// The last step of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Step {
    before: Family,
    /// It has the object itself if that is a class or module or held by a root, since each of these is a step of its own.
    link: Link,
}

/// Where a family is in its chain.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The number of families before it.
    depth: u32,
    /// The last family of the beginning that is spelled of a long chain; in a shorter one the family itself.
    head: Family,
}

/// The families of all reachable objects.
#[derive(Debug)]
pub struct Families {
    steps: Vec<Step>,
    places: Vec<Place>,
    of: Vec<Family>,
    roots: HashMap<ObjectIndex, Root, RandomState>,
}

impl Families {
    /// Divides the objects of a graph by their paths.
    pub fn new(graph: &Graph, paths: &Paths) -> Self {
        let mut families =
            Self { steps: Vec::new(), places: Vec::new(), of: vec![NONE; graph.objects()], roots: paths::roots(graph) };
        let mut known: HashMap<Step, Family, RandomState> = HashMap::default();
        for object in paths.order() {
            let (class, kind) = (graph.class(*object), graph.kind(*object));
            let step = match paths.before(*object) {
                None => Step { before: NONE, link: Link { label: Label::Unnamed, own: *object, class, kind } },
                Some(before) => {
                    let own = if graph.own_name(*object).is_some() { *object } else { NONE };
                    let before_family = families.of[before as usize];
                    Step { before: before_family, link: Link { label: paths.label(graph, *object), own, class, kind } }
                }
            };
            let family = match known.get(&step) {
                Some(family) => *family,
                None => {
                    let family = families.repeated(step).unwrap_or_else(|| families.push(step));
                    known.insert(step, family);
                    family
                }
            };
            families.of[*object as usize] = family;
        }
        families
    }

    // The family that a step leads back to.
    fn repeated(&self, step: Step) -> Option<Family> {
        self.chain(step.before).take(LOOP).find(|family| self.steps[*family as usize].link == step.link)
    }

    fn push(&mut self, step: Step) -> Family {
        // There are not more families than objects.
        let family = self.steps.len() as Family;
        let place = match self.places.get(step.before as usize) {
            None => Place { depth: 0, head: family },
            Some(Place { depth, .. }) if *depth as usize + 1 < SPELLED => Place { depth: depth + 1, head: family },
            Some(Place { depth, head }) => Place { depth: depth + 1, head: *head },
        };
        self.steps.push(step);
        self.places.push(place);
        family
    }

    // A family and those before it.
    fn chain(&self, family: Family) -> impl Iterator<Item = Family> + '_ {
        let some = |family: Family| (family != NONE).then_some(family);
        std::iter::successors(some(family), move |family| some(self.steps[*family as usize].before))
    }

    /// The number of families.
    pub fn count(&self) -> usize {
        self.steps.len()
    }

    /// The family of an object; none if it is unreachable.
    pub fn of(&self, object: ObjectIndex) -> Option<Family> {
        Some(self.of[object as usize]).filter(|family| *family != NONE)
    }

    /// Spells a family out. The middle of a long path is left out, so different families may be spelled alike.
    pub fn spell(&self, graph: &Graph, family: Family) -> String {
        let Place { depth, head } = self.places[family as usize];
        let is_cut = depth as usize >= 2 * SPELLED;
        let chain: Vec<Family> = match is_cut {
            true => self.chain(family).take(SPELLED).chain(self.chain(head)).collect(),
            false => self.chain(family).collect(),
        };
        let links: Vec<Link> = chain.iter().rev().map(|family| self.steps[*family as usize].link).collect();
        let root = links.first().and_then(|first| self.roots.get(&first.own));
        paths::spell_links(graph, root, &links, is_cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, application, object};
    use crate::record::Type;

    #[test]
    fn objects_with_paths_that_read_alike_are_one_family() {
        let graph = application(1000);
        let families = Families::new(&graph, &Paths::new(&graph));
        let of = |address| families.of(graph.find(address).unwrap());
        assert_eq!(of(0x10_0000), of(0x10_0000 + 80 * 700));
        assert_eq!(
            families.spell(&graph, of(0x10_0028).unwrap()),
            "App::CACHE → Hash[records] → Array[] → User#@name → String"
        );
        assert_eq!(of(0x3000), None);
        assert!(families.count() < 12, "{}", families.count());
    }

    #[test]
    fn a_linked_list_is_one_family_however_long() {
        let mut heap = Heap::new();
        heap.root("vm", 0x10_0000).class(0x1000, "Node", &[]);
        for i in 0..10_000 {
            let at = 0x10_0000 + i * 80;
            heap.add(object(at, Type::OBJECT, 0x1000), &[(at + 40, "@next")]);
            heap.add(object(at + 40, Type::ARRAY, 0), &[(at + 80, "")]);
        }
        heap.add(object(0x10_0000 + 10_000 * 80, Type::OBJECT, 0x1000), &[]);
        let graph = heap.finish();
        let families = Families::new(&graph, &Paths::new(&graph));
        assert!(families.count() < 6, "{}", families.count());
        let last = families.of(graph.objects() as u32 - 1).unwrap();
        assert_eq!(families.spell(&graph, last), "(vm) → Node#@next → (ARRAY)[] → Node");
    }
}
