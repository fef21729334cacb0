//! A running etcd, and a client for its JSON interface (`/v3/…`, see "gRPC gateway" in etcd's
//! documentation).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{Error, Host, Lab, run, wait_until};

/// flannel's default for `--etcd-prefix`.
pub const PREFIX: &str = "/coreos.com/network";

/// etcd's default ports.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// The maximum number of operations that etcd accepts in one transaction (`--max-txn-ops`).
const TRANSACTION_LIMIT: usize = 128;

/// A key in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The etcd lease to which it is attached; 0 without one.
    pub lease: i64,
    /// The revision of its last modification.
    pub revision: i64,
}

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
    /// The same as of [`start`](Self::start).
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
    /// The same as of [`start`](Self::start).
    pub fn start_with_room(lab: &Lab, bytes: u64) -> Result<Self, Error> {
        let mut etcd = Self::start(lab)?;
        etcd.stop();
        etcd.arguments.push(format!("--quota-backend-bytes={bytes}"));
        etcd.resume()?;
        Ok(etcd)
    }

    /// Starts an etcd on an existing host, at one of its addresses.
    ///
    /// # Errors
    ///
    /// The same as of [`start`](Self::start).
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
    /// The same as of [`start`](Self::start).
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
    /// The same as of [`start`](Self::start).
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

    /// Sets a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`], also if etcd refuses it.
    pub fn put(&self, key: &str, value: &str) -> Result<(), Error> {
        self.call("kv/put", json!({"key": encode(key), "value": encode(value)}))?;
        Ok(())
    }

    /// Sets a key of any bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Http`], also when etcd refuses it.
    pub fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.call("kv/put", json!({"key": encode(key), "value": encode(value)}))?;
        Ok(())
    }

    /// Removes a key of any bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn delete_bytes(&self, key: &[u8]) -> Result<(), Error> {
        self.call("kv/deleterange", json!({"key": encode(key)}))?;
        Ok(())
    }

    /// Sets a key and attaches it to an etcd lease.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn put_with_lease(&self, key: &str, value: &str, lease: i64) -> Result<(), Error> {
        let request =
            json!({"key": encode(key), "value": encode(value), "lease": lease.to_string()});
        self.call("kv/put", request)?;
        Ok(())
    }

    /// Sets many keys, `per_transaction` of them in each transaction (1 to 128).
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn put_all(&self, pairs: &[(String, String)], per_transaction: usize) -> Result<(), Error> {
        self.transactions(
            pairs,
            per_transaction,
            |(key, value)| json!({"requestPut": {"key": encode(key), "value": encode(value)}}),
        )
    }

    /// Removes many keys, in as few transactions as possible.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn delete_all(&self, keys: &[String]) -> Result<(), Error> {
        self.transactions(
            keys,
            TRANSACTION_LIMIT,
            |key| json!({"requestDeleteRange": {"key": encode(key)}}),
        )
    }

    fn transactions<T: Sync>(
        &self,
        items: &[T],
        size: usize,
        operation: impl Fn(&T) -> Value + Sync,
    ) -> Result<(), Error> {
        // A single thread in the namespace sends all of them.
        self.host.namespace().enter(|| {
            for chunk in items.chunks(size) {
                let operations: Vec<Value> = chunk.iter().map(&operation).collect();
                self.call_here("kv/txn", &json!({"success": operations}))?;
            }
            Ok(())
        })?
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn get(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        Ok(self.range(json!({"key": encode(key)}))?.pop())
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.call("kv/deleterange", json!({"key": encode(key)}))?;
        Ok(())
    }

    /// Returns all keys that begin with `prefix`, in order.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Error> {
        let mut end = prefix.as_bytes().to_vec();
        // The prefixes used here end in ASCII, so that the last byte has a successor.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        self.range(json!({"key": encode(prefix), "range_end": BASE64_STANDARD.encode(end)}))
    }

    /// Returns the leases below [`PREFIX`]: the last part of the key, and the value.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn leases(&self) -> Result<BTreeMap<String, String>, Error> {
        let prefix = format!("{PREFIX}/subnets/");
        let leases = self.list(&prefix)?;
        Ok(leases
            .into_iter()
            .map(|found| (found.key[prefix.len()..].to_owned(), found.value))
            .collect())
    }

    /// Returns the granted and the remaining time to live of an etcd lease, in seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn time_to_live(&self, lease: i64) -> Result<(i64, i64), Error> {
        let answer = self.call("lease/timetolive", json!({"ID": lease.to_string()}))?;
        Ok((integer(&answer["grantedTTL"]), integer(&answer["TTL"])))
    }

    /// Grants an etcd lease with this time to live in seconds, and returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn grant(&self, seconds: i64) -> Result<i64, Error> {
        let answer = self.call("lease/grant", json!({"TTL": seconds.to_string()}))?;
        Ok(integer(&answer["ID"]))
    }

    /// Revokes an etcd lease, which deletes the keys attached to it.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn revoke(&self, lease: i64) -> Result<(), Error> {
        self.call("lease/revoke", json!({"ID": lease.to_string()}))?;
        Ok(())
    }

    /// Makes etcd refuse any write that would grow its data, as if its quota were exceeded, or ends
    /// that.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn set_full(&self, full: bool) -> Result<(), Error> {
        let action = if full { "ACTIVATE" } else { "DEACTIVATE" };
        self.call("maintenance/alarm", json!({"action": action, "alarm": "NOSPACE"}))?;
        Ok(())
    }

    /// Compacts all history, so that a watch that lags behind cannot catch up any more.
    ///
    /// # Errors
    ///
    /// [`Error::Http`].
    pub fn compact(&self) -> Result<(), Error> {
        let status = self.call("maintenance/status", json!({}))?;
        let revision = status["header"]["revision"].clone();
        self.call("kv/compaction", json!({"revision": revision, "physical": true}))?;
        Ok(())
    }

    fn range(&self, request: Value) -> Result<Vec<KeyValue>, Error> {
        let answer = self.call("kv/range", request)?;
        let found = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(found
            .iter()
            .map(|found| KeyValue {
                key: decode(&found["key"]),
                value: decode(&found["value"]),
                lease: integer(&found["lease"]),
                revision: integer(&found["mod_revision"]),
            })
            .collect())
    }

    fn call(&self, method: &str, request: Value) -> Result<Value, Error> {
        self.host.namespace().enter(|| self.call_here(method, &request))?
    }

    /// Sends a request from a thread that is already in etcd's namespace.
    fn call_here(&self, method: &str, request: &Value) -> Result<Value, Error> {
        let url = format!("http://127.0.0.1:{CLIENT_PORT}/v3/{method}");
        let call = || {
            self.agent
                .post(&url)
                .send_json(request)?
                .body_mut()
                .with_config()
                .limit(1 << 28)
                .read_json()
        };
        call().map_err(|error: ureq::Error| Error::Http {
            request: format!("POST {url}"),
            problem: error.to_string(),
        })
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

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// Decodes a text field. Empty or zero fields are omitted from answers.
fn decode(field: &Value) -> String {
    let bytes = field.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

/// Decodes an integer. 64-bit integers are strings in protobuf's JSON.
fn integer(field: &Value) -> i64 {
    field.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}
