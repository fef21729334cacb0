//! Reads of the v2 API, and copies of keys into the v3 API.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use etcd_client::PutOptions;
use heddle_requires::requires;
use heddle_store::LeaseStore;
use heddle_store::etcd::{Content, EtcdOptions, Place, V2Node, V2Reader};

use crate::fixture::*;

const CONFIG: &str = r#"{"Network":"10.1.0.0/16"}"#;

/// Runs etcdctl with its v2 API, which makes the requests that flannel made.
fn etcdctl(options: &EtcdOptions, words: &[&str]) {
    let mut arguments: Vec<OsString> =
        vec!["--endpoints".into(), options.endpoints.join(",").into()];
    for (flag, file) in [
        ("--ca-file", &options.ca_file),
        ("--cert-file", &options.certificate_file),
        ("--key-file", &options.key_file),
    ] {
        if let Some(file) = file {
            arguments.extend([flag.into(), file.into()]);
        }
    }
    if let (Some(user), Some(password)) = (&options.username, &options.password) {
        arguments.extend(["--username".into(), format!("{user}:{password}").into()]);
    }
    let mut command = Command::new("etcdctl");
    let output = command.args(arguments).args(words).env("ETCDCTL_API", "2").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {words:?}: {errors}");
}

/// Returns the keys below the prefix with their values, and the number of those that expire.
fn keys_of(node: &V2Node) -> (Vec<(&str, &str)>, usize) {
    let subnets = node.nodes.iter().find(|node| node.key.ends_with("/subnets"));
    let all =
        node.nodes.iter().chain(subnets.map(|subnets| &subnets.nodes[..]).unwrap_or_default());
    let all: Vec<_> = all.filter(|node| !node.dir).collect();
    let expiring = all.iter().filter(|node| node.ttl.is_some()).count();
    (all.iter().map(|node| (node.key.as_str(), node.value.as_str())).collect(), expiring)
}

fn write_network(options: &EtcdOptions) {
    etcdctl(options, &["mk", "/coreos.com/network/config", CONFIG]);
    let lease = r#"{"PublicIP":"192.0.2.5"}"#;
    etcdctl(options, &["mk", "--ttl", "86400", "/coreos.com/network/subnets/10.1.5.0-24", lease]);
    etcdctl(options, &["mk", "/coreos.com/network/subnets/10.1.6.0-24", lease]);
}

async fn assert_network(options: EtcdOptions) {
    let tree = V2Reader::new(options).unwrap().tree().await.unwrap().unwrap();
    let lease = r#"{"PublicIP":"192.0.2.5"}"#;
    let expected = vec![
        ("/coreos.com/network/config", CONFIG),
        ("/coreos.com/network/subnets/10.1.5.0-24", lease),
        ("/coreos.com/network/subnets/10.1.6.0-24", lease),
    ];
    assert_eq!(keys_of(&tree), (expected, 1));
}

#[tokio::test]
async fn v2_tree_is_read_from_the_first_endpoint_that_answers() {
    requires!(Program("etcd"), Program("etcdctl"));
    let etcd = Etcd::start_with("http", vec!["--enable-v2".to_owned()]);
    etcd.client().await;
    write_network(&etcd.options());
    let dead = format!("http://127.0.0.1:{}", free_port());
    assert_network(options([dead, etcd.endpoint()])).await;
    let mut slash = etcd.options();
    slash.prefix = "coreos.com/network/".to_owned();
    assert_network(slash).await;
    let mut other = etcd.options();
    other.prefix = "/other".to_owned();
    assert_eq!(V2Reader::new(other).unwrap().tree().await, Ok(None));
}

#[tokio::test]
async fn v2_api_is_read_with_a_client_certificate() {
    requires!(Program("etcd"), Program("etcdctl"));
    let authority = Authority::new("ours");
    let etcd = authority.etcd_with(true, &["--enable-v2"]);
    let (certificate, key) = authority.sign("client");
    let mut options = etcd.options();
    options.ca_file = Some(authority.ca_file());
    let without = options.clone();
    options.certificate_file = Some(certificate);
    options.key_file = Some(key);
    let store = heddle_store::EtcdStore::new(options.clone()).unwrap();
    patiently("etcd", async || store.network_config().await.ok()).await;
    write_network(&options);
    assert_network(options).await;
    assert!(store.has_v2_config().await);

    let error = V2Reader::new(without).unwrap().tree().await.unwrap_err().to_string();
    assert!(error.contains("--etcd-certfile") || error.contains("ertificate"), "{error}");
}

#[tokio::test]
async fn v2_api_is_read_with_a_user_and_password() {
    requires!(Program("etcd"), Program("etcdctl"));
    let etcd = Etcd::start_with("http", vec!["--enable-v2".to_owned()]);
    etcd.client().await;
    write_network(&etcd.options());
    etcdctl(&etcd.options(), &["user", "add", "root:secret"]);
    etcdctl(&etcd.options(), &["auth", "enable"]);
    let mut options = etcd.options();
    options.username = Some("root".to_owned());
    options.password = Some("secret".to_owned());
    etcdctl(&options, &["role", "revoke", "guest", "--path", "/*", "--readwrite"]);
    let error = V2Reader::new(etcd.options()).unwrap().tree().await.unwrap_err().to_string();
    assert!(error.contains("--etcd-username"), "{error}");
    assert_network(options).await;
}

#[tokio::test]
async fn config_in_the_v2_api_is_noticed() {
    requires!(Program("etcd"), Program("etcdctl"));
    let etcd = Etcd::start_with("http", vec!["--enable-v2".to_owned()]);
    etcd.client().await;
    let store = etcd.store();
    assert!(!store.has_v2_config().await);
    write_network(&etcd.options());
    assert!(store.has_v2_config().await);
    assert_eq!(store.network_config().await, Ok(None));
}

#[tokio::test]
async fn etcd_without_the_v2_api_says_so() {
    requires!(Program("etcd"));
    let etcd = Etcd::start_with("http", vec!["--enable-v2=false".to_owned()]);
    etcd.client().await;
    assert!(!etcd.store().has_v2_config().await);
    let error = V2Reader::new(etcd.options()).unwrap().tree().await.unwrap_err().to_string();
    assert!(error.contains("start it with --enable-v2"), "{error}");
}

#[tokio::test]
async fn v2_api_that_does_not_answer_is_given_up_soon() {
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let store = heddle_store::EtcdStore::new(options([endpoint])).unwrap();
    let limit = Duration::from_secs(6);
    assert_eq!(tokio::time::timeout(limit, store.has_v2_config()).await, Ok(false));
}

#[tokio::test]
async fn transfer_creates_and_replaces_only_what_was_read() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    let mut client = etcd.client().await;
    let store = etcd.store();
    let place = Place::Record("10.1.5.0-24".to_owned());
    let ttl = Some(Duration::from_secs(3600));
    let content = async || store.content(&place).await.unwrap();
    assert_eq!(content().await, None);
    assert!(store.transfer(&place, b"1", ttl, None).await.unwrap());
    assert!(!store.transfer(&place, b"2", ttl, None).await.unwrap());
    let Content { value, version, remaining } = content().await.unwrap();
    let left = remaining.unwrap();
    assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3500), "{left:?}");
    assert_eq!(value, b"1");
    // A lease that is not used does not stay.
    assert_eq!(client.leases().await.unwrap().leases().len(), 1);

    assert!(!store.transfer(&place, b"3", None, Some(version - 1)).await.unwrap());
    assert!(store.transfer(&place, b"3", None, Some(version)).await.unwrap());
    let now = content().await.unwrap();
    assert_eq!((now.value, now.remaining), (b"3".to_vec(), None));

    let options = Some(PutOptions::new());
    client.put(format!("{PREFIX}/config"), CONFIG, options).await.unwrap();
    let config = store.content(&Place::Config).await.unwrap().unwrap();
    assert_eq!((config.value, config.remaining), (CONFIG.as_bytes().to_vec(), None));
}
