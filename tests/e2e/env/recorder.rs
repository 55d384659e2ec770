//! A TCP proxy that records what both sides send.

use super::block_on;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What both sides of one connection have sent, in order.
type Transcript = Arc<Mutex<Vec<u8>>>;

pub struct Recorder {
    pub url: String,
    transcripts: Arc<Mutex<Vec<Transcript>>>,
}

impl Recorder {
    /// Starts it in front of `url`, which has no path.
    pub fn start(url: &str) -> Self {
        let target = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let transcripts = Arc::<Mutex<Vec<Transcript>>>::default();
        let all = Arc::clone(&transcripts);
        let address = block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = TcpStream::connect(&target).await else { continue };
                    let transcript = Transcript::default();
                    all.lock().unwrap().push(Arc::clone(&transcript));
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::spawn(copy(from_client, to_server, Arc::clone(&transcript)));
                    tokio::spawn(copy(from_server, to_client, transcript));
                }
            });
            address
        });
        Self { url: format!("http://{address}"), transcripts }
    }

    /// The requests so far, each with the response to it.
    pub fn exchanges(&self) -> Vec<String> {
        let transcripts = self.transcripts.lock().unwrap();
        let text = |transcript: &Transcript| String::from_utf8_lossy(&transcript.lock().unwrap()).into_owned();
        let mut exchanges = Vec::new();
        for text in transcripts.iter().map(text) {
            let begins = |line: &str| ["GET /", "HEAD /", "POST /", "PUT /"].iter().any(|verb| line.starts_with(verb));
            for line in text.split_inclusive('\n') {
                if begins(line) {
                    exchanges.push(String::new());
                }
                exchanges.last_mut().into_iter().for_each(|exchange| exchange.push_str(line));
            }
        }
        exchanges
    }
}

async fn copy(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, transcript: Transcript) {
    let mut buffer = [0; 8192];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // Recorded first, so that who has a response finds it here.
        transcript.lock().unwrap().extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}
