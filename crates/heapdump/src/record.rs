//! The records of a heap graph, as the writer takes them and the reader returns them.

/// The position of a name in the name table, from 1. 0 means that there is no name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u32);

/// The position of an allocation site in the site table, from 1. 0 means that the allocation was not traced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub u32);

impl NameId {
    /// No name.
    pub const NONE: Self = Self(0);
}

impl SiteId {
    /// Not traced.
    pub const NONE: Self = Self(0);
}

/// The kind of a name. All but `Text` name an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NameKind {
    /// No edge: the name of a class, a file, a method, a type, an encoding, a category of roots.
    #[default]
    Text = 0,
    /// An instance variable, with its `@`.
    InstanceVariable = 1,
    /// A constant.
    Constant = 2,
    /// A class variable, with its `@@`.
    ClassVariable = 3,
    /// A member of a Struct or Data.
    Member = 4,
    /// The value of a hash under a key that is a name in code.
    HashValue = 5,
    /// A global variable, with its `$`.
    Global = 6,
    /// A variable of a thread or fiber.
    Local = 7,
    /// An edge that Ruby itself makes: `superclass`, `attached_object`, `default`, `shared`, `key`.
    Internal = 8,
    /// A frame or the stack of a thread or fiber.
    Frame = 9,
    /// A kind that this version does not know. Never written.
    Unknown = 255,
}

impl From<u8> for NameKind {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Text,
            1 => Self::InstanceVariable,
            2 => Self::Constant,
            3 => Self::ClassVariable,
            4 => Self::Member,
            5 => Self::HashValue,
            6 => Self::Global,
            7 => Self::Local,
            8 => Self::Internal,
            9 => Self::Frame,
            _ => Self::Unknown,
        }
    }
}

/// The types of Ruby objects, with the numbers that CRuby gives them (`enum ruby_value_type`), equal in 3.0 to 4.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type(pub u8);

macro_rules! types {
    ($($name:ident = $number:literal,)*) => {
        #[allow(missing_docs, reason = "the names are Ruby's")]
        impl Type {
            $(pub const $name: Self = Self($number);)*
        }

        /// Each type with the name that Ruby writes.
        const TYPE_NAMES: &[(Type, &str)] = &[$((Type::$name, stringify!($name)),)*];
    };
}

types! {
    NONE = 0x00,
    OBJECT = 0x01,
    CLASS = 0x02,
    MODULE = 0x03,
    FLOAT = 0x04,
    STRING = 0x05,
    REGEXP = 0x06,
    ARRAY = 0x07,
    HASH = 0x08,
    STRUCT = 0x09,
    BIGNUM = 0x0a,
    FILE = 0x0b,
    DATA = 0x0c,
    MATCH = 0x0d,
    COMPLEX = 0x0e,
    RATIONAL = 0x0f,
    NIL = 0x11,
    TRUE = 0x12,
    FALSE = 0x13,
    SYMBOL = 0x14,
    FIXNUM = 0x15,
    UNDEF = 0x16,
    IMEMO = 0x1a,
    NODE = 0x1b,
    ICLASS = 0x1c,
    ZOMBIE = 0x1d,
    MOVED = 0x1e,
}

impl Type {
    /// The number of types; every type is below it.
    pub const COUNT: usize = 32;

    /// Returns the name that Ruby writes into a heap dump.
    pub fn name(self) -> Option<&'static str> {
        TYPE_NAMES.iter().find(|(kind, _)| *kind == self).map(|(_, name)| *name)
    }

    /// Returns the type of this name.
    pub fn named(name: &[u8]) -> Option<Self> {
        TYPE_NAMES.iter().find(|(_, known)| known.as_bytes() == name).map(|(kind, _)| *kind)
    }
}

/// Flags of an object, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $(as $key:literal)?,)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// The flags that a heap dump in JSON names under the object's `flags`, with their keys.
            pub const GC: &[(Self, &str)] = &[$($((Self::$name, $key),)?)*];
        }
    };
}

flags! {
    /// The write barrier protects it.
    WB_PROTECTED = 0 as "wb_protected",
    /// It survived three collections.
    OLD = 1 as "old",
    /// A minor collection keeps it.
    UNCOLLECTIBLE = 2 as "uncollectible",
    /// The collector is marking from it.
    MARKING = 3 as "marking",
    /// The last collection found it reachable.
    MARKED = 4 as "marked",
    /// Compaction must not move it.
    PINNED = 5 as "pinned",
    /// It is in the remembered set.
    REMEMBERED = 6 as "remembered",
    /// Ractors may share it.
    SHAREABLE = 7 as "shareable",
    /// It has had its `object_id` asked for.
    OBJECT_ID = 8 as "object_id",
    /// It cannot be changed.
    FROZEN = 9,
    /// Its content is in its slot.
    EMBEDDED = 10,
    /// It shares its content with another object.
    SHARED = 11,
    /// It is in the table of deduplicated strings.
    FSTRING = 12,
    /// It is a string literal that warns when it is changed (since 3.4).
    CHILLED = 13,
    /// It is the class of one object.
    SINGLETON = 14,
    /// It is a string that its encoding does not allow.
    BROKEN = 15,
    /// Its instance variables are in a hash table.
    TOO_COMPLEX_SHAPE = 16,
    /// The record was repaired: what produced it was damaged.
    REPAIRED = 17,
    /// It is a string with a hash in the graph.
    HASHED = 18,
    /// It has a length in the graph.
    SIZED = 19,
}

impl Flags {
    /// Returns true if all these flags are set.
    #[inline]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Returns the flags of both.
    #[inline]
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// Returns the flags without these.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: Self) -> Self {
        Self(self.0 & !flags.0)
    }
}

/// One object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Its address. Identifies it within the graph.
    pub address: u64,
    /// Its type.
    pub kind: Type,
    /// The address of its class, or 0 if it has none.
    pub class: u64,
    /// Its shallow size, bytes, as `ObjectSpace.memsize_of` says: its slot and what it has allocated outside.
    pub size: u64,
    /// The size of its slot, bytes. 0 if unknown.
    pub slot_size: u32,
    /// Flags. The writer sets `HASHED` and `SIZED` itself.
    pub flags: Flags,
    /// The name of a class or module; the name of the type of a `T_DATA`, `T_IMEMO` or `T_NODE`.
    pub name: NameId,
    /// The place in the code that allocated it, if it was traced.
    pub site: SiteId,
    /// The number of the collection (`GC.count`) before which it was allocated, if it was traced.
    pub generation: u64,
    /// The number of elements of an array, hash or struct; the number of bytes of a string.
    pub length: Option<u64>,
    /// A hash of a string's bytes under a key that is not in the graph. `Header::hash_bytes` of it are kept.
    pub hash: Option<u64>,
    /// The encoding of a string.
    pub encoding: NameId,
}

/// One edge of an object or a root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edge {
    /// The address of the object that is held.
    pub target: u64,
    /// Its name, of a kind other than `Text`, or none.
    pub label: NameId,
}

/// One edge from outside of the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Root {
    /// The category that Ruby gives it: `vm`, `machine_context`, `global_tbl`, …
    pub category: NameId,
    /// The object that is held, and by what name.
    pub edge: Edge,
}

/// A place in the code that allocates objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// The file.
    pub file: NameId,
    /// The line in it, from 1.
    pub line: u32,
    /// The method.
    pub method: NameId,
    /// The class of the method, if the producer knows it.
    pub class: NameId,
}

/// Free slots that follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeSlots {
    /// The address of the first.
    pub address: u64,
    /// The size of each, bytes.
    pub slot_size: u32,
    /// Their number.
    pub count: u64,
}

/// A page of the heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The address of its first slot.
    pub address: u64,
    /// The size of its slots, bytes.
    pub slot_size: u32,
    /// The number of its slots.
    pub slots: u32,
    /// The number of them that hold no object.
    pub free: u32,
}

/// The producer of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Producer {
    /// Not given, or one that this version does not know.
    #[default]
    Unknown = 0,
    /// The heap walker.
    Walker = 1,
    /// A converter of what `ObjectSpace.dump_all` wrote.
    DumpAll = 2,
}

/// Facts about the graph as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The producer of the graph.
    pub producer: Producer,
    /// Ruby's version, as `RUBY_VERSION`, or empty if unknown.
    pub ruby: &'a [u8],
    /// The platform, as `RUBY_PLATFORM`, or empty if unknown.
    pub platform: &'a [u8],
    /// Bytes of a pointer: 4 or 8.
    pub pointer_size: u8,
    /// Binary logarithm of the unit of addresses: every address of an object is a multiple of `1 << address_shift`.
    pub address_shift: u8,
    /// Bytes of a string's hash: 4 to 8.
    pub hash_bytes: u8,
}

impl Default for Header<'_> {
    fn default() -> Self {
        let producer = Producer::Unknown;
        Self { producer, ruby: b"", platform: b"", pointer_size: 8, address_shift: 3, hash_bytes: 6 }
    }
}

/// Totals, written last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trailer {
    /// True if the producer reached the end of the heap.
    pub complete: bool,
    /// Blocks before the trailer.
    pub blocks: u64,
    /// Bytes before the trailer.
    pub bytes: u64,
    /// Objects, without free slots.
    pub objects: u64,
    /// Objects by type.
    pub by_type: [u64; Type::COUNT],
    /// Edges between objects, without those to classes that readers add.
    pub edges: u64,
    /// Edges with a name among them.
    pub named_edges: u64,
    /// Edges from roots.
    pub roots: u64,
    /// Sum of the objects' sizes, bytes.
    pub size: u64,
    /// Free slots.
    pub free_slots: u64,
    /// Names.
    pub names: u64,
    /// Records of the source that could not be read and are missing.
    pub lost: u64,
    /// Records of the source that were damaged and could be repaired.
    pub repaired: u64,
}
