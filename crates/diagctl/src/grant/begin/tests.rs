//! Every check, in both ways to begin a capture: a poll's plan, decided in a generation, and the plan of `diagctl run`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cgroup::CgroupRoot;
use crate::clock::Anchor;
use crate::config::{Config, Loaded, Snapshot};
use crate::proc::Proc;
use crate::rules::memory::Wanted;
use crate::state::schedule::Pause;
use crate::units::Amount;
use diagctl_store::ReportName;
use diagctl_store::meta::{Meta, Report};
use diagctl_store::{Access, ProcessId};

const MIB: u64 = 1 << 20;
const ID: &str = "20261122T101530123Z-0000000a";

struct Scene {
    dir: tempfile::TempDir,
    cx: Context,
    store: Store,
}

impl Scene {
    /// A process of 64 MiB on a machine with 4 GiB of free memory and no cgroups.
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { dir: dir.path().join("store"), ..Config::default() };
        config.guards.min_free_disk = Amount::Bytes(0);
        config.retention.keep_free = Amount::Bytes(0);
        change(&mut config);
        let store = Store::open(config.store_options(), Access::Create).unwrap();
        let loaded = Loaded::new(config);
        let proc = dir.path().join("proc");
        for (file, text) in [
            ("7/statm", format!("100000 {} 10 1 0 80 0\n", 64 * MIB / diagctl_observe::page_size())),
            ("meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n".to_owned()),
            ("pressure/cpu", "some avg10=40.00 avg60=0.00 avg300=0.00 total=1\n".to_owned()),
            ("sys/kernel/random/boot_id", "a-boot\n".to_owned()),
            ("sys/kernel/hostname", "web-1\n".to_owned()),
        ] {
            let path = proc.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let cgroups = CgroupRoot::at(&dir.path().join("cgroup"));
        let mut cx = Context::new(loaded, None);
        (cx.proc, cx.cgroups) = (Proc::at(&proc), cgroups);
        Self { cx, dir, store }
    }

    fn set_state(&self, change: impl FnOnce(&mut State)) {
        let (mut state, _) = load_state(&self.store).unwrap();
        change(&mut state);
        state::save(self.store.dir(), &state).unwrap();
    }

    fn generation(&self) -> u64 {
        load_state(&self.store).unwrap().0.generation
    }

    /// Publishes and pins a capture of a megabyte.
    fn fill(&self) {
        self.publish(0);
    }

    fn publish(&self, sequence: u64) {
        let id = ID.parse().unwrap();
        let meta = Meta { id, sequence, reports: vec![Report::new(ReportName::from_text("r"))], ..Meta::default() };
        let dir = self.store.report_dir(&id);
        fs::create_dir(dir.path()).unwrap();
        fs::write(dir.join("meta.json").path(), serde_json::to_vec(&meta).unwrap()).unwrap();
        fs::write(dir.join("data").path(), vec![0; usize::try_from(MIB).unwrap()]).unwrap();
        fs::write(dir.join("pinned").path(), "").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn begin(&self, plan: Plan, decided_in: Option<u64>) -> std::result::Result<Grant, Answer> {
        let process = Process {
            id: ProcessId { pid: 7, start_ticks: 70, ..ProcessId::default() },
            role: "puma".into(),
            name: "worker-0".into(),
        };
        let readings = Readings::take(&self.cx.proc, &self.cx.cgroups, 7, &Wanted::default());
        let (cx, store) = (&self.cx, &self.store);
        let applicant = Applicant { cx, store, process: &process, readings: &readings, host: "", seed: 1 };
        match begin(applicant, &[plan], decided_in).unwrap() {
            Begun::Yes { grant, .. } => Ok(*grant),
            Begun::No(answer) => Err(answer),
        }
    }

    fn staged(&self) -> usize {
        fs::read_dir(self.dir.path().join("store/staging")).unwrap().count()
    }
}

fn plan() -> Plan {
    Plan {
        rule: crate::rules::RuleName::parse("r").unwrap(),
        trigger: "timer",
        reason: "it is due".into(),
        observed: BTreeMap::new(),
        reports: vec![diagctl_store::ReportName::parse("heap_dump").unwrap()],
        snapshot: Snapshot::Fork,
        request: None,
        second_of: None,
    }
}

// The ways to begin a capture, each with the generation in which the plan was decided.
fn ways(scene: &Scene) -> [(&'static str, Option<u64>); 2] {
    [("poll", Some(scene.generation())), ("run", None)]
}

#[test]
fn a_healthy_machine_passes_every_check() {
    for way in 0..2 {
        let scene = Scene::new(|_| {});
        let (name, decided_in) = ways(&scene)[way];
        let grant = scene.begin(plan(), decided_in).unwrap_or_else(|answer| panic!("{name}: {}", answer.reason));
        assert_eq!((grant.meta.pid, grant.generation, scene.generation(), scene.staged()), (7, 1, 1, 1), "{name}");
    }
}

#[test]
fn every_check_refuses_poll_and_run_alike_and_leaves_no_staging() {
    // The name, configuration and situation, then the expected verdict, guard and part of the reason.
    type Case = (&'static str, fn(&mut Config), fn(&Scene), Verdict, Option<&'static str>, &'static str);
    let table: [Case; 8] = [
        (
            "pause",
            |_| {},
            |scene| scene.set_state(|state| state.paused = Some(Pause { since: 0, until: None, by: "ann".into() })),
            Verdict::Disabled,
            None,
            "paused by ann",
        ),
        (
            "clock",
            |_| {},
            |scene| {
                let ahead = crate::clock::Reading::take(String::new()).wall_ms + 3_600_000;
                let anchor = Anchor { store_ms: 1, wall_ms: ahead, boot_ms: 0, boot_id: "another boot".into() };
                scene.set_state(|state| state.clock = Some(anchor));
            },
            Verdict::Guarded,
            Some("clock"),
            "went backwards by",
        ),
        (
            "disk",
            |config| config.guards.min_free_disk = Amount::Bytes(1 << 60),
            |_| {},
            Verdict::Guarded,
            Some("disk"),
            "guards.min_free_disk keeps",
        ),
        (
            "CPU pressure",
            |config| config.guards.max_cpu_pressure = Some(30.0),
            |_| {},
            Verdict::Guarded,
            Some("cpu_pressure"),
            "40% is above guards.max_cpu_pressure 30%",
        ),
        (
            "rss",
            |config| config.guards.max_rss = Some(63 * MIB),
            |_| {},
            Verdict::Guarded,
            Some("max_rss"),
            "rss 64.0 MiB is above guards.max_rss 63.0 MiB",
        ),
        (
            "memory",
            |config| config.guards.memory_headroom = 100.0,
            |_| {},
            Verdict::Guarded,
            Some("memory_headroom"),
            "guards.memory_headroom wants 6.25 GiB",
        ),
        (
            "cap",
            |config| config.retention.max_use = MIB,
            Scene::fill,
            Verdict::Guarded,
            Some("store"),
            "of retention.max_use 1.00 MiB",
        ),
        ("request", |_| {}, |_| {}, Verdict::Idle, None, "the request was given up"),
    ];
    for (name, change, prepare, verdict, guard, reason) in table {
        for way in 0..2 {
            let scene = Scene::new(change);
            prepare(&scene);
            let (by, decided_in) = ways(&scene)[way];
            let generation = scene.generation();
            let plan = Plan { request: (name == "request").then(|| ID.to_owned()), ..plan() };
            let answer = scene.begin(plan, decided_in).expect_err(name);
            assert_eq!((answer.verdict, answer.guard), (verdict, guard), "{name}, {by}: {}", answer.reason);
            assert!(answer.reason.contains(reason), "{name}, {by}: {}", answer.reason);
            assert_eq!((scene.generation(), scene.staged()), (generation, 0), "{name}, {by}");
        }
    }
}

// A backup of state.json put back, or the file lost while a dumper of an earlier grant still runs.
#[test]
fn an_older_state_never_numbers_a_capture_below_existing_ones() {
    let scene = Scene::new(|_| {});
    scene.publish(50);
    scene.set_state(|state| state.generation = 3);
    let grant = scene.begin(plan(), Some(3)).unwrap();
    assert_eq!((grant.meta.sequence, grant.generation, scene.generation()), (51, 51, 51));
    // Its lease.json remembers the grant, which published nothing.
    scene.set_state(|state| state.generation = 3);
    assert_eq!(scene.begin(plan(), None).unwrap().generation, 52);
}

#[test]
fn only_decisions_from_before_the_lease_can_be_outdated() {
    let scene = Scene::new(|_| {});
    scene.set_state(|state| state.generation = 5);
    let answer = scene.begin(plan(), Some(4)).unwrap_err();
    assert_eq!((answer.verdict, scene.staged()), (Verdict::Busy, 0));
    assert!(scene.begin(plan(), None).is_ok());
}

#[test]
fn a_clock_that_was_set_back_refuses_once() {
    let scene = Scene::new(|_| {});
    let ahead = crate::clock::Reading::take(String::new()).wall_ms + 3_600_000;
    let anchor = Anchor { store_ms: 1, wall_ms: ahead, boot_ms: 0, boot_id: "another boot".into() };
    scene.set_state(|state| state.clock = Some(anchor));
    assert_eq!(scene.begin(plan(), None).unwrap_err().guard, Some("clock"));
    assert!(scene.begin(plan(), None).is_ok());
}
