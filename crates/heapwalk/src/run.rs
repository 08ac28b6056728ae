//! One run: the proof, then the walk.

#![expect(unsafe_code, reason = "called from outside, with addresses")]

use diagctl_heapdump::BlockCounts;
use diagctl_heapdump::memory::{BYTES, CLASS_SLOTS, ClassSlot, Memory};
use diagctl_heapdump::record::{Header, Producer};
use diagctl_heapdump::writer::Writer;

use crate::counts::Counts;
use crate::fault::Fault;
use crate::graph::{Graph, Pipe};
use crate::json::decimal;
use crate::layout::Layout;
use crate::output::Output;
use crate::proof::{self, Difference};
use crate::request::{COUNTS, Fact, OBJECTS, PROOF, Request, WORDS};
use crate::ruby::Ruby;
use crate::siphash::Key;
use crate::status::{State, Status};
use crate::walk::Walk;
use crate::{memory, sys};

const NO_STATUS: i32 = 2;
const GAVE_UP: i32 = 1;

/// Answers a request. Returns 0 if everything was written. Otherwise the status page says why not.
///
/// # Safety
///
/// `request` points to a [`Request`] whose addresses are what their names say. Runs in the forked dumper, on its only thread, with the
/// GVL, while the collector is at rest and disabled.
#[cfg_attr(freestanding, unsafe(export_name = "diagctl_heapwalk"))]
pub unsafe extern "C" fn run(request: *const Request) -> i32 {
    // SAFETY: the caller's promise. The first word is there in every version of the struct.
    let words = unsafe { request.cast::<usize>().read() };
    if words != WORDS {
        return NO_STATUS;
    }
    // SAFETY: the caller's promise.
    let request = unsafe { &*request };
    let page = sys::map_shared(descriptor(request.status), size_of::<Status>()).cast::<Status>();
    // SAFETY: a mapping of the file that the dumper made large enough. Atomics may be any bytes.
    let Some(status) = (unsafe { page.as_ref() }) else { return NO_STATUS };
    sys::die_quietly();
    status.enter(State::Proving);
    // SAFETY: the caller's promise.
    match unsafe { prove_and_walk(request, status) } {
        Ok(()) => {
            status.enter(State::Done);
            0
        }
        Err(()) => {
            status.enter(State::GaveUp);
            GAVE_UP
        }
    }
}

// SAFETY: as for `run`.
unsafe fn prove_and_walk(request: &Request, status: &Status) -> Result<(), ()> {
    let Some(dlsym) = request.dlsym else { return refuse(status, &[b"the process has no dlsym"]) };
    // SAFETY: the caller's promise.
    let ruby = match unsafe { Ruby::resolve(dlsym, request.lookup_allocation) } {
        Ok(ruby) => ruby,
        Err(missing) => return refuse(status, &[b"this Ruby has no function ", missing.to_bytes()]),
    };
    let mut random = [0; 16];
    if !sys::random(&mut random) {
        return refuse(status, &[b"the kernel gave no random key"]);
    }
    let key = Key::new(&random);
    // SAFETY: the caller's promise: the dumper keeps its facts until this returns.
    let layout = unsafe {
        request.layout().map_or_else(|| proof::layout(request.facts()), Ok).and_then(|layout| {
            if request.is_proven() { Ok(()) } else { proof::compare(request.facts(), &ruby, layout, key, status) }?;
            Ok(layout)
        })
    };
    let layout = match layout {
        Ok(layout) => layout,
        Err(Difference { what, kind }) => {
            let kind = kind.name().unwrap_or("?").as_bytes();
            return refuse(status, &[b"the proof failed: ", what.as_bytes(), b" of a ", kind]);
        }
    };
    status.found(layout.number());
    if request.mode() == PROOF {
        return Ok(());
    }
    status.enter(State::Walking);
    let fault = Fault::new(request.fault as u64, request.fault_after as u64);
    let output = Output::new(descriptor(request.output), status);
    // SAFETY: the caller's promise.
    unsafe {
        if request.mode() == COUNTS {
            let mut counts = Counts::new(&ruby, status);
            counts.count();
            fault.strike(u64::MAX);
            counts.write(layout, &output);
        } else {
            write_graph(request, &ruby, layout, key, fault, status, &output)?;
        }
    }
    match output.error() {
        None => Ok(()),
        Some(error) => {
            let mut digits = [0; 20];
            refuse(status, &[b"write failed: error ", decimal(error.unsigned_abs() as u64, &mut digits)])
        }
    }
}

// SAFETY: as for `run`.
unsafe fn write_graph(
    request: &Request,
    ruby: &Ruby,
    layout: Layout,
    key: Key,
    fault: Fault,
    status: &Status,
    output: &Output<'_>,
) -> Result<(), ()> {
    let (Some(bytes), Some(classes), Some(counts)) = (
        memory::zeroed::<[u8; BYTES]>(),
        memory::zeroed::<[ClassSlot; CLASS_SLOTS]>(),
        memory::zeroed::<BlockCounts>(),
    ) else {
        return refuse(status, &[b"the kernel gave no memory"]);
    };
    // SAFETY: bytes may be anything; fresh memory is zeros, which are empty counts.
    let (bytes, counts) = unsafe { (bytes.assume_init_mut(), counts.assume_init_mut()) };
    let classes = classes.write([ClassSlot::EMPTY; CLASS_SLOTS]);
    let (version, platform) = request.versions();
    // SAFETY: Strings of the dumper.
    let (version, platform) = unsafe { (version.bytes(), platform.bytes()) };
    let header = Header { producer: Producer::Walker, ruby: version, platform, ..Header::default() };
    let Ok(writer) = Writer::new(Memory { bytes, classes, counts }, Pipe(output), &header);
    let mut graph = Graph::new(writer, output);
    // SAFETY: symbol.c, `rb_intern`: struct.c made the name when Ruby started. Then the caller's promise.
    unsafe {
        graph.stats(request.facts().filter_map(|fact| match fact {
            Fact::Stat { name, value } => Some((name.bytes(), value as u64)),
            _ => None,
        }));
        let members_id = (ruby.intern)(c"__members__".as_ptr());
        let mut walk = Walk::new(ruby, layout, key, members_id, &mut graph, status);
        for fact in request.facts() {
            match fact {
                Fact::Local { thread, name } => walk.add_local(thread, name),
                Fact::Start { thread, place } => walk.add_start(thread, place),
                Fact::Stack { thread, targets } => walk.add_stack(thread, targets),
                _ => {}
            }
        }
        walk.read_call_sites(version);
        if request.mode() == OBJECTS {
            walk.leave_out_references();
        }
        walk.whole(fault);
    }
    graph.finish();
    Ok(())
}

fn refuse<T>(status: &Status, reason: &[&[u8]]) -> Result<T, ()> {
    status.explain(reason);
    Err(())
}

fn descriptor(word: usize) -> i32 {
    i32::try_from(word).unwrap_or(-1)
}

#[cfg(freestanding)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::abort()
}
