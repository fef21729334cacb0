use std::path::Path;

use async_trait::async_trait;
use heddle_core::config::NetworkConfig;
use heddle_core::lease::Lease;
use heddle_plugin::{CallError, Metrics, Reason};
use tokio::time::Instant;

use crate::ports::FileError;

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
    Arc::new(Output { emitter, settings: Vec::new(), outcome: Mutex::default() })
}

/// Counts how often each file is written, and refuses some.
#[derive(Default)]
struct Disk {
    written: Mutex<Vec<PathBuf>>,
    refused: Mutex<Option<&'static str>>,
}

impl Files for Disk {
    fn subnet_env(&self) -> String {
        String::new()
    }

    fn replace(&self, files: Vec<File>, _: &[Setting]) -> Result<Vec<PathBuf>, FileError> {
        let refused = *self.refused.lock().unwrap();
        for file in &files {
            if refused.is_some_and(|refused| file.path == Path::new(refused)) {
                let full = std::io::Error::from_raw_os_error(28);
                return Err(FileError::new("write", file.path.clone(), full));
            }
            self.written.lock().unwrap().push(file.path.clone());
        }
        Ok(files.into_iter().map(|file| file.path).collect())
    }
}

fn view() -> View {
    let config = NetworkConfig::parse(br#"{"Network":"10.244.0.0/16"}"#).unwrap();
    let key = "10.244.8.0-24".parse().unwrap();
    let lease = Lease::from_value(key, br#"{"PublicIP":"192.0.2.1"}"#).unwrap();
    View { config, lease, mtu: 1450, ip_masq: false }
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

/// Writes files for a time. Returns true if all are written.
async fn emit_for(
    disk: &Disk,
    outputs: &[Arc<Output>],
    readiness: &Readiness,
    time: Duration,
) -> bool {
    tokio::time::timeout(time, emit(disk, outputs, &view(), readiness)).await.is_ok()
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
