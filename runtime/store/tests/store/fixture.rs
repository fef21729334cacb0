//! Stores for tests, and access to them from outside.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, PutOptions};
use heddle_core::allocation::{Claimant, Holders, HostMarks};
use heddle_core::config::NetworkConfig;
use heddle_core::host_network::HostNetwork;
use heddle_core::lease::{Lease, LeaseFamily, LeaseKey};
use heddle_core::node::NodeId;
use heddle_core::record::RecordChange;
use heddle_lab::Scratch;
use heddle_store::etcd::EtcdTiming;
use heddle_store::{
    AcquireError, DirectoryStore, EtcdOptions, EtcdStore, LeaseStore, OwnLease, Page, StoreError,
    Stored, Update, Watch, WatchEvent, acquire,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// Time limit for anything that should happen, generous enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PREFIX: &str = "/coreos.com/network";

/// An etcd cluster of one member, which is killed at the end of the test.
pub(crate) struct Etcd {
    process: Child,
    /// Data directory. In memory if there is room: etcd waits for its disk before each answer.
    directory: Scratch,
    client_port: u16,
    peer_port: u16,
    /// Additional flags.
    flags: Vec<String>,
    scheme: &'static str,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_with("http", Vec::new())
    }

    /// Starts an etcd with TLS as configured by the flags.
    pub(crate) fn start_with(scheme: &'static str, flags: Vec<String>) -> Self {
        for _ in 0..10 {
            let (client_port, peer_port) = (free_port(), free_port());
            let directory = scratch();
            let process = run_etcd(&directory, client_port, peer_port, scheme, &flags);
            let mut etcd =
                Self { process, directory, client_port, peer_port, flags: flags.clone(), scheme };
            if etcd.listens() {
                return etcd;
            }
        }
        panic!("etcd does not start; is it installed?");
    }

    /// Waits until the port accepts connections. Returns false if the process ended, as it does
    /// when a port is in use.
    fn listens(&mut self) -> bool {
        loop {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.client_port)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port)
    }

    /// Returns options with time limits that suit a test.
    pub(crate) fn options(&self) -> EtcdOptions {
        options([self.endpoint()])
    }

    pub(crate) fn store(&self) -> EtcdStore {
        EtcdStore::new(self.options()).unwrap()
    }

    /// Returns a client of the library, without any of our code in between.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(ConnectOptions::new()).await
    }

    pub(crate) async fn client_with(&self, options: ConnectOptions) -> Client {
        patiently("etcd to answer", async || {
            let mut client =
                Client::connect([self.endpoint()], Some(options.clone())).await.ok()?;
            client.get("x", None).await.ok()?;
            Some(client)
        })
        .await
    }

    /// Kills the process, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Restarts it with the same ports and data.
    pub(crate) fn restart(&mut self) {
        self.process =
            run_etcd(&self.directory, self.client_port, self.peer_port, self.scheme, &self.flags);
        assert!(self.listens(), "etcd does not start again");
    }

    /// Restarts it with the same ports and without data.
    pub(crate) fn restart_empty(&mut self) {
        self.restart_with(scratch());
    }

    /// Restarts it with the same ports and other data.
    pub(crate) fn restart_with(&mut self, data: Scratch) {
        self.directory = data;
        self.restart();
    }

    /// Returns a copy of the data of a stopped etcd.
    pub(crate) fn copy_data(&self) -> Scratch {
        let copy = scratch();
        let mut command = Command::new("cp");
        command.arg("-a").arg(self.directory.path().join(".")).arg(copy.path());
        assert!(command.status().unwrap().success());
        copy
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn options(endpoints: impl IntoIterator<Item = String>) -> EtcdOptions {
    let mut options = EtcdOptions::new(endpoints, PREFIX);
    options.timing = EtcdTiming {
        resolve: Duration::from_secs(2),
        connect: Duration::from_secs(2),
        call: Duration::from_secs(5),
        quiet: Duration::from_millis(500),
        progress: Duration::from_secs(1),
    };
    options
}

/// Returns a directory for etcd's data.
fn scratch() -> Scratch {
    Scratch::new("store-test").unwrap()
}

fn run_etcd(
    directory: &Scratch,
    client_port: u16,
    peer_port: u16,
    scheme: &str,
    flags: &[String],
) -> Child {
    let client = format!("{scheme}://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    // If the test is killed, the kernel kills etcd as well.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "etcd", "--data-dir"])
        .arg(directory.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        .args(flags)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("setpriv (util-linux) and etcd are installed")
}

/// Returns a free port below the kernel's range of ephemeral ports: a restarted etcd needs the same
/// port again.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A proxied connection to an etcd that can be cut.
pub(crate) struct Line {
    address: &'static str,
    port: u16,
    target: u16,
    /// Task that holds every connection; they end with it.
    task: tokio::task::JoinHandle<()>,
}

impl Line {
    pub(crate) async fn to(etcd: &Etcd) -> Self {
        Self::on("127.0.0.1", etcd).await
    }

    /// Listens on this address.
    pub(crate) async fn on(address: &'static str, etcd: &Etcd) -> Self {
        let (port, target) = (free_port(), etcd.client_port);
        let mut line = Self { address, port, target, task: tokio::spawn(async {}) };
        line.mend().await;
        line
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}:{}", self.address, self.port)
    }

    pub(crate) fn cut(&self) {
        self.task.abort();
    }

    pub(crate) async fn mend(&mut self) {
        let listener = tokio::net::TcpListener::bind((self.address, self.port)).await.unwrap();
        let target = self.target;
        self.task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let far = tokio::net::TcpStream::connect(("127.0.0.1", target)).await;
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far.unwrap()).await;
                });
            }
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Polls `ask` until it returns an answer.
pub(crate) async fn patiently<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            match ask().await {
                Some(answer) => return answer,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// A store of either kind, with access from outside.
pub(crate) enum World {
    Etcd(Etcd),
    Directory(TempDir),
}

impl World {
    pub(crate) fn etcd() -> Self {
        Self::Etcd(Etcd::start())
    }

    pub(crate) fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    /// Returns a store as another process would open it.
    pub(crate) fn store(&self) -> Box<dyn LeaseStore> {
        match self {
            Self::Etcd(etcd) => Box::new(etcd.store()),
            Self::Directory(directory) => Box::new(DirectoryStore::new(directory.path())),
        }
    }

    /// Writes below the prefix as an operator does, so a lease is a reservation.
    pub(crate) async fn put(&self, path: &str, value: &str) {
        match self {
            Self::Etcd(etcd) => {
                let key = format!("{PREFIX}/{path}");
                etcd.client().await.put(key, value, None).await.unwrap();
            }
            Self::Directory(directory) => {
                let path = directory.path().join(path);
                let parent = path.parent().unwrap();
                fs::create_dir_all(parent).unwrap();
                // Renamed into place, so that nobody reads half a file.
                let new = parent.join(".put");
                fs::write(&new, value).unwrap();
                fs::rename(new, path).unwrap();
            }
        }
    }

    pub(crate) async fn delete(&self, path: &str) {
        match self {
            Self::Etcd(etcd) => {
                let key = format!("{PREFIX}/{path}");
                etcd.client().await.delete(key, None).await.unwrap();
            }
            Self::Directory(directory) => {
                fs::remove_file(directory.path().join(path)).unwrap();
            }
        }
    }
}

/// Puts a lease as flannel does: attached to an etcd lease. Returns the ID of that etcd lease.
pub(crate) async fn put_with_ttl(client: &mut Client, key: &str, value: &str, ttl: i64) -> i64 {
    let id = client.lease_grant(ttl, None).await.unwrap().id();
    let key = format!("{PREFIX}/subnets/{key}");
    let options = PutOptions::new().with_lease(id);
    client.put(key, value, Some(options)).await.unwrap();
    id
}

/// Returns the ID of the etcd lease of a key; 0 for none.
pub(crate) async fn lease_of(client: &mut Client, key: &str) -> i64 {
    let key = format!("{PREFIX}/subnets/{key}");
    let answer = client.get(key, Some(GetOptions::new())).await.unwrap();
    answer.kvs()[0].lease()
}

/// Returns the next event of any kind.
pub(crate) async fn any(watch: &mut Watch) -> WatchEvent {
    timeout(PATIENCE, watch.next())
        .await
        .expect("the watch says something")
        .expect("the watch goes on")
}

/// Returns the next event that is not about the network config.
pub(crate) async fn next(watch: &mut Watch) -> WatchEvent {
    loop {
        match any(watch).await {
            WatchEvent::Config(_) => {}
            event => return event,
        }
    }
}

/// Returns the next complete snapshot, skipping the events before it.
pub(crate) async fn snapshot(watch: &mut Watch) -> Vec<Stored> {
    let mut records = Vec::new();
    loop {
        if let WatchEvent::Update(Update::Snapshot(page)) = next(watch).await
            && collect(&mut records, page)
        {
            return records;
        }
    }
}

/// Adds a page to the pages before it. Returns true if it is the last one.
pub(crate) fn collect(records: &mut Vec<Stored>, page: Page) -> bool {
    if page.first {
        records.clear();
    }
    records.extend(page.records);
    page.last
}

/// Lists all records of a store at once, for tests that know how many there are.
pub(crate) trait List {
    async fn list(&self) -> Result<Vec<Stored>, StoreError>;
}

impl<S: LeaseStore + ?Sized> List for S {
    async fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let (mut records, mut complete) = (Vec::new(), false);
        self.scan(&mut |page| complete = collect(&mut records, page)).await?;
        assert!(complete);
        Ok(records)
    }
}

/// Returns the next `count` changes.
pub(crate) async fn changes(watch: &mut Watch, count: usize) -> Vec<RecordChange> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(watch).await {
            WatchEvent::Update(Update::Changes(changes)) => all.extend(changes),
            other => panic!("expected {count} changes, got {other:?} after {}", all.len()),
        }
    }
    assert_eq!(all.len(), count);
    all
}

pub(crate) fn keys(records: &[Stored]) -> Vec<&str> {
    records.iter().map(Stored::key).collect()
}

/// A node that needs a subnet.
#[derive(Clone)]
pub(crate) struct TestNode {
    pub(crate) id: NodeId,
    pub(crate) address: [std::net::IpAddr; 1],
    pub(crate) previous: Option<LeaseKey>,
}

impl TestNode {
    /// Returns the nth node, with the address 192.168.0.n.
    pub(crate) fn new(n: u8) -> Self {
        Self {
            id: format!("node-{n}").parse().unwrap(),
            address: [[192, 168, 0, n].into()],
            previous: None,
        }
    }

    pub(crate) fn lease(&self, key: LeaseKey) -> Lease {
        let family = |subnet| LeaseFamily {
            subnet,
            public_address: match subnet {
                ipnet::IpNet::V4(_) => self.address[0],
                ipnet::IpNet::V6(_) => match self.address[0] {
                    std::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                    v6 @ std::net::IpAddr::V6(_) => v6,
                },
            },
            backend_data: Some(format!(r#"{{"VNI":1,"Of":"{}"}}"#, self.id)),
        };
        Lease {
            key,
            families: key.subnets().map(family),
            backend_type: Some("vxlan".into()),
            node_id: Some(self.id.clone()),
            node_name: None,
        }
    }

    pub(crate) async fn acquire(
        &self,
        store: &dyn LeaseStore,
        config: &NetworkConfig,
    ) -> Result<OwnLease, AcquireError> {
        let claimant = Claimant {
            id: &self.id,
            public_addresses: self.address.into(),
            previous: self.previous,
            host: &HostNetwork::default(),
            underlay: "eth0".parse().unwrap(),
            marks: &HostMarks::default(),
            holders: &Holders::new(),
        };
        let acquiring = acquire(store, config, &claimant, |key| self.lease(key), &|_| ());
        timeout(PATIENCE, acquiring).await.expect("a lease in time")
    }
}

pub(crate) fn config(text: &str) -> NetworkConfig {
    NetworkConfig::parse(text.as_bytes()).unwrap()
}

pub(crate) fn network() -> NetworkConfig {
    config(r#"{"Network":"10.244.0.0/16"}"#)
}

/// A certificate authority in a directory, with the certificates it signed.
pub(crate) struct Authority {
    pub(crate) directory: TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: rcgen::Issuer::new(parameters, key) }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Writes `<name>.pem` and `<name>.key`, valid for both ends of a connection at 127.0.0.1.
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        parameters.extended_key_usages = vec![
            rcgen::ExtendedKeyUsagePurpose::ServerAuth,
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        fs::write(&files.0, certificate.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// Starts an etcd with a certificate of this authority. It requires client certificates if
    /// `mutual`.
    pub(crate) fn etcd(&self, mutual: bool) -> Etcd {
        self.etcd_with(mutual, &[])
    }

    /// Starts one with additional flags.
    pub(crate) fn etcd_with(&self, mutual: bool, additional: &[&str]) -> Etcd {
        let (certificate, key) = self.sign("server");
        let mut flags = vec![
            format!("--cert-file={}", certificate.display()),
            format!("--key-file={}", key.display()),
        ];
        if mutual {
            flags.push("--client-cert-auth".into());
            flags.push(format!("--trusted-ca-file={}", self.ca_file().display()));
        }
        flags.extend(additional.iter().map(ToString::to_string));
        Etcd::start_with("https", flags)
    }
}
