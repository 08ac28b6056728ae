use super::*;
use crate::cli::doctor::check::Status;
use std::fs;

const GIB: u64 = 1 << 30;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn subject() -> Subject {
    Subject { pid: 9, name: "puma worker-0 (pid 9)".into(), role: "puma".into(), rss: GIB, uid: Some(5) }
}

// A container on cgroup v2, as kubelet 1.28 and later set it up.
const POD: [(&str, &str); 9] = [
    ("proc/9/cgroup", "0::/pod/app\n"),
    ("proc/9/status", "Name:\truby\nUid:\t5\t5\t5\t5\nThreads:\t3\nVmSwap:\t  131072 kB\n"),
    (
        "proc/9/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \nMax file size             1048576              unlimited            bytes     \nMax processes             20                   unlimited            processes \n",
    ),
    ("proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 2000 kB\nCommitLimit: 1000 kB\nCommitted_AS: 900 kB\n"),
    ("proc/sys/vm/overcommit_memory", "2\n"),
    ("cg/cgroup.controllers", "memory pids"),
    ("cg/pod/memory.oom.group", "1\n"),
    ("cg/pod/pids.max", "100\n"),
    ("cg/pod/pids.current", "97\n"),
];

fn examined(files: &[(&str, &str)], config: &Config) -> Vec<Check> {
    let dir = tree(files);
    fs::create_dir_all(dir.path().join("cg/pod/app")).unwrap();
    let proc = Proc::at(&dir.path().join("proc"));
    examine(&proc, &CgroupRoot::at(&dir.path().join("cg")), &[subject()], config)
}

fn find<'c>(checks: &'c [Check], id: &str) -> &'c Check {
    checks.iter().find(|check| check.id == id).unwrap()
}

#[test]
fn every_limit_of_a_tight_container_is_found() {
    let checks = examined(&POD, &Config::default());
    let table = [
        ("cgroup", Status::Ok, "cgroup v2 without a memory limit"),
        ("cgroup.oom_group", Status::Warn, "cg/pod: when memory runs out, the kernel kills the whole group"),
        ("limits.processes", Status::Fail, "97 of 100 tasks (pids.max of its cgroup): a capture needs 5"),
        ("limits.file_size", Status::Warn, "RLIMIT_FSIZE is 1.00 MiB"),
        ("memory.swap", Status::Warn, "128.0 MiB of puma worker-0 (pid 9) are swapped out"),
        ("memory.overcommit", Status::Fail, "fork fails with ENOMEM"),
        ("pressure", Status::Ok, "nothing needs it"),
    ];
    for (id, status, said) in table {
        let check = find(&checks, id);
        assert_eq!(check.status, status, "{id}: {}", check.message);
        assert!(check.message.contains(said), "{said}: {}", check.message);
    }
}

#[test]
fn a_roomy_machine_passes_every_check() {
    let checks = examined(
        &[
            ("proc/9/cgroup", "0::/pod/app\n"),
            ("proc/9/status", "Uid:\t5\t5\t5\t5\nThreads:\t3\n"),
            (
                "proc/9/limits",
                "Max file size             unlimited            unlimited            bytes     \nMax processes             31000                31000                processes \n",
            ),
            ("proc/meminfo", "MemTotal: 8000 kB\n"),
            ("proc/sys/vm/overcommit_memory", "0\n"),
            ("proc/pressure/memory", "some\n"),
            ("cg/cgroup.controllers", "memory pids"),
            ("cg/pod/app/memory.max", "1073741824\n"),
            ("cg/pod/app/memory.oom.group", "0\n"),
            ("cg/pod/app/pids.max", "max\n"),
        ],
        &Config::default(),
    );
    assert_eq!(crate::cli::doctor::check::complaints(&checks), []);
    assert!(find(&checks, "cgroup").message.contains("memory limit 1.00 GiB"));
    assert_eq!(find(&checks, "limits.processes").observed["left"], 30_997);
}

#[test]
fn a_missing_cgroup_or_psi_matters_only_if_a_rule_needs_it() {
    let (mut config, _) = crate::config::parse(
        "[[rules]]\nname = \"p\"\nreports = [\"smaps\"]\ntrigger.memory_pressure = { above = \"10%\" }\n",
    )
    .unwrap();
    let checks = examined(&[("proc/9/cgroup", "")], &config);
    assert_eq!(find(&checks, "cgroup").status, Status::Warn);
    let check = find(&checks, "pressure");
    assert!(check.status == Status::Warn && check.message.contains("rule p"), "{}", check.message);
    config.rules.clear();
    assert_eq!(pressure(false, &config).status, Status::Ok);
}

#[test]
fn a_low_task_limit_warns_and_a_lower_one_fails() {
    let table = [(96, Status::Fail), (95, Status::Warn), (69, Status::Warn), (68, Status::Ok)];
    for (now, status) in table {
        let surroundings = Surroundings { pids: Some((now, 100)), ..Surroundings::default() };
        assert_eq!(tasks_left(&[(&subject(), surroundings)]).status, status, "{now}");
    }
}

#[test]
fn too_little_reserved_memory_for_a_fork_fails() {
    let meminfo = |left: u64| {
        BTreeMap::from([("CommitLimit".to_owned(), 10 * GIB + left), ("Committed_AS".to_owned(), 10 * GIB)])
    };
    assert_eq!(overcommit("0", &meminfo(0), GIB).status, Status::Ok);
    assert_eq!(overcommit("2", &meminfo(GIB - 1), GIB).status, Status::Fail);
    assert_eq!(overcommit("2", &meminfo(GIB), GIB).status, Status::Warn);
}

#[test]
fn the_machine_check_applies_the_guards() {
    let config = Config::default();
    let roomy = Figures {
        rss: GIB,
        available_memory: 4 * GIB,
        free_disk: 50 * GIB,
        total_disk: 60 * GIB,
        ..Figures::default()
    };
    let statuses = |figures: &Figures| {
        guards(&config, &State::default(), Some(&subject()), figures).iter().map(|c| c.status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&roomy), [Status::Ok, Status::Ok]);
    assert_eq!(statuses(&Figures { available_memory: GIB / 2, ..roomy.clone() }), [Status::Ok, Status::Warn]);
    assert_eq!(statuses(&Figures { free_disk: 0, ..roomy }), [Status::Warn, Status::Warn]);
}

#[test]
fn findings_about_the_machine_in_words() {
    let (pressed, _) = crate::config::parse(
        "[[rules]]\nname = \"p\"\nreports = [\"smaps\"]\ntrigger.memory_pressure = { above = \"10%\" }\n",
    )
    .unwrap();
    let mut checks = examined(&POD, &Config::default());
    checks.extend(examined(&[("proc/9/cgroup", "")], &pressed));
    let surroundings = Surroundings { pids: Some((90, 100)), ..Surroundings::default() };
    checks.push(tasks_left(&[(&subject(), surroundings)]));
    let meminfo = BTreeMap::from([("CommitLimit".to_owned(), 11 * GIB), ("Committed_AS".to_owned(), 10 * GIB)]);
    checks.push(overcommit("2", &meminfo, GIB));
    checks.push(pressure(true, &pressed));
    let figures = Figures { rss: GIB, total_disk: 60 * GIB, ..Figures::default() };
    checks.extend(guards(&Config::default(), &State::default(), Some(&subject()), &figures));
    crate::cli::doctor::check::assert_words("machine", &checks);
}
