//! The functions of libruby that the walker calls, and the little that it knows of Ruby's memory layout.
//!
//! No header of Ruby is used: one object file serves every version. All functions have the same name and the same arguments in Ruby
//! 3.1, 3.3 and 3.4; files and functions named below are those of Ruby's source. None of them allocates a Ruby object or starts a
//! collection. `crate::proof` compares what they say with what Ruby itself says before anything relies on it.

#![expect(unsafe_code, reason = "C functions are called, and objects read, through addresses")]

use core::ffi::{CStr, c_char, c_int, c_void};

/// A `VALUE`: the address of an object, or a special constant.
pub type Value = usize;
/// An `ID`: the number of a name.
pub type Id = usize;

/// `dlsym(3)`.
pub type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
/// `objspace_lookup_allocation_info` of objspace.so.
pub type LookupAllocation = unsafe extern "C" fn(Value) -> *const AllocationInfo;

/// Called with the first slot, the end, and the slot size of each page. Nonzero stops.
pub type OnPage = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, *mut c_void) -> c_int;
/// Called with each object that another one refers to.
pub type OnReference = unsafe extern "C" fn(Value, *mut c_void);
/// Called with a kind of root and an object.
pub type OnRoot = unsafe extern "C" fn(*const c_char, Value, *mut c_void);
/// Called with each key and value of a table, of a hash, or of an object's instance variables.
pub type OnPair = unsafe extern "C" fn(usize, Value, usize) -> c_int;

/// `ST_CONTINUE` of include/ruby/st.h.
pub const CONTINUE: c_int = 0;

// Declares the table of functions and the code that fills it.
macro_rules! functions {
    ($($(#[$doc:meta])* $field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of libruby.
        #[derive(Clone, Copy, Debug)]
        pub struct Ruby {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
            /// Finds where an object was allocated, if objspace.so is loaded.
            pub lookup_allocation: Option<LookupAllocation>,
            /// Functions that some versions lack.
            pub optional: Optional,
        }

        impl Ruby {
            /// Looks the functions up among everything that the process has loaded.
            ///
            /// # Errors
            ///
            /// Returns the name of the first one that is missing.
            ///
            /// # Safety
            ///
            /// `dlsym` is the C library's, and the symbols found belong to libruby.
            pub unsafe fn resolve(dlsym: Dlsym, lookup_allocation: Option<LookupAllocation>) -> Result<Self, &'static CStr> {
                Ok(Self {
                    $($field: {
                        // SAFETY: a null handle is RTLD_DEFAULT in glibc and musl, and the name ends in a zero byte.
                        let address = unsafe { dlsym(core::ptr::null_mut(), $symbol.as_ptr()) };
                        if address.is_null() {
                            return Err($symbol);
                        }
                        // SAFETY: libruby declares the function with these arguments, as its doc comment says where.
                        unsafe {
                            core::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) $(-> $result)?>(address)
                        }
                    },)*
                    lookup_allocation,
                    // SAFETY: as above.
                    optional: unsafe { Optional::resolve(dlsym) },
                })
            }
        }
    };
}

// Does the same for functions that some versions, or C libraries, lack.
macro_rules! optional {
    ($($(#[$doc:meta])* $field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Functions of libruby and of the C library that may be missing.
        #[derive(Clone, Copy, Debug)]
        pub struct Optional {
            $($(#[$doc])* pub $field: Option<unsafe extern "C" fn($($argument),*) $(-> $result)?>,)*
        }

        impl Optional {
            // As `Ruby::resolve`.
            unsafe fn resolve(dlsym: Dlsym) -> Self {
                Self {
                    $($field: {
                        // SAFETY: a null handle is RTLD_DEFAULT in glibc and musl, and the name ends in a zero byte.
                        let address = unsafe { dlsym(core::ptr::null_mut(), $symbol.as_ptr()) };
                        // SAFETY: null becomes `None`; libruby declares the function with these arguments.
                        unsafe {
                            core::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($argument),*) $(-> $result)?>>(address)
                        }
                    },)*
                }
            }
        }
    };
}

functions! {
    /// Yields every page of the heap (gc.c, `objspace_each_objects_try`; gc/default/default.c in 3.4). It first ends a collection
    /// that is under way; the dumper is forked while there is none.
    each_objects = c"rb_objspace_each_objects": fn(OnPage, *mut c_void);
    /// Yields what the collector would mark (gc.c): a mark function given to `gc_mark_ptr` replaces the marking.
    reachable_from = c"rb_objspace_reachable_objects_from": fn(Value, OnReference, *mut c_void);
    /// Yields the roots with their kind, a string constant (gc.c, `MARK_CHECKPOINT`).
    reachable_from_root = c"rb_objspace_reachable_objects_from_root": fn(OnRoot, *mut c_void);
    /// Returns true for what `ObjectSpace.each_object` leaves out (gc.c, `internal_object_p`).
    internal_object = c"rb_objspace_internal_object_p": fn(Value) -> c_int;
    /// Returns the bytes that an object takes (gc.c, `obj_memsize_of`).
    memsize = c"rb_obj_memsize_of": fn(Value) -> usize;
    /// Stores the names of the collector's flags in an array (gc.c, `rb_obj_gc_flags`). `Init_objspace_dump` has called it once, so
    /// the names exist.
    gc_flags = c"rb_obj_gc_flags": fn(Value, *mut Id, usize) -> usize;
    /// Returns the `wrap_struct_name` of a typed T_DATA, or null (gc.c).
    data_type_name = c"rb_objspace_data_type_name": fn(Value) -> *const c_char;
    /// Returns the name of an IMEMO kind, a string constant (gc.c, imemo.c in 3.4).
    imemo_name = c"rb_imemo_name": fn(c_int) -> *const c_char;
    /// Returns the name of an ID, or null for an internal one (symbol.c, `get_id_entry`: reads a table).
    id_name = c"rb_id2name": fn(Id) -> *const c_char;
    /// Returns the name of a class as a String, or nil (variable.c, `classname`: reads a field).
    class_name = c"rb_class_path_cached": fn(Value) -> Value;
    /// Follows the superclasses to one that is neither a singleton class nor an included module (object.c).
    class_real = c"rb_class_real": fn(Value) -> Value;
    /// Returns the superclass as it is stored (class.c).
    superclass = c"rb_class_get_superclass": fn(Value) -> Value;
    /// Yields the instance variables of an object that are set, and the class variables of a class, in the order of marking
    /// (variable.c).
    each_ivar = c"rb_ivar_foreach": fn(Value, OnPair, usize);
    /// Returns an instance variable, or nil (variable.c, `rb_ivar_lookup`).
    ivar = c"rb_attr_get": fn(Value, Id) -> Value;
    /// Returns a table of a module's own constants, as pointers to their entries (variable.c, `sv_i`). Triggers no autoload.
    constants = c"rb_mod_const_at": fn(Value, *mut c_void) -> *mut c_void;
    /// Yields the pairs of a table (st.c). The callback does not change it.
    each_pair = c"rb_st_foreach": fn(*mut c_void, OnPair, usize) -> c_int;
    /// Frees a table (st.c).
    free_table = c"rb_st_free_table": fn(*mut c_void);
    /// Yields the pairs of a Hash, as `mark_hash` of gc.c does (hash.c). Unlike `rb_hash_foreach`, it counts no iteration.
    each_hash_pair = c"rb_hash_stlike_foreach": fn(Value, OnPair, usize) -> c_int;
    /// Returns the number of members of a Struct as a Fixnum (struct.c).
    struct_size = c"rb_struct_size": fn(Value) -> Value;
    /// Returns a member of a Struct by its index, a Fixnum (struct.c, `rb_struct_pos`).
    struct_member = c"rb_struct_aref": fn(Value, Value) -> Value;
    /// Returns an element of an Array, or nil (array.c).
    element = c"rb_ary_entry": fn(Value, isize) -> Value;
    /// Returns the number of pairs of a Hash (hash.c).
    hash_size = c"rb_hash_size_num": fn(Value) -> usize;
    /// Returns the String of a Symbol (symbol.c: a field of a dynamic one).
    symbol_string = c"rb_sym2str": fn(Value) -> Value;
    /// Returns the encoding with this number (encoding.c: reads a table).
    encoding = c"rb_enc_from_index": fn(c_int) -> *const Encoding;
    /// Returns the ID of a name that exists already, as those of struct.c do from the start (symbol.c, `rb_intern3`).
    intern = c"rb_intern": fn(*const c_char) -> Id;
    /// Returns the value of a variable of a thread's running fiber, or nil (thread.c).
    thread_local = c"rb_thread_local_aref": fn(Value, Id) -> Value;
}

optional! {
    /// Returns the object of a singleton class (class.c, since 3.2; before, it is an instance variable). Raises for another class.
    attached_object = c"rb_class_attached_object": fn(Value) -> Value;
    /// Returns the code of a Proc, or null (proc.c). The second argument may be null.
    block_code = c"rb_proc_get_iseq": fn(Value, *mut c_int) -> Value;
    /// Returns the file of code, a String that it has (vm_backtrace.c, `rb_iseq_path`).
    code_path = c"rb_profile_frame_path": fn(Value) -> Value;
    /// Returns the first line of code, a Fixnum (vm_backtrace.c).
    code_line = c"rb_profile_frame_first_lineno": fn(Value) -> Value;
    /// Returns the size of an allocation (glibc, musl, jemalloc).
    usable_size = c"malloc_usable_size": fn(*const c_void) -> usize;
    /// Returns true if the instance variables are in a table instead of a shape's order (shape.c, 3.3 and 3.4).
    too_complex = c"rb_shape_obj_too_complex": fn(Value) -> bool;
}

/// The beginning of `OnigEncodingType`, include/ruby/onigmo.h.
#[derive(Debug)]
#[repr(C)]
pub struct Encoding {
    character_length: *const c_void,
    /// Its name.
    pub name: *const c_char,
}

/// `struct allocation_info` of ext/objspace/objspace.h.
#[derive(Debug)]
#[repr(C)]
pub struct AllocationInfo {
    living: c_int,
    flags: Value,
    class: Value,
    /// The file, a string that lives as long as tracing.
    pub path: *const c_char,
    /// The line.
    pub line: usize,
    class_path: *const c_char,
    /// The method's name, a Symbol, or nil or zero.
    pub method: Value,
    /// `GC.count` at the allocation.
    pub generation: usize,
}

/// `rb_const_entry_t` of constant.h.
#[derive(Debug)]
#[repr(C)]
pub struct ConstEntry {
    flag: c_int,
    line: c_int,
    /// The constant's value; Qundef if it is to be autoloaded.
    pub value: Value,
    /// The file that set it, a String.
    pub file: Value,
}

/// `struct RBasic` of include/ruby/internal/core/rbasic.h.
#[derive(Debug)]
#[repr(C)]
pub struct Basic {
    /// Type and flags; zero in a free slot.
    pub flags: usize,
    /// The class; zero in a hidden object.
    pub class: Value,
}

/// `enum ruby_value_type` of include/ruby/internal/value_type.h.
pub mod kind {
    #![expect(missing_docs, reason = "the names are Ruby's")]
    pub const OBJECT: u8 = 0x01;
    pub const CLASS: u8 = 0x02;
    pub const MODULE: u8 = 0x03;
    pub const FLOAT: u8 = 0x04;
    pub const STRING: u8 = 0x05;
    pub const REGEXP: u8 = 0x06;
    pub const ARRAY: u8 = 0x07;
    pub const HASH: u8 = 0x08;
    pub const STRUCT: u8 = 0x09;
    pub const BIGNUM: u8 = 0x0a;
    pub const FILE: u8 = 0x0b;
    pub const DATA: u8 = 0x0c;
    pub const MATCH: u8 = 0x0d;
    pub const COMPLEX: u8 = 0x0e;
    pub const RATIONAL: u8 = 0x0f;
    pub const SYMBOL: u8 = 0x14;
    pub const IMEMO: u8 = 0x1a;
    pub const NODE: u8 = 0x1b;
    pub const ICLASS: u8 = 0x1c;
    pub const ZOMBIE: u8 = 0x1d;
    pub const MOVED: u8 = 0x1e;
}

/// `RUBY_T_MASK`, include/ruby/internal/value_type.h.
const TYPE_MASK: usize = 0x1f;
/// `RUBY_FL_EXIVAR`, include/ruby/internal/fl_type.h.
pub const HAS_GENERIC_IVARS: usize = 1 << 10;
/// `RUBY_FL_FREEZE`, include/ruby/internal/fl_type.h.
pub const FROZEN: usize = 1 << 11;
/// `RUBY_FL_USHIFT`, include/ruby/internal/fl_type.h.
pub const USER_SHIFT: usize = 12;

/// Returns `RUBY_FL_USERn`, include/ruby/internal/fl_type.h.
pub const fn user_flag(number: usize) -> usize {
    1 << (USER_SHIFT + number)
}

/// `IMEMO_MASK`, internal/imemo.h.
const IMEMO_MASK: usize = 0x0f;
/// Special constants other than these two-bit tags lie below (include/ruby/internal/special_consts.h).
const LAST_SPECIAL: usize = 0x40;
/// `RUBY_SYMBOL_FLAG` and `RUBY_SPECIAL_SHIFT`, include/ruby/internal/special_consts.h.
const STATIC_SYMBOL: usize = 0x0c;
const SPECIAL_SHIFT: usize = 8;
/// Returns true for what is not the address of an object: numbers, nil, static symbols.
pub fn is_special(value: Value) -> bool {
    value & 7 != 0 || value < LAST_SPECIAL
}

/// Returns the ID of a static symbol: a name that is written in code, or that code made the name of a method or a variable. A Symbol
/// made of a string at run time is an object (symbol.c, `rb_str_intern`), and its name may be data.
pub fn static_symbol(value: Value) -> Option<Id> {
    (value & 0xff == STATIC_SYMBOL).then_some(value >> SPECIAL_SHIFT)
}

/// Returns a small number as a Fixnum.
pub fn fixnum(number: usize) -> Value {
    number << 1 | 1
}

/// Returns the number of a Fixnum, or `None` for something else.
pub fn from_fixnum(value: Value) -> Option<usize> {
    (value & 1 == 1).then_some(value >> 1)
}

/// Returns the type of an object with these flags.
#[expect(clippy::cast_possible_truncation, reason = "five bits")]
pub fn type_of(flags: usize) -> u8 {
    (flags & TYPE_MASK) as u8
}

/// Returns the kind of an IMEMO with these flags.
pub fn imemo_kind(flags: usize) -> u8 {
    (flags >> USER_SHIFT & IMEMO_MASK) as u8
}

/// Reads the head of an object.
///
/// # Safety
///
/// `value` is the address of a slot of the heap.
pub unsafe fn basic<'a>(value: Value) -> &'a Basic {
    // SAFETY: every slot begins with RBasic (gc.c, `RVALUE`), and nothing changes it: this process has one thread, and it is here.
    unsafe { &*core::ptr::with_exposed_provenance(value) }
}

/// Returns the bytes of a C string, without its end.
///
/// # Safety
///
/// `text` is null, or a string that lives and stays as it is for `'a`.
pub unsafe fn c_bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
