//! Endpoints, certificates and users.

use std::fs;
use std::path::PathBuf;

use etcd_client::{Client, ConnectOptions, PermissionType};
use heddle_requires::requires;
use heddle_store::{EtcdOptions, EtcdStore, LeaseStore, WatchEvent};

use crate::fixture::*;

fn open(options: EtcdOptions) -> EtcdStore {
    EtcdStore::new(options).unwrap()
}

async fn refusal(options: EtcdOptions) -> String {
    let error = open(options).list().await.unwrap_err();
    error.to_string()
}

#[tokio::test]
async fn connection_refused_names_every_endpoint() {
    let endpoints = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
    let [a, b] = &endpoints;
    let store = open(options(endpoints.clone()));
    let error = store.list().await.unwrap_err();
    let refused = "connection refused: is etcd running, and listening there?";
    assert_eq!(
        error.to_string(),
        format!("no etcd endpoint can be used: {a}: {refused}; {b}: {refused}")
    );
    assert!(error.is_transient());
}

#[tokio::test]
async fn endpoint_dead_from_the_start_is_skipped() {
    requires!(Program("etcd"));
    let dead = format!("127.0.0.1:{}", free_port());
    let etcd = Etcd::start();
    etcd.client().await;
    let store = open(options([dead, etcd.endpoint()]));
    assert_eq!(store.list().await.unwrap(), []);
}

#[tokio::test]
async fn endpoint_that_dies_is_replaced_by_the_next() {
    requires!(Program("etcd"));
    let (mut first, second) = (Etcd::start(), Etcd::start());
    let mut client = second.client().await;
    client.put(format!("{PREFIX}/subnets/on-the-second"), "1", None).await.unwrap();
    first.client().await;
    let store = open(options([first.endpoint(), second.endpoint()]));
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    first.kill();
    assert!(matches!(next(&mut watch).await, WatchEvent::Stale { .. }));
    assert_eq!(keys(&snapshot(&mut watch).await), ["on-the-second"]);
    assert_eq!(store.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn endpoint_that_accepts_but_is_silent_is_skipped() {
    requires!(Program("etcd"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_endpoint = format!("http://{}", silent.local_addr().unwrap());
    let etcd = Etcd::start();
    etcd.client().await;
    let store = open(options([silent_endpoint.clone(), etcd.endpoint()]));
    assert_eq!(store.list().await.unwrap(), []);
    let error = refusal(options([silent_endpoint.clone()])).await;
    assert_eq!(
        error,
        format!("no etcd endpoint can be used: {silent_endpoint}: no answer within 2000 ms")
    );
}

#[tokio::test]
async fn tls_with_only_a_ca_file_connects() {
    requires!(Program("etcd"));
    let authority = Authority::new("ours");
    let etcd = authority.etcd(false);
    let mut options = etcd.options();
    options.ca_file = Some(authority.ca_file());
    let store = open(options);
    patiently("etcd", async || store.list().await.ok()).await;
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    changes(&mut watch, 1).await;
}

#[tokio::test]
async fn unknown_authority_error_names_the_cafile_flag() {
    requires!(Program("etcd"));
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let etcd = theirs.etcd(false);
    let mut options = etcd.options();
    options.ca_file = Some(ours.ca_file());
    assert_eq!(
        refusal(options.clone()).await,
        format!(
            "no etcd endpoint can be used: {}: the server's certificate is signed by an authority that --etcd-cafile {} does not hold",
            etcd.endpoint(),
            ours.ca_file().display()
        )
    );
    options.ca_file = None;
    let error = refusal(options).await;
    assert!(error.contains("--etcd-cafile"), "{error}");
}

#[tokio::test]
async fn renewed_certificates_are_used_by_the_next_connection() {
    requires!(Program("etcd"));
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let etcd = theirs.etcd(false);
    let mut options = etcd.options();
    options.ca_file = Some(ours.ca_file());
    let store = open(options);
    assert!(store.list().await.is_err());
    fs::copy(theirs.ca_file(), ours.ca_file()).unwrap();
    patiently("etcd", async || store.list().await.ok()).await;
}

#[tokio::test]
async fn reload_applies_renewed_certificates_and_rejects_bad_ones() {
    requires!(Program("etcd"));
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let etcd = ours.etcd(true);
    let (certificate, key) = ours.sign("client");
    let mut options = etcd.options();
    options.ca_file = Some(ours.ca_file());
    (options.certificate_file, options.key_file) = (Some(certificate.clone()), Some(key.clone()));
    let store = open(options);
    patiently("etcd", async || store.list().await.ok()).await;
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);

    let replace = |(new_certificate, new_key): (PathBuf, PathBuf)| {
        fs::copy(new_certificate, &certificate).unwrap();
        fs::copy(new_key, &key).unwrap();
    };
    replace(theirs.sign("stranger"));
    let error = store.reload().await.unwrap_err().to_string();
    assert!(error.contains("--etcd-certfile and --etcd-keyfile"), "{error}");
    fs::write(&certificate, "nonsense").unwrap();
    let error = store.reload().await.unwrap_err().to_string();
    assert!(error.contains(certificate.to_str().unwrap()), "{error}");
    store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    changes(&mut watch, 1).await;

    replace(ours.sign("renewed"));
    store.reload().await.unwrap();
    assert_eq!(snapshot(&mut watch).await.len(), 1);
    store.create("10.244.9.0-24", b"2").await.unwrap().unwrap();
    changes(&mut watch, 1).await;
}

#[tokio::test]
async fn client_certificate_is_sent_to_a_server_that_requires_it() {
    requires!(Program("etcd"));
    let authority = Authority::new("ours");
    let etcd = authority.etcd(true);
    let (certificate, key) = authority.sign("client");
    let mut options = etcd.options();
    options.ca_file = Some(authority.ca_file());
    let without = options.clone();
    options.certificate_file = Some(certificate);
    options.key_file = Some(key);
    let with = open(options.clone());
    patiently("etcd", async || with.list().await.ok()).await;

    let error = refusal(without).await;
    assert!(error.contains("--etcd-certfile and --etcd-keyfile"), "{error}");

    let stranger = Authority::new("theirs");
    let (certificate, key) = stranger.sign("client");
    options.certificate_file = Some(certificate);
    options.key_file = Some(key);
    let error = refusal(options).await;
    assert!(error.contains("--etcd-certfile and --etcd-keyfile"), "{error}");
}

#[tokio::test]
async fn client_key_not_matching_the_certificate_is_rejected() {
    let authority = Authority::new("ours");
    let (certificate, _) = authority.sign("one");
    let (_, key) = authority.sign("another");
    let mut options = options(["https://127.0.0.1:1".to_owned()]);
    options.ca_file = Some(authority.ca_file());
    options.certificate_file = Some(certificate.clone());
    options.key_file = Some(key);
    let error = refusal(options).await;
    let start = format!("--etcd-certfile {}: ", certificate.display());
    assert!(error.starts_with(&start), "{error}");
}

/// Starts an etcd with three users: `root`, `node` with access to our prefix, and `guest` without.
async fn etcd_with_users() -> Etcd {
    let etcd = Etcd::start();
    let mut client: Client = etcd.client().await;
    client.role_add("network").await.unwrap();
    let permission =
        etcd_client::Permission::new(PermissionType::Readwrite, format!("{PREFIX}/")).with_prefix();
    client.role_grant_permission("network", permission).await.unwrap();
    for (user, role) in [("root", "root"), ("node", "network"), ("guest", "none")] {
        client.role_add(role).await.ok();
        client.user_add(user, "secret", None).await.unwrap();
        client.user_grant_role(user, role).await.unwrap();
    }
    client.auth_enable().await.unwrap();
    etcd
}

fn as_user(etcd: &Etcd, user: &str, password: &str) -> EtcdOptions {
    let mut options = etcd.options();
    options.username = Some(user.into());
    options.password = Some(password.into());
    options
}

#[tokio::test]
async fn user_with_password_is_authenticated() {
    requires!(Program("etcd"));
    let etcd = etcd_with_users().await;
    let store = open(as_user(&etcd, "node", "secret"));
    let mut watch = store.watch();
    assert_eq!(snapshot(&mut watch).await, []);
    let stored = store.create("10.244.8.0-24", b"1").await.unwrap().unwrap();
    changes(&mut watch, 1).await;
    store.renew(&stored).await.unwrap();
}

#[tokio::test]
async fn user_rejected_by_etcd_gets_the_cause() {
    requires!(Program("etcd"));
    let etcd = etcd_with_users().await;
    let endpoint = etcd.endpoint();
    assert_eq!(
        refusal(as_user(&etcd, "node", "wrong")).await,
        format!(
            "no etcd endpoint can be used: {endpoint}: authentication failed: expected the user and password of an etcd user in --etcd-username and --etcd-password"
        )
    );
    assert_eq!(
        refusal(etcd.options()).await,
        format!(
            "no etcd endpoint can be used: {endpoint}: etcd has authentication enabled: expected --etcd-username and --etcd-password"
        )
    );
    assert_eq!(
        refusal(as_user(&etcd, "guest", "secret")).await,
        format!(
            "etcd at {endpoint}, list the leases: permission denied: expected a user with read and write access to `{PREFIX}/`"
        )
    );
    let mut watch = open(as_user(&etcd, "node", "wrong")).watch();
    let WatchEvent::Stale { reason } = next(&mut watch).await else {
        panic!("a watch without access is stale");
    };
    assert!(reason.contains("authentication failed"), "{reason}");
}

#[tokio::test]
async fn user_without_etcd_authentication_connects() {
    requires!(Program("etcd"));
    let etcd = Etcd::start();
    etcd.client_with(ConnectOptions::new()).await;
    let store = open(as_user(&etcd, "node", "secret"));
    assert_eq!(store.list().await.unwrap(), []);
}
