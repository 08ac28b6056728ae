//! The proof that the walker understands this Ruby: what it says of a sample of objects is what Ruby itself says.

#![expect(unsafe_code, reason = "the sample's objects are read")]

use diagctl_heapdump::record::{Edge, FreeSlots, NameId, NameKind, Object, Page, Root, Site, SiteId, Type};

use crate::layout::Layout;
use crate::memory::Vector;
use crate::receiver::Receiver;
use crate::request::{Fact, Facts, ObjectFact};
use crate::ruby::{self, Ruby, Value, kind};
use crate::siphash::Key;
use crate::status::Status;
use crate::walk::Walk;

/// A difference between what the walker says and what Ruby says.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// The difference.
    pub what: &'static str,
    /// The type of the object.
    pub kind: Type,
}

/// Finds the layout of strings and arrays.
///
/// # Safety
///
/// The facts are about objects that live and that nothing changes.
pub unsafe fn layout(facts: Facts<'_>) -> Result<Layout, Difference> {
    let difference = Difference { what: "layout", kind: Type::STRING };
    if !facts.into_iter().any(|fact| matches!(fact, Fact::Bytes { shared: true, .. })) {
        return Err(difference);
    }
    let fits = |layout: &Layout| {
        facts.into_iter().all(|fact| match fact {
            Fact::Bytes { string, bytes, shared } => {
                // SAFETY: the caller's promise. The type is looked at before the string is.
                let flags = unsafe { ruby::basic(string) }.flags;
                ruby::type_of(flags) == kind::STRING && layout.is_shared_string(flags) == shared && {
                    // SAFETY: a wrong layout gives a wrong address, which is compared before a byte is read.
                    let (start, len) = unsafe { layout.place(string) };
                    // SAFETY: the bytes of a String of the dumper.
                    start == bytes.address() && len == unsafe { bytes.bytes() }.len()
                }
            }
            _ => true,
        })
    };
    Layout::ALL.into_iter().find(fits).ok_or(difference)
}

/// Compares the walker's view of the sample with Ruby's.
///
/// # Safety
///
/// As for [`layout`]; and as for [`Walk::whole`].
pub unsafe fn compare(
    facts: Facts<'_>,
    ruby: &Ruby,
    layout: Layout,
    key: Key,
    status: &Status,
) -> Result<(), Difference> {
    let mut evidence = Evidence::default();
    // SAFETY: symbol.c, `rb_intern`: struct.c made the name when Ruby started.
    let members_id = unsafe { (ruby.intern)(c"__members__".as_ptr()) };
    let mut walk = Walk::new(ruby, layout, key, members_id, &mut evidence, status);
    let mut seen = 0;
    for fact in facts {
        match fact {
            Fact::Object(fact) => {
                // SAFETY: the caller's promise; an object with a type.
                unsafe { compare_object(&mut walk, &fact)? };
                seen += 1;
            }
            Fact::Edge { from, to, name } => {
                // SAFETY: as above; the name is a String of the dumper.
                let (found, of) = unsafe {
                    let of = look(&mut walk, from);
                    (walk.receiver.has_edge(to, name.bytes()), of)
                };
                check(found, "name of an edge", of)?;
            }
            Fact::Site { object, file, line, generation } => {
                // SAFETY: as above.
                let (of, file) = unsafe { (look(&mut walk, object), file.bytes()) };
                let found = walk.receiver.site;
                let as_said = walk.receiver.text(found.file) == file
                    && found.line as usize == line
                    && walk.receiver.object.generation == generation as u64;
                check(as_said, "allocation site", of)?;
            }
            Fact::Bytes { .. } | Fact::Stat { .. } | Fact::Local { .. } | Fact::Start { .. } | Fact::Stack { .. } => {}
        }
    }
    check(seen > 0, "sample", Type::NONE)
}

// SAFETY: `value` is an object of the sample.
unsafe fn look(walk: &mut Walk<'_, Evidence>, value: Value) -> Type {
    walk.receiver.edges.clear();
    // SAFETY: the caller's promise.
    unsafe {
        let object = walk.describe(value, 0);
        walk.receiver.object(&object);
        walk.edges(value);
    }
    walk.receiver.object.kind
}

// SAFETY: the fact is about an object of the sample.
unsafe fn compare_object(walk: &mut Walk<'_, Evidence>, fact: &ObjectFact<'_>) -> Result<(), Difference> {
    let of = Type(u8::try_from(fact.kind).unwrap_or(0));
    // SAFETY: the caller's promise.
    let kind = unsafe { ruby::basic(fact.object) }.flags;
    check(usize::from(ruby::type_of(kind)) == fact.kind, "type", of)?;
    // SAFETY: the caller's promise.
    unsafe { look(walk, fact.object) };
    let Object { class, size, flags, length, name, .. } = walk.receiver.object;
    check(class == fact.class as u64, "class", of)?;
    check(size == fact.size as u64, "size", of)?;
    check(flags.0 as usize & fact.flags_known == fact.flags, "flags", of)?;
    check(fact.length == usize::MAX || length == Some(fact.length as u64), "length", of)?;
    // SAFETY: a String of the dumper.
    check(walk.receiver.text(name) == unsafe { fact.name.bytes() }, "name", of)?;
    let edges = walk.receiver.edges.as_slice().iter().map(|(target, _)| *target).filter(|target| *target != class);
    check(edges.eq(fact.references.iter().map(|target| *target as u64)), "references", of)
}

fn check(as_said: bool, what: &'static str, kind: Type) -> Result<(), Difference> {
    if as_said { Ok(()) } else { Err(Difference { what, kind }) }
}

/// Keeps what the walker says of one object, and all names.
#[derive(Debug, Default)]
struct Evidence {
    object: Object,
    /// Target and label.
    edges: Vector<(u64, u64)>,
    /// Address and length of each name's bytes, which belong to Ruby or to the walker.
    names: Vector<(u64, u64)>,
    site: Site,
}

impl Evidence {
    fn text(&self, name: NameId) -> &[u8] {
        let place = (name.0 as usize).checked_sub(1);
        let Some((start, len)) = place.and_then(|place| self.names.as_slice().get(place)).copied() else { return &[] };
        let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(len)) else { return &[] };
        // SAFETY: `name` was given these bytes, and names are never freed while nothing runs but this proof.
        unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start), len) }
    }

    fn has_edge(&self, to: Value, name: &[u8]) -> bool {
        self.edges.as_slice().iter().any(|(target, label)| {
            *target == to as u64 && u32::try_from(*label).is_ok_and(|label| self.text(NameId(label)) == name)
        })
    }
}

impl Receiver for Evidence {
    fn name(&mut self, _kind: NameKind, text: &[u8]) -> NameId {
        self.names.push((text.as_ptr().expose_provenance() as u64, text.len() as u64));
        NameId(u32::try_from(self.names.as_slice().len()).unwrap_or(0))
    }

    fn site(&mut self, site: &Site) -> SiteId {
        self.site = *site;
        SiteId(1)
    }

    fn object(&mut self, object: &Object) {
        self.object = *object;
    }

    fn edge(&mut self, edge: Edge) {
        self.edges.push((edge.target, u64::from(edge.label.0)));
    }

    fn root(&mut self, _root: &Root) {}

    fn free(&mut self, _slots: &FreeSlots) {}

    fn page(&mut self, _page: &Page) {}

    fn stopped(&self) -> bool {
        false
    }
}
