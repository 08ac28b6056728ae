use super::volume::is_shut_down;
use super::*;
use crate::cli::doctor::check::Status;
use std::os::unix::fs::PermissionsExt;

const GIB: u64 = 1 << 30;

fn entry(path: &str, kind: Kind, mode: u32, uid: u32) -> Entry {
    Entry { path: path.into(), kind, mode, uid, is_store: false, private_mount: false }
}

#[test]
fn the_directory_must_be_private_to_its_owner() {
    let root = entry("/var/lib", Kind::Directory, 0o755, 0);
    let far = entry("/var", Kind::Directory, 0o755, 0);
    let open = entry("/var/lib", Kind::Directory, 0o1777, 0);
    let table = [
        (Kind::Directory, 0o700, 7, &root, 7, Status::Ok, "belongs to this user"),
        (Kind::Directory, 0o700, 7, &root, 0, Status::Ok, "must run as that user"),
        (Kind::Directory, 0o700, 7, &root, 8, Status::Fail, "owned by uid 7, and this is uid 8"),
        (Kind::Directory, 0o770, 7, &root, 7, Status::Fail, "mode 0770"),
        (Kind::Directory, 0o707, 7, &root, 7, Status::Fail, "mode 0707"),
        (Kind::Symlink, 0, 7, &root, 7, Status::Fail, "symbolic link"),
        (Kind::Other, 0, 7, &root, 7, Status::Fail, "not a directory"),
        (Kind::Missing, 0, 0, &root, 0, Status::Warn, "first worker that polls tries to create it"),
        (Kind::Missing, 0, 0, &root, 7, Status::Fail, "uid 7 cannot create it"),
        (Kind::Missing, 0, 0, &open, 7, Status::Warn, "first worker that polls tries to create it"),
        (Kind::Missing, 0, 0, &far, 0, Status::Fail, "nor its parent exists"),
    ];
    for (kind, mode, uid, parent, me, status, said) in table {
        let check = directory(&entry("/var/lib/diagctl", kind, mode, uid), Some(parent), me);
        assert_eq!(check.status, status, "{}", check.message);
        assert!(check.message.contains(said), "{said}: {}", check.message);
    }
}

#[test]
fn users_who_can_replace_the_store_are_named() {
    let there = entry("/srv/app/store", Kind::Directory, 0o700, 7);
    let missing = entry("/srv/app/store", Kind::Missing, 0, 0);
    let table = [
        (&there, 0o755, 0, Status::Ok, "nobody else"),
        (&there, 0o755, 7, Status::Ok, "nobody else"),
        (&there, 0o1777, 0, Status::Ok, "nobody else"),
        (&missing, 0o1777, 0, Status::Warn, "before the workers do"),
        (&there, 0o777, 0, Status::Fail, "world-writable"),
        (&there, 0o775, 0, Status::Warn, "group-writable"),
        (&there, 0o755, 8, Status::Warn, "belongs to uid 8"),
    ];
    for (store, mode, uid, status, said) in table {
        let check = above(store, &[entry("/srv/app", Kind::Directory, mode, uid)]);
        assert_eq!(check.status, status, "{}", check.message);
        assert!(check.message.contains(said), "{said}: {}", check.message);
    }
}

// Kubernetes: an emptyDir has mode 0777, with an fsGroup 2777; the volume's files then have mode 2770 and 0660.
#[test]
fn a_store_inside_an_empty_dir_is_healthy_and_one_that_fs_group_opened_is_closed_again() {
    let store = entry("/diag/store", Kind::Directory, 0o700, 7);
    for mode in [0o777, 0o2777] {
        let mounted = Entry { private_mount: true, ..entry("/diag", Kind::Directory, mode, 0) };
        assert_eq!(above(&store, &[mounted, entry("/", Kind::Directory, 0o755, 0)]).status, Status::Ok);
    }
    let opened = Entry { is_store: true, ..entry("/diag/store", Kind::Directory, 0o2770, 7) };
    let (owner, root, other) = (directory(&opened, None, 7), directory(&opened, None, 0), directory(&opened, None, 8));
    assert_eq!([owner.status, root.status, other.status], [Status::Warn, Status::Warn, Status::Fail]);

    let dir = tempfile::tempdir().unwrap();
    let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                  2 1 8:1 /var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/d /a\\040b rw - ext4 /dev/a rw\n\
                  3 1 8:2 / /srv rw - ext4 /dev/b rw\n";
    std::fs::create_dir_all(dir.path().join("self/ns")).unwrap();
    std::fs::write(dir.path().join("self/mountinfo"), mounts).unwrap();
    assert_eq!(private_mounts(&Proc::at(dir.path())), [PathBuf::from("/a b")], "the namespace cannot be read");
    std::fs::write(dir.path().join("self/ns/pid"), "").unwrap();
    assert_eq!(private_mounts(&Proc::at(dir.path())), [PathBuf::from("/a b"), PathBuf::from("/srv")], "a container");
}

#[test]
fn a_full_read_only_or_inodeless_volume_fails() {
    let config = Config::default();
    let good = Volume {
        magic: 0xef53,
        read_only: false,
        shut_down: false,
        free: 50 * GIB,
        total: 100 * GIB,
        free_inodes: 1000,
        inodes: 2000,
    };
    let statuses = |v: &Volume| [v.writable().status, v.inodes().status, v.space(&config).status];
    assert_eq!(statuses(&good), [Status::Ok; 3]);
    assert_eq!(statuses(&Volume { inodes: 0, free_inodes: 0, ..good.clone() }), [Status::Ok; 3], "btrfs has no inodes");
    assert_eq!(Volume { read_only: true, ..good.clone() }.writable().status, Status::Fail);
    assert_eq!(Volume { free_inodes: 63, ..good.clone() }.inodes().status, Status::Fail);
    assert_eq!(Volume { free_inodes: 900, inodes: 100_000, ..good.clone() }.inodes().status, Status::Warn);
    let full = Volume { free: 15 * GIB - 1, ..good }.space(&config);
    assert_eq!(full.status, Status::Fail);
    assert!(full.message.contains("15.0 GiB"), "{}", full.message);
}

#[test]
fn a_filesystem_that_stopped_writing_is_known_by_its_options() {
    let device = rustix::fs::makedev(8, 1);
    let mounts = |options: &str| {
        format!(
            "1 0 8:2 / / rw - ext4 /dev/b rw,emergency_ro\n2 1 8:1 / /s rw,noatime shared:1 - ext4 /dev/a {options}\n"
        )
    };
    let table =
        [("rw", false), ("rw,emergency_ro", true), ("rw,shutdown,discard", true), ("rw,errors=remount-ro", false)];
    for (options, expected) in table {
        assert_eq!(is_shut_down(&mounts(options), device), expected, "{options}");
    }
}

#[test]
fn network_and_volatile_filesystems_are_named() {
    let table = [
        (0xef53, false, Status::Ok, "ext4"),
        (0x1234, false, Status::Ok, "an unknown filesystem"),
        (0x0102_1994, false, Status::Warn, "next boot"),
        (0x794c_7630, false, Status::Warn, "lost with the container"),
        (0x6969, false, Status::Fail, "NFS"),
        (0x0102_1997, false, Status::Fail, "9p"),
        (0x6573_5546, true, Status::Warn, "forces it"),
    ];
    for (magic, forced, status, said) in table {
        let volume = Volume { magic, read_only: false, shut_down: false, free: 0, total: 0, free_inodes: 0, inodes: 0 };
        let check = filesystem(&volume, forced);
        assert_eq!(check.status, status, "{}", check.message);
        assert!(check.message.contains(said), "{said}: {}", check.message);
    }
}

#[test]
fn the_lock_test_sees_a_holder() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(exclusion(dir.path()), Exclusion::Works, "on the directory");
    let owner = rustix::process::geteuid().as_raw();
    let (lease, _file) = diagctl_store::lease::Lease::open(&Spot::hold(dir.path()).unwrap(), owner).unwrap();
    assert_eq!(exclusion(dir.path()), Exclusion::Works);
    assert!(lease.try_take().unwrap());
    assert_eq!(exclusion(dir.path()), Exclusion::Taken);
    let statuses = [Exclusion::Works, Exclusion::Taken, Exclusion::Broken, Exclusion::Unknown("x".into())];
    let statuses = statuses.map(|e| lock(&e).status);
    assert_eq!(statuses, [Status::Ok, Status::Ok, Status::Fail, Status::Fail]);
}

#[test]
fn a_missing_system_call_differs_from_a_missing_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(rename(no_replace(dir.path())).status, Status::Ok);
    assert_eq!(rename(Err(rustix::io::Errno::NOSYS)).status, Status::Fail);
    assert_eq!(rename(Err(rustix::io::Errno::PERM)).status, Status::Fail);
}

#[test]
fn findings_about_the_place_in_words() {
    let dir = |kind, mode, uid, me, parent: &Entry| directory(&entry("/srv/store", kind, mode, uid), Some(parent), me);
    let root = entry("/srv", Kind::Directory, 0o755, 0);
    let far = entry("/", Kind::Directory, 0o755, 0);
    let mut checks = vec![
        dir(Kind::Directory, 0o700, 7, 7, &root),
        dir(Kind::Directory, 0o700, 7, 0, &root),
        dir(Kind::Directory, 0o700, 7, 8, &root),
        dir(Kind::Directory, 0o770, 7, 7, &root),
        dir(Kind::Symlink, 0, 7, 7, &root),
        dir(Kind::Other, 0, 7, 7, &root),
        dir(Kind::Missing, 0, 0, 0, &root),
        dir(Kind::Missing, 0, 0, 7, &root),
        dir(Kind::Missing, 0, 0, 0, &far),
    ];
    let there = entry("/srv/store", Kind::Directory, 0o700, 7);
    let missing = entry("/srv/store", Kind::Missing, 0, 0);
    for (store, mode, uid) in
        [(&there, 0o755, 0), (&missing, 0o1777, 0), (&there, 0o777, 0), (&there, 0o775, 0), (&there, 0o755, 8)]
    {
        checks.push(above(store, &[entry("/srv", Kind::Directory, mode, uid)]));
    }
    let good = Volume {
        magic: 0xef53,
        read_only: false,
        shut_down: false,
        free: 50 * GIB,
        total: 100 * GIB,
        free_inodes: 1000,
        inodes: 2000,
    };
    let config = Config::default();
    checks.extend([good.writable(), good.inodes(), good.space(&config)]);
    checks.push(Volume { read_only: true, ..good.clone() }.writable());
    checks.push(Volume { free_inodes: 63, ..good.clone() }.inodes());
    checks.push(Volume { free_inodes: 900, inodes: 100_000, ..good.clone() }.inodes());
    checks.push(Volume { free: GIB, ..good.clone() }.space(&config));
    for (magic, forced) in
        [(0xef53, false), (0x1234, false), (0x0102_1994, false), (0x794c_7630, false), (0x6969, false), (0x6969, true)]
    {
        checks.push(filesystem(&Volume { magic, ..good.clone() }, forced));
    }
    let tried = [Exclusion::Works, Exclusion::Taken, Exclusion::Broken, Exclusion::Unknown("flock: EIO".into())];
    checks.extend(tried.iter().map(lock));
    checks.extend([rename(Ok(())), rename(Err(rustix::io::Errno::NOSYS))]);
    crate::cli::doctor::check::assert_words("place", &checks);
}
