use std::fs;

use super::super::dial::Target;
use super::*;

fn options(endpoints: &[&str]) -> EtcdOptions {
    EtcdOptions::new(endpoints.iter().copied(), "/coreos.com/network/")
}

fn refusal(options: &EtcdOptions) -> String {
    options.check().unwrap_err().to_string()
}

#[test]
fn endpoint_without_scheme_is_http() {
    assert_eq!(options(&["10.0.0.1:2379", " https://e:2379/ "]).endpoints.len(), 2);
    assert_eq!(
        options(&["10.0.0.1:2379", "http://[::1]:2379/"]).check().unwrap(),
        ["http://10.0.0.1:2379", "http://[::1]:2379"]
    );
}

#[test]
fn prefix_trailing_slash_is_ignored() {
    assert_eq!(options(&[]).prefix(), "/coreos.com/network");
}

#[test]
fn endpoint_invalid_is_rejected_with_a_reason() {
    for (endpoint, reason) in [
        ("unix:///run/etcd", "the scheme is neither http nor https"),
        ("http://etcd", "there is no port"),
        ("http://[::1]", "there is no port"),
        ("http://etcd:", "there is no port"),
        ("http://127.0.0.1:99999", "the port 99999 is out of range, 1 to 65535"),
        ("https://[::1]:0", "the port 0 is out of range, 1 to 65535"),
        ("http://etcd:client", "the port `client` is no number"),
        ("http://etcd:2379/v3", "there is a path"),
    ] {
        assert_eq!(
            refusal(&options(&[endpoint])),
            format!(
                "--etcd-endpoints: `{endpoint}` is not an endpoint ({reason}): expected `http://host:port`, `https://host:port` or `host:port`"
            )
        );
    }
    assert!(options(&[""]).check().is_err());
    assert_eq!(options(&[]).check(), Err(EtcdError::NoEndpoint));
}

#[test]
fn endpoints_mixing_http_and_https_are_rejected() {
    assert_eq!(
        refusal(&options(&["https://a:2379", "b:2379"])),
        "--etcd-endpoints mixes `https://a:2379` with `http://b:2379`: expected either https or http for all of them"
    );
}

#[test]
fn certificate_file_without_https_is_rejected() {
    let mut options = options(&["http://a:2379"]);
    options.ca_file = Some("/ca.pem".into());
    assert_eq!(
        refusal(&options),
        "--etcd-cafile is given, but the endpoint `http://a:2379` is not https: expected `https://host:port`"
    );
}

#[test]
fn flag_without_its_counterpart_is_rejected() {
    let mut tls = options(&["https://a:2379"]);
    tls.certificate_file = Some("/client.pem".into());
    assert_eq!(
        refusal(&tls),
        "--etcd-certfile is given without --etcd-keyfile: expected both or none"
    );
    let mut user = options(&["a:2379"]);
    user.username = Some(String::new());
    user.password = Some("secret".into());
    assert_eq!(
        refusal(&user),
        "--etcd-password is given without --etcd-username: expected both or none"
    );
}

#[test]
fn certificate_file_missing_or_not_pem_names_its_flag() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let mut options = options(&["https://a:2379"]);
    options.ca_file = Some(path.clone());
    let error = || Target::new(&options, "https://a:2379").err().unwrap().to_string();
    assert_eq!(
        error(),
        format!("--etcd-cafile {}: No such file or directory (os error 2)", path.display())
    );
    fs::write(&path, "nonsense").unwrap();
    assert_eq!(
        error(),
        format!(
            "--etcd-cafile {}: no certificate in it: expected PEM, `-----BEGIN CERTIFICATE-----`",
            path.display()
        )
    );
}

#[test]
fn certificate_file_not_regular_is_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(&["https://a:2379"]);
    options.ca_file = Some(directory.path().to_owned());
    let error = Target::new(&options, "https://a:2379").err().unwrap().to_string();
    let expected = format!("--etcd-cafile {}: it is a directory", directory.path().display());
    assert!(error.starts_with(&expected), "{error}");
    options.ca_file = Some("/dev/zero".into());
    let error = Target::new(&options, "https://a:2379").err().unwrap().to_string();
    assert!(error.starts_with("--etcd-cafile /dev/zero: it is a device"), "{error}");
}

#[test]
fn password_is_omitted_from_debug_output() {
    let mut options = options(&["a:2379"]);
    options.password = Some("secret".into());
    assert!(!format!("{options:?}").contains("secret"));
}
