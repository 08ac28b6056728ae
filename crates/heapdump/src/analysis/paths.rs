//! The shortest paths from the roots to objects, and the names of their steps.
//!
//! Paths are found by a breadth-first search. What only the machine stack holds is searched last: values on the stack that look like
//! references hold objects by chance, and a path through a constant says more.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;

use super::address::{NONE, ObjectIndex};
use super::classes::ClassNumber;
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
    graph.roots().iter().filter(|root| root.object == object).min_by_key(|root| rank(graph, root))
}

/// The root of each object that one holds directly, the same as [`root_of`] finds.
pub fn roots(graph: &Graph) -> HashMap<ObjectIndex, Root, RandomState> {
    let mut roots: HashMap<ObjectIndex, Root, RandomState> = HashMap::default();
    for root in graph.roots() {
        let known = roots.entry(root.object).or_insert(*root);
        if rank(graph, root) < rank(graph, known) {
            *known = *root;
        }
    }
    roots
}

fn rank(graph: &Graph, root: &Root) -> (bool, bool) {
    (graph.text(root.category) == STACK, root.label == NameId::NONE)
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

/// A longer path is cut in the middle: as many objects at its beginning and at its end are spelled.
pub(super) const SPELLED: usize = 32;

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

    /// Leaves out the middle of a path, which goes on with an object that may be a class or module.
    fn cut(&mut self, from: &str, module: Option<Cow<'_, str>>) {
        let last = self.module.take().unwrap_or_else(|| from.to_owned());
        self.steps.extend([last, "…".to_owned()]);
        self.module = module.map(Cow::into_owned);
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

/// One object of a path as far as it is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The reference that leads to it.
    pub label: Label,
    /// The object itself, if it may be a class or module; [`NONE`] otherwise.
    pub own: ObjectIndex,
    /// Its class.
    pub class: ClassNumber,
    /// Its type.
    pub kind: Type,
}

/// Spells a path out. With `is_cut`, its middle is missing after [`SPELLED`] objects.
pub(super) fn spell_links(graph: &Graph, root: Option<&Root>, links: &[Link], is_cut: bool) -> String {
    let (Some(first), Some(last)) = (links.first(), links.last()) else { return String::new() };
    let mut spelling = Spelling::new(graph, root, first.own);
    for (at, (from, to)) in links.iter().zip(&links[1..]).enumerate() {
        let class = graph.class_name(from.class);
        let to_module = (to.own != NONE).then(|| graph.own_name(to.own)).flatten();
        match is_cut && at + 1 == SPELLED {
            true => spelling.cut(&class, to_module),
            false => spelling.step(Holder { class: &class, kind: from.kind }, to.label, to_module.as_deref()),
        }
    }
    spelling.end(&graph.class_name(last.class))
}

/// Spells the path to an object out.
pub fn spell(graph: &Graph, paths: &Paths, object: ObjectIndex) -> String {
    let mut path = paths.to(object);
    let Some(first) = path.first().copied() else { return String::new() };
    let is_cut = path.len() > 2 * SPELLED;
    if is_cut {
        path.drain(SPELLED..path.len() - SPELLED);
    }
    let link = |object: &ObjectIndex| Link {
        label: paths.label(graph, *object),
        own: *object,
        class: graph.class(*object),
        kind: graph.kind(*object),
    };
    let links: Vec<Link> = path.iter().map(link).collect();
    spell_links(graph, root_of(graph, first), &links, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::families::Families;
    use crate::analysis::testing::{Heap, application, list, object};

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
    fn a_long_path_is_cut_in_the_middle() {
        let graph = list(1000, |i| format!("C{i}"));
        let paths = Paths::new(&graph);
        let spelled = |last: u64| spell(&graph, &paths, graph.find(0x10_0000 + last * 80).unwrap());
        let families = Families::new(&graph, &paths);
        for last in [0, 1, 62, 63, 64, 65, 999] {
            let family = families.of(graph.find(0x10_0000 + last * 80).unwrap()).unwrap();
            assert_eq!(families.spell(&graph, family), spelled(last));
        }
        let whole = (0..63).map(|at| format!("C{at}#@next → ")).collect::<String>();
        assert_eq!(spelled(63), format!("(vm) → {whole}C63"));
        assert!(spelled(64).contains("C30#@next → C31 → … → C33#@next → C34#@next"), "{}", spelled(64));
        let long = spelled(999);
        assert!(long.contains("C30#@next → C31 → … → C968#@next → C969#@next"), "{long}");
        assert!(long.ends_with("C998#@next → C999") && long.split(" → ").count() == 1 + 2 * SPELLED + 1, "{long}");
    }

    #[test]
    fn a_cut_path_names_the_modules_beside_the_cut() {
        let mut heap = Heap::new();
        heap.root("vm", 0x10_0000);
        for i in 0..100 {
            let at = 0x10_0000 + i * 40;
            match i {
                31 | 68 => heap.class(at, &format!("M{i}"), &[(at + 40, "=cc")]),
                _ => heap.add(object(at, Type::ARRAY, 0), &[(at + 40, "")]),
            };
        }
        let graph = heap.finish();
        let paths = Paths::new(&graph);
        let path = spell(&graph, &paths, 99);
        assert!(path.contains("(ARRAY)[] → M31 → … → M68(cc) → (ARRAY)[]"), "{path}");
    }

    #[test]
    fn the_roots_of_all_objects_are_those_of_each() {
        let graph = application(10);
        let roots = roots(&graph);
        assert_eq!(roots.len(), 2);
        assert!(roots.iter().all(|(object, root)| root_of(&graph, *object) == Some(root)));
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
