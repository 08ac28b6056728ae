//! The dumper's request, with the facts that it found out with Ruby's own means.

#![expect(unsafe_code, reason = "the dumper passes addresses")]

use crate::layout::Layout;
use crate::ruby::{Dlsym, LookupAllocation, Value};

/// The number of words of a [`Request`], its first word. Another number comes from a gem of another version.
pub const WORDS: usize = 14;

/// Write the graph.
pub const GRAPH: usize = 0;
/// Write the counts.
pub const COUNTS: usize = 1;
/// Write nothing: only prove that the walker understands this Ruby.
pub const PROOF: usize = 2;
/// Write the graph without roots and references, for a summary.
pub const OBJECTS: usize = 3;
/// Added when another process of this capture has proved it. The heap then holds no sample of objects.
pub const PROVEN: usize = 4;
/// In the bits from here on: the layout that was found then ([`crate::layout::Layout::number`]), or 0, to find it in the facts.
const LAYOUT_SHIFT: usize = 8;

/// The request, as an array of words. `ruby/diagctl/lib/diagctl/dump/walker.rb` packs it.
#[derive(Debug)]
#[repr(C)]
pub struct Request {
    /// [`WORDS`].
    pub words: usize,
    /// `dlsym(3)`.
    pub dlsym: Option<Dlsym>,
    /// `objspace_lookup_allocation_info`, if allocations are traced.
    pub lookup_allocation: Option<LookupAllocation>,
    /// The destination of the result.
    pub output: usize,
    /// The file of the page that the dumper watches.
    pub status: usize,
    mode: usize,
    facts: *const usize,
    facts_len: usize,
    ruby: Text,
    platform: Text,
    /// For tests: see `crate::fault`.
    pub fault: usize,
    /// For tests: see `crate::fault`.
    pub fault_after: usize,
}

/// Bytes of a String of the dumper.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Text {
    start: *const u8,
    len: usize,
}

impl Text {
    /// The address of the bytes.
    pub fn address(self) -> usize {
        self.start.addr()
    }

    /// The bytes.
    ///
    /// # Safety
    ///
    /// The String lives and stays as it is for `'a`.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Request {
    /// [`GRAPH`], [`COUNTS`], [`PROOF`] or [`OBJECTS`].
    pub fn mode(&self) -> usize {
        self.mode & (PROVEN - 1)
    }

    /// Returns true if another process of this capture has proved that the walker understands this Ruby.
    pub fn is_proven(&self) -> bool {
        self.mode & PROVEN != 0
    }

    /// The layout that it found.
    pub fn layout(&self) -> Option<Layout> {
        Layout::of_number(self.mode >> LAYOUT_SHIFT)
    }

    /// Ruby's version and platform.
    pub fn versions(&self) -> (Text, Text) {
        (self.ruby, self.platform)
    }

    /// The facts.
    ///
    /// # Safety
    ///
    /// The dumper's array lives and stays as it is while they are used.
    pub unsafe fn facts(&self) -> Facts<'_> {
        if self.facts.is_null() {
            return Facts(&[]);
        }
        // SAFETY: the caller's promise.
        Facts(unsafe { core::slice::from_raw_parts(self.facts, self.facts_len) })
    }
}

/// One fact.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'f> {
    /// An object, as `ObjectSpace.dump` describes it.
    Object(ObjectFact<'f>),
    /// An edge with its name.
    Edge {
        /// The object that has it.
        from: Value,
        /// The object that it leads to.
        to: Value,
        /// Its name.
        name: Text,
    },
    /// A string, where its bytes are, and whether they belong to another string.
    Bytes {
        /// The string.
        string: Value,
        /// Its bytes.
        bytes: Text,
        /// True if they belong to another string.
        shared: bool,
    },
    /// A traced object.
    Site {
        /// The object.
        object: Value,
        /// The file that allocated it.
        file: Text,
        /// The line in it.
        line: usize,
        /// `GC.count` at that moment.
        generation: usize,
    },
    /// A number about the process.
    Stat {
        /// Its name.
        name: Text,
        /// The number.
        value: usize,
    },
    /// The name of a variable of a thread.
    Local {
        /// The Thread.
        thread: Value,
        /// A Symbol.
        name: Value,
    },
    /// The file and the line of the block that a thread was started with.
    Start {
        /// The Thread.
        thread: Value,
        /// File, colon, line.
        place: Text,
    },
    /// What the stack of a thread refers to. The stack itself is gone.
    Stack {
        /// The Thread.
        thread: Value,
        /// Addresses of objects.
        targets: &'f [usize],
    },
}

/// An object, as `ObjectSpace.dump` describes it.
#[derive(Clone, Copy, Debug)]
pub struct ObjectFact<'f> {
    /// Its address.
    pub object: Value,
    /// Its type.
    pub kind: usize,
    /// Its class, or 0.
    pub class: usize,
    /// Its size, bytes.
    pub size: usize,
    /// Flags that are set, as bits of `diagctl_heapdump::record::Flags`.
    pub flags: usize,
    /// Flags that were looked at.
    pub flags_known: usize,
    /// Its length, or `usize::MAX`.
    pub length: usize,
    /// The name of a class or of a type.
    pub name: Text,
    /// Its references, in order, without those to its class.
    pub references: &'f [usize],
}

/// The facts, as an array of words.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f>(&'f [usize]);

impl<'f> Facts<'f> {
    fn word(&mut self) -> Option<usize> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<Text> {
        let start = core::ptr::with_exposed_provenance(self.word()?);
        Some(Text { start, len: self.word()? })
    }

    fn object(&mut self) -> Option<ObjectFact<'f>> {
        let (object, kind, class, size) = (self.word()?, self.word()?, self.word()?, self.word()?);
        let (flags, flags_known, length) = (self.word()?, self.word()?, self.word()?);
        let name = self.text()?;
        let count = self.word()?;
        let (references, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(ObjectFact { object, kind, class, size, flags, flags_known, length, name, references })
    }
}

impl<'f> Iterator for Facts<'f> {
    type Item = Fact<'f>;

    fn next(&mut self) -> Option<Fact<'f>> {
        match self.word()? {
            1 => Some(Fact::Object(self.object()?)),
            2 => Some(Fact::Edge { from: self.word()?, to: self.word()?, name: self.text()? }),
            3 => Some(Fact::Bytes { string: self.word()?, bytes: self.text()?, shared: self.word()? != 0 }),
            4 => {
                let (object, file) = (self.word()?, self.text()?);
                Some(Fact::Site { object, file, line: self.word()?, generation: self.word()? })
            }
            5 => Some(Fact::Stat { name: self.text()?, value: self.word()? }),
            6 => Some(Fact::Local { thread: self.word()?, name: self.word()? }),
            7 => Some(Fact::Start { thread: self.word()?, place: self.text()? }),
            8 => {
                let (thread, count) = (self.word()?, self.word()?);
                let (targets, rest) = self.0.split_at_checked(count)?;
                self.0 = rest;
                Some(Fact::Stack { thread, targets })
            }
            _ => None,
        }
    }
}
