//! One object as a record of the graph.

#![expect(unsafe_code, reason = "functions of libruby describe the object")]

use diagctl_heapdump::class_name::is_from_code;
use diagctl_heapdump::record::{Flags, NameId, NameKind, Object, Site, SiteId, Type};

use crate::layout;
use crate::receiver::Receiver;
use crate::ruby::{self, Value, kind};
use crate::walk::{GC_FLAGS, Walk};

impl<R: Receiver> Walk<'_, R> {
    /// Describes an object.
    ///
    /// # Safety
    ///
    /// `value` is an object in a slot of the heap: its flags are not zero, and it is not a T_NONE.
    pub unsafe fn describe(&mut self, value: Value, slot_size: u32) -> Object {
        // SAFETY: the caller's promise.
        let &ruby::Basic { flags, class } = unsafe { ruby::basic(value) };
        let of = ruby::type_of(flags);
        let mut object = Object { address: value as u64, kind: Type(of), slot_size, ..Object::default() };
        object.size = self.size(value, of, slot_size);
        // These use the word of the class for something else (gc.c, `struct RZombie` and `struct RMoved`; internal/imemo.h).
        if !matches!(of, kind::IMEMO | kind::NODE | kind::ZOMBIE | kind::MOVED) {
            object.class = class as u64;
        }
        if matches!(of, kind::ZOMBIE | kind::MOVED | kind::NODE) {
            return object;
        }
        if flags & ruby::FROZEN != 0 {
            object.flags = object.flags.with(Flags::FROZEN);
        }
        object.flags = object.flags.with(self.gc_flags(value));
        match of {
            kind::STRING | kind::SYMBOL | kind::ARRAY | kind::HASH | kind::OBJECT if self.objects_only => {}
            kind::STRING => self.describe_string(value, flags, &mut object),
            kind::SYMBOL => {
                // SAFETY: symbol.c, `rb_sym2str`: the String in a field of the symbol; it has one as long as it lives.
                let bytes = unsafe { self.layout.string((self.ruby.symbol_string)(value)) };
                object.length = Some(bytes.len() as u64);
            }
            kind::ARRAY => {
                // SAFETY: its type is T_ARRAY.
                let length = unsafe { layout::array_length(value) };
                object.length = Some(length as u64);
                if length > 0 && flags & self.layout.shared != 0 {
                    object.flags = object.flags.with(Flags::SHARED);
                }
                if flags & layout::EMBEDDED != 0 && (length > 0 || !self.layout.length_in_flags) {
                    object.flags = object.flags.with(Flags::EMBEDDED);
                }
            }
            // SAFETY: its type is T_HASH. hash.c, `rb_hash_size_num`: reads the size of the table.
            kind::HASH => object.length = Some(unsafe { (self.ruby.hash_size)(value) } as u64),
            kind::OBJECT => {
                if flags & layout::EMBEDDED != 0 && !self.layout.length_in_flags {
                    object.flags = object.flags.with(Flags::EMBEDDED);
                }
                // SAFETY: shape.c, `rb_shape_obj_too_complex`: compares the id of the shape in the object's flags.
                if self.ruby.optional.too_complex.is_some_and(|ask| unsafe { ask(value) }) {
                    object.flags = object.flags.with(Flags::TOO_COMPLEX_SHAPE);
                }
            }
            kind::CLASS | kind::MODULE if class != 0 => {
                object.name = self.class_name(value);
                if self.is_singleton(value) {
                    object.flags = object.flags.with(Flags::SINGLETON);
                }
            }
            kind::DATA => {
                // SAFETY: its type is T_DATA. gc.c, `rb_objspace_data_type_name`: a constant of the extension that made it.
                let text = unsafe { (self.ruby.data_type_name)(value) };
                object.name = self.names.constant(self.receiver, NameKind::Text, text);
            }
            kind::IMEMO => {
                // SAFETY: gc.c or imemo.c, `rb_imemo_name`: a string constant for every kind that exists.
                let text = unsafe { (self.ruby.imemo_name)(ruby::imemo_kind(flags).into()) };
                object.name = self.names.constant(self.receiver, NameKind::Text, text);
            }
            _ => {}
        }
        if let Some(lookup) = self.ruby.lookup_allocation {
            // SAFETY: object_tracing.c, `objspace_lookup_allocation_info`: a lookup in the table of traced objects.
            unsafe { self.describe_allocation(lookup(value), &mut object) };
        }
        object
    }

    fn size(&self, value: Value, of: u8, slot_size: u32) -> u64 {
        // A T_NODE is never on the heap since 2.5 (node.c), and `obj_memsize_of` ends the process when it is given one.
        if of == kind::NODE {
            return u64::from(slot_size);
        }
        // SAFETY: gc.c, `obj_memsize_of`: a switch over all types, the remains of moved and of dead objects among them.
        unsafe { (self.ruby.memsize)(value) as u64 }
    }

    fn describe_string(&mut self, value: Value, flags: usize, object: &mut Object) {
        // SAFETY: the caller saw that its type is T_STRING.
        let bytes = unsafe { self.layout.string(value) };
        object.length = Some(bytes.len() as u64);
        let layout = self.layout;
        if !bytes.is_empty() {
            // SAFETY: only objects that came here before are asked for, and nothing changes them meanwhile.
            let content = |other: u64| unsafe { layout.string(other as Value) };
            object.hash = Some(self.hashes.hash(value as u64, bytes, content));
        }
        for (is_set, flag) in [
            (flags & layout::STRING_OUTSIDE == 0, Flags::EMBEDDED),
            (self.layout.is_shared_string(flags), Flags::SHARED),
            (flags & layout::FSTRING != 0, Flags::FSTRING),
            (self.layout.is_chilled(flags), Flags::CHILLED),
            (flags & layout::BROKEN == layout::BROKEN, Flags::BROKEN),
        ] {
            if is_set {
                object.flags = object.flags.with(flag);
            }
        }
        // Binary strings have no encoding in the graph, as in a dump.
        if let Some(number @ 1..) = layout::encoding(flags) {
            // SAFETY: encoding.c, `rb_enc_from_index`: null, or an encoding that is never freed.
            let text = unsafe { (self.ruby.encoding)(number).as_ref() }.map_or(core::ptr::null(), |found| found.name);
            object.encoding = self.names.constant(self.receiver, NameKind::Text, text);
        }
    }

    // SAFETY: `info` is null or an entry of the table of traced objects.
    unsafe fn describe_allocation(&mut self, info: *const ruby::AllocationInfo, object: &mut Object) {
        // SAFETY: the caller's promise; nothing changes the table meanwhile.
        let Some(info) = (unsafe { info.as_ref() }) else { return };
        if info.path.is_null() {
            return;
        }
        let mixed = (info.path.addr() as u64).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
            ^ (info.line as u64).wrapping_mul(0xc4ce_b9fe_1a85_ec53).rotate_left(17)
            ^ (info.method as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key = mixed | 1;
        let site = if let Some(known) = self.sites.get(key) {
            SiteId(u32::try_from(known).unwrap_or(0))
        } else {
            let method = self.method_name(info.method);
            let file = self.names.constant(self.receiver, NameKind::Text, info.path);
            let line = u32::try_from(info.line).unwrap_or(0);
            let id = self.receiver.site(&Site { file, line, method, class: NameId::NONE });
            self.sites.set(key, u64::from(id.0));
            id
        };
        object.site = site;
        object.generation = info.generation as u64;
    }

    // `symbol` is a Symbol, nil or zero.
    fn method_name(&mut self, symbol: Value) -> NameId {
        if let Some(id) = ruby::static_symbol(symbol) {
            return self.names.id(self.ruby, self.receiver, NameKind::Text, id);
        }
        if ruby::is_special(symbol) {
            return NameId::NONE;
        }
        // SAFETY: object_tracing.c, `newobj_i`: the name of the method, a Symbol; symbol.c, `rb_sym2str`: its String.
        let text = unsafe { self.layout.string((self.ruby.symbol_string)(symbol)) };
        self.receiver.name(NameKind::Text, text)
    }

    fn gc_flags(&mut self, value: Value) -> Flags {
        let now = &mut self.gc_flags_now;
        // SAFETY: gc.c, `rb_obj_gc_flags`: stores at most so many IDs.
        let count = unsafe { (self.ruby.gc_flags)(value, now.as_mut_ptr(), GC_FLAGS) };
        // Most objects have those of the one before. Compared one by one: there are two or three, and a call costs more.
        let (known, flags) = &self.gc_flags_before;
        let as_before = now.iter().zip(known).take(count).all(|(id, before)| id == before);
        if as_before && known.get(count).is_none_or(|after| *after == 0) {
            return *flags;
        }
        self.translate_gc_flags(count)
    }

    fn translate_gc_flags(&mut self, count: usize) -> Flags {
        let mut known = [0; GC_FLAGS];
        let mut flags = Flags::default();
        for (place, id) in known.iter_mut().zip(self.gc_flags_now).take(count) {
            *place = id;
            flags = flags.with(match self.gc_flag_ids.iter().find(|(known, _)| *known == id) {
                Some((_, flag)) => *flag,
                None => self.learn_gc_flag(id),
            });
        }
        self.gc_flags_before = (known, flags);
        flags
    }

    #[cold]
    fn learn_gc_flag(&mut self, id: ruby::Id) -> Flags {
        // SAFETY: symbol.c, `rb_id2name`: the bytes of an immortal String, or null.
        let name = unsafe { ruby::c_bytes((self.ruby.id_name)(id)) };
        let flag = Flags::GC.iter().find(|(_, key)| key.as_bytes() == name).map_or(Flags::default(), |(flag, _)| *flag);
        if let Some(free) = self.gc_flag_ids.iter_mut().find(|(known, _)| *known == 0) {
            *free = (id, flag);
        }
        flag
    }

    // The name of a class or module, or none if it is anonymous or not called by a constant.
    fn class_name(&mut self, class: Value) -> NameId {
        // SAFETY: variable.c, `rb_class_path_cached`: the String in a field of the class, or nil. The caller saw its type.
        let name = unsafe { (self.ruby.class_name)(class) };
        if ruby::is_special(name) {
            return NameId::NONE;
        }
        // SAFETY: a class path is a String.
        let text = unsafe { self.layout.string(name) };
        if is_from_code(text) { self.receiver.name(NameKind::Text, text) } else { NameId::NONE }
    }

    /// Returns true for the class of one object.
    pub(crate) fn is_singleton(&self, class: Value) -> bool {
        // SAFETY: object.c, `rb_class_real`: passes over singleton classes and included modules. The caller saw its type.
        unsafe { (self.ruby.class_real)(class) != class }
    }
}
