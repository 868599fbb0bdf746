//! TLS, with the trust that the endpoint names.

use super::{ClientError, Endpoint, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) async fn connect<S>(
    stream: S,
    host: &str,
    endpoint: &Endpoint,
) -> Result<TlsStream<S>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ClientError::Endpoint(format!("{}: {host:?} is no name of a host", endpoint.url)))?;
    let config = configuration(endpoint)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| {
            let url = endpoint.url.to_string();
            match error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                Some(inner) => ClientError::Tls {
                    url,
                    reason: explain(inner),
                },
                None => ClientError::Unreachable {
                    url,
                    reason: error.to_string(),
                },
            }
        })
}

fn configuration(endpoint: &Endpoint) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| ClientError::Endpoint(format!("TLS cannot be set up: {e}")))?;
    Ok(match &endpoint.trust {
        Trust::Nobody => {
            return Err(ClientError::Endpoint(format!(
                "{}: nothing says which certificate to trust: set `fingerprint` or `ca_file`",
                endpoint.url
            )));
        }
        Trust::CaFile(path) => builder.with_root_certificates(roots(path)?).with_no_client_auth(),
        Trust::Fingerprint(sha256) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(*sha256, &provider)))
            .with_no_client_auth(),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, ClientError> {
    let wrong = |e: &dyn std::fmt::Display| ClientError::Endpoint(format!("CA file {}: {e}", path.display()));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))? {
        store
            .add(certificate.map_err(|e| wrong(&e))?)
            .map_err(|e| wrong(&e))?;
    }
    if store.is_empty() {
        return Err(wrong(&"no certificate in it"));
    }
    Ok(store)
}

fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate is not signed by one in the CA file; copy the server's certificate again".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the server's certificate is not the one with the configured fingerprint".to_owned()
        }
        other => other.to_string(),
    }
}

/// Accepts the one certificate with this fingerprint. Who holds its key is proved by the handshake's signature; name
/// and validity in it say nothing more.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(sha256: [u8; 32], provider: &CryptoProvider) -> Self {
        Self {
            sha256,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found: [u8; 32] = Sha256::digest(certificate).into();
        if found == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
