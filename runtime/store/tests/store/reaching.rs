//! Endpoints that are not what the flags say, certificates that are their own authority, and names
//! with several addresses.

use std::net::{TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use heddle_requires::requires;
use heddle_store::{EtcdOptions, EtcdStore, LeaseStore};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

use crate::fixture::*;

async fn refusal(options: EtcdOptions) -> String {
    EtcdStore::new(options).unwrap().network_config().await.unwrap_err().to_string()
}

/// Returns an etcd's endpoint with another scheme.
fn with_scheme(etcd: &Etcd, scheme: &str) -> String {
    let endpoint = etcd.endpoint();
    let (_, address) = endpoint.split_once("://").unwrap();
    format!("{scheme}://{address}")
}

/// Starts an etcd that also has a web server, for its metrics. Returns its endpoint.
async fn web_server() -> (Etcd, u16) {
    let port = free_port();
    let flag = format!("--listen-metrics-urls=http://127.0.0.1:{port}");
    let etcd = Etcd::start_with("http", vec![flag]);
    patiently("the web server", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    (etcd, port)
}

#[tokio::test]
async fn plain_text_to_a_tls_port_is_told_to_use_https() {
    requires!(Program("etcd"));
    let authority = Authority::new("ours");
    let etcd = authority.etcd(true);
    let plain = with_scheme(&etcd, "http");
    assert_eq!(
        refusal(options([plain.clone()])).await,
        format!(
            "no etcd endpoint can be used: {plain}: the server speaks TLS: expected `{}` in --etcd-endpoints, and the authority of its certificate in --etcd-cafile",
            etcd.endpoint()
        )
    );
}

#[tokio::test]
async fn tls_to_a_plain_port_is_told_to_use_http() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    etcd.client().await;
    let tls = with_scheme(&etcd, "https");
    assert_eq!(
        refusal(options([tls.clone()])).await,
        format!(
            "no etcd endpoint can be used: {tls}: the server does not speak TLS: expected `{}` in --etcd-endpoints, without --etcd-cafile, --etcd-certfile and --etcd-keyfile, or an etcd with --cert-file and --key-file",
            etcd.endpoint()
        )
    );
}

#[tokio::test]
async fn web_server_is_told_from_etcd() {
    requires!(Program("etcd"));
    let (_etcd, port) = web_server().await;
    for scheme in ["http", "https"] {
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        assert_eq!(
            refusal(options([endpoint.clone()])).await,
            format!(
                "no etcd endpoint can be used: {endpoint}: this is no etcd (it answers as a web server, with HTTP/1): expected the address and port of etcd's --listen-client-urls in --etcd-endpoints"
            )
        );
    }
}

#[tokio::test]
async fn host_name_unknown_is_told_from_a_silent_etcd() {
    let endpoint = "http://etcd.invalid:2379".to_owned();
    let error = refusal(options([endpoint.clone()])).await;
    let start = format!(
        "no etcd endpoint can be used: {endpoint}: host name `etcd.invalid` cannot be resolved ("
    );
    assert!(error.starts_with(&start), "{error}");
    assert!(error.contains("--etcd-endpoints") && error.contains("/etc/resolv.conf"), "{error}");
}

/// A certificate that is its own authority, and its key.
struct SelfSigned {
    directory: TempDir,
}

impl SelfSigned {
    fn new(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        change(&mut parameters);
        let certificate = parameters.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { directory }
    }

    fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn etcd(&self) -> Etcd {
        let key = self.directory.path().join("key.pem");
        Etcd::start_with(
            "https",
            vec![
                format!("--cert-file={}", self.certificate().display()),
                format!("--key-file={}", key.display()),
            ],
        )
    }
}

fn trusting(etcd: &Etcd, file: PathBuf) -> EtcdOptions {
    EtcdOptions { ca_file: Some(file), ..etcd.options() }
}

/// As flannel and etcdctl do: Go accepts a certificate that is itself among the authorities.
#[tokio::test]
async fn self_signed_certificate_as_ca_file_is_accepted() {
    requires!(Program("etcd"));
    let ours = SelfSigned::new("127.0.0.1", |_| {});
    let etcd = ours.etcd();
    let store = EtcdStore::new(trusting(&etcd, ours.certificate())).unwrap();
    patiently("etcd", async || store.list().await.ok()).await;
}

#[tokio::test]
async fn issued_certificate_as_ca_file_is_accepted() {
    requires!(Program("etcd"));
    let authority = Authority::new("ours");
    let etcd = authority.etcd(false);
    let store = EtcdStore::new(trusting(&etcd, authority.path("server.pem"))).unwrap();
    patiently("etcd", async || store.list().await.ok()).await;
}

#[tokio::test]
async fn self_signed_certificate_is_checked_like_any_other() {
    requires!(Program("etcd"));
    let wrong_name = SelfSigned::new("192.0.2.1", |_| {});
    let etcd = wrong_name.etcd();
    let error = refusal(trusting(&etcd, wrong_name.certificate())).await;
    assert!(error.contains("not valid for name"), "{error}");

    let expired = SelfSigned::new("127.0.0.1", |parameters| {
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let etcd = expired.etcd();
    let error = refusal(trusting(&etcd, expired.certificate())).await;
    assert!(error.contains("expired"), "{error}");

    let (ours, theirs) =
        (SelfSigned::new("127.0.0.1", |_| {}), SelfSigned::new("127.0.0.1", |_| {}));
    let etcd = theirs.etcd();
    let file = ours.certificate();
    let error = refusal(trusting(&etcd, file.clone())).await;
    assert!(
        error.ends_with(&format!(
            "the server's certificate is that of an authority (CA:TRUE): expected a certificate for a server, or exactly this one in --etcd-cafile {}",
            file.display()
        )),
        "{error}"
    );
}

/// The name that `/etc/hosts` of [`in_a_world_with_hosts`] gives to 127.0.0.2 and 127.0.0.3.
const TWO_ADDRESSES: &str = "two-addresses.test";

/// Runs a test of this program with another `/etc/hosts`, in a mount namespace of its own.
fn in_a_world_with_hosts(hosts: &str, test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    std::fs::write(&file, hosts).unwrap();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$1\" /etc/hosts; exec \"$2\" --exact \"$3\" --ignored",
            "-",
        ])
        .arg(&file)
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn address_that_is_silent_does_not_keep_from_the_next() {
    requires!(Root, Program("etcd"));
    in_a_world_with_hosts(
        &format!("127.0.0.2 {TWO_ADDRESSES}\n127.0.0.3 {TWO_ADDRESSES}\n"),
        "reaching::name_with_a_silent_address_connects",
    );
}

#[tokio::test]
#[ignore = "needs the /etc/hosts of the test above, which runs it"]
async fn name_with_a_silent_address_connects() {
    let etcd = Etcd::start();
    etcd.client().await;
    let line = Line::on("127.0.0.3", &etcd).await;
    let endpoint = line.endpoint().replace("127.0.0.3", TWO_ADDRESSES);
    let port: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
    // Accepts connections, and never answers.
    let silent = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let found = (TWO_ADDRESSES, port).to_socket_addrs().unwrap().next();
    assert_eq!(found, silent.local_addr().ok());
    let store = EtcdStore::new(options([endpoint.clone()])).unwrap();
    let started = Instant::now();
    assert_eq!(store.network_config().await.unwrap(), None);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // Each address has its own reason, once none answers.
    drop(line);
    let error = refusal(options([endpoint.clone()])).await;
    assert_eq!(
        error,
        format!(
            "no etcd endpoint can be used: {endpoint} (127.0.0.2): no answer within 2000 ms; {endpoint} (127.0.0.3): connection refused: is etcd running, and listening there?"
        )
    );
}
