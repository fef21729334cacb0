//! TLS to etcd: certificates and keys from the files of the flags, and the check of the server's
//! certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::error::{EtcdError, is_authority};
use super::options::{CA_FILE, CERTIFICATE_FILE, EtcdOptions, KEY_FILE, PEM_LIMIT, invalid};

/// The protocol that a client offers in the handshake (ALPN): HTTP/2.
pub(super) const HTTP2: &[u8] = b"h2";

/// Returns the cryptography that connections use.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the TLS settings for an endpoint. Reads the files each time, so that renewed ones are
/// used.
pub(super) fn settings(options: &EtcdOptions, url: &str) -> Result<Arc<ClientConfig>, EtcdError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(url, &error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier(options, url)?));
    let mut config = match (&options.certificate_file, &options.key_file) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(
                read_certificates(CERTIFICATE_FILE, certificate)?,
                read_key(KEY_FILE, key)?,
            )
            .map_err(|error| file(CERTIFICATE_FILE, certificate, error))?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(options: &EtcdOptions, url: &str) -> Result<Verifier, EtcdError> {
    let mut roots = RootCertStore::empty();
    let listed = match &options.ca_file {
        Some(path) => {
            let listed = read_certificates(CA_FILE, path)?;
            for certificate in &listed {
                roots.add(certificate.clone()).map_err(|error| file(CA_FILE, path, error))?;
            }
            listed
        }
        None => {
            // The errors are about single files; what matters is that some authority was found.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            Vec::new()
        }
    };
    if roots.is_empty() {
        return Err(EtcdError::NoAuthority);
    }
    let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| invalid(url, &error))?;
    Ok(Verifier { chains, listed })
}

/// A check of server certificates that accepts what Go's TLS does, and so etcdctl and flannel: a
/// chain that ends in an authority, or a certificate that is itself one of those in
/// `--etcd-cafile`.
#[derive(Debug)]
struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    /// The certificates in `--etcd-cafile`.
    listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = self.chains.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match chain {
            // The chain is checked before the name, and after the validity period.
            Err(error) if is_of_the_chain(&error) && self.listed.contains(end_entity) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// Returns true if no chain of authorities leads to a certificate that is otherwise valid.
fn is_of_the_chain(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        rustls::Error::InvalidCertificate(error) => is_authority(error),
        _ => false,
    }
}

fn file(flag: &'static str, path: &Path, reason: impl ToString) -> EtcdError {
    EtcdError::File { flag, path: path.to_owned(), reason: reason.to_string() }
}

fn read_pem(flag: &'static str, path: &Path) -> Result<Vec<u8>, EtcdError> {
    heddle_files::read(path, PEM_LIMIT).map_err(|error| file(flag, path, error.reason))
}

fn read_certificates(
    flag: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, EtcdError> {
    let pem = read_pem(flag, path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if certificates.is_empty() => Err(file(
            flag,
            path,
            "no certificate in it: expected PEM, `-----BEGIN CERTIFICATE-----`",
        )),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file(flag, path, format!("not a PEM file: {error}"))),
    }
}

fn read_key(flag: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, EtcdError> {
    let pem = read_pem(flag, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        file(
            flag,
            path,
            "no private key in it: expected unencrypted PEM, `-----BEGIN PRIVATE KEY-----`",
        )
    })
}
