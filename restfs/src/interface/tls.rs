//! The server's certificate and key.

use restfs_lib::content::hash_block;
use restfs_lib::model::{Hash, HashAlgorithm};
use restfs_lib::wire::Hex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
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

/// Certificate and key that new connections get; can be read again while the server runs.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    pub fn read(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(certified(cert, key)?);
        Ok(Arc::new(Self {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current,
        }))
    }

    /// Reads the files again. After an error the old ones stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = certified(&self.cert, &self.key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| key_error(&self.key, &e))?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

fn certified(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = read_chain(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| key_error(key, &explain(e)))?;
    let provider = ring::default_provider();
    let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|e| key_error(key, &e))?;
    Ok(Arc::new(certified))
}

fn key_error(path: &Path, why: &dyn Display) -> TlsError {
    TlsError::Key {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

/// SHA-256 of the DER form, as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(certificate: &Path) -> Result<Hex<32>, TlsError> {
    let chain = read_chain(certificate)?;
    let first = chain
        .first()
        .ok_or_else(|| certificate_error(certificate, &"no certificate in it"))?;
    match hash_block(first, HashAlgorithm::Sha256).hash {
        Hash::Sha256(hash) => Ok(Hex(hash)),
        other => Err(certificate_error(certificate, &format!("hashed to {other}"))),
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
