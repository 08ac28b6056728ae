//! Numbers and sizes of objects by type and by class, as report `object_counts` has them.

#![expect(unsafe_code, reason = "functions of libruby yield the objects")]

use core::ffi::{c_int, c_void};

use diagctl_heapdump::class_name::is_from_code;

use crate::json::Json;
use crate::layout::Layout;
use crate::memory::{Table, Vector};
use crate::output::Output;
use crate::ruby::{self, CONTINUE, Ruby, Value, kind};
use crate::status::Status;

const TYPES: usize = 32;
const ANONYMOUS: &[u8] = b"#<anonymous Class>";

/// The counts.
pub struct Counts<'w> {
    ruby: &'w Ruby,
    status: &'w Status,
    /// Slots, and those that hold no object.
    slots: [u64; 2],
    /// Number and size by type.
    by_type: [(u64, u64); TYPES],
    /// The size of what `ObjectSpace.each_object` yields, and of hidden objects of the same types.
    size: u64,
    hidden_size: u64,
    /// The place in `totals` by the class that is stored in an object.
    places: Table,
    /// Number and size.
    totals: Vector<(u64, u64)>,
}

impl<'w> Counts<'w> {
    /// Nothing counted yet.
    pub fn new(ruby: &'w Ruby, status: &'w Status) -> Self {
        let (places, totals) = (Table::new(), Vector::new());
        Self { ruby, status, slots: [0; 2], by_type: [(0, 0); TYPES], size: 0, hidden_size: 0, places, totals }
    }

    /// Counts the heap.
    ///
    /// # Safety
    ///
    /// As for `Walk::whole`.
    pub unsafe fn count(&mut self) {
        let ruby = self.ruby;
        // SAFETY: gc.c, `objspace_each_objects`. The callback gets these counts back, which nothing else uses meanwhile.
        unsafe { (ruby.each_objects)(Self::on_page, (&raw mut *self).cast()) };
    }

    unsafe extern "C" fn on_page(start: *mut c_void, end: *mut c_void, stride: usize, counts: *mut c_void) -> c_int {
        // SAFETY: `count` passed itself.
        let counts = unsafe { &mut *counts.cast::<Self>() };
        let (mut value, end) = (start.expose_provenance(), end.addr());
        let mut objects = 0;
        while value < end {
            counts.slots[0] += 1;
            // SAFETY: gc.c, `objspace_each_objects_try`: a page is an array of slots from `start` to `end`.
            let &ruby::Basic { flags, class } = unsafe { ruby::basic(value) };
            if flags == 0 {
                counts.slots[1] += 1;
            } else {
                objects += 1;
                counts.object(value, flags, class);
            }
            value += stride;
        }
        counts.status.walked(objects);
        CONTINUE
    }

    fn object(&mut self, value: Value, flags: usize, class: Value) {
        let of = ruby::type_of(flags);
        // SAFETY: gc.c, `obj_memsize_of`: a switch over all types. A T_NODE is never on the heap.
        let size = if of == kind::NODE { 0 } else { unsafe { (self.ruby.memsize)(value) as u64 } };
        let total = &mut self.by_type[usize::from(of)];
        *total = (total.0 + 1, total.1 + size);
        // SAFETY: gc.c, `internal_object_p`: a switch over all types.
        if of == kind::NODE || unsafe { (self.ruby.internal_object)(value) } != 0 {
            if !matches!(of, 0 | kind::NODE | kind::IMEMO | kind::ICLASS | kind::ZOMBIE) {
                self.hidden_size += size;
            }
            return;
        }
        self.size += size;
        let place = self.places.get(class as u64).unwrap_or_else(|| {
            let place = self.totals.as_slice().len() as u64;
            self.totals.push((0, 0));
            self.places.set(class as u64, place);
            place
        });
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(total) = self.totals.as_mut_slice().get_mut(place) {
            *total = (total.0 + 1, total.1 + size);
        }
    }

    /// Writes the report.
    pub fn write(&self, layout: Layout, output: &Output<'_>) {
        let mut json = Json::new(output);
        json.raw(b"{\"count_objects\":{\"TOTAL\":");
        json.number(self.slots[0]);
        json.raw(b",\"FREE\":");
        json.number(self.slots[1]);
        for (name, (count, _)) in self.types() {
            json.raw(b",\"");
            json.raw(name.as_bytes());
            json.raw(b"\":");
            json.number(count);
        }
        json.raw(b"},\"count_objects_size\":{");
        for (name, (_, size)) in self.types().filter(|(_, (_, size))| *size > 0) {
            json.raw(b"\"");
            json.raw(name.as_bytes());
            json.raw(b"\":");
            json.number(size);
            json.raw(b",");
        }
        json.raw(b"\"TOTAL\":");
        json.number(self.by_type.iter().map(|(_, size)| size).sum());
        json.raw(b"},\"memsize_of_all\":");
        // ext/objspace/objspace.c, `total_i`: 3.1 counts hidden objects.
        json.number(if layout.length_in_flags { self.size + self.hidden_size } else { self.size });
        json.raw(b",\"classes\":[");
        let mut rows = self.rows();
        let name = |class: u64| self.name(layout, usize::try_from(class).unwrap_or(0));
        rows.as_mut_slice().sort_unstable_by(|a, b| b.1.1.cmp(&a.1.1).then_with(|| name(a.0).cmp(name(b.0))));
        for (place, (class, (count, size))) in rows.as_slice().iter().enumerate() {
            json.raw(if place == 0 { b"{\"class\":\"" } else { b",{\"class\":\"" });
            json.text(name(*class));
            json.raw(b"\",\"count\":");
            json.number(*count);
            json.raw(b",\"memsize\":");
            json.number(*size);
            json.raw(b"}");
        }
        json.raw(b"]}");
        json.flush();
    }

    // The types that occur, in Ruby's order.
    fn types(&self) -> impl Iterator<Item = (&'static str, (u64, u64))> {
        NAMES.iter().zip(self.by_type).filter(|(_, (count, _))| *count > 0).map(|(name, total)| (*name, total))
    }

    // Totals by class, with singleton classes resolved. Class 0 stands for all that have none.
    fn rows(&self) -> Vector<(u64, (u64, u64))> {
        let mut places = Table::new();
        let mut rows = Vector::new();
        for (stored, place) in self.places.pairs() {
            let class = self.real(usize::try_from(stored).unwrap_or(0)) as u64;
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let Some((count, size)) = self.totals.as_slice().get(place).copied() else { continue };
            // 0 cannot be a key.
            let row = places.get(class + 1).unwrap_or_else(|| {
                let row = rows.as_slice().len() as u64;
                rows.push((class, (0, 0)));
                places.set(class + 1, row);
                row
            });
            let row = usize::try_from(row).unwrap_or(usize::MAX);
            if let Some((_, total)) = rows.as_mut_slice().get_mut(row) {
                *total = (total.0 + count, total.1 + size);
            }
        }
        rows
    }

    fn real(&self, class: Value) -> Value {
        // SAFETY: what an object has as its class is an object; object.c, `rb_class_real` of a class.
        unsafe {
            if ruby::type_of(ruby::basic(class).flags) == kind::CLASS { (self.ruby.class_real)(class) } else { 0 }
        }
    }

    fn name(&self, layout: Layout, class: Value) -> &[u8] {
        if class == 0 {
            return b"(internal)";
        }
        // SAFETY: `real` saw that it is a class; variable.c, `rb_class_path_cached`: a String in a field of it, or nil.
        let name = unsafe { (self.ruby.class_name)(class) };
        if ruby::is_special(name) {
            return ANONYMOUS;
        }
        // SAFETY: a class path is a String.
        let text = unsafe { layout.string(name) };
        if is_from_code(text) { text } else { ANONYMOUS }
    }
}

/// The types by number (include/ruby/internal/value_type.h), as `ObjectSpace.count_objects` names them.
const NAMES: [&str; TYPES] = [
    "T_NONE",
    "T_OBJECT",
    "T_CLASS",
    "T_MODULE",
    "T_FLOAT",
    "T_STRING",
    "T_REGEXP",
    "T_ARRAY",
    "T_HASH",
    "T_STRUCT",
    "T_BIGNUM",
    "T_FILE",
    "T_DATA",
    "T_MATCH",
    "T_COMPLEX",
    "T_RATIONAL",
    "16",
    "T_NIL",
    "T_TRUE",
    "T_FALSE",
    "T_SYMBOL",
    "T_FIXNUM",
    "T_UNDEF",
    "23",
    "24",
    "25",
    "T_IMEMO",
    "T_NODE",
    "T_ICLASS",
    "T_ZOMBIE",
    "T_MOVED",
    "31",
];
