//! A store behind etcd's gRPC proxy, which answers no requests for progress, and keeps connections
//! while etcd itself is away.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heddle_core::record::RecordChange;
use heddle_requires::requires;
use heddle_store::etcd::EtcdTiming;
use heddle_store::{EtcdOptions, EtcdStore, LeaseStore, Renewal, WatchEvent};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::fixture::*;

/// `etcd grpc-proxy` in front of an etcd. Killed at the end of the test.
struct Proxy {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Proxy {
    async fn of(etcd: &Etcd) -> Self {
        etcd.client().await;
        let (port, directory) = (free_port(), tempfile::tempdir().unwrap());
        let endpoint = etcd.endpoint();
        let (_, target) = endpoint.split_once("://").unwrap();
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "grpc-proxy", "start"])
            .arg(format!("--endpoints={target}"))
            .arg(format!("--listen-addr=127.0.0.1:{port}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let proxy = Self { process, port, _directory: directory };
        let store = proxy.store();
        patiently("the proxy", async || store.network_config().await.ok()).await;
        proxy
    }

    fn options(&self) -> EtcdOptions {
        options([format!("http://127.0.0.1:{}", self.port)])
    }

    fn store(&self) -> EtcdStore {
        EtcdStore::new(self.options()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn lease_is_renewed_through_a_proxy() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let proxy = Proxy::of(&etcd).await;
    let store = proxy.store();
    let stored = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let Renewal::Renewed { remaining } = store.renew(&stored).await.unwrap() else {
        panic!("the lease exists");
    };
    let day = Duration::from_secs(86_400);
    assert!(remaining <= day && remaining > day - Duration::from_secs(60), "{remaining:?}");
    let id = stored.handle.lease_id.unwrap();
    etcd.client().await.lease_revoke(id).await.unwrap();
    assert_eq!(store.renew(&stored).await.unwrap(), Renewal::Gone);
}

#[tokio::test]
async fn watch_through_a_proxy_stays_calm_and_delivers() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let proxy = Proxy::of(&etcd).await;
    let store = proxy.store();
    let first = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await.len(), 1);
    let direct = etcd.store();
    // Changes of each kind, and after each a silence of several periods: the last one of more than
    // lie between two comparisons by revision.
    let second = direct.create("10.244.9.0-24", b"1").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(second.record.clone())]);
    calm(&mut watch, 3).await;
    let second = direct.replace(&second, b"2").await.unwrap().unwrap();
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Put(second.record)]);
    calm(&mut watch, 3).await;
    assert!(direct.delete(&first).await.unwrap());
    assert_eq!(changes(&mut watch, 1).await, [RecordChange::Delete("10.244.8.0-24".into())]);
    calm(&mut watch, 8).await;
    let silent = watch.pulse().last().unwrap().elapsed();
    assert!(silent < Duration::from_secs(2), "{silent:?}");
}

/// Waits for some seconds in which the watch must have nothing to tell.
async fn calm(watch: &mut heddle_store::Watch, seconds: u64) {
    if let Ok(event) = timeout(Duration::from_secs(seconds), watch.next()).await {
        panic!("{event:?}");
    }
}

#[tokio::test]
async fn proxy_that_hangs_is_noticed() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let proxy = Proxy::of(&etcd).await;
    let mut watch = proxy.store().watch();
    assert_eq!(snapshot(&mut watch).await, []);
    calm(&mut watch, 3).await;
    proxy.signal(Signal::STOP);
    let WatchEvent::Stale { reason } = next(&mut watch).await else {
        panic!("the watch of a proxy that hangs is stale");
    };
    assert!(reason.contains("no answer within 1000 ms"), "{reason}");
    proxy.signal(Signal::CONT);
    assert_eq!(snapshot(&mut watch).await, []);
}

/// The proxy's own watch resumes at the revision that it knows, and so misses what happened in an
/// etcd that counts anew. Nothing on our connection shows it.
#[tokio::test]
async fn etcd_without_its_data_behind_a_proxy_is_noticed() {
    requires!(Program("etcd"));
    let mut etcd = Etcd::start();
    let proxy = Proxy::of(&etcd).await;
    let mut options = proxy.options();
    // Longer than etcd is away.
    options.timing = EtcdTiming { quiet: Duration::from_secs(4), ..options.timing };
    let store = EtcdStore::new(options).unwrap();
    for key in ["10.244.1.0-24", "10.244.2.0-24"] {
        store.create(key, b"1").await.unwrap().unwrap();
    }
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await.len(), 2);
    etcd.kill();
    etcd.restart_empty();
    let mut client = etcd.client().await;
    for _ in 0..10 {
        client.put("elsewhere", "1", None).await.unwrap();
    }
    assert_eq!(snapshot(&mut watch).await, []);
}
