//! The server's certificate and key.

use restfs_lib::wire::Hex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "certificate {path}: {why}; set `tls.cert` to a PEM file with the server's certificate, or make one with `restfs init`"
    )]
    Certificate { path: String, why: String },
    #[error("key {path}: {why}; set `tls.key` to the PEM file with the key of `tls.cert`")]
    Key { path: String, why: String },
}

pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let chain = read_chain(certificate)?;
    let key_error = |why: &dyn Display| TlsError::Key {
        path: key.display().to_string(),
        why: why.to_string(),
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| key_error(&explain(e)))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| key_error(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| key_error(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// BLAKE3 will not do here: other tools print SHA-256 of the DER form, as `openssl x509 -fingerprint -sha256`.
pub fn fingerprint(certificate: &Path) -> Result<Hex<32>, TlsError> {
    let chain = read_chain(certificate)?;
    let digest = match chain.first() {
        Some(first) => ring_sha256(first),
        None => return Err(certificate_error(certificate, &"no certificate in it")),
    };
    Ok(Hex(digest))
}

fn ring_sha256(bytes: &[u8]) -> [u8; 32] {
    match restfs_lib::content::hash_block(bytes, restfs_lib::model::HashAlgorithm::Sha256).hash {
        restfs_lib::model::Hash::Sha256(hash) => hash,
        _ => unreachable!("asked for SHA-256"),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(|e| certificate_error(path, &explain(e)))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| certificate_error(path, &explain(e)))?;
    match chain.is_empty() {
        true => Err(certificate_error(path, &"no certificate in it")),
        false => Ok(chain),
    }
}

fn certificate_error(path: &Path, why: &dyn Display) -> TlsError {
    TlsError::Certificate {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn explain(error: rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "nothing of that kind in it".to_owned(),
        other => other.to_string(),
    }
}
