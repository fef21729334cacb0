//! Checks the TLS files for etcd. The server's own certificate is checked by connecting.

use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::facts::credentials::{CredentialFile, Credentials};
use crate::report::{Finding, Severity};

const CHECK: &str = "certificate";

/// Time before the expiry of a certificate from which on it is reported.
const NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Checks all files; `now` is the time since 1970.
pub(crate) fn check(credentials: &Credentials, now: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(file) = &credentials.authorities {
        match certificates(file) {
            Ok(found) => findings.extend(authorities(file, &found, now)),
            Err(finding) => findings.push(finding),
        }
    }
    let mut chain = None;
    if let Some(file) = &credentials.certificate {
        match certificates(file) {
            Ok(found) => {
                findings.extend(found.iter().filter_map(|der| certificate(file, der, now)));
                chain = Some((file, found));
            }
            Err(finding) => findings.push(finding),
        }
    }
    if let Some(file) = &credentials.key {
        match (key(file), chain) {
            (Ok(key), Some((of, chain))) => findings.extend(pair(file, key, of, chain)),
            (Ok(_), None) => {}
            (Err(finding), _) => findings.push(finding),
        }
    }
    findings
}

fn contents(file: &CredentialFile) -> Result<&[u8], Finding> {
    let refused = |reason: &String| unusable(file, &format!("cannot be read: {reason}"));
    file.contents.as_deref().map_err(refused)
}

fn certificates(file: &CredentialFile) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(contents(file)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(file, "holds no certificate in PEM")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(file, &format!("is no PEM file: {error}"))),
    }
}

fn key(file: &CredentialFile) -> Result<PrivateKeyDer<'static>, Finding> {
    PrivateKeyDer::from_pem_slice(contents(file)?)
        .map_err(|_| unusable(file, "holds no private key in PEM, or one that is encrypted"))
}

/// Of several authorities, as during a rotation, the one that expires last counts.
fn authorities(
    file: &CredentialFile,
    found: &[CertificateDer<'_>],
    now: Duration,
) -> Option<Finding> {
    let end = |der: &&CertificateDer<'_>| {
        X509Certificate::from_der(der).map_or(i64::MIN, |(_, c)| c.validity().not_after.timestamp())
    };
    certificate(file, found.iter().max_by_key(end)?, now)
}

fn certificate(file: &CredentialFile, der: &CertificateDer<'_>, now: Duration) -> Option<Finding> {
    let certificate = match X509Certificate::from_der(der) {
        Ok((_, certificate)) => certificate,
        Err(error) => return Some(unusable(file, &format!("holds no X.509 certificate: {error}"))),
    };
    let (subject, validity) = (certificate.subject(), certificate.validity());
    let seconds = |time: &ASN1Time| time.timestamp();
    let now_seconds = now.as_secs().cast_signed();
    let (severity, what) = if seconds(&validity.not_before) > now_seconds {
        (Severity::Error, format!("is not valid before {}", validity.not_before))
    } else if seconds(&validity.not_after) < now_seconds {
        (Severity::Error, format!("has expired on {}", validity.not_after))
    } else if seconds(&validity.not_after) < (now + NOTICE).as_secs().cast_signed() {
        (Severity::Warning, format!("expires on {}", validity.not_after))
    } else {
        return None;
    };
    let symptom = match severity {
        Severity::Error => {
            "heddled and etcd reject each other's connections, and heddled cannot renew the lease"
        }
        Severity::Warning => {
            "From then on, heddled and etcd reject each other's connections, and heddled cannot renew the lease"
        }
    };
    let remedy = if seconds(&validity.not_before) > now_seconds {
        "Correct this host's clock if it is wrong; otherwise issue a new certificate."
    } else {
        "Issue a new certificate and replace the file. heddled reads it again without a restart."
    };
    Some(Finding {
        check: CHECK,
        severity,
        problem: format!(
            "{} {}: the certificate of {subject} {what}",
            file.flag,
            file.path.display()
        ),
        symptom: symptom.to_owned(),
        remedy: remedy.to_owned(),
        command: Some(format!(
            "openssl x509 -noout -dates -subject -issuer -in {}",
            file.path.display()
        )),
    })
}

fn pair(
    file: &CredentialFile,
    key: PrivateKeyDer<'static>,
    of: &CredentialFile,
    chain: Vec<CertificateDer<'static>>,
) -> Option<Finding> {
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => None,
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let what =
                format!("is the key of another certificate than {} {}", of.flag, of.path.display());
            Some(unusable(file, &what))
        }
        Err(error) => Some(unusable(file, &format!("cannot be used: {error}"))),
    }
}

fn unusable(file: &CredentialFile, what: &str) -> Finding {
    Finding {
        check: CHECK,
        severity: Severity::Error,
        problem: format!("{} {}: {what}", file.flag, file.path.display()),
        symptom: "heddled cannot connect to etcd, and names the file in its log and in `/readyz`".to_owned(),
        remedy: "Replace the file with the right one, readable by the user that heddled runs as, or change the flag.".to_owned(),
        command: None,
    }
}

#[cfg(test)]
mod tests;
