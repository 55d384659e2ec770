//! The ledger: what was asked and what became of it, one JSON line per request.

use std::{collections::VecDeque, fs::File, io::Write, path::Path};

use serde::{Deserialize, Serialize};

/// One request, as the ledger has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// When it came in (RFC 3339, UTC).
    pub time: String,
    /// As the answer has it in `x-amzn-requestid`.
    #[serde(default)]
    pub request_id: String,
    /// The operation named in `X-Amz-Target`; empty if there was none.
    pub operation: String,
    /// `X-Amz-Target` as it came, unless it names an operation that the stand-in has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The region of the credential scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The account that the access key belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The job name in the request, or in the ARN of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The dataset in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_arn: Option<String>,
    /// The ARN of the resource that the request is about: a job, a dataset, a schema, a dataset group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// The status that the client would see; 0 if it sees none.
    pub http_status: u16,
    /// The error code answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Present only if a create was accepted, whether or not the client learnt of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_import_job_arn: Option<String>,
    /// The fault that fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// So many of the latest entries are kept in memory; the file has all.
const KEPT: usize = 10_000;

/// Keeps the latest entries, and appends each to a file if there is one.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
    file: Option<File>,
}

impl Ledger {
    pub(crate) fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self { entries: VecDeque::new(), file })
    }

    /// The line is in the file before the answer leaves, so that a reader who has the answer finds it there.
    pub(crate) fn record(&mut self, entry: Entry) {
        if let Some(file) = &mut self.file {
            let written = serde_json::to_string(&entry)
                .map_err(std::io::Error::from)
                .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
            if let Err(error) = written {
                tracing::error!(%error, "the ledger can't be written");
            }
        }
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The latest entries, the oldest first.
    pub(crate) fn latest(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, KEPT, Ledger};

    #[test]
    fn memory_has_the_latest_and_the_file_has_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut ledger = Ledger::open(Some(file.path())).unwrap();
        for number in 0..KEPT + 2 {
            ledger.record(Entry { operation: number.to_string(), ..Entry::default() });
        }
        let latest: Vec<&Entry> = ledger.latest().collect();
        assert_eq!((latest.len(), latest[0].operation.as_str()), (KEPT, "2"));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), KEPT + 2);
    }
}
