//! The walk over all pages of the heap.

#![expect(unsafe_code, reason = "functions of libruby yield pages and roots")]

use core::ffi::{c_char, c_int, c_void};

use diagctl_heapdump::record::{Edge, Flags, FreeSlots, NameId, NameKind, Page, Root};

use crate::content::Hashes;
use crate::fault::Fault;
use crate::layout::Layout;
use crate::memory::{Table, Vector};
use crate::names::Names;
use crate::receiver::Receiver;
use crate::ruby::{self, CONTINUE, Id, Ruby, Value};
use crate::siphash::Key;
use crate::status::Status;

/// Flags of the collector that `rb_obj_gc_flags` may return at once; Ruby knows nine.
pub(crate) const GC_FLAGS: usize = 16;

/// Who reads the call sites of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSites {
    /// Ruby.
    Ruby,
    /// Both, for so many more pieces of code.
    Both(u32),
    /// The walker.
    Walker,
}

/// A walk, and what it has learned so far.
pub struct Walk<'w, R> {
    pub(crate) ruby: &'w Ruby,
    pub(crate) layout: Layout,
    pub(crate) hashes: Hashes,
    pub(crate) receiver: &'w mut R,
    pub(crate) names: Names,
    /// Allocation sites by a hash of their file, line and method.
    pub(crate) sites: Table,
    /// The Array of members, or 0, by class.
    pub(crate) members: Table,
    /// The ID of the variable that has them.
    pub(crate) members_id: Id,
    pub(crate) gc_flag_ids: [(Id, Flags); GC_FLAGS],
    /// The flags of the collector that the object at hand has, by name; what follows them is of earlier objects.
    pub(crate) gc_flags_now: [Id; GC_FLAGS],
    /// Those of an earlier object, followed by zeros, and what they are.
    pub(crate) gc_flags_before: ([Id; GC_FLAGS], Flags),
    /// The named edges of the object at hand, as target and label, in Ruby's order.
    pub(crate) pairs: Vector<(u64, u64)>,
    /// The first of them that Ruby has not yielded yet.
    pub(crate) cursor: usize,
    /// They may come in any order, and more than once.
    pub(crate) unordered: bool,
    /// The label of its other edges.
    pub(crate) otherwise: NameId,
    /// Its class.
    pub(crate) class: Value,
    /// Threads and the Symbols that their variables have as names.
    pub(crate) locals: Vector<(u64, u64)>,
    /// Threads and the labels that tell where they were started.
    pub(crate) starts: Vector<(u64, u64)>,
    /// Threads and what their stacks refer to.
    pub(crate) stacks: Vector<(u64, u64)>,
    /// References of the hash at hand that Ruby has not yielded yet, before that to its default.
    pub(crate) before_default: usize,
    pub(crate) call_sites: CallSites,
    /// What the code at hand refers to.
    pub(crate) targets: Vector<u64>,
    /// Objects are all that is wanted: no roots, no references, no lengths, no hashes of strings.
    pub(crate) objects_only: bool,
    status: &'w Status,
    fault: Fault,
    objects: u64,
}

impl<'w, R: Receiver> Walk<'w, R> {
    /// A walk that passes all it finds to `receiver`.
    pub fn new(
        ruby: &'w Ruby,
        layout: Layout,
        key: Key,
        members_id: Id,
        receiver: &'w mut R,
        status: &'w Status,
    ) -> Self {
        Self {
            ruby,
            layout,
            hashes: Hashes::new(key),
            receiver,
            names: Names::new(),
            sites: Table::new(),
            members: Table::new(),
            members_id,
            gc_flag_ids: [(0, Flags::default()); GC_FLAGS],
            gc_flags_now: [0; GC_FLAGS],
            gc_flags_before: ([0; GC_FLAGS], Flags::default()),
            pairs: Vector::new(),
            cursor: 0,
            unordered: false,
            otherwise: NameId::NONE,
            class: 0,
            locals: Vector::new(),
            starts: Vector::new(),
            stacks: Vector::new(),
            before_default: 0,
            call_sites: CallSites::Ruby,
            targets: Vector::new(),
            objects_only: false,
            status,
            fault: Fault::default(),
            objects: 0,
        }
    }

    /// Names a variable of a thread's fiber.
    pub fn add_local(&mut self, thread: Value, name: Value) {
        self.locals.push((thread as u64, name as u64));
    }

    /// Leaves out roots, references, lengths, and hashes of strings.
    pub fn leave_out_references(&mut self) {
        self.objects_only = true;
    }

    /// Walks the roots, then the heap.
    ///
    /// # Safety
    ///
    /// Runs on a thread of Ruby, with the GVL, while no collection is under way and none can begin.
    pub unsafe fn whole(&mut self, fault: Fault) {
        self.fault = fault;
        let ruby = self.ruby;
        let walk = (&raw mut *self).cast::<c_void>();
        // SAFETY: gc.c, `objspace_reachable_objects_from_root` and `objspace_each_objects`. The callbacks get this walk back, which
        // nothing else uses meanwhile.
        unsafe {
            if !self.objects_only {
                (ruby.reachable_from_root)(Self::on_root, walk);
                (*walk.cast::<Self>()).root_threads();
            }
            (ruby.each_objects)(Self::on_page, walk);
        }
    }

    unsafe extern "C" fn on_root(category: *const c_char, value: Value, walk: *mut c_void) {
        if ruby::is_special(value) {
            return;
        }
        // SAFETY: `whole` passed itself.
        let walk = unsafe { &mut *walk.cast::<Self>() };
        let category = walk.names.constant(walk.receiver, NameKind::Text, category);
        walk.receiver.root(&Root { category, edge: Edge { target: value as u64, label: NameId::NONE } });
    }

    unsafe extern "C" fn on_page(start: *mut c_void, end: *mut c_void, stride: usize, walk: *mut c_void) -> c_int {
        // SAFETY: `whole` passed itself.
        let walk = unsafe { &mut *walk.cast::<Self>() };
        let (start, end) = (start.expose_provenance(), end.addr());
        let slot_size = u32::try_from(stride).unwrap_or(0);
        let (mut value, mut slots, mut free) = (start, 0, 0);
        while value < end {
            // SAFETY: gc.c, `objspace_each_objects_try`: a page is an array of slots from `start` to `end`.
            let flags = unsafe { ruby::basic(value) }.flags;
            if ruby::type_of(flags) == 0 {
                walk.receiver.free(&FreeSlots { address: value as u64, slot_size, count: 1 });
                free += 1;
            } else {
                // SAFETY: a slot with a type is an object.
                unsafe {
                    let object = walk.describe(value, slot_size);
                    walk.receiver.object(&object);
                    if !walk.objects_only {
                        walk.edges(value);
                    }
                }
            }
            slots += 1;
            value += stride;
        }
        walk.receiver.page(&Page { address: start as u64, slot_size, slots, free });
        let objects = u64::from(slots - free);
        walk.objects += objects;
        walk.status.walked(objects);
        walk.fault.strike(walk.objects);
        if walk.receiver.stopped() { 1 } else { CONTINUE }
    }
}
