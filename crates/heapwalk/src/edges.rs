//! The edges of one object, with their names.
//!
//! Ruby names no edge when it marks. So the named ones are collected first (`Walk::pairs`), in the order in which Ruby marks them, and
//! then found again among all edges.

#![expect(unsafe_code, reason = "functions of libruby yield the edges")]

use core::ffi::{c_int, c_void};

use diagctl_heapdump::record::{Edge, NameId, NameKind};

use crate::receiver::Receiver;
use crate::ruby::{self, CONTINUE, Value, kind};
use crate::walk::Walk;

/// Named edges that are passed over to find the one that Ruby yields: some of them may not be marked.
const LOOK_AHEAD: usize = 4;

impl<R: Receiver> Walk<'_, R> {
    /// Passes the edges of an object to the receiver, in Ruby's order. The one to its class is among them.
    ///
    /// # Safety
    ///
    /// `value` is an object in a slot of the heap, and the receiver has it.
    pub unsafe fn edges(&mut self, value: Value) {
        // SAFETY: the caller's promise.
        let &ruby::Basic { flags, class } = unsafe { ruby::basic(value) };
        let of = ruby::type_of(flags);
        let ruby = self.ruby;
        match of {
            // They have none, or are none: gc.c, `gc_mark_children` ends the process when it is given one of the last four.
            kind::FLOAT | kind::BIGNUM | kind::SYMBOL | kind::NODE | kind::ZOMBIE | kind::MOVED | 0 => return,
            // gc.c, `gc_mark_children`: an object marks its class and its variables, in the order of `rb_ivar_foreach`.
            kind::OBJECT => {
                // SAFETY: variable.c, `obj_ivar_each`. The callback gets this walk back, which nothing else uses meanwhile.
                unsafe { (ruby.each_ivar)(value, Self::on_variable, self.lend()) };
                return;
            }
            // The same function: all that a string marks but its class and generic variables is what it shares.
            kind::STRING if flags & ruby::HAS_GENERIC_IVARS == 0 && !self.layout.is_shared_string(flags) => return,
            // SAFETY: the caller's promise.
            kind::IMEMO if unsafe { self.edges_of_code(value, flags) } => return,
            _ => {}
        }
        self.pairs.clear();
        self.cursor = 0;
        self.otherwise = NameId::NONE;
        self.class = class;
        self.unordered = false;
        // Without a class, 3.1 would look for the names of the variables in address 0 (variable.c, `gen_ivar_each`).
        if flags & ruby::HAS_GENERIC_IVARS != 0 && class != 0 && !matches!(of, kind::CLASS | kind::MODULE | kind::IMEMO)
        {
            // SAFETY: as above; `gen_ivar_each`.
            unsafe { (ruby.each_ivar)(value, Self::on_pair_variable, self.lend()) };
        }
        let mut on_reference: ruby::OnReference = Self::on_reference;
        let mut is_thread = false;
        match of {
            kind::CLASS | kind::MODULE => self.name_class(value),
            kind::ICLASS => self.name_superclass(value),
            kind::STRUCT => self.name_members(value, class),
            kind::HASH => {
                self.before_default = self.pairs.as_slice().len() + usize::from(class != 0);
                on_reference = Self::on_reference_of_hash;
                // SAFETY: its type is T_HASH; hash.c, `rb_hash_stlike_foreach`.
                unsafe { (ruby.each_hash_pair)(value, Self::on_hash_pair, self.lend()) };
            }
            kind::STRING => self.otherwise = self.internal(c"shared"),
            kind::ARRAY if flags & self.layout.shared != 0 => self.otherwise = self.internal(c"shared"),
            kind::DATA => is_thread = self.name_locals(value),
            _ => {}
        }
        // SAFETY: gc.c, `rb_objspace_reachable_objects_from`: calls back for what it would mark. The mark functions of extensions
        // run here, as in `dump_all`.
        unsafe { (ruby.reachable_from)(value, on_reference, core::ptr::with_exposed_provenance_mut(self.lend())) };
        if is_thread {
            self.stack_of(value);
        }
    }

    unsafe extern "C" fn on_variable(id: ruby::Id, value: Value, walk: usize) -> c_int {
        if !ruby::is_special(value) {
            // SAFETY: `edges` passed itself.
            let walk = unsafe { Self::back(core::ptr::with_exposed_provenance_mut(walk)) };
            let label = walk.names.variable(walk.ruby, walk.receiver, id);
            walk.receiver.edge(Edge { target: value as u64, label });
        }
        CONTINUE
    }

    unsafe extern "C" fn on_pair_variable(id: ruby::Id, value: Value, walk: usize) -> c_int {
        if !ruby::is_special(value) {
            // SAFETY: `edges` passed itself.
            let walk = unsafe { Self::back(core::ptr::with_exposed_provenance_mut(walk)) };
            let label = walk.names.variable(walk.ruby, walk.receiver, id);
            walk.expect(value, label);
        }
        CONTINUE
    }

    unsafe extern "C" fn on_hash_pair(key: usize, value: Value, walk: usize) -> c_int {
        // SAFETY: `edges` passed itself.
        let walk = unsafe { Self::back(core::ptr::with_exposed_provenance_mut(walk)) };
        walk.before_default += usize::from(!ruby::is_special(key)) + usize::from(!ruby::is_special(value));
        if let (false, Some(id)) = (ruby::is_special(value), ruby::static_symbol(key)) {
            let label = walk.names.id(walk.ruby, walk.receiver, NameKind::HashValue, id);
            walk.expect(value, label);
        }
        CONTINUE
    }

    unsafe extern "C" fn on_constant(id: ruby::Id, entry: usize, walk: usize) -> c_int {
        // SAFETY: variable.c, `sv_i`: the table has pointers to the entries of the module's own table.
        let entry = unsafe { &*core::ptr::with_exposed_provenance::<ruby::ConstEntry>(entry) };
        if !ruby::is_special(entry.value) {
            // SAFETY: `name_class` passed itself.
            let walk = unsafe { Self::back(core::ptr::with_exposed_provenance_mut(walk)) };
            let label = walk.names.id(walk.ruby, walk.receiver, NameKind::Constant, id);
            walk.expect(entry.value, label);
        }
        CONTINUE
    }

    // gc.c, `mark_hash`: keys and values, then the default value or the block for it.
    unsafe extern "C" fn on_reference_of_hash(target: Value, walk: *mut c_void) {
        if ruby::is_special(target) {
            return;
        }
        // SAFETY: `edges` passed itself.
        let this = unsafe { Self::back(walk) };
        if this.before_default == 0 {
            let label = this.internal(c"default");
            this.receiver.edge(Edge { target: target as u64, label });
            return;
        }
        this.before_default -= 1;
        // SAFETY: as above.
        unsafe { Self::on_reference(target, walk) };
    }

    unsafe extern "C" fn on_reference(target: Value, walk: *mut c_void) {
        if ruby::is_special(target) {
            return;
        }
        // SAFETY: `edges` passed itself.
        let walk = unsafe { Self::back(walk) };
        let ahead = walk.pairs.as_slice().get(walk.cursor..).unwrap_or_default();
        let most = if walk.unordered { ahead.len() } else { LOOK_AHEAD };
        let found = ahead.iter().take(most).position(|(expected, _)| *expected == target as u64);
        let label = if let Some(place) = found {
            let label = ahead[place].1;
            if !walk.unordered {
                walk.cursor += place + 1;
            }
            NameId(u32::try_from(label).unwrap_or(0))
        } else if target == walk.class {
            NameId::NONE
        } else {
            walk.otherwise
        };
        walk.receiver.edge(Edge { target: target as u64, label });
    }

    // Returns the address of this walk for a callback.
    fn lend(&mut self) -> usize {
        (&raw mut *self).expose_provenance()
    }

    // SAFETY: `walk` is what `edges` passed to libruby, and nothing else uses it until libruby returns.
    unsafe fn back<'w>(walk: *mut c_void) -> &'w mut Self {
        // SAFETY: the caller's promise.
        unsafe { &mut *walk.cast::<Self>() }
    }

    // Expects an edge with this name.
    pub(crate) fn expect(&mut self, target: Value, label: NameId) {
        self.pairs.push((target as u64, u64::from(label.0)));
    }

    fn internal(&mut self, name: &'static core::ffi::CStr) -> NameId {
        self.names.constant(self.receiver, NameKind::Internal, name.as_ptr())
    }

    // In the order of gc.c, `gc_mark_children`: the attached object, the superclass, variables, constants.
    fn name_class(&mut self, class: Value) {
        let ruby = self.ruby;
        if let Some(attached_object) = ruby.optional.attached_object
            && self.is_singleton(class)
        {
            let label = self.internal(c"attached_object");
            // SAFETY: class.c, `rb_class_attached_object`: a field of a singleton class.
            let attached = unsafe { attached_object(class) };
            if !ruby::is_special(attached) {
                self.expect(attached, label);
            }
        }
        self.name_superclass(class);
        // SAFETY: variable.c, `class_ivar_each`; then `rb_mod_const_at`, which makes a table with the C allocator, and `sv_i`, which
        // fills it. The callbacks get this walk back, which nothing else uses meanwhile.
        unsafe {
            (ruby.each_ivar)(class, Self::on_pair_variable, self.lend());
            let table = (ruby.constants)(class, core::ptr::null_mut());
            if !table.is_null() {
                (ruby.each_pair)(table, Self::on_constant, self.lend());
                (ruby.free_table)(table);
            }
        }
    }

    fn name_superclass(&mut self, class: Value) {
        // SAFETY: class.c, `rb_class_get_superclass`: a field of a T_CLASS, T_MODULE or T_ICLASS.
        let superclass = unsafe { (self.ruby.superclass)(class) };
        if !ruby::is_special(superclass) {
            let label = self.internal(c"superclass");
            self.expect(superclass, label);
        }
    }

    fn name_members(&mut self, value: Value, class: Value) {
        let members = self.members(class);
        // SAFETY: its type is T_STRUCT. struct.c, `rb_struct_size`: the length in its flags or after its head.
        let size = unsafe { (self.ruby.struct_size)(value) };
        let Some(size) = ruby::from_fixnum(size).filter(|_| members != 0) else { return };
        for index in 0..size {
            // SAFETY: struct.c, `rb_struct_aref` with a Fixnum below the size; array.c, `rb_ary_entry`, which returns nil beyond
            // the end.
            let (target, symbol) = unsafe {
                let symbol = (self.ruby.element)(members, index.cast_signed());
                ((self.ruby.struct_member)(value, ruby::fixnum(index)), symbol)
            };
            if let (false, Some(id)) = (ruby::is_special(target), ruby::static_symbol(symbol)) {
                let label = self.names.id(self.ruby, self.receiver, NameKind::Member, id);
                self.expect(target, label);
            }
        }
    }

    // Returns the Array with the names of a struct class's members, or 0: struct.c, `struct_ivar_get`, which would also store what
    // it finds in a superclass.
    fn members(&mut self, class: Value) -> Value {
        if let Some(known) = self.members.get(class as u64) {
            return usize::try_from(known).unwrap_or(0);
        }
        let mut members = 0;
        let mut next = class;
        while !ruby::is_special(next) && members == 0 {
            // SAFETY: variable.c, `rb_attr_get`, and class.c, `rb_class_get_superclass`, of a class or an included module. Only
            // classes have the variable.
            unsafe {
                if ruby::type_of(ruby::basic(next).flags) == kind::CLASS {
                    let found = (self.ruby.ivar)(next, self.members_id);
                    if !ruby::is_special(found) && ruby::type_of(ruby::basic(found).flags) == kind::ARRAY {
                        members = found;
                    }
                }
                next = (self.ruby.superclass)(next);
            }
        }
        self.members.set(class as u64, members as u64);
        members
    }
}
