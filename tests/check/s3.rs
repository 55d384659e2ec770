//! S3 on loopback, as little of it as the check needs: it counts what is asked of it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The objects of a page.
const PAGE: usize = 1000;

/// Files `0.csv`, `1.csv`… of the same content, below any prefix of any bucket.
pub(crate) struct S3 {
    pub(crate) url: String,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) lists: AtomicUsize,
    /// The calls and the bytes read of each object.
    pub(crate) reads: Mutex<HashMap<String, (usize, usize)>>,
    reading: AtomicUsize,
    /// The most reads at the same time.
    pub(crate) at_once: AtomicUsize,
}

impl S3 {
    pub(crate) fn start(files: usize, content: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (counts, content) = (Arc::new(Counts::default()), Arc::new(content));
        let server = Arc::clone(&counts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counts, content) = (Arc::clone(&server), Arc::clone(&content));
                std::thread::spawn(move || serve(&stream, files, &content, &counts));
            }
        });
        Self { url, counts }
    }
}

/// Answers the requests of a connection until it ends.
fn serve(stream: &TcpStream, files: usize, content: &[u8], counts: &Counts) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let (mut lines, mut out) = (BufReader::new(stream).lines(), stream);
    loop {
        let head: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let target = head.first()?.split(' ').nth(1)?;
        let range =
            head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(String::from));
        let (status, body) = if let Some(range) = range {
            let reading = counts.reading.fetch_add(1, Ordering::SeqCst) + 1;
            counts.at_once.fetch_max(reading, Ordering::SeqCst);
            let (start, end) = range.split_once('-')?;
            let body = &content[start.parse().ok()?..=end.parse().ok()?];
            let key = target.split('?').next()?.to_owned();
            let mut reads = counts.reads.lock().unwrap();
            let (calls, bytes) = reads.entry(key).or_default();
            (*calls, *bytes) = (*calls + 1, *bytes + body.len());
            (206, body.to_vec())
        } else {
            counts.lists.fetch_add(1, Ordering::SeqCst);
            (200, listing(target, files, content.len())?.into_bytes())
        };
        // It ends before the answer does: the client may send the next one at once.
        if status == 206 {
            counts.reading.fetch_sub(1, Ordering::SeqCst);
        }
        let length = body.len();
        write!(out, "HTTP/1.1 {status} OK\r\nContent-Length: {length}\r\nETag: \"1\"\r\n\r\n").ok()?;
        out.write_all(&body).ok()?;
    }
}

fn listing(target: &str, files: usize, size: usize) -> Option<String> {
    let parameter = |name: &str| target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let prefix = parameter("prefix")?.replace("%2F", "/");
    let start: usize = parameter("continuation-token").map_or(Some(0), |token| token.parse().ok())?;
    let end = (start + PAGE).min(files);
    let mut xml = String::from("<ListBucketResult>");
    if end < files {
        write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{end}</NextContinuationToken>").ok()?;
    }
    for index in start..end {
        let key = if prefix.ends_with('/') { format!("{prefix}{index}.csv") } else { prefix.clone() };
        write!(xml, "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"1\"</ETag></Contents>").ok()?;
    }
    Some(xml + "</ListBucketResult>")
}
