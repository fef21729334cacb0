//! A running etcd.

mod client;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

pub use self::client::KeyValue;

use crate::{Error, Host, Lab, run, wait_until};

/// flannel's default for `--etcd-prefix`.
pub const PREFIX: &str = "/coreos.com/network";

/// etcd's default ports.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The files of an etcd with TLS, in PEM format. etcd reads them for each connection.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate of the certificate authority.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

/// The client authentication that an etcd with TLS requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// No client certificate.
    Anyone,
    /// A client certificate of the same certificate authority.
    Known,
}

/// An etcd on its own host. Its data is removed when this value is dropped.
#[derive(Debug)]
pub struct Etcd {
    host: Host,
    /// `None` while it is stopped.
    child: Option<Child>,
    arguments: Vec<String>,
    /// The endpoints of all members, its own first, separated by commas.
    endpoints: String,
    agent: ureq::Agent,
}

impl Etcd {
    /// Starts an etcd.
    ///
    /// # Errors
    ///
    /// If `etcd` is not installed or does not answer in time.
    pub fn start(lab: &Lab) -> Result<Self, Error> {
        Self::start_alone(lab, |_| None)
    }

    /// Starts an etcd with TLS, with the files that `files` returns for its address.
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn start_with_tls(
        lab: &Lab,
        clients: Clients,
        files: impl FnOnce(IpAddr) -> TlsFiles,
    ) -> Result<Self, Error> {
        Self::start_alone(lab, |address| Some((files(address), clients)))
    }

    /// Starts an etcd with this quota in bytes (`--quota-backend-bytes`).
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn start_with_room(lab: &Lab, bytes: u64) -> Result<Self, Error> {
        let mut etcd = Self::start(lab)?;
        etcd.stop();
        etcd.arguments.push(format!("--quota-backend-bytes={bytes}"));
        etcd.resume()?;
        Ok(etcd)
    }

    /// Starts an etcd that also answers by its v2 API (`--enable-v2`).
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn start_with_v2(lab: &Lab) -> Result<Self, Error> {
        let mut etcd = Self::start(lab)?;
        etcd.stop();
        etcd.arguments.push("--enable-v2".to_owned());
        etcd.resume()?;
        Ok(etcd)
    }

    /// Starts an etcd on an existing host, at one of its addresses.
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn start_on(host: Host, address: IpAddr) -> Result<Self, Error> {
        let endpoint = format!("http://{}", SocketAddr::new(address, CLIENT_PORT));
        let peer = format!("http://127.0.0.1:{PEER_PORT}");
        let mut etcd = Self::on(host, endpoint, &peer, &format!("etcd={peer}"));
        etcd.resume()?;
        Ok(etcd)
    }

    /// Starts the members of one cluster, each on its own host.
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn start_members(lab: &Lab, count: usize) -> Result<Vec<Self>, Error> {
        let hosts: Vec<_> =
            (1..=count).map(|n| lab.host(&format!("etcd{n}"))).collect::<Result<_, _>>()?;
        let url = |host: &Host, port| format!("http://{}", SocketAddr::new(address(host), port));
        let peers: Vec<_> = hosts.iter().map(|host| url(host, PEER_PORT)).collect();
        let named = |(host, peer): (&Host, &String)| format!("{}={peer}", host.name());
        let cluster = hosts.iter().zip(&peers).map(named).collect::<Vec<_>>().join(",");
        let endpoints: Vec<_> = hosts.iter().map(|host| url(host, CLIENT_PORT)).collect();
        let mut members = Vec::with_capacity(count);
        for (index, (host, peer)) in hosts.into_iter().zip(&peers).enumerate() {
            let mut own_first = endpoints.clone();
            own_first.rotate_left(index);
            members.push(Self::on(host, own_first.join(","), peer, &cluster));
        }
        // No member answers before there is a quorum.
        members.iter_mut().try_for_each(Self::launch)?;
        members.iter().try_for_each(Self::wait_answering)?;
        Ok(members)
    }

    fn start_alone(
        lab: &Lab,
        tls: impl FnOnce(IpAddr) -> Option<(TlsFiles, Clients)>,
    ) -> Result<Self, Error> {
        let host = lab.host("etcd")?;
        let tls = tls(address(&host));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", SocketAddr::new(address(&host), CLIENT_PORT));
        let peer = format!("http://127.0.0.1:{PEER_PORT}");
        let mut etcd = Self::on(host, endpoint, &peer, &format!("etcd={peer}"));
        if let Some((TlsFiles { authority, certificate, key }, clients)) = tls {
            etcd.arguments.extend([
                format!("--cert-file={}", certificate.display()),
                format!("--key-file={}", key.display()),
            ]);
            if clients == Clients::Known {
                etcd.arguments.extend([
                    "--client-cert-auth".to_owned(),
                    format!("--trusted-ca-file={}", authority.display()),
                ]);
            }
        }
        etcd.resume()?;
        Ok(etcd)
    }

    /// Creates an etcd that does not run yet. `endpoints` are those of all members, its own first;
    /// `peer` is its own URL for other members, and `cluster` lists all of them.
    fn on(host: Host, endpoints: String, peer: &str, cluster: &str) -> Self {
        let endpoint = endpoints.split(',').next().unwrap_or_default();
        Self {
            // The loopback listener is for this value's own requests.
            arguments: vec![
                format!("--name={}", host.name()),
                format!("--data-dir={}", data(&host).display()),
                format!("--listen-client-urls={endpoint},http://127.0.0.1:{CLIENT_PORT}"),
                format!("--advertise-client-urls={endpoint}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster={cluster}"),
            ],
            host,
            child: None,
            endpoints,
            agent: ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(10)))
                .build()
                .into(),
        }
    }

    /// Returns its endpoint for clients on other hosts.
    pub fn endpoint(&self) -> &str {
        self.endpoints.split(',').next().unwrap_or_default()
    }

    /// Returns the endpoints of all members of its cluster, separated by commas.
    pub fn endpoints(&self) -> &str {
        &self.endpoints
    }

    /// Returns its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it again with the same data after [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// The same as [`start`](Self::start).
    pub fn resume(&mut self) -> Result<(), Error> {
        self.launch()?;
        self.wait_answering()
    }

    /// Does the same without waiting for an answer, which a member only gives while there is a
    /// quorum.
    ///
    /// # Errors
    ///
    /// If `etcd` is not installed.
    pub fn launch(&mut self) -> Result<(), Error> {
        let log = self.log_path();
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::io(format!("opening {}", log.display())))?;
        let mut command = Command::new("etcd");
        command
            .args(&self.arguments)
            .env_remove("ETCDCTL_API")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        self.child = Some(self.host.namespace().spawn(command)?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] with the end of its log.
    pub fn wait_answering(&self) -> Result<(), Error> {
        wait_until("etcd answering", Duration::from_secs(20), || {
            let answer = self.call("maintenance/status", json!({}));
            answer.map(drop).map_err(|error| {
                let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
                format!("{error}; its log ends with: {}", log.lines().last().unwrap_or(""))
            })
        })
    }

    fn log_path(&self) -> PathBuf {
        self.host.directory().join("etcd.log")
    }

    /// Returns true if it is the leader of its cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn is_leader(&self) -> Result<bool, Error> {
        let status = self.call("maintenance/status", json!({}))?;
        Ok(status["leader"] == status["header"]["member_id"])
    }

    /// Copies its data while it is stopped. Returns the directory of the copy.
    ///
    /// # Errors
    ///
    /// Those of `cp`.
    pub fn copy_data(&self) -> Result<PathBuf, Error> {
        let copy = self.host.directory().join("copy");
        run(Command::new("cp").arg("-a").arg(data(&self.host)).arg(&copy))?;
        Ok(copy)
    }

    /// Removes its data while it is stopped, and replaces it with an earlier copy, if given.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn replace_data(&self, copy: Option<&Path>) -> Result<(), Error> {
        let data = data(&self.host);
        std::fs::remove_dir_all(&data)
            .and_then(|()| copy.map_or(Ok(()), |copy| std::fs::rename(copy, &data)))
            .map_err(Error::io(format!("replacing {}", data.display())))
    }

    /// Kills it. Its data remains.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have exited already; it is gone afterwards in either case.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends its process a signal. Stopped with `Signal::STOP`, it keeps its connections and
    /// answers nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if it is not running, or [`Error::Io`].
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let Some(child) = &self.child else {
            return Err(Error::Missing("etcd is stopped".into()));
        };
        kill_process(Pid::from_child(child), signal)
            .map_err(|errno| Error::io(format!("sending {signal:?} to etcd"))(errno.into()))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns the first address of a host.
fn address(host: &Host) -> IpAddr {
    let Some(address) = host.addresses().next() else {
        unreachable!("a lab has at least one family")
    };
    address
}

/// Returns the data directory of an etcd on this host.
fn data(host: &Host) -> PathBuf {
    host.directory().join("data")
}
