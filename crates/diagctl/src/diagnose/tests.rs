//! Verdicts on the figures of real programs (Ruby 3.1 on Debian 12, x86-64), and on what can be missing.

use super::allocator::{Allocator, Kind};
use super::cause::Cause;
use super::evidence::Evidence;
use super::family::{Family, Limit, Member};
use super::gc_stat::Slots;
use super::growth::Growth;
use super::objects::Objects;
use super::smaps::{Mappings, Uses};
use super::verdict::Confidence;
use super::*;

mod unknown;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The figures of one process, KiB: resident, files, stacks, transient heap; pages, live; allocated, kept; size of the objects.
struct Figures {
    mappings: (u64, u64, u64, u64),
    slots: (u64, u64),
    allocator: (Kind, u64, u64),
    objects: u64,
    classes: &'static [(&'static str, u64)],
}

const PLAIN: Figures = Figures {
    mappings: (22_416, 10_460, 160, 4196),
    slots: (1232, 1185),
    allocator: (Kind::Glibc, 7317, 155),
    objects: 5008,
    classes: &[("String", 13_000)],
};

fn evidence(figures: &Figures) -> Evidence {
    let (rss, files, stacks, transient) = figures.mappings;
    let [rss, files, stacks, transient] = [rss, files, stacks, transient].map(|kib| kib * KIB);
    let uses =
        Uses { files, stacks, stack_count: 33, transient, other: rss - files - stacks - transient, ..Uses::default() };
    let mappings = Mappings { rss, pss: rss, anonymous: rss - files, uses: Some(uses), ..Mappings::default() };
    let (pages, live) = figures.slots;
    let live_count = live * KIB / 40;
    let slots = Slots {
        pages: pages * KIB,
        live: live * KIB,
        live_count,
        free_count: (pages - live) * KIB / 40,
        old_count: live_count,
        collections: 9,
    };
    let (kind, allocated, kept) = figures.allocator;
    let allocator = Allocator { kind, allocated: allocated * KIB, kept: kept * KIB, dirty: 0, arenas: 1 };
    let classes = figures.classes.iter().map(|(class, count)| ((*class).to_owned(), (*count, count * 40))).collect();
    let objects = Objects { source: "object_counts", count: live_count, size: figures.objects * KIB, classes };
    Evidence {
        pid: 7,
        mappings: Some(mappings),
        slots: Some(slots),
        allocator: Some(allocator),
        objects: Some(objects),
        ..Evidence::default()
    }
}

fn verdict(evidence: &Evidence) -> Verdict {
    judge(evidence, &Account::of(evidence).unwrap())
}

fn programs() -> [(&'static str, Figures, Option<Cause>); 10] {
    use Cause::{Fragmentation, FreeSlots, NativeBehindObjects, NativeWithoutObject, RetainedObjects};
    use Kind::{Glibc, Jemalloc};
    [
        ("a plain Ruby", PLAIN, None),
        (
            "600,000 strings are kept",
            Figures {
                mappings: (127_324, 10_460, 160, 4000),
                slots: (34_448, 24_463),
                allocator: (Glibc, 73_442, 5642),
                objects: 77_254,
                classes: &[("String", 613_000)],
            },
            Some(RetainedObjects),
        ),
        (
            "2.5 million objects are gone",
            Figures {
                mappings: (128_072, 10_460, 160, 4196),
                slots: (98_944, 1352),
                allocator: (Glibc, 15_160, 132),
                objects: 5123,
                classes: &[],
            },
            Some(FreeSlots),
        ),
        (
            "holes between small strings",
            Figures {
                mappings: (109_444, 10_460, 160, 4196),
                slots: (1920, 1182),
                allocator: (Glibc, 7661, 86_059),
                objects: 5297,
                classes: &[],
            },
            Some(Fragmentation),
        ),
        (
            "the same with jemalloc",
            Figures {
                mappings: (42_584, 12_264, 160, 4196),
                slots: (1616, 1182),
                allocator: (Jemalloc, 7423, 20_133),
                objects: 5373,
                classes: &[],
            },
            None,
        ),
        (
            "500 Zlib::Deflate",
            Figures {
                mappings: (197_120, 10_460, 160, 4196),
                slots: (1248, 1085),
                allocator: (Glibc, 178_686, 9762),
                objects: 45_339,
                classes: &[("Zlib::Deflate", 500)],
            },
            Some(NativeBehindObjects),
        ),
        (
            "60 certificate stores, jemalloc",
            Figures {
                mappings: (70_152, 12_264, 160, 4196),
                slots: (1248, 1028),
                allocator: (Jemalloc, 51_860, 3840),
                objects: 4789,
                classes: &[("OpenSSL::X509::Store", 60), ("OpenSSL::BN", 3)],
            },
            Some(NativeBehindObjects),
        ),
        (
            "malloc through Fiddle",
            Figures {
                mappings: (141_236, 10_460, 160, 4196),
                slots: (1712, 1027),
                allocator: (Glibc, 124_648, 1096),
                objects: 4716,
                classes: &[("Zlib::Inflate", 3)],
            },
            Some(NativeWithoutObject),
        ),
        (
            "malloc through Fiddle, jemalloc",
            Figures {
                mappings: (146_576, 12_264, 160, 4196),
                slots: (1712, 1027),
                allocator: (Jemalloc, 126_887, 4585),
                objects: 4783,
                classes: &[],
            },
            Some(NativeWithoutObject),
        ),
        ("a library that maps memory itself", Figures { mappings: (150_000, 10_460, 160, 4196), ..PLAIN }, None),
    ]
}

#[test]
fn each_program_has_its_own_cause() {
    use Cause::{NativeBehindObjects, NativeWithoutObject};
    for (program, figures, cause) in programs() {
        let verdict = verdict(&evidence(&figures));
        assert_eq!(verdict.cause, cause, "{program}: {}", verdict.sentence);
        assert_eq!(verdict.cause.is_some(), verdict.confidence > Confidence::None, "{program}");
        // Both rest on what is not known of classes.
        if let Some(NativeWithoutObject | NativeBehindObjects) = verdict.cause {
            assert_eq!(verdict.confidence, Confidence::Medium, "{program}");
            assert!(
                verdict.wanted.iter().any(|wanted| wanted.contains("`compare`")),
                "{program}: {:?}",
                verdict.wanted
            );
        }
    }
}

#[test]
fn without_a_report_no_cause_is_guessed() {
    let native = Figures {
        mappings: (141_236, 10_460, 160, 4196),
        slots: (1712, 1027),
        allocator: (Kind::Glibc, 124_648, 1096),
        objects: 4716,
        classes: &[],
    };
    type Change = fn(&mut Evidence);
    // The missing report → a word of the verdict, and the report that is asked for
    let table: [(Change, &str, &str); 3] = [
        (|e| e.objects = None, "nothing tells which", "object_counts"),
        (|e| e.allocator = None, "unknown", "malloc_info"),
        (|e| (e.allocator, e.slots, e.objects) = (None, None, None), "unknown", "gc_stat"),
    ];
    for (remove, word, report) in table {
        let mut evidence = evidence(&native);
        remove(&mut evidence);
        let verdict = verdict(&evidence);
        assert_eq!((verdict.cause, verdict.confidence), (None, Confidence::None), "{}", verdict.sentence);
        assert!(verdict.sentence.contains(word), "{}", verdict.sentence);
        assert!(verdict.wanted.iter().any(|wanted| wanted.starts_with(report)), "{:?}", verdict.wanted);
        let steps = steps(&evidence, &verdict, FromCapture::default());
        assert!(steps[0].command.starts_with("diagctl request ") && steps[0].command.contains(report), "{steps:?}");
    }
}

#[test]
fn a_cause_that_outweighs_the_unknown_part_is_named_with_low_confidence() {
    let mut burst = evidence(&Figures {
        mappings: (128_072, 10_460, 160, 4196),
        slots: (98_944, 1352),
        allocator: (Kind::Glibc, 15_160, 132),
        objects: 5123,
        classes: &[],
    });
    assert_eq!(verdict(&burst).confidence, Confidence::High);
    burst.allocator = None;
    let verdict = verdict(&burst);
    assert_eq!((verdict.cause, verdict.confidence), (Some(Cause::FreeSlots), Confidence::Low), "{}", verdict.sentence);
}

fn member(relation: &str, rss: u64, same_image: Option<bool>) -> Member {
    let (rss, anonymous) = (rss * MIB, Some(rss * MIB * 9 / 10));
    Member { relation: relation.into(), rss, pss: Some(rss), anonymous, same_image }
}

#[test]
fn pages_are_lost_only_to_a_proven_fork() {
    let base = || {
        let mut evidence = evidence(&Figures {
            mappings: (127_324, 10_460, 160, 4000),
            slots: (34_448, 24_463),
            allocator: (Kind::Glibc, 73_442, 5642),
            objects: 77_254,
            classes: &[],
        });
        let siblings = (0..3).map(|_| member("sibling", 120, Some(true)));
        let members = [member("parent", 110, Some(true)), member("self", 124, Some(true))].into_iter().chain(siblings);
        evidence.family = Some(Family { members: members.collect() });
        evidence
    };
    type Change = fn(&mut Evidence);
    let own = Cause::RetainedObjects;
    let table: [(&str, Change, Cause); 6] = [
        ("written since", |_| {}, Cause::CopyOnWriteLost),
        ("still shared", |e| e.mappings.as_mut().unwrap().shared_anonymous = 80 * MIB, own),
        ("started by another Ruby", |e| e.family.as_mut().unwrap().members[0].same_image = Some(false), own),
        ("not known", |e| e.family.as_mut().unwrap().members[0].same_image = None, own),
        ("a small parent", |e| e.family.as_mut().unwrap().members[0].anonymous = Some(20 * MIB), own),
        ("it has forks", |e| e.family.as_mut().unwrap().members.push(member("child", 1, Some(true))), own),
    ];
    for (what, change, expected) in table {
        let mut evidence = base();
        change(&mut evidence);
        let verdict = verdict(&evidence);
        assert_eq!(verdict.cause, Some(expected), "{what}: {}", verdict.sentence);
    }
}

#[test]
fn processes_are_too_many_only_if_none_of_them_is_large() {
    let base = || {
        let mut evidence = evidence(&PLAIN);
        let members = (0..7).map(|_| member("sibling", 22, Some(true))).chain([member("self", 22, Some(true))]);
        evidence.family = Some(Family { members: members.collect() });
        evidence.limit = Some(Limit { bytes: 200 * MIB, of_cgroup: true });
        evidence
    };
    type Change = fn(&mut Evidence);
    let table: [(&str, Change, Option<Cause>); 6] = [
        ("eight of the same size", |_| {}, Some(Cause::TooManyProcesses)),
        ("room is left", |e| e.limit = Some(Limit { bytes: 400 * MIB, of_cgroup: true }), None),
        ("no limit is known", |e| e.limit = None, None),
        ("few processes", |e| e.family.as_mut().unwrap().members.truncate(1), None),
        (
            "it is larger than the others",
            |e| e.family.as_mut().unwrap().members.iter_mut().for_each(|m| m.rss = 9),
            None,
        ),
        ("it has grown", |e| e.growth = Some(Growth { over_ms: 9, first: 10, last: 20, peak: 20 }), None),
    ];
    for (what, change, expected) in table {
        let mut evidence = base();
        change(&mut evidence);
        let verdict = verdict(&evidence);
        assert_eq!(verdict.cause, expected, "{what}: {}", verdict.sentence);
    }
}

#[test]
fn every_verdict_ends_in_a_command() {
    for kind in [Kind::Glibc, Kind::Jemalloc] {
        let mut evidence = evidence(&PLAIN);
        evidence.allocator = evidence.allocator.map(|allocator| Allocator { kind, ..allocator });
        let causes = [
            None,
            Some(Cause::RetainedObjects),
            Some(Cause::FreeSlots),
            Some(Cause::Fragmentation),
            Some(Cause::NativeBehindObjects),
            Some(Cause::NativeWithoutObject),
            Some(Cause::Stacks),
            Some(Cause::MappedFiles),
            Some(Cause::CopyOnWriteLost),
            Some(Cause::TooManyProcesses),
        ];
        for cause in causes {
            let verdict = Verdict { cause, ..verdict(&evidence) };
            let steps = steps(&evidence, &verdict, FromCapture { capture: Some("ID"), has_heap_dump: true });
            let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
            assert!(commands.iter().all(|c| c.starts_with("diagctl ") || c.starts_with("export ")), "{commands:?}");
            assert!(!commands.is_empty(), "{cause:?}");
        }
    }
}
