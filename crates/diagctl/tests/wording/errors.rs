//! Failed commands: message, hint and exit status.

use std::fs;
use std::os::unix::fs::symlink;

use super::environment::{Environment, set_mode};
use super::fixture::{self, HEAP, ROUTINE, STAGED, change_json, this_process};

#[test]
fn errors_of_the_command_line() {
    let mut environment = fixture::environment();
    for line in [
        "",
        "lst",
        "frobnicate",
        "--colour",
        "list --colour",
        "list extra",
        "list --since",
        "list --since 10",
        "list --since soon",
        "list --since -5m",
        "list --since abc",
        "list --since 2026-13-01",
        "events --until '10 parsec'",
        "request --expires abc --reason test",
        "list --since 200y",
        "list --since 1d --until 2d",
        "events --since 2026-11-23 --until 2026-11-22",
        "samples --since 1h --until 2h",
        "list --limit many",
        "list --limit -1",
        "pause --for 0s",
        "request",
        "request --reason ''",
        "request heapdump --reason test",
        "request frobnicate --reason test",
        "request --pid 4194305 --reason test",
        "request --pid -1 --reason test",
        "request --expires 0 --reason test",
        "show",
        "rm",
        "verify",
        "verify --all latest",
        "run",
        "run true",
        "run --report 'Heap Dump' -- true",
        "run --report meta -- true",
        "config",
        "config frobnicate",
        "help frobnicate",
        "help config frobnicate",
        "help evnts",
        "fetch latest --json -o -",
        "request gc_stat --reason 'see https://ann:hunter2@host/x'",
    ] {
        environment.run(line);
    }
    environment.snapshot("errors_of_the_command_line");
}

#[test]
fn errors_about_the_remote() {
    let mut environment = Environment::new();
    environment.comment("nothing names a remote, and there is no store");
    for line in ["list", "list --remote", "ship", "list --remote s3://acme/prod", "list --remote=s3://acme/prod"] {
        environment.run(line);
    }
    environment.write("empty.toml", "[remote]\n");
    environment.run("--config empty.toml ship");
    environment.shell("DIAGCTL_CONFIG= DIAGCTL_DIR= diagctl list --remote");
    environment.comment("a laptop: a configuration names the remote, and there is no store");
    environment.write("fleet.toml", "[remote]\nurl = \"s3://acme/prod\"\n");
    for line in [
        "--config fleet.toml list",
        "show latest --config=fleet.toml",
        "--config fleet.toml status",
        "--config fleet.toml gc --remote",
        "--config fleet.toml diagnose --remote --pid 12",
        "--config fleet.toml request --remote --reason test",
        "--config fleet.toml pin --remote latest",
        "--config fleet.toml unpin latest --remote",
        "--config fleet.toml status --remote",
        "--config fleet.toml events --remote",
    ] {
        environment.run(line);
    }
    environment.comment("with a broken configuration");
    environment.write("my file.toml", "[remote]\nurl = \"https://acme\"\n");
    environment.run("--config 'my file.toml' list --remote");
    environment.snapshot("errors_about_the_remote");
}

#[test]
fn errors_of_the_environment() {
    let mut environment = fixture::environment();
    for setting in ["DIAGCTL_ENABLED=maybe", "DIAGCTL_LOG=loud", "DIAGCTL_CONFIG=missing.toml", "DIAGCTL_DIR=missing"] {
        environment.shell(&format!("{setting}; export DIAGCTL_ENABLED DIAGCTL_LOG; diagctl list"));
    }
    environment.snapshot("errors_of_the_environment");
}

#[test]
fn errors_of_the_store() {
    let mut environment = Environment::new();
    let everything = ["list", "gc", "pause", "run -- true"];
    environment.comment("there is none");
    for line in ["list", "gc", "--dir missing/store pause", "--dir missing/store run -- true"] {
        environment.run(line);
    }
    environment.comment("the directory has other files");
    environment.write("store/notes.txt", "mine");
    set_mode(&environment.store(), 0o700);
    for line in everything {
        environment.run(line);
    }
    environment.comment("it is a file");
    environment.run("--dir diagctl.toml list");
    environment.comment("it is a symbolic link");
    symlink("store", environment.path("link")).unwrap();
    environment.run("--dir link list");
    environment.comment("others may write it");
    set_mode(&environment.store(), 0o777);
    environment.run("list");
    environment.snapshot("errors_of_the_store");
}

#[test]
fn errors_of_the_format() {
    let mut environment = fixture::environment();
    for format in ["2\n", "18446744073709551616\n", "one\n", ""] {
        environment.write("store/FORMAT", format);
        environment.run("list");
        environment.run("gc");
    }
    environment.write("store/FORMAT", "1\n");
    environment.comment("a directory is not one");
    fs::remove_dir(environment.store().join("staging")).unwrap();
    environment.write("store/staging", "");
    environment.run("gc");
    environment.snapshot("errors_of_the_format");
}

#[test]
fn errors_of_damaged_files() {
    let mut environment = fixture::environment();
    let record = format!("store/reports/{ROUTINE}/meta.json");
    for (what, content) in [
        ("meta.json is torn", "{\"schema\":1,\"id\""),
        ("it fails its checksum", "{\"check\":\"00000000\",\"schema\":1}"),
        ("it is about another capture", "{\"schema\":1,\"id\":\"20261101T030000000Z-9999ffff\"}"),
        ("it is of a later version", "{\"schema\":2}"),
    ] {
        environment.comment(what);
        environment.write(&record, content);
        environment.run(&format!("show {ROUTINE}"));
        environment.run(&format!("fetch {ROUTINE}"));
    }
    fs::remove_dir_all(environment.store().join(format!("reports/{ROUTINE}"))).unwrap();
    for (what, content) in [("state.json is torn", "{\"schema\":1,"), ("it is of a later version", "{\"schema\":2}")] {
        environment.comment(what);
        environment.write("store/state.json", content);
        environment.run("list --limit 0");
        environment.run("request smaps --reason test");
        environment.run("resume");
    }
    environment.comment("it is a directory");
    fs::remove_file(environment.store().join("state.json")).unwrap();
    fs::create_dir(environment.store().join("state.json")).unwrap();
    environment.run("list --limit 0");
    environment.run("resume");
    environment.snapshot("errors_of_damaged_files");
}

#[test]
fn errors_of_captures_and_reports() {
    let mut environment = fixture::environment();
    for line in [
        "show nonsense",
        "show 2026112",
        "show 2026",
        "show ''",
        "show latest:",
        "show latest:frobnicate",
        "show latest:jemalloc_stats",
        "show 20261101:heap_dump",
        "fetch latest:vmstat threads",
        "fetch latest:heapdump",
        "fetch latest heapdump",
        "fetch latest vmstatt",
        "fetch 20261101 treads",
        "diagnose --role pumaa",
        "fetch 20261101 -o -",
        "rm latest:vmstat",
        "rm nonsense other",
        "pin nonsense",
        "verify nonsense",
    ] {
        environment.run(line);
    }
    environment.comment("the store is empty");
    fs::remove_dir_all(environment.store().join("reports")).unwrap();
    environment.run("show latest");
    environment.run("fetch latest:heap_dump");
    environment.run("verify latest");
    environment.snapshot("errors_of_captures_and_reports");
}

#[test]
fn errors_of_fetch() {
    let mut environment = fixture::environment();
    environment.write("20261101T030000000Z-1111aaaa-threads.txt", "mine");
    fs::create_dir(environment.path(HEAP)).unwrap();
    for line in [
        "fetch 20261101:threads".to_owned(),
        format!("fetch {HEAP}"),
        "fetch 20261101:threads -o missing/threads.txt".to_owned(),
        "fetch 20261101:threads -o /dev/full".to_owned(),
        "fetch 20261101 -o diagctl.toml".to_owned(),
    ] {
        environment.run(&line);
    }
    environment.comment("compressed in a way of a later version");
    change_json(&environment, &format!("reports/{ROUTINE}/meta.json"), |meta| {
        meta["reports"][2]["encoding"] = "brotli".into();
    });
    environment.run("fetch 20261101:threads -o threads.txt");
    environment.snapshot("errors_of_fetch");
}

#[test]
fn errors_of_identities() {
    let mut environment = fixture::environment();
    fixture::change_json(&environment, &format!("reports/{ROUTINE}/meta.json"), |meta| {
        meta["recipients"] = serde_json::json!(["age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"]);
        meta["reports"].as_array_mut().unwrap().iter_mut().for_each(|report| report["encryption"] = "age".into());
    });
    environment.run(&format!("fetch {ROUTINE} --json"));
    environment.run(&format!("diagnose {ROUTINE}"));
    environment.run(&format!("fetch {ROUTINE} --identity missing.txt"));
    environment.shell("DIAGCTL_IDENTITY=missing.txt diagctl diagnose latest");
    let table = [
        ("empty.txt", "# nothing\n"),
        ("recipient.txt", "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"),
        ("ssh.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ("plugin.txt", "AGE-PLUGIN-YUBIKEY-1QQ\n"),
        ("protected.txt", "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 18\n"),
        ("encrypted.txt", "age-encryption.org/v1\n-> X25519 AAAAAAAAAAAAAAAAAAAAAA\n"),
        ("escapes.txt", "\u{1b}]0;title\u{7}\n"),
    ];
    for (name, text) in table {
        environment.write(name, text);
        environment.run(&format!("fetch {ROUTINE} --identity {name}"));
    }
    environment.run("heap top - --identity -");
    // A key in place of a file's name, which a transcript must not have either.
    environment
        .write("key.txt", "# a key\nAGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n");
    for line in [
        "fetch latest --identity \"$(tail -n 1 key.txt)\"",
        "heap top latest --identity \"$(cat key.txt)\"",
        "show \"$(tail -n 1 key.txt)\"",
        "show latest --identify \"$(tail -n 1 key.txt)\"",
        "--config \"$(tail -n 1 key.txt)\" list",
        "list --since \"$(tail -n 1 key.txt)\"",
    ] {
        environment.shell(&format!("diagctl {line}"));
    }
    environment.shell("export DIAGCTL_IDENTITY=\"$(cat key.txt)\"; diagctl diagnose latest");
    environment.shell("diagctl --dir 's3://AKIA:s3cret@bucket' list");
    environment.snapshot("errors_of_identities");
}

#[test]
fn errors_of_simulate() {
    let mut environment = fixture::environment();
    environment.write("empty", "");
    environment.write("prose", "{\"at\":1,\"pid\":2,\"role\":\"puma\",\"memory\":{}}\nmemory grows\n");
    for line in [
        "simulate",
        "simulate --samples missing",
        "simulate --samples empty",
        "simulate --samples prose",
        "simulate --samples store",
    ] {
        environment.run(line);
    }
    environment.snapshot("errors_of_simulate");
}

// Commands that only need the store work with it, and say so.
#[test]
fn errors_of_a_broken_configuration() {
    let mut environment = fixture::environment();
    environment.redact_sizes();
    environment.write("broken.toml", "colour = 1\nretension = 2\n[[rules]]\n");
    for line in
        ["list -n 1", "request threads --reason test", "pin latest", "gc", "simulate --samples -", "run -- true"]
    {
        environment.run(&format!("--config broken.toml {line}"));
    }
    environment.snapshot("errors_of_a_broken_configuration");
}

#[test]
fn errors_of_plugins() {
    let mut environment = fixture::environment();
    environment.configure("enabled = true\n[guards]\nmin_free_disk = \"0\"\n");
    let pid = this_process().0;
    environment.redact(&format!(r"\b{pid}\b"), "PID");
    environment.redact(r"due in [\dhms ]+", "due in N");
    fs::write(environment.path("other.lock"), "").unwrap();
    let lock = "5<>store/lease.lock";
    for line in [
        "diagctl acquire".to_owned(),
        format!("diagctl acquire --lease-fd 1 --pid {pid}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} 5<>other.lock"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} {lock}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} 5<>other.lock"),
        format!("diagctl acquire --lease-fd 5 --pid 4194305 {lock}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} --role '' {lock}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} --gauge backlog {lock}"),
        format!("diagctl acquire --lease-fd 5 --pid {pid} --event 'a b' {lock}"),
        format!("diagctl put nonsense smaps --lease-fd 5 {lock}"),
        format!("diagctl put {STAGED} smaps --lease-fd 5 {lock}"),
        format!("diagctl finalize {STAGED} --lease-fd 5 {lock}"),
        format!("diagctl abort {STAGED} --reason test --lease-fd 5 {lock}"),
    ] {
        environment.shell(&line);
    }
    environment.comment("another process holds the lease");
    let lease = fixture::take_lease(&environment, (pid, this_process().1), &serde_json::json!({}));
    environment.shell("diagctl run -- true");
    environment.shell(&format!("diagctl put {STAGED} smaps --lease-fd 5 {lock}"));
    environment.shell(&format!("diagctl finalize {STAGED} --lease-fd 5 {lock}"));
    drop(lease);
    environment.snapshot("errors_of_plugins");
}

#[test]
fn errors_of_permissions() {
    let mut environment = Environment::new();
    environment.redact(r"\buid \d+", "uid N");
    environment.write("secret", "{}");
    set_mode(&environment.path("secret"), 0o000);
    for line in [
        "--dir /etc list",
        "--dir /etc gc",
        "--dir /etc/diagctl-test pause",
        "--config secret --dir /etc list",
        "simulate --samples secret",
        "config init -o /etc/diagctl-test.toml",
    ] {
        if !environment.as_ordinary_user(line) {
            return;
        }
    }
    environment.snapshot("errors_of_permissions");
}
