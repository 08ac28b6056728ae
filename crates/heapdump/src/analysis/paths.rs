//! The shortest paths from the roots to objects, and the names of their steps.
//!
//! Paths are found by a breadth-first search. What only the machine stack holds is searched last: values on the stack that look like
//! references hold objects by chance, and a path through a constant says more.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::address::{NONE, ObjectIndex};
use super::memory::{Graph, Root};
use crate::record::{NameId, Type};

/// The parent of an object that a root holds.
const HELD_BY_ROOT: ObjectIndex = NONE - 1;

/// The category of the roots that Ruby finds on the machine stack.
const STACK: &str = "machine_context";

/// The shortest path to each reachable object.
#[derive(Debug)]
pub struct Paths {
    /// The object before each on its path; [`NONE`] if it is unreachable.
    before: Vec<ObjectIndex>,
    /// The place of the reference to each object on its path; [`NONE`] for that of an object to its class.
    place: Vec<u32>,
    /// The objects in the order of the lengths of their paths, but for what only the stack holds.
    order: Vec<ObjectIndex>,
}

impl Paths {
    /// Finds the paths of a graph.
    pub fn new(graph: &Graph) -> Self {
        let mut paths =
            Self { before: vec![NONE; graph.objects()], place: vec![NONE; graph.objects()], order: Vec::new() };
        let on_stack = |root: &&Root| graph.text(root.category) == STACK;
        paths.search(graph, graph.roots().iter().filter(|root| !on_stack(root)));
        paths.search(graph, graph.roots().iter().filter(on_stack));
        if graph.roots().is_empty() {
            // As in a search for what is reachable: a dump that has lost its roots.
            graph.all().for_each(|object| paths.found(object, HELD_BY_ROOT, NONE));
        }
        paths
    }

    fn search<'g>(&mut self, graph: &Graph, roots: impl Iterator<Item = &'g Root>) {
        let mut next = self.order.len();
        for root in roots {
            self.found(root.object, HELD_BY_ROOT, NONE);
        }
        while let Some(object) = self.order.get(next).copied() {
            next += 1;
            let edges = graph.edges();
            // There are fewer references than u32::MAX.
            edges.range(object).for_each(|place| self.found(edges.target(place), object, place as u32));
            let class = edges.class_of(object);
            if class != NONE {
                self.found(class, object, NONE);
            }
        }
    }

    #[inline]
    fn found(&mut self, object: ObjectIndex, before: ObjectIndex, place: u32) {
        let known = &mut self.before[object as usize];
        if *known == NONE {
            *known = before;
            self.place[object as usize] = place;
            self.order.push(object);
        }
    }

    /// The reachable objects, each after the one before it on its path.
    pub fn order(&self) -> &[ObjectIndex] {
        &self.order
    }

    /// Returns true if a root holds an object, directly or not.
    pub fn reaches(&self, object: ObjectIndex) -> bool {
        self.before[object as usize] != NONE
    }

    /// The object before another on its path; none if a root holds it directly.
    pub fn before(&self, object: ObjectIndex) -> Option<ObjectIndex> {
        Some(self.before[object as usize]).filter(|before| *before < HELD_BY_ROOT)
    }

    /// The name of the last reference on the path to an object that no root holds directly.
    pub fn label(&self, graph: &Graph, object: ObjectIndex) -> Label {
        match self.place[object as usize] {
            NONE => Label::Class,
            place => match graph.label(place as usize) {
                NameId::NONE => Label::Unnamed,
                name => Label::Named(name),
            },
        }
    }

    /// The objects on the path to a reachable object, from the one that a root holds to the object itself.
    pub fn to(&self, object: ObjectIndex) -> Vec<ObjectIndex> {
        let mut path: VecDeque<ObjectIndex> = VecDeque::new();
        let mut at = Some(object).filter(|object| self.reaches(*object));
        while let Some(object) = at {
            path.push_front(object);
            at = self.before(object);
        }
        path.into()
    }
}

/// The root that holds an object directly, one with a name if there is one, and not the stack if there is another.
pub fn root_of(graph: &Graph, object: ObjectIndex) -> Option<&Root> {
    let rank = |root: &&Root| (graph.text(root.category) == STACK, root.label == NameId::NONE);
    graph.roots().iter().filter(|root| root.object == object).min_by_key(rank)
}

/// The data about a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// It has a name.
    Named(NameId),
    /// It has none.
    Unnamed,
    /// It leads from an object to its class.
    Class,
}

/// A path as a person reads it.
#[derive(Debug)]
pub struct Spelling<'g> {
    graph: &'g Graph,
    /// The finished steps.
    steps: Vec<String>,
    /// The class or module that a constant led to last.
    module: Option<String>,
}

impl<'g> Spelling<'g> {
    /// Begins with a root that holds an object of a type.
    pub fn new(graph: &'g Graph, root: Option<&Root>, first: ObjectIndex) -> Self {
        let mut spelling = Self { graph, steps: Vec::new(), module: None };
        match root {
            // Ruby's own classes need no explanation.
            _ if graph.own_name(first).is_some() => spelling.module = graph.own_name(first).map(Cow::into_owned),
            Some(root) if root.label != NameId::NONE => spelling.steps.push(graph.text(root.label).into_owned()),
            Some(root) => spelling.steps.push(format!("({})", graph.text(root.category))),
            None => {}
        }
        spelling
    }

    /// Adds a step: the reference of an object of some class to another.
    pub fn step(&mut self, holder: Holder<'_>, label: Label, to_module: Option<&str>) {
        use crate::record::NameKind as Of;
        let module = self.module.take();
        // A class or module has its full name, whatever way leads to it.
        if let Some(name) = to_module {
            if module.is_some() {
                self.steps.clear();
            }
            self.module = Some(name.to_owned());
            return;
        }
        let Label::Named(name) = label else {
            self.steps.push(match module {
                Some(module) => module,
                None => format!("{}{}", holder.class, holder.brackets()),
            });
            return;
        };
        let text = self.graph.text(name);
        self.steps.push(match (self.graph.name_kind(name), module) {
            (Of::Constant, Some(module)) if module == "Object" => text.to_string(),
            (Of::Constant, Some(module)) => format!("{module}::{text}"),
            (Of::InstanceVariable | Of::ClassVariable, Some(module)) => format!("{module}.{text}"),
            (_, Some(module)) => format!("{module}({text})"),
            (Of::InstanceVariable | Of::ClassVariable | Of::Member, None) => format!("{}#{text}", holder.class),
            (Of::HashValue, None) => format!("{}[{text}]", holder.class),
            (Of::Global, None) => text.to_string(),
            (Of::Frame, None) if text.contains(':') => format!("{} at {text}", holder.class),
            (_, None) => format!("{}({text})", holder.class),
        });
    }

    /// Ends with the class of the last object.
    pub fn end(mut self, class: &str) -> String {
        self.steps.push(self.module.take().unwrap_or_else(|| class.to_owned()));
        self.steps.join(" → ")
    }
}

/// The object that a reference comes from.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The name of its class.
    pub class: &'a str,
    /// Its type.
    pub kind: Type,
}

impl Holder<'_> {
    fn brackets(self) -> &'static str {
        match self.kind {
            Type::ARRAY => "[]",
            Type::HASH => "{}",
            _ => "",
        }
    }
}

/// Spells the path to an object out.
pub fn spell(graph: &Graph, paths: &Paths, object: ObjectIndex) -> String {
    let path = paths.to(object);
    let (Some(first), Some(last)) = (path.first().copied(), path.last().copied()) else { return String::new() };
    let mut spelling = Spelling::new(graph, root_of(graph, first), first);
    for step in path.windows(2) {
        let class = graph.class_name(graph.class(step[0]));
        let holder = Holder { class: &class, kind: graph.kind(step[0]) };
        spelling.step(holder, paths.label(graph, step[1]), graph.own_name(step[1]).as_deref());
    }
    spelling.end(&graph.class_name(graph.class(last)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, application, object};

    #[test]
    fn a_path_is_the_shortest_one_and_has_names() {
        let graph = application(10);
        let paths = Paths::new(&graph);
        let spelled = |address| spell(&graph, &paths, graph.find(address).unwrap());
        assert_eq!(spelled(0x10_0000 + 5 * 80 + 40), "App::CACHE → Hash[records] → Array[] → User#@name → String");
        // The stack holds the last user directly, but that says nothing.
        assert_eq!(spelled(0x10_0000 + 9 * 80), "App::CACHE → Hash[records] → Array[] → User");
        assert_eq!(spelled(0x1050), "App");
        assert_eq!(spelled(0x3000), "", "garbage has no path");
    }

    #[test]
    fn what_only_the_stack_holds_is_found_through_it() {
        let mut heap = Heap::new();
        heap.root("machine_context", 0x1000).add(object(0x1000, Type::ARRAY, 0), &[(0x1028, "")]);
        heap.add(object(0x1028, Type::OBJECT, 0), &[]);
        let graph = heap.finish();
        assert_eq!(spell(&graph, &Paths::new(&graph), 1), "(machine_context) → (ARRAY)[] → (OBJECT)");
    }

    #[test]
    fn each_kind_of_name_is_spelled_as_in_code() {
        let mut heap = Heap::new();
        heap.root("vm", 0x1000);
        heap.class(0x1000, "Object", &[(0x1028, "Conf")]).class(0x1028, "Conf", &[(0x1050, "@all")]).class(
            0x1078,
            "Point",
            &[],
        );
        heap.add(object(0x1050, Type::STRUCT, 0x1078), &[(0x10a0, ".x")]).add(object(0x10a0, Type::FLOAT, 0), &[]);
        let graph = heap.finish();
        let path = spell(&graph, &Paths::new(&graph), graph.find(0x10a0).unwrap());
        assert_eq!(path, "Conf.@all → Point#x → (FLOAT)");
    }

    #[test]
    fn a_thread_is_told_by_the_place_of_its_block() {
        let mut heap = Heap::new();
        heap.root("vm", 0x1028).root("vm", 0x1050).class(0x1000, "Thread", &[]);
        heap.add(object(0x1028, Type::DATA, 0x1000), &[(0x10a0, "|app/worker.rb:12")]);
        heap.add(object(0x1050, Type::DATA, 0x1000), &[(0x10c8, "|thread")]);
        heap.add(object(0x10a0, Type::ARRAY, 0), &[]).add(object(0x10c8, Type::ARRAY, 0), &[]);
        let graph = heap.finish();
        let paths = Paths::new(&graph);
        let spelled = |address| spell(&graph, &paths, graph.find(address).unwrap());
        assert_eq!(spelled(0x10a0), "(vm) → Thread at app/worker.rb:12 → (ARRAY)");
        assert_eq!(spelled(0x10c8), "(vm) → Thread(thread) → (ARRAY)");
    }
}
