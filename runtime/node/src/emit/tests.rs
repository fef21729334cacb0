use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use heddle_files::{Found, Print, ReadError, Written};
use heddle_plugin::{CallError, File, Metrics, Reason};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ports::{FileError, Removal};
use crate::testing::{config, flags, lease, site};

use super::*;

/// An emitter that wants files, or fails a number of times before.
struct Model {
    name: &'static str,
    paths: Vec<&'static str>,
    failures: Mutex<u32>,
    metrics: Arc<Metrics>,
}

#[async_trait]
impl Emitter for Model {
    fn name(&self) -> &str {
        self.name
    }

    fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    async fn emit(&self, _: &View, _: &[Setting]) -> Result<Vec<File>, CallError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            let (plugin, reason) = (self.name.to_owned(), Reason::Trapped("unreachable".into()));
            return Err(CallError { plugin, call: "emit", peer: None, reason });
        }
        let file = |path: &&str| File { path: path.into(), contents: Vec::new(), mode: 0o644 };
        Ok(self.paths.iter().map(file).collect())
    }
}

fn output(name: &'static str, paths: &[&'static str], failures: u32) -> Arc<Output> {
    let (paths, failures) = (paths.to_vec(), Mutex::new(failures));
    let emitter = Arc::new(Model { name, paths, failures, metrics: Arc::default() });
    let (settings, outcome) = (Vec::new(), Mutex::default());
    Arc::new(Output { emitter, settings, outcome, repairs: AtomicU64::new(0) })
}

/// Files in memory. Counts how often each file is written, and refuses some.
#[derive(Default)]
struct Disk {
    there: Mutex<BTreeMap<PathBuf, Found>>,
    written: Mutex<Vec<PathBuf>>,
    refused: Mutex<Option<&'static str>>,
    record: Mutex<Vec<Written>>,
    changed: Notify,
}

impl Disk {
    /// Changes a file, as another program may.
    fn disturb(&self, path: &str, contents: Option<&str>) {
        let mut there = self.there.lock().unwrap();
        match contents {
            Some(text) => {
                let found = Found::Regular { mode: 0o644, contents: Some(text.into()) };
                there.insert(path.into(), found);
            }
            None => drop(there.remove(Path::new(path))),
        }
        self.changed.notify_one();
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.there.lock().unwrap().get(Path::new(path))? {
            Found::Regular { contents, .. } => String::from_utf8(contents.clone()?).ok(),
            _ => None,
        }
    }

    /// Has an earlier run leave a file, and returns its record.
    fn left(&self, path: &str, contents: &str, made: bool) -> Written {
        self.disturb(path, Some(contents));
        Written { path: path.into(), print: Print::of(0o644, contents.as_bytes()), made }
    }
}

#[async_trait]
impl Files for Disk {
    fn subnet_env(&self) -> String {
        String::new()
    }

    async fn look(&self, path: &Path, _: u64) -> Result<Found, ReadError> {
        Ok(self.there.lock().unwrap().get(path).cloned().unwrap_or(Found::Missing))
    }

    async fn replace(&self, files: Vec<File>, _: &[Setting]) -> Result<Vec<PathBuf>, FileError> {
        let refused = *self.refused.lock().unwrap();
        for file in &files {
            if refused.is_some_and(|refused| file.path == Path::new(refused)) {
                let full = std::io::Error::from_raw_os_error(28);
                return Err(FileError::new("write", file.path.clone(), full));
            }
            let known = self.record.lock().unwrap().iter().any(|its| its.path == file.path);
            assert!(known, "{} is written before it is recorded", file.path.display());
            let found = Found::Regular { mode: file.mode, contents: Some(file.contents.clone()) };
            let before = self.there.lock().unwrap().insert(file.path.clone(), found.clone());
            if before != Some(found) {
                self.written.lock().unwrap().push(file.path.clone());
            }
        }
        Ok(files.into_iter().map(|file| file.path).collect())
    }

    async fn remove(
        &self,
        path: &Path,
        prints: &[Print],
        _: &[PathBuf],
    ) -> Result<Removal, FileError> {
        let found = self.look(path, 0).await.unwrap();
        if *self.refused.lock().unwrap() == path.to_str() {
            let denied = std::io::Error::from_raw_os_error(13);
            return Err(FileError::new("remove", path.to_owned(), denied));
        }
        if found == Found::Missing {
            return Ok(Removal::Missing);
        }
        if prints.iter().all(|print| found.difference(print).is_some()) {
            return Ok(Removal::Foreign);
        }
        self.there.lock().unwrap().remove(path);
        Ok(Removal::Removed)
    }

    async fn recorded(&self) -> Vec<Written> {
        self.record.lock().unwrap().clone()
    }

    async fn record(&self, written: &[Written]) -> Result<(), FileError> {
        *self.record.lock().unwrap() = written.to_vec();
        Ok(())
    }

    async fn watch(&self, _: &[PathBuf]) {}

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

fn view() -> View {
    View { site: Arc::new(site(config(), lease(8))), mtu: 1450, ip_masq: false }
}

/// Returns the readiness of a node whose plan and rules hold.
fn programmed() -> Readiness {
    let readiness = Readiness::new();
    readiness.met(Condition::Kernel);
    readiness.met(Condition::Rules);
    readiness
}

fn reason(readiness: &Readiness) -> Option<String> {
    readiness.subscribe().borrow().get(&Condition::Emitters).cloned()
}

/// Writes files until all are written, for a time at most. Returns true if they are.
async fn emit_for(
    disk: &Disk,
    outputs: &[Arc<Output>],
    readiness: &Readiness,
    time: Duration,
) -> bool {
    let (view, history) = (view(), History::default());
    let mut unmet = readiness.subscribe();
    let written = unmet.wait_for(|unmet| !unmet.contains_key(&Condition::Emitters));
    tokio::select! {
        biased;
        ended = emit(disk, outputs, &view, readiness, &history) => panic!("{:?}", ended.err()),
        done = tokio::time::timeout(time, written) => done.is_ok(),
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_written_once_plan_and_rules_hold() {
    let (disk, readiness) = (Disk::default(), Readiness::new());
    let outputs = [output("subnet-env", &["/run/subnet.env"], 0)];
    let second = Duration::from_secs(1);
    assert!(!emit_for(&disk, &outputs, &readiness, second).await);
    readiness.met(Condition::Kernel);
    assert!(!emit_for(&disk, &outputs, &readiness, second).await);
    assert!(disk.written.lock().unwrap().is_empty());
    readiness.met(Condition::Rules);
    assert!(emit_for(&disk, &outputs, &readiness, second).await);
    assert_eq!(*disk.written.lock().unwrap(), [PathBuf::from("/run/subnet.env")]);
    assert_eq!(reason(&readiness), None);
    assert_eq!(outputs[0].outcome().files, [PathBuf::from("/run/subnet.env")]);
}

#[tokio::test(start_paused = true)]
async fn emitter_that_traps_is_called_again_and_delays_no_other() {
    let (disk, readiness) = (Disk::default(), programmed());
    let outputs = [output("cni-conf", &["/etc/cni.conf"], 3), output("subnet-env", &["/run/a"], 0)];
    let begun = Instant::now();
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_millis(100)).await);
    assert_eq!(*disk.written.lock().unwrap(), [PathBuf::from("/run/a")]);
    assert!(reason(&readiness).unwrap().contains("plugin cni-conf, emit: trapped"));
    assert!(outputs[0].outcome().problem.is_some());
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(60)).await);
    // What was written already is not written again.
    assert_eq!(disk.written.lock().unwrap().len(), 2);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn file_that_cannot_be_written_is_named_and_tried_again() {
    let (disk, readiness) = (Disk::default(), programmed());
    *disk.refused.lock().unwrap() = Some("/run/a");
    let outputs = [output("subnet-env", &["/run/a"], 0)];
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_secs(600)).await);
    let said = reason(&readiness).unwrap();
    assert!(said.starts_with("--emit subnet-env: cannot write /run/a: "), "{said}");
    *disk.refused.lock().unwrap() = None;
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(31)).await);
    assert_eq!(outputs[0].outcome().problem, None);
}

#[tokio::test(start_paused = true)]
async fn two_emitters_cannot_have_one_file() {
    let (disk, readiness) = (Disk::default(), programmed());
    let outputs = [output("one", &["/run/a"], 0), output("two", &["/run/a", "/run/b"], 0)];
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_secs(60)).await);
    let said = reason(&readiness).unwrap();
    assert!(said.starts_with("--emit: one and two both write /run/a: expected"), "{said}");
    // The first has it, also when both are asked again.
    assert_eq!(*disk.written.lock().unwrap(), [PathBuf::from("/run/a")]);
}

#[tokio::test(start_paused = true)]
async fn emitters_are_asked_in_the_order_of_the_flags() {
    let (disk, readiness) = (Disk::default(), programmed());
    let outputs = [output("z", &["/run/z"], 0), output("a", &["/run/a"], 0)];
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    let expected = ["/run/z", "/run/a"].map(PathBuf::from);
    assert_eq!(*disk.written.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn retries_are_delayed_twice_as_long_each_time() {
    let (disk, readiness) = (Disk::default(), programmed());
    // After 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8 and 25.6 s, and every 30 s from then on.
    let outputs = [output("slow", &["/run/a"], 10)];
    let begun = Instant::now();
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(600)).await);
    let expected = Duration::from_secs(51 + 60);
    assert_eq!(begun.elapsed().as_secs(), expected.as_secs());
}

#[tokio::test(start_paused = true)]
async fn problems_of_all_emitters_are_named() {
    let (disk, readiness) = (Disk::default(), programmed());
    let outputs = [output("one", &["/run/a"], 9), output("two", &["/run/b"], 9)];
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    let said = reason(&readiness).unwrap();
    assert!(said.starts_with("plugin one, emit: trapped"), "{said}");
    assert!(said.contains("; plugin two, emit: trapped"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn node_without_emitters_has_nothing_to_wait_for() {
    let (disk, readiness) = (Disk::default(), programmed());
    assert!(emit_for(&disk, &[], &readiness, Duration::from_secs(1)).await);
    assert_eq!(reason(&readiness), None);
}

#[tokio::test(start_paused = true)]
async fn emitter_without_files_is_done() {
    let (disk, readiness) = (Disk::default(), programmed());
    let outputs = [output("empty", &[], 0)];
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    assert!(disk.written.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn file_of_a_later_emitter_is_not_taken_by_an_earlier_one() {
    let (disk, readiness) = (Disk::default(), programmed());
    let first = output("one", &["/run/a"], 2);
    // The first fails at first, so the second writes the file.
    let outputs = [first, output("two", &["/run/a"], 0)];
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_secs(60)).await);
    assert_eq!(outputs[1].outcome().files, [PathBuf::from("/run/a")]);
    assert!(outputs[0].outcome().files.is_empty());
    assert_eq!(disk.written.lock().unwrap().len(), 1);
    let said = reason(&readiness).unwrap();
    assert!(said.starts_with("--emit: two and one both write /run/a: expected"), "{said}");
}

#[test]
fn output_has_the_settings_of_its_flag() {
    let flags = flags(&["--emit=docker-opts:path=/run/docker.env"]);
    let emitter = Arc::new(Model {
        name: "docker-opts",
        paths: Vec::new(),
        failures: Mutex::default(),
        metrics: Arc::default(),
    });
    let output = Output::new(emitter, &flags.files.emit[0], &flags);
    let settings: Vec<_> =
        output.settings.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(settings, [("path", "/run/docker.env")]);
    assert!(output.outcome().files.is_empty() && output.outcome().problem.is_none());
}

/// Returns the paths in the record.
fn recorded(disk: &Disk) -> Vec<PathBuf> {
    disk.record.lock().unwrap().iter().map(|its| its.path.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn file_of_earlier_run_that_is_not_written_any_more_goes() {
    let (disk, readiness) = (Disk::default(), programmed());
    *disk.record.lock().unwrap() =
        vec![disk.left("/run/old", "1", true), disk.left("/run/a", "", true)];
    let outputs = [output("one", &["/run/a"], 0)];
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    assert_eq!((disk.text("/run/old"), disk.text("/run/a")), (None, Some(String::new())));
    assert_eq!(recorded(&disk), [PathBuf::from("/run/a")]);
}

#[tokio::test(start_paused = true)]
async fn file_that_somebody_else_wrote_or_changed_stays() {
    let (disk, readiness) = (Disk::default(), programmed());
    let changed = disk.left("/run/changed", "1", true);
    let found = disk.left("/run/found", "1", false);
    disk.disturb("/run/changed", Some("2"));
    *disk.record.lock().unwrap() = vec![changed, found];
    assert!(emit_for(&disk, &[], &readiness, Duration::from_secs(1)).await);
    assert_eq!(disk.text("/run/changed").unwrap(), "2");
    assert_eq!(disk.text("/run/found").unwrap(), "1");
    assert!(recorded(&disk).is_empty());
}

#[tokio::test(start_paused = true)]
async fn earlier_files_stay_until_every_emitter_has_written() {
    let (disk, readiness) = (Disk::default(), programmed());
    *disk.record.lock().unwrap() = vec![disk.left("/run/old", "1", true)];
    let outputs = [output("one", &["/run/a"], 0), output("two", &["/run/b"], 3)];
    assert!(!emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    assert!(disk.text("/run/old").is_some());
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(60)).await);
    assert_eq!(disk.text("/run/old"), None);
}

#[tokio::test(start_paused = true)]
async fn file_that_cannot_be_removed_stays_in_the_record() {
    let (disk, readiness) = (Disk::default(), programmed());
    *disk.record.lock().unwrap() = vec![disk.left("/run/old", "1", true)];
    *disk.refused.lock().unwrap() = Some("/run/old");
    assert!(emit_for(&disk, &[], &readiness, Duration::from_secs(1)).await);
    assert_eq!(recorded(&disk), [PathBuf::from("/run/old")]);
    *disk.refused.lock().unwrap() = None;
    assert!(emit_for(&disk, &[], &readiness, Duration::from_secs(1)).await);
    assert_eq!((disk.text("/run/old"), recorded(&disk)), (None, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn file_found_as_it_should_be_is_not_claimed() {
    let (disk, readiness) = (Disk::default(), programmed());
    disk.disturb("/run/a", Some(""));
    let outputs = [output("one", &["/run/a", "/run/b"], 0)];
    assert!(emit_for(&disk, &outputs, &readiness, Duration::from_secs(1)).await);
    let made: Vec<_> = disk.record.lock().unwrap().iter().map(|its| its.made).collect();
    assert_eq!(made, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn crash_between_record_and_write_leaves_no_stray_file() {
    let (disk, readiness) = (Disk::default(), programmed());
    // The earlier run had written the first, recorded the second, and ended.
    let one = disk.left("/run/old", "1", true);
    let two = Written { print: Print::of(0o644, b"2"), ..one.clone() };
    *disk.record.lock().unwrap() = vec![one, two];
    assert!(emit_for(&disk, &[], &readiness, Duration::from_secs(1)).await);
    assert_eq!(disk.text("/run/old"), None);
}
