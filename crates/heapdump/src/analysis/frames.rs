//! The dominator tree as stacks of class names, for flame graphs: what a frame spans is what it retains.
//!
//! Objects of one class below the same frame are one frame. A class that occurs again shortly below itself, as in a linked list, does
//! not make the stack deeper. What is very deep is one frame for each class, below one that stands for the frames left out.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::address::{NONE, ObjectIndex};
use super::held::{Amount, Held};
use super::memory::Graph;
use super::reach::ROOT;

/// How far up a class is looked for that occurs again.
const LOOP: usize = 16;
/// The frames of a stack before its middle is left out.
const DEEPEST: u32 = 64;
/// The name of the frame that stands for those left out.
const LEFT_OUT: u32 = 1;

/// A frame and the objects that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The frame above, or [`NONE`] for the first one.
    pub above: u32,
    /// The name as an index into [`Frames::names`].
    pub name: u32,
    /// The frame's own objects.
    pub own: Amount,
}

/// All frames, each after the one above it. The first is that of the roots.
#[derive(Debug)]
pub struct Frames {
    /// The frames.
    pub frames: Vec<Frame>,
    /// The names of classes, and of modules that occur themselves. They come from the application.
    pub names: Vec<Rc<str>>,
}

/// What a frame is named after: a module itself, or the class of objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Module(ObjectIndex),
    Class(u32),
}

impl Frames {
    /// Divides the reachable objects into frames.
    pub fn new(graph: &Graph, held: &Held) -> Self {
        let all = Self { frames: Vec::new(), names: vec!["root".into(), "…".into()] };
        let mut frames = Building {
            all,
            depths: Vec::new(),
            known: HashMap::default(),
            names: [HashMap::default(), HashMap::default()],
        };
        let mut names: HashMap<Key, u32, RandomState> = HashMap::default();
        frames.push(NONE, 0);
        let mut of = vec![0u32; held.dominators.vertices()];
        for number in held.reach.numbers() {
            let object = held.reach.object(number);
            let key = graph.own_name(object).map_or(Key::Class(graph.class(object)), |_| Key::Module(object));
            let name = *names.entry(key).or_insert_with(|| match key {
                Key::Module(module) => frames.name(true, &graph.own_name(module).unwrap_or_default()),
                Key::Class(class) => frames.name(false, &graph.class_name(class)),
            });
            let above = match held.dominators.of(number) {
                ROOT => 0,
                dominator => of[dominator as usize],
            };
            let frame = frames.below(above, name);
            frames.all.frames[frame as usize].own.add(graph.size(object));
            of[number as usize] = frame;
        }
        frames.all
    }

    /// A frame and those above it.
    pub fn stack(&self, frame: u32) -> impl Iterator<Item = u32> + '_ {
        let some = |frame: u32| (frame != NONE).then_some(frame);
        std::iter::successors(some(frame), move |frame| some(self.frames[*frame as usize].above))
    }

    /// The frames that have objects of their own.
    pub fn filled(&self) -> impl Iterator<Item = (u32, &Frame)> + '_ {
        (0..).zip(&self.frames).filter(|(_, frame)| frame.own.objects > 0)
    }

    /// The name of a frame.
    pub fn name(&self, frame: u32) -> &str {
        &self.names[self.frames[frame as usize].name as usize]
    }
}

/// Frames with what finds them.
struct Building {
    all: Frames,
    /// The number of frames above each.
    depths: Vec<u32>,
    /// Frames by the one above and the name.
    known: HashMap<(u32, u32), u32, RandomState>,
    /// Names of classes, which many may share, and names of modules themselves: a class is no frame of its own objects.
    names: [HashMap<Rc<str>, u32, RandomState>; 2],
}

impl Building {
    // The index of a name.
    fn name(&mut self, is_module: bool, name: &str) -> u32 {
        let known = &mut self.names[usize::from(is_module)];
        if let Some(index) = known.get(name) {
            return *index;
        }
        // There are not more names than objects.
        let (index, name) = (self.all.names.len() as u32, Rc::<str>::from(name));
        self.all.names.push(Rc::clone(&name));
        known.insert(name, index);
        index
    }

    // The frame of this name below another, or shortly above.
    fn below(&mut self, above: u32, name: u32) -> u32 {
        if let Some(frame) = self.known.get(&(above, name)) {
            return *frame;
        }
        let frame = match self.depths[above as usize] {
            depth if depth < DEEPEST => self.repeated(above, name),
            DEEPEST => {
                let below = self.child(above, LEFT_OUT);
                self.child(below, name)
            }
            // Beside the frame above.
            _ => self.child(self.all.frames[above as usize].above, name),
        };
        self.known.insert((above, name), frame);
        frame
    }

    fn child(&mut self, above: u32, name: u32) -> u32 {
        match self.known.get(&(above, name)) {
            Some(frame) => *frame,
            None => {
                let frame = self.push(above, name);
                self.known.insert((above, name), frame);
                frame
            }
        }
    }

    fn repeated(&mut self, above: u32, name: u32) -> u32 {
        let again = self.all.stack(above).take(LOOP).find(|frame| self.all.frames[*frame as usize].name == name);
        again.unwrap_or_else(|| self.push(above, name))
    }

    fn push(&mut self, above: u32, name: u32) -> u32 {
        // There are fewer frames than twice the objects, of which there are no more than the graph can number.
        let frame = self.all.frames.len() as u32;
        let depth = self.depths.get(above as usize).map_or(0, |depth| depth + 1);
        self.all.frames.push(Frame { above, name, own: Amount::default() });
        self.depths.push(depth);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, application, list, object};
    use crate::record::Type;

    #[test]
    fn frames_span_what_they_retain() {
        let graph = application(10);
        let held = Held::new(&graph);
        let frames = Frames::new(&graph, &held);
        let total: u64 = frames.frames.iter().map(|frame| frame.own.bytes).sum();
        assert_eq!(total, held.retained[0]);
        let stacks: Vec<String> = frames
            .filled()
            .map(|(frame, _)| frames.stack(frame).map(|frame| frames.name(frame)).collect::<Vec<_>>().join("<"))
            .collect();
        assert!(
            stacks.contains(&"String<User<Array<Hash<App<Object<root".to_owned())
                || stacks.contains(&"String<User<root".to_owned()),
            "{stacks:?}"
        );
    }

    #[test]
    fn a_linked_list_is_not_a_deep_stack() {
        let mut heap = Heap::new();
        heap.root("vm", 0x10_0000);
        for i in 0..5000 {
            heap.add(object(0x10_0000 + i * 40, Type::OBJECT, 0), &[(0x10_0000 + (i + 1) * 40, "@next")]);
        }
        let graph = heap.finish();
        let frames = Frames::new(&graph, &Held::new(&graph));
        assert_eq!((frames.frames.len(), frames.frames[1].own.objects), (2, 5000));
    }

    #[test]
    fn a_deep_stack_is_cut() {
        let graph = list(1000, |i| format!("C{}", i % 100));
        let frames = Frames::new(&graph, &Held::new(&graph));
        assert!(frames.frames.len() < 340, "{}", frames.frames.len());
        let total: u64 = frames.frames.iter().map(|frame| frame.own.objects).sum();
        assert_eq!(total, 2000);
        let stacks = frames.filled().map(|(frame, _)| frames.stack(frame).map(|frame| frames.name(frame)).collect());
        let stacks: Vec<Vec<&str>> = stacks.collect();
        assert_eq!(stacks.iter().map(Vec::len).max(), Some(DEEPEST as usize + 3));
        assert!(stacks.iter().any(|stack| stack.starts_with(&["C99", "…", "C63"])), "{stacks:?}");
    }

    #[test]
    fn classes_of_one_name_share_it() {
        let mut heap = Heap::new();
        for i in 0..100 {
            let at = 0x10_0000 + i * 80;
            heap.root("vm", at).add(object(at, Type::OBJECT, at + 40), &[]).class(at + 40, "Same", &[]);
        }
        let graph = heap.finish();
        let frames = Frames::new(&graph, &Held::new(&graph));
        assert_eq!(
            frames.names.iter().filter(|name| &***name == "Same").count(),
            2,
            "of the objects and of the classes"
        );
    }
}
