use super::*;

fn poll(at: u64, pid: u32, rss: u64, oom_kill: Option<u64>) -> Recorded {
    Recorded {
        at,
        pid,
        pid_ns: 4,
        start_ticks: 5,
        boot_id: "b".into(),
        role: "puma".into(),
        memory: [("rss".to_owned(), rss)].into(),
        counters: oom_kill.map(|count| ("oom_kill".to_owned(), count)).into_iter().collect(),
        ..Recorded::default()
    }
}

fn line(poll: &Recorded) -> String {
    serde_json::to_string(poll).unwrap()
}

fn note(fields: &str) -> String {
    format!(r#"{{"at":1,"ended":{{{fields},"pid_ns":4}}}}"#)
}

fn find(lines: &[String], is_alive: impl Fn(&Head<'_>) -> bool) -> Vec<Death> {
    let data = lines.join("\n").into_bytes();
    let lines = Lines::of(std::slice::from_ref(&data));
    let deaths = Deaths::find(&lines, is_alive);
    let all: Vec<Death> = deaths.iter().collect();
    // The short way says the same.
    for (number, death) in all.iter().enumerate() {
        let (_, head, how) = deaths.last(number).unwrap();
        assert_eq!((head.at, head.process.pid, how), (death.last_ms, death.pid, death.how()));
    }
    all
}

fn find_polls(polls: &[Recorded], is_alive: impl Fn(&Head<'_>) -> bool) -> Vec<Death> {
    find(&polls.iter().map(line).collect::<Vec<_>>(), is_alive)
}

fn how(deaths: &[Death]) -> Vec<(u32, String)> {
    deaths.iter().map(|death| (death.pid, death.how())).collect()
}

fn expected<const N: usize>(rows: [(u32, &str); N]) -> Vec<(u32, String)> {
    rows.map(|(pid, how)| (pid, how.to_owned())).into()
}

#[test]
fn the_living_are_not_listed_and_the_last_death_comes_first() {
    let polls = [
        poll(0, 1, 10, None),
        poll(10, 2, 10, None),
        poll(700_000, 1, 90, None),
        poll(800_000, 1, 50, None),
        poll(900_000, 3, 10, None),
    ];
    let deaths = find_polls(&polls, |last| last.process.pid == 3);
    let shown: Vec<_> = deaths.iter().map(|d| (d.pid, d.first_ms, d.last_ms, d.rss_bytes, d.peak_bytes)).collect();
    assert_eq!(shown, [(1, 0, 800_000, 50, 90), (2, 10, 10, 10, 10)]);
    assert_eq!(deaths[0].polls, [(700_000, 90), (800_000, 50)]);
    assert!(find_polls(&polls, |_| true).is_empty());
}

#[test]
fn those_since_a_time_are_counted() {
    let data: Vec<String> = [poll(5, 1, 1, None), poll(7, 2, 1, None), poll(9, 3, 1, None)].iter().map(line).collect();
    let data = data.join("\n").into_bytes();
    let lines = Lines::of(std::slice::from_ref(&data));
    let deaths = Deaths::find(&lines, |_| false);
    assert_eq!([0, 5, 6, 9, 10].map(|ms| deaths.since(ms)), [3, 3, 2, 1, 0]);
    assert_eq!(deaths.last(3), None);
}

#[test]
fn a_kill_that_others_counted_is_possible_and_never_certain() {
    // (its counter at its last poll; those of a process that polls before and after, and when after) → how it ended
    let table = [
        (Some(3), (Some(3), Some(4), 70_000), "possibly oom_kill"),
        (Some(3), (Some(3), Some(3), 70_000), "not oom_kill"),
        // Killed between the two polls before.
        (Some(3), (Some(2), Some(3), 70_000), "not oom_kill"),
        // It is in another cgroup.
        (Some(3), (Some(5), Some(6), 70_000), "unknown"),
        (Some(3), (Some(0), Some(1), 70_000), "unknown"),
        (Some(3), (Some(3), Some(4), 400_000), "unknown"),
        (Some(3), (None, None, 70_000), "unknown"),
        (None, (Some(3), Some(4), 70_000), "unknown"),
    ];
    for (own, (before, after, at), expected) in table {
        let polls = [poll(0, 2, 10, before), poll(10, 1, 10, own), poll(at, 2, 10, after)];
        let deaths = find_polls(&polls, |last| last.process.pid == 2);
        assert_eq!(deaths[0].how(), expected, "{own:?} {before:?} {after:?} {at}");
    }
    // A poll of another limit is of another cgroup.
    let other = |at, count| Recorded { limit: Some(9), ..poll(at, 2, 10, Some(count)) };
    let deaths = find_polls(&[other(0, 3), poll(10, 1, 10, Some(3)), other(20, 4)], |last| last.process.pid == 2);
    assert_eq!(deaths[0].how(), "unknown");
}

// A new container or a restarted unit has a new cgroup, whose counter begins at zero.
#[test]
fn a_process_that_came_later_does_not_show_that_nobody_was_killed() {
    let limited = |at, pid, count, pid_ns| Recorded { limit: Some(9), pid_ns, ..poll(at, pid, 10, Some(count)) };
    let table = [(0, 0, 4, "unknown"), (3, 0, 4, "unknown"), (3, 4, 4, "possibly oom_kill"), (3, 4, 5, "unknown")];
    for (before, after, pid_ns, expected) in table {
        let polls = [limited(10, 1, before, 4), limited(20, 2, after, pid_ns)];
        let deaths = find_polls(&polls, |last| last.process.pid == 2);
        assert_eq!(deaths[0].how(), expected, "{before} {after} {pid_ns}");
    }
    // Without a limit, nothing says that it is in the same cgroup.
    let polls = [poll(10, 1, 10, Some(3)), poll(20, 2, 10, Some(4))];
    assert_eq!(find_polls(&polls, |last| last.process.pid == 2)[0].how(), "unknown");
}

#[test]
fn a_kill_that_the_parent_saw_needs_times_that_fit() {
    let seen = |window: &str| note(&format!(r#""by":"parent","pid":1,"signal":9,"oom_kill":true{window}"#));
    let polls = |before, after| {
        [poll(0, 2, 10, before), poll(10, 1, 10, before), poll(9_000, 2, 10, after)].map(|poll| line(&poll)).to_vec()
    };
    let table = [
        (polls(None, None), seen(r#","oom_window_ms":5000"#), "oom_kill"),
        (polls(Some(3), Some(4)), seen(r#","oom_window_ms":5000"#), "oom_kill"),
        // The counter was the same before and after: the kill that the parent counted was an earlier one.
        (polls(Some(3), Some(3)), seen(r#","oom_window_ms":5000"#), "killed (SIGKILL)"),
        (polls(None, None), seen(r#","oom_window_ms":900000"#), "possibly oom_kill"),
        // Another process was killed meanwhile, and the parent did not look at the counter.
        (polls(Some(3), Some(4)), note(r#""by":"parent","pid":1,"signal":9"#), "killed (SIGKILL)"),
    ];
    for (mut lines, parent, expected) in table {
        lines.push(parent);
        assert_eq!(find(&lines, |last| last.process.pid == 2)[0].how(), expected, "{lines:?}");
    }
}

#[test]
fn processes_that_end_within_a_minute_ended_together() {
    let polls = [poll(0, 1, 10, None), poll(30_000, 2, 10, None), poll(200_000, 3, 10, None)];
    let found = how(&find_polls(&polls, |_| false));
    assert_eq!(found, expected([(3, "unknown"), (2, "with others"), (1, "with others")]));
    // One that still polls did not end.
    let found = how(&find_polls(&polls, |last| last.process.pid == 2));
    assert_eq!(found, expected([(3, "unknown"), (1, "unknown")]));
}

#[test]
fn who_said_goodbye_did_not_die_and_ended_together_with_nobody() {
    let polls = [poll(0, 1, 10, None), poll(1_000, 2, 10, None), poll(2_000, 3, 10, None)];
    let goodbye = |pid| note(&format!(r#""by":"process","pid":{pid},"start_ticks":5,"exit":0"#));
    let killed = note(r#""by":"parent","pid":3,"signal":9"#);
    let with = |notes: &[String]| {
        let lines: Vec<String> = polls.iter().map(line).chain(notes.iter().cloned()).collect();
        how(&find(&lines, |_| false))
    };
    assert_eq!(with(&[goodbye(1), goodbye(2), killed]), expected([(3, "killed (SIGKILL)")]));
    // A crash near a restart is no restart.
    assert_eq!(with(&[goodbye(1), goodbye(2)]), expected([(3, "unknown")]));
    // The goodbye of another process under the same pid counts for nothing.
    let other = note(r#""by":"process","pid":3,"start_ticks":6,"exit":0"#);
    assert_eq!(with(&[goodbye(1), goodbye(2), other]), expected([(3, "unknown")]));
}

#[test]
fn a_note_is_about_the_last_process_of_its_pid_before_it() {
    let second = Recorded { start_ticks: 9, ..poll(50, 7, 10, None) };
    let lines = [
        line(&poll(0, 7, 10, None)),
        note(r#""by":"parent","pid":7,"signal":9"#),
        line(&second),
        note(r#""by":"process","pid":7,"start_ticks":9,"exit":0"#),
        note(r#""by":"parent","pid":8,"exit":1"#),
    ];
    let deaths = find(&lines, |_| false);
    assert_eq!((deaths.len(), deaths[0].start_ticks, deaths[0].how()), (1, 5, "killed (SIGKILL)".to_owned()));
}

#[test]
fn the_same_pid_in_another_container_or_after_a_boot_is_another_process() {
    let elsewhere = Recorded { pid_ns: 6, ..poll(1_000, 1, 20, None) };
    let later = Recorded { boot_id: "c".into(), ..poll(900_000, 1, 30, None) };
    let goodbye = note(r#""by":"process","pid":1,"start_ticks":5,"exit":0"#);
    // The goodbye is that of the first boot.
    let lines = [line(&poll(0, 1, 10, None)), line(&elsewhere), goodbye, line(&later)];
    let deaths = find(&lines, |_| false);
    let shown: Vec<_> = deaths.iter().map(|death| (death.pid_ns, death.rss_bytes, death.peak_bytes)).collect();
    assert_eq!(shown, [(4, 30, 30), (6, 20, 20)]);
}

#[test]
fn a_damaged_history_loses_what_is_damaged_only() {
    let whole = line(&poll(10, 1, 10, None));
    let torn = &whole[..whole.len() - 9];
    let lines = [format!("{torn}{whole}"), "\u{0}\u{0}".into(), line(&poll(20, 2, 7, None)), torn.to_owned()];
    assert_eq!(find(&lines, |_| false).iter().map(|death| death.pid).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_clock_that_goes_back_is_no_panic() {
    let polls = [poll(500, 1, 10, Some(3)), poll(100, 1, 90, Some(3)), poll(50, 2, 10, Some(4))];
    let deaths = find_polls(&polls, |last| last.process.pid == 2);
    assert_eq!((deaths[0].pid, deaths[0].peak_bytes), (1, 90));
}

#[test]
fn what_ran_at_the_last_poll_is_told() {
    let mut last = poll(10, 1, 10, None);
    last.gauges = [("sidekiq.running.Bloat", 2.0), ("sidekiq.busy", 3.0), ("puma.busy_threads", 4.0)]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
    let running = &find_polls(&[poll(0, 1, 10, None), last], |_| false)[0].running;
    assert_eq!((running.busy_threads, &running.jobs), (Some(4), &[("Bloat".to_owned(), 2)].into()));
}

#[test]
fn a_parent_is_asked_about_the_processes_of_which_it_has_said_nothing() {
    let polls = [poll(100, 1, 10, None), poll(200, 2, 10, None), poll(300, 3, 10, None), poll(400, 4, 10, None)];
    let mut lines: Vec<String> = polls.iter().map(line).collect();
    lines.push(note(r#""by":"parent","pid":2,"exit":1"#));
    // It hangs after its goodbye, and its parent ends it.
    lines.push(note(r#""by":"process","pid":3,"exit":0"#));
    let data = lines.join("\n").into_bytes();
    let lines = Lines::of(std::slice::from_ref(&data));
    let found = |since| without_parent(&lines, since, |last| last.process.pid == 4);
    let pids = |since| found(since).iter().map(|poll| poll.pid).collect::<Vec<_>>();
    assert_eq!((pids(0), pids(101), pids(301)), (vec![3, 1], vec![3], vec![]));
}
