//! Certificates with a chosen expiry.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use heddle_lab::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// A certificate authority, and the files that it issues.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Creates an authority that keeps its files in this directory.
    pub fn new(directory: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(directory.join("ca.pem"), certificate.pem()).unwrap();
        Self { directory: directory.to_owned(), issuer: Issuer::new(parameters, key) }
    }

    fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            authority: self.directory.join("ca.pem"),
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        }
    }

    /// Writes a certificate that expires in a year, and its key.
    pub fn issue(&self, name: &str, address: Option<IpAddr>) -> TlsFiles {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        self.issue_until(name, address, SystemTime::now() + YEAR)
    }

    /// Writes a certificate with this expiry, which may be in the past, and its key. Replaces files
    /// of the same name.
    pub fn issue_until(&self, name: &str, address: Option<IpAddr>, end: SystemTime) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = address.map(|address| address.to_string()).into_iter().collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = date_time_ymd(2020, 1, 1);
        let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        parameters.not_after = date_time_ymd(1970, 1, 1) + since_1970;
        let files = self.files(name);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        files
    }
}
