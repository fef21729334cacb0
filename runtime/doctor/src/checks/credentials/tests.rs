use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::*;

/// 1 June 2030.
const NOW: Duration = Duration::from_secs(1_906_502_400);

fn file(flag: &'static str, contents: impl Into<Vec<u8>>) -> Option<CredentialFile> {
    Some(CredentialFile { flag, path: "/f.pem".into(), contents: Ok(contents.into()) })
}

/// Issues a certificate and its key. Dates are year, month and day.
fn issued(from: (i32, u8, u8), to: (i32, u8, u8)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "node");
    parameters.not_before = date_time_ymd(from.0, from.1, from.2);
    parameters.not_after = date_time_ymd(to.0, to.1, to.2);
    (parameters.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn problems(credentials: &Credentials) -> Vec<(Severity, String)> {
    check(credentials, NOW).into_iter().map(|f| (f.severity, f.problem)).collect()
}

fn client(certificate: &str, key: &str) -> Credentials {
    Credentials {
        certificate: file("--etcd-certfile", certificate),
        key: file("--etcd-keyfile", key),
        authorities: None,
    }
}

fn problem(credentials: &Credentials) -> (Severity, String) {
    let found = problems(credentials);
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn good_credentials_have_no_finding() {
    let (certificate, key) = issued((2030, 1, 1), (2031, 1, 1));
    assert_eq!(problems(&client(&certificate, &key)), []);
    assert_eq!(problems(&Credentials::default()), []);
}

#[test]
fn certificate_outside_validity_is_reported() {
    for (from, to, severity, what) in [
        ((2029, 1, 1), (2030, 5, 31), Severity::Error, "has expired on May 31 00:00:00 2030"),
        ((2030, 6, 2), (2031, 1, 1), Severity::Error, "is not valid before Jun  2 00:00:00 2030"),
        ((2029, 1, 1), (2030, 6, 14), Severity::Warning, "expires on Jun 14 00:00:00 2030"),
    ] {
        let (certificate, key) = issued(from, to);
        let (found, problem) = problem(&client(&certificate, &key));
        assert_eq!(found, severity);
        let expected = format!("--etcd-certfile /f.pem: the certificate of CN=node {what}");
        assert!(problem.starts_with(&expected), "{problem}");
    }
    let (certificate, key) = issued((2029, 1, 1), (2030, 6, 16));
    assert_eq!(problems(&client(&certificate, &key)), []);
}

#[test]
fn expired_authority_with_successor_is_accepted() {
    let (old, _) = issued((2020, 1, 1), (2030, 5, 31));
    let (new, _) = issued((2030, 1, 1), (2040, 1, 1));
    let authorities = |text: String| Credentials {
        authorities: file("--etcd-cafile", text),
        ..Credentials::default()
    };
    assert_eq!(problems(&authorities(format!("{old}{new}"))), []);
    assert_eq!(problem(&authorities(old)).0, Severity::Error);
}

#[test]
fn key_of_another_certificate_is_reported() {
    let (certificate, _) = issued((2030, 1, 1), (2031, 1, 1));
    let (_, key) = issued((2030, 1, 1), (2031, 1, 1));
    assert_eq!(
        problem(&client(&certificate, &key)).1,
        "--etcd-keyfile /f.pem: is the key of another certificate than --etcd-certfile /f.pem"
    );
}

#[test]
fn malformed_or_missing_file_is_reported() {
    let (certificate, key) = issued((2030, 1, 1), (2031, 1, 1));
    let swapped = problems(&client(&key, &certificate));
    assert_eq!(swapped[0].1, "--etcd-certfile /f.pem: holds no certificate in PEM");
    assert_eq!(
        swapped[1].1,
        "--etcd-keyfile /f.pem: holds no private key in PEM, or one that is encrypted"
    );
    let mut unreadable = client(&certificate, &key);
    unreadable.key.as_mut().unwrap().contents = Err("Permission denied (os error 13)".into());
    assert_eq!(
        problem(&unreadable).1,
        "--etcd-keyfile /f.pem: cannot be read: Permission denied (os error 13)"
    );
}
