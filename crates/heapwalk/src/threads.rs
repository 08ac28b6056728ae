//! Threads and fibers: their variables, and the places in the code where they were started.
//!
//! Their names are not in the graph: an application sets them at run time, and may call a thread after the request that it serves.

#![expect(unsafe_code, reason = "functions of libruby tell the variables and the places")]

use core::ffi::c_void;

use diagctl_heapdump::record::{Edge, NameId, NameKind, Root};

use crate::receiver::Receiver;
use crate::request::Text;
use crate::ruby::{self, Value, kind};
use crate::walk::Walk;

impl<R: Receiver> Walk<'_, R> {
    /// Tells where the block of a thread is: the file and the line.
    ///
    /// # Safety
    ///
    /// The text is a String of the dumper, which lives as long as this walk.
    pub unsafe fn add_start(&mut self, thread: Value, place: Text) {
        // SAFETY: the caller's promise.
        let label = self.receiver.name(NameKind::Frame, unsafe { place.bytes() });
        self.starts.push((thread as u64, u64::from(label.0)));
    }

    /// Adds what the stack of a thread refers to.
    pub fn add_stack(&mut self, thread: Value, targets: &[usize]) {
        for target in targets {
            self.stacks.push((thread as u64, *target as u64));
        }
    }

    // In the child the threads are in no list of Ruby's, so nothing need refer to them.
    pub(crate) fn root_threads(&mut self) {
        let mut before = 0;
        for index in 0..self.stacks.as_slice().len() {
            let Some((thread, _)) = self.stacks.as_slice().get(index).copied() else { return };
            if thread != before {
                let category = self.names.constant(self.receiver, NameKind::Text, c"threads".as_ptr());
                self.receiver.root(&Root { category, edge: Edge { target: thread, label: NameId::NONE } });
            }
            before = thread;
        }
    }

    // Passes what the stack of a thread refers to. Its variables are among that, and have a name already; `otherwise` names the rest.
    pub(crate) fn stack_of(&mut self, thread: Value) {
        let label = self.otherwise;
        let named = self.pairs.as_slice();
        for (of, target) in self.stacks.as_slice() {
            if *of == thread as u64 && !named.iter().any(|(variable, _)| variable == target) {
                self.receiver.edge(Edge { target: *target, label });
            }
        }
    }

    // Variables of a thread's fiber, and what is on the stack of a thread or fiber. Returns true for a thread.
    pub(crate) fn name_locals(&mut self, value: Value) -> bool {
        // SAFETY: its type is T_DATA; gc.c, `rb_objspace_data_type_name`: a constant or null.
        let of = unsafe { ruby::c_bytes((self.ruby.data_type_name)(value)) };
        match of {
            b"fiber" => self.otherwise = self.start_of_fiber(value),
            b"VM/thread" => {
                // 3.1 marks the variables twice.
                self.unordered = true;
                for index in 0..self.locals.as_slice().len() {
                    self.name_local(value, index);
                }
                self.otherwise = self.start_of_thread(value);
            }
            _ => {}
        }
        of == b"VM/thread"
    }

    fn name_local(&mut self, thread: Value, index: usize) {
        let Some((of, symbol)) = self.locals.as_slice().get(index).copied() else { return };
        let Some(id) = usize::try_from(symbol).ok().and_then(ruby::static_symbol).filter(|_| of == thread as u64)
        else {
            return;
        };
        // SAFETY: the type name says that it is a Thread; thread.c, `rb_thread_local_aref`: a lookup in the table of its fiber.
        let target = unsafe { (self.ruby.thread_local)(thread, id) };
        if !ruby::is_special(target) {
            let label = self.names.id(self.ruby, self.receiver, NameKind::Local, id);
            self.expect(target, label);
        }
    }

    fn start_of_thread(&mut self, thread: Value) -> NameId {
        let known = self.starts.as_slice().iter().find(|(of, _)| *of == thread as u64);
        match known.and_then(|(_, label)| u32::try_from(*label).ok()) {
            Some(label) => NameId(label),
            None => self.names.constant(self.receiver, NameKind::Frame, c"thread".as_ptr()),
        }
    }

    // cont.c, `fiber_mark`: the first reference of a fiber that was started with a block is that block, after that to its class.
    fn start_of_fiber(&mut self, fiber: Value) -> NameId {
        let mut found = [self.class, 0];
        // SAFETY: gc.c, `rb_objspace_reachable_objects_from`; the callback uses `found`, which lives until then.
        unsafe { (self.ruby.reachable_from)(fiber, keep_first, (&raw mut found).cast()) };
        let [_, first] = found;
        // SAFETY: what a fiber refers to is an object; the name of a type as in `name_locals`.
        let is_block = first != 0
            && unsafe {
                ruby::type_of(ruby::basic(first).flags) == kind::DATA
                    && ruby::c_bytes((self.ruby.data_type_name)(first)) == b"proc"
            };
        let label =
            if is_block { self.names.place(self.ruby, self.layout, self.receiver, first) } else { NameId::NONE };
        if label == NameId::NONE {
            self.names.constant(self.receiver, NameKind::Frame, c"stack".as_ptr())
        } else {
            label
        }
    }
}

// Keeps the first reference but that to the class, the first of the two words.
unsafe extern "C" fn keep_first(target: Value, found: *mut c_void) {
    // SAFETY: `start_of_fiber` passed its own array.
    let found = unsafe { &mut *found.cast::<[Value; 2]>() };
    if found[1] == 0 && target != found[0] {
        found[1] = target;
    }
}
