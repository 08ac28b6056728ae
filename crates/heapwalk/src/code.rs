//! The references of compiled code (`rb_iseq_t`), read without writing to it.
//!
//! When Ruby 3.3 marks code, it stores the empty call cache in every call site that was never called, where it is already (iseq.c,
//! `rb_iseq_mark_and_move`). In a forked process such a store copies a page: in a Rails application, those of a fifth of its memory. So Ruby
//! is given a stand-in for the code, without its call sites, which are read here. At first both ways are compared.

#![expect(unsafe_code, reason = "code is read through its address")]

use core::ffi::c_void;

use diagctl_heapdump::record::{Edge, NameId};

use crate::memory::Vector;
use crate::receiver::Receiver;
use crate::ruby::{self, OnReference, Value, kind};
use crate::walk::{CallSites, Walk};

/// `imemo_iseq` of internal/imemo.h.
const CODE: u8 = 7;
/// Words of `struct rb_iseq_struct` (vm_core.h), and the place of `body` in it.
const HEAD_WORDS: usize = 5;
const BODY: usize = 2;
/// Words of `struct rb_iseq_constant_body` (vm_core.h): all, and those that every build has. `call_data` is a word of it, `ci_size` half a word.
const MOST_WORDS: usize = 43;
const LEAST_WORDS: usize = 36;
const CALL_DATA: usize = 23;
const CALL_COUNT: usize = 63;
/// Number of pieces of code, with a call site in use, of which both ways must tell the same.
const COMPARED: u32 = 64;
/// `VM_CALLCACHE_UNMARKABLE` of vm_callinfo.h.
const UNMARKABLE: usize = ruby::FROZEN;
/// `IMEMO_FL_USER5` of internal/imemo.h: `METHOD_ENTRY_INVALIDATED` of method.h.
const INVALIDATED: usize = ruby::user_flag(9);

/// `struct rb_call_data` of vm_core.h.
#[repr(C)]
struct CallSite {
    info: Value,
    cache: Value,
}

/// Code without its call sites.
struct StandIn<'a> {
    head: [usize; HEAD_WORDS],
    body: [usize; MOST_WORDS],
    sites: &'a [CallSite],
}

impl<R: Receiver> Walk<'_, R> {
    /// Reads the call sites of code itself, if this version of Ruby writes to them, and it turns out to be able to.
    pub fn read_call_sites(&mut self, version: &[u8]) {
        if version.starts_with(b"3.3.") && self.ruby.optional.usable_size.is_some() {
            self.call_sites = CallSites::Both(COMPARED);
        }
    }

    /// Passes on what an object refers to, if it is code. Otherwise, or if Ruby has to tell, returns false.
    ///
    /// # Safety
    ///
    /// `value` is an object with these flags, and nothing changes it.
    pub(crate) unsafe fn edges_of_code(&mut self, value: Value, flags: usize) -> bool {
        if ruby::type_of(flags) != kind::IMEMO || ruby::imemo_kind(flags) != CODE || self.call_sites == CallSites::Ruby
        {
            return false;
        }
        // SAFETY: the caller's promise.
        let Some(mut code) = (unsafe { self.stand_in(value) }) else { return false };
        let mut targets = core::mem::take(&mut self.targets);
        targets.clear();
        // SAFETY: the caller's promise, and the callback gets the vector that it expects.
        let any_in_use = unsafe { self.each_reference(&mut code, collect, (&raw mut targets).cast()) };
        if let CallSites::Both(left) = self.call_sites {
            let mut expected = Vector::new();
            // SAFETY: gc.c, `rb_objspace_reachable_objects_from`; the callback as above.
            unsafe { (self.ruby.reachable_from)(value, collect, (&raw mut expected).cast()) };
            let is_same = same(&mut targets, &mut expected);
            self.call_sites = match left.saturating_sub(u32::from(any_in_use)) {
                _ if !is_same => CallSites::Ruby,
                0 => CallSites::Walker,
                left => CallSites::Both(left),
            };
            targets = expected;
        }
        for target in targets.as_slice() {
            self.receiver.edge(Edge { target: *target, label: NameId::NONE });
        }
        self.targets = targets;
        true
    }

    // Returns `None` for code without call sites, to which Ruby does not write.
    //
    // SAFETY: as for `edges_of_code`; `value` is code.
    unsafe fn stand_in(&self, value: Value) -> Option<StandIn<'static>> {
        let usable_size = self.ruby.optional.usable_size?;
        let (mut head, mut body) = ([0; HEAD_WORDS], [0; MOST_WORDS]);
        // SAFETY: vm_core.h, `struct rb_iseq_struct` of 3.3: a slot has so many words. `body` is null or was allocated (iseq.c,
        // `iseq_alloc`), and is read as far as its allocation goes.
        let sites = unsafe {
            head.as_mut_ptr().copy_from_nonoverlapping(core::ptr::with_exposed_provenance(value), HEAD_WORDS);
            if head[BODY] == 0 {
                return None;
            }
            let start = core::ptr::with_exposed_provenance::<usize>(head[BODY]);
            let words = (usable_size(start.cast()) / size_of::<usize>()).min(MOST_WORDS);
            if words < LEAST_WORDS {
                return None;
            }
            body.as_mut_ptr().copy_from_nonoverlapping(start, words);
            let count = body.as_mut_ptr().cast::<u32>().add(CALL_COUNT).replace(0);
            if body[CALL_DATA] == 0 || count == 0 {
                return None;
            }
            core::slice::from_raw_parts(core::ptr::with_exposed_provenance::<CallSite>(body[CALL_DATA]), count as usize)
        };
        Some(StandIn { head, body, sites })
    }

    // Yields what the code refers to. Returns true if a call site is in use.
    //
    // SAFETY: as for `edges_of_code`; `code` is a stand-in for it.
    unsafe fn each_reference(&self, code: &mut StandIn<'_>, yields: OnReference, to: *mut c_void) -> bool {
        code.head[BODY] = (&raw mut code.body).expose_provenance();
        let stand_in = (&raw mut code.head).expose_provenance();
        let mut any_in_use = false;
        // SAFETY: gc.c, `gc_mark_children` and `gc_mark_imemo` of 3.3: of an IMEMO they use what it contains and never its place on the heap.
        // iseq.c, `rb_iseq_mark_and_move`: `ci_size` is zero, so it passes over the call sites.
        unsafe {
            (self.ruby.reachable_from)(stand_in, yields, to);
            for site in code.sites {
                if site.info != 0 {
                    yields(site.info, to);
                }
                if is_active(site.cache) {
                    yields(site.cache, to);
                    any_in_use = true;
                }
            }
        }
        any_in_use
    }
}

// SAFETY: `cache` is null or a `struct rb_callcache` of vm_callinfo.h: flags, class, method.
unsafe fn is_active(cache: Value) -> bool {
    if cache == 0 {
        return false;
    }
    // SAFETY: the caller's promise; iseq.c, `cc_is_active`. A cache with a class has a method.
    unsafe {
        let [flags, class, method] = *core::ptr::with_exposed_provenance::<[usize; 3]>(cache);
        flags & UNMARKABLE == 0 && class != 0 && ruby::basic(method).flags & INVALIDATED == 0
    }
}

// Keeps a reference.
unsafe extern "C" fn collect(target: Value, targets: *mut c_void) {
    if !ruby::is_special(target) {
        // SAFETY: `edges_of_code` passed its own vector.
        unsafe { &mut *targets.cast::<Vector<u64>>() }.push(target as u64);
    }
}

// Whether both have the same references, in any order.
fn same(these: &mut Vector<u64>, those: &mut Vector<u64>) -> bool {
    these.as_mut_slice().sort_unstable();
    let mut sorted = Vector::new();
    those.as_slice().iter().for_each(|target| sorted.push(*target));
    sorted.as_mut_slice().sort_unstable();
    these.as_slice() == sorted.as_slice()
}
