//! The HTTP client of the SDK, which reads the certificate authorities in `SSL_CERT_FILE` again when the file changes.
//! The SDK's own client reads them once per process.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use pem::Pem;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often the file is read.
const INTERVAL: Duration = Duration::from_secs(10);

/// The client, if `SSL_CERT_FILE` alone names the certificate authorities. Otherwise the SDK's own client is used.
pub(super) fn reloading_http_client() -> Option<SharedHttpClient> {
    let file = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty())?;
    let unset = std::env::var_os("SSL_CERT_DIR").is_none_or(|dir| dir.is_empty());
    unset.then(|| SharedHttpClient::new(ReloadingHttpClient { file: file.into(), state: Mutex::default() }))
}

#[derive(Debug)]
struct ReloadingHttpClient {
    file: PathBuf,
    state: Mutex<Option<State>>,
}

/// What was read last.
#[derive(Debug)]
struct State {
    read: Instant,
    content: Vec<u8>,
    client: SharedHttpClient,
}

impl ReloadingHttpClient {
    /// The client with the current certificate authorities. A file that can't be used leaves the former ones in place.
    fn current(&self) -> SharedHttpClient {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = state.as_ref().filter(|state| state.read.elapsed() < INTERVAL) {
            return state.client.clone();
        }
        let content = std::fs::read(&self.file).unwrap_or_default();
        let client = match state.take() {
            Some(state) if state.content == content => state.client,
            former => {
                let authorities = authorities(&content);
                if authorities.is_empty() {
                    warn!(file = %self.file.display(), "SSL_CERT_FILE contains no valid certificate");
                } else if former.is_some() {
                    info!(file = %self.file.display(), "the certificate authorities have changed");
                }
                former
                    .filter(|_| authorities.is_empty())
                    .map_or_else(|| http_client(&authorities), |state| state.client)
            }
        };
        state.insert(State { read: Instant::now(), content, client }).client.clone()
    }
}

impl HttpClient for ReloadingHttpClient {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        self.current().http_connector(settings, components)
    }
}

/// The certificates that rustls accepts: the SDK panics on any other.
fn authorities(content: &[u8]) -> Vec<Pem> {
    let is_valid = |pem: &Pem| {
        pem.tag() == "CERTIFICATE" && RootCertStore::empty().add(CertificateDer::from(pem.contents())).is_ok()
    };
    pem::parse_many(content).unwrap_or_default().into_iter().filter(is_valid).collect()
}

/// A client like the SDK's own, apart from the certificate authorities.
fn http_client(authorities: &[Pem]) -> SharedHttpClient {
    let store = authorities.iter().fold(TrustStore::empty(), |store, pem| store.with_pem_certificate(pem::encode(pem)));
    Builder::new().build_with_connector_fn(move |settings, components| {
        // Building a context of a trust store does not fail.
        let context = TlsContext::builder().with_trust_store(store.clone()).build().unwrap_or_default();
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_tls_context(context);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_certificates_are_authorities() {
        let certificate = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        let broken = pem::encode(&Pem::new("CERTIFICATE", [1, 2, 3]));
        let key = certificate.signing_key.serialize_pem();
        let text = format!("# a comment\n{}{broken}{key}", certificate.cert.pem());
        assert_eq!(authorities(text.as_bytes()).len(), 1);
        assert!(authorities(b"").is_empty() && authorities(b"-----BEGIN CERTIFICATE-----\n?").is_empty());
    }
}
