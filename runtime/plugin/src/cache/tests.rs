use heddle_requires::requires;

use super::*;

#[test]
fn cache_directory_created_is_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("cache");
    Cache::open(&dir).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    assert!(Cache::open(&dir).is_ok());
}

#[test]
fn workplace_of_a_compilation_is_private() {
    let parent = tempfile::tempdir().unwrap();
    let workplace = Cache::open(&parent.path().join("cache")).unwrap().workplace().unwrap();
    assert_eq!(fs::metadata(workplace.path()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn cache_directory_writable_by_others_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o707, 0o777, 0o1777] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(Cache::open(dir.path()), Err(CacheError::Mode(found)) if found == mode));
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Cache::open(dir.path()).is_ok());
}

#[test]
fn cache_directory_symlink_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (target, link) = (parent.path().join("target"), parent.path().join("link"));
    fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert!(matches!(Cache::open(&link), Err(CacheError::NotADirectory)));
}

#[test]
fn cache_entry_others_could_have_made_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (entry, copy) = (cache.entry("d", CODE), dir.path().join("copy"));
    let fresh = || {
        cache.put("d", b"code").unwrap();
        assert!(cache.get("d").is_some());
    };
    fresh();
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o660)).unwrap();
    assert!(cache.get("d").is_none());
    fresh();
    fs::rename(&entry, &copy).unwrap();
    std::os::unix::fs::symlink(&copy, &entry).unwrap();
    assert!(cache.get("d").is_none());
    fresh();
    fs::remove_file(&copy).unwrap();
    fs::hard_link(&entry, &copy).unwrap();
    assert!(cache.get("d").is_none());
    fs::remove_file(&copy).unwrap();
    fresh();
}

#[test]
fn owner_or_mode_not_private_is_refused() {
    for (owner, expected, mode, reason) in [
        (0, 0, 0o700, None),
        (1000, 1000, 0o755, None),
        (1000, 1000, 0o600, None),
        (65534, 0, 0o700, Some("owner")),
        (0, 1000, 0o700, Some("owner")),
        (65534, 1000, 0o777, Some("owner")),
        (0, 0, 0o660, Some("mode")),
        (1000, 1000, 0o602, Some("mode")),
        (1000, 1000, 0o1777, Some("mode")),
    ] {
        let found = match check_own(owner, expected, mode) {
            Ok(()) => None,
            Err(CacheError::Owner { .. }) => Some("owner"),
            Err(CacheError::Mode(_)) => Some("mode"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(found, reason, "{owner} {expected} {mode:o}");
    }
}

#[test]
fn cache_entry_of_another_owner_is_ignored() {
    requires!(Root);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    cache.put("d", b"code").unwrap();
    std::os::unix::fs::chown(cache.entry("d", CODE), Some(65534), None).unwrap();
    assert!(cache.get("d").is_none());
    cache.put("d", b"code").unwrap();
    assert!(cache.get("d").is_some());
    std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
    assert!(matches!(
        Cache::open(dir.path()),
        Err(CacheError::Owner { owner: 65534, expected: 0 })
    ));
}

#[test]
fn cache_put_removes_entries_of_other_engines() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    cache.put("old", b"code").unwrap();
    let foreign = ["cwasm", "seal", "receipt"]
        .map(|kind| dir.path().join(format!("old-0123456789abcdef.{kind}")));
    let other = dir.path().join("notes");
    for file in foreign.iter().chain([&other]) {
        fs::write(file, "").unwrap();
    }
    cache.put("new", b"code").unwrap();
    assert!(other.exists() && !foreign.iter().any(|file| file.exists()));
    assert!(cache.get("old").is_some() && cache.get("new").is_some());
}

#[test]
fn cache_put_removes_abandoned_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let path = dir.path().join("one.wasm");
    fs::write(&path, "component").unwrap();
    let component = Stamp::of(&fs::metadata(&path).unwrap());
    component.wait_until_settled();
    for digest in ["replaced", "used", "young"] {
        cache.put(digest, b"code").unwrap();
    }
    let known = Known { digest: "used".into(), manifest: "{}".into() };
    cache.note("one", &path, component, known);
    let [abandoned, busy] = [(); 2].map(|()| cache.workplace().unwrap().keep());
    fs::write(abandoned.join("in.wasm"), "component").unwrap();
    let partial = cache.dir.join(".tmpAbCdEf");
    fs::write(&partial, "co").unwrap();
    let is_there = |digest: &str| cache.entry(digest, CODE).exists();
    let old = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    let mut aged = vec![abandoned.clone(), partial.clone()];
    for kind in [CODE, SEAL] {
        aged.extend(["replaced", "used"].map(|digest| cache.entry(digest, kind)));
    }
    for path in aged {
        fs::File::open(path).unwrap().set_modified(old).unwrap();
    }
    cache.put("new", b"code").unwrap();
    assert!(busy.exists() && !abandoned.exists() && !partial.exists());
    assert!(is_there("used") && is_there("young") && is_there("new"));
    assert!(!is_there("replaced") && !cache.entry("replaced", SEAL).exists());
}

#[test]
fn cache_errors_name_no_temporary_file() {
    let parent = tempfile::tempdir().unwrap();
    let cache = Cache::open(&parent.path().join("cache")).unwrap();
    fs::remove_dir(&cache.dir).unwrap();
    let error = cache.put("d", b"code").err().unwrap().to_string();
    assert_eq!(error, "cannot be used: No such file or directory (os error 2)");
    let error = cache.workplace().unwrap_err().to_string();
    assert_eq!(error, "No such file or directory (os error 2)");
}

#[test]
fn seal_of_code_from_the_future_has_no_stamp() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stamp = Stamp::of(&file.as_file().metadata().unwrap());
    let seal = |now| Seal::new("hash".into(), stamp, now).code;
    let now = SystemTime::now();
    assert_eq!(seal(now + Duration::from_secs(1)), Some(stamp));
    assert_eq!(seal(now - Duration::from_secs(3600)), None);
}

#[test]
fn cache_entry_damaged_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    assert!(cache.get("d").is_none());
    let code = cache.entry("d", CODE);
    cache.put("d", b"code").unwrap();
    for damaged in [b"cod3".as_slice(), b"c", b""] {
        assert!(cache.get("d").is_some());
        fs::write(&code, damaged).unwrap();
        assert!(cache.get("d").is_none());
        // Writing the same bytes again makes the entry valid, whoever writes them.
        fs::write(&code, b"code").unwrap();
    }
    fs::write(cache.entry("d", SEAL), "{").unwrap();
    assert!(cache.get("d").is_none());
    cache.put("d", b"code").unwrap();
    fs::remove_file(cache.entry("d", SEAL)).unwrap();
    assert!(cache.get("d").is_none());
}

#[test]
fn cached_code_is_compared_again_only_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    cache.put("d", b"code").unwrap();
    let seal = || cache.read::<Seal>(&cache.entry("d", SEAL)).unwrap();
    let stamp = || Stamp::of(&fs::metadata(cache.entry("d", CODE)).unwrap());
    assert_eq!(seal().code, Some(stamp()));
    // As after a restore from a backup.
    fs::write(cache.entry("d", CODE), b"code").unwrap();
    assert_ne!(seal().code, Some(stamp()));
    stamp().wait_until_settled();
    assert!(cache.get("d").is_some());
    assert_eq!(seal().code, Some(stamp()));
}

#[test]
fn fifo_in_place_of_a_cache_entry_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let path = dir.path().join("one.wasm");
    fs::write(&path, "component").unwrap();
    for (kind, entry) in [(CODE, "d"), (SEAL, "d"), (RECEIPT, "one")] {
        cache.put("d", b"code").unwrap();
        let entry = cache.entry(entry, kind);
        let _ = fs::remove_file(&entry);
        assert!(std::process::Command::new("mkfifo").arg(&entry).status().unwrap().success());
        // On a thread of its own: a call that blocks would block the test.
        let (sender, answer) = std::sync::mpsc::channel();
        let (cache, path) = (Cache { dir: cache.dir.clone() }, path.clone());
        std::thread::spawn(move || {
            let found = match kind {
                RECEIPT => cache.recall("one", &path).is_some(),
                _ => cache.get("d").is_some(),
            };
            sender.send(found)
        });
        let found = answer.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(found, Ok(false), "{kind}");
    }
    // A new entry replaces the FIFO.
    cache.put("d", b"code").unwrap();
    assert!(cache.get("d").is_some());
}

#[test]
fn receipt_is_valid_until_the_component_changes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let (path, other) = (dir.path().join("one.wasm"), dir.path().join("two.wasm"));
    fs::write(&path, "component").unwrap();
    let stamp = Stamp::of(&fs::metadata(&path).unwrap());
    let known = Known { digest: "d".into(), manifest: "{}".into() };
    assert_eq!(cache.recall("one", &path), None);
    stamp.wait_until_settled();
    cache.note("one", &path, stamp, known.clone());
    assert_eq!(cache.recall("one", &path), Some(known.clone()));
    assert_eq!(cache.recall("two", &path), None);
    fs::write(&path, "c0mponent").unwrap();
    assert_eq!(cache.recall("one", &path), None);
    // A file that has only just changed is not recorded, because another change could go
    // unnoticed.
    cache.note("one", &path, Stamp::of(&fs::metadata(&path).unwrap()), known.clone());
    assert_eq!(cache.recall("one", &path), None);
    // A receipt holds for one path only.
    let stamp = Stamp::of(&fs::metadata(&path).unwrap());
    stamp.wait_until_settled();
    cache.note("one", &path, stamp, known);
    fs::rename(&path, &other).unwrap();
    assert_eq!(cache.recall("one", &other), None);
}

#[test]
fn receipt_of_another_version_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&dir.path().join("cache")).unwrap();
    let path = dir.path().join("one.wasm");
    fs::write(&path, "component").unwrap();
    let component = Stamp::of(&fs::metadata(&path).unwrap());
    let known = Known { digest: "d".into(), manifest: "{}".into() };
    let receipt = |host: &str| Receipt {
        host: host.into(),
        path: path.clone(),
        component,
        known: known.clone(),
    };
    cache.write_json(&cache.entry("one", RECEIPT), &receipt("0.0.9")).unwrap();
    assert_eq!(cache.recall("one", &path), None);
    cache.write_json(&cache.entry("one", RECEIPT), &receipt(HOST)).unwrap();
    assert_eq!(cache.recall("one", &path), Some(known.clone()));
}
