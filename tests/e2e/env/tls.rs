//! A server with TLS in front of one without, whose certificate and authority a test replaces.

use super::block_on;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

pub struct TlsFront {
    pub url: String,
    /// The certificate authority, in PEM.
    pub ca: PathBuf,
    server: Arc<Mutex<TlsAcceptor>>,
    rotated: watch::Sender<()>,
}

impl TlsFront {
    /// Starts it in front of `url`. The authority is in `dir`.
    pub fn start(dir: &Path, url: &str) -> Self {
        let (ca, target) = (dir.join("ca.crt"), url.trim_start_matches("http://").trim_end_matches('/').to_owned());
        let server = Arc::new(Mutex::new(new_server(&ca)));
        let (rotated, current) = (watch::Sender::new(()), Arc::clone(&server));
        let subscriber = rotated.clone();
        let address = block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, target) = (current.lock().unwrap().clone(), target.clone());
                    let mut rotated = subscriber.subscribe();
                    tokio::spawn(async move {
                        let serve = async {
                            let mut stream = acceptor.accept(stream).await.ok()?;
                            let mut target = TcpStream::connect(&target).await.ok()?;
                            copy_bidirectional(&mut stream, &mut target).await.ok()
                        };
                        tokio::select! { _ = serve => {}, _ = rotated.changed() => {} }
                    });
                }
            });
            address
        });
        Self { url: format!("https://{address}"), ca, server, rotated }
    }

    /// Replaces the authority and the certificate. Open connections break.
    pub fn rotate(&self) {
        *self.server.lock().unwrap() = new_server(&self.ca);
        self.rotated.send_replace(());
    }
}

/// A server with a new certificate, which is its own authority.
fn new_server(ca: &Path) -> TlsAcceptor {
    let new = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(ca, new.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(new.signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![new.cert.der().clone()], key.into()).unwrap()))
}
