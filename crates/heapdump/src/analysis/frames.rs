//! The dominator tree as stacks of class names, for flame graphs: what a frame spans is what it retains.
//!
//! Objects of one class below the same frame are one frame. A class that occurs again shortly below itself, as in a linked list, does
//! not make the stack deeper.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::{NONE, ObjectIndex};
use super::held::{Amount, Held};
use super::memory::Graph;
use super::reach::ROOT;

/// How far up a class is looked for that occurs again.
const LOOP: usize = 16;

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
    pub names: Vec<String>,
}

/// The name of a frame: that of a module itself, or of a class of objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Module(ObjectIndex),
    Class(u32),
}

impl Frames {
    /// Divides the reachable objects into frames.
    pub fn new(graph: &Graph, held: &Held) -> Self {
        let root = Frame { above: NONE, name: 0, own: Amount::default() };
        let mut frames = Self { frames: vec![root], names: vec!["root".to_owned()] };
        let mut names: HashMap<Key, u32, RandomState> = HashMap::default();
        let mut known: HashMap<(u32, u32), u32, RandomState> = HashMap::default();
        let mut of = vec![0u32; held.dominators.vertices()];
        for number in held.reach.numbers() {
            let object = held.reach.object(number);
            let key = graph.own_name(object).map_or(Key::Class(graph.class(object)), |_| Key::Module(object));
            let name = *names.entry(key).or_insert_with(|| {
                frames.names.push(match key {
                    Key::Module(module) => graph.own_name(module).unwrap_or_default().into_owned(),
                    Key::Class(class) => graph.class_name(class).into_owned(),
                });
                frames.names.len() as u32 - 1
            });
            let above = match held.dominators.of(number) {
                ROOT => 0,
                dominator => of[dominator as usize],
            };
            let frame = *known.entry((above, name)).or_insert_with(|| frames.repeated(above, name));
            frames.frames[frame as usize].own.add(graph.size(object));
            of[number as usize] = frame;
        }
        frames
    }

    // The frame of this name shortly above, or a new one.
    fn repeated(&mut self, above: u32, name: u32) -> u32 {
        let again = self.stack(above).take(LOOP).find(|frame| self.frames[*frame as usize].name == name);
        again.unwrap_or_else(|| {
            self.frames.push(Frame { above, name, own: Amount::default() });
            // There are not more frames than objects.
            self.frames.len() as u32 - 1
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::{Heap, application, object};
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
}
