//! The API server's audit log, by namespace.
//!
//! All tests of a process share one log, and each reads it often. So each line is scanned once, and an index says where the
//! lines of a namespace are.

use super::{is_by_operator, is_successful_write, text};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Successful writes to DatasetImportJobs and their status in a namespace, in order.
pub fn resource_writes(audit_log: &Path, namespace: &str) -> Vec<Value> {
    resource_writes_after(audit_log, 0, namespace)
}

/// The same, from a byte offset of the audit log on.
pub fn resource_writes_after(audit_log: &Path, offset: u64, namespace: &str) -> Vec<Value> {
    let requests = audited(audit_log, offset, namespace, &["datasetimportjobs"]);
    requests.into_iter().filter(is_successful_write).collect()
}

/// The events that were written in a namespace, in order.
pub fn events(audit_log: &Path, namespace: &str) -> Vec<Value> {
    audited(audit_log, 0, namespace, &["events"]).into_iter().filter(is_successful_write).collect()
}

/// The requests of the operator for a namespace, without events, and the writes to the Namespace by any client, in order.
pub fn requests(audit_log: &Path, namespace: &str) -> Vec<Value> {
    let mut requests = audited(audit_log, 0, namespace, &["datasetimportjobs", "leases", "namespaces"]);
    requests.retain(|r| is_by_operator(r) || r["objectRef"]["resource"] == "namespaces" && is_successful_write(r));
    // The content of the writes is in the history already.
    requests.iter_mut().filter_map(Value::as_object_mut).for_each(|request| {
        request.remove("requestObject");
        request.remove("responseObject");
    });
    requests.sort_by_cached_key(|request| text(request, "requestReceivedTimestamp").to_owned());
    requests
}

/// The requests about these resources in a namespace, from a byte offset of the log on.
fn audited(audit_log: &Path, offset: u64, namespace: &str, resources: &[&str]) -> Vec<Value> {
    static INDEXES: Mutex<BTreeMap<PathBuf, Index>> = Mutex::new(BTreeMap::new());
    // The API server creates the file with its first line.
    let Ok(log) = File::open(audit_log) else { return Vec::new() };
    let lines: Vec<(u64, usize)> = {
        let mut indexes = INDEXES.lock().unwrap();
        let index = indexes.entry(audit_log.to_owned()).or_default();
        index.update(&log);
        let lines = index.lines.get(namespace).into_iter().flatten();
        let is_asked = |line: &&Line| line.start >= offset && resources.contains(&line.resource.as_str());
        lines.filter(is_asked).map(|line| (line.start, line.length)).collect()
    };
    let parse = |(start, length)| serde_json::from_slice(&read(&log, start, length)).unwrap();
    lines.into_iter().map(parse).collect()
}

fn read(log: &File, start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    log.read_exact_at(&mut bytes, start).unwrap();
    bytes
}

/// Where the lines of each namespace are in an audit log.
#[derive(Default)]
struct Index {
    /// The byte after the last line that is in the index.
    end: u64,
    lines: HashMap<String, Vec<Line>>,
}

struct Line {
    resource: String,
    start: u64,
    length: usize,
}

/// What the index has to know of a line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    object_ref: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: Option<String>,
    namespace: Option<String>,
}

impl Index {
    /// Adds the lines that were written since the last update. The last one may not be complete; the next update adds it.
    fn update(&mut self, log: &File) {
        let length = log.metadata().unwrap().len();
        let new = read(log, self.end, usize::try_from(length - self.end).unwrap());
        for bytes in new.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let start = self.end;
            self.end += bytes.len() as u64;
            // A killed API server may leave half a line.
            let object_ref = serde_json::from_slice::<Request>(bytes).ok().and_then(|request| request.object_ref);
            if let Some(ObjectRef { resource: Some(resource), namespace: Some(namespace) }) = object_ref {
                self.lines.entry(namespace).or_default().push(Line { resource, start, length: bytes.len() });
            }
        }
    }
}
