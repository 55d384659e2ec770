//! The ledger: requests and their results, one JSON line per request.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Write,
    path::Path,
};

use serde::{Deserialize, Serialize};

/// A request in the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// When it was received (RFC 3339, UTC).
    pub time: String,
    /// The response header `x-amzn-requestid`.
    #[serde(default)]
    pub request_id: String,
    /// The operation in `X-Amz-Target`; empty if there is none.
    pub operation: String,
    /// `X-Amz-Target`, unless it names an operation that the stand-in implements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The region of the credential scope.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The account of the access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The ARN of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// The tags of the caller's session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub session_tags: BTreeMap<String, String>,
    /// The job name in the request, or in an ARN of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
    /// The dataset ARN in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_arn: Option<String>,
    /// The ARN of the resource in the request: a job, a dataset, a schema or a dataset group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// The HTTP status that the client receives; 0 if a fault suppresses it.
    pub http_status: u16,
    /// The error code in the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// Present if the request created a job, even if the response never reached the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset_import_job_arn: Option<String>,
    /// The fault that fired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Maximum entries in memory; the file has all.
const MAX_ENTRIES: usize = 10_000;

/// Holds the latest entries, and appends every entry to the file, if any.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<LedgerEntry>,
    file: Option<File>,
}

impl Ledger {
    pub(crate) fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let file = path.map(|path| File::options().create(true).append(true).open(path)).transpose()?;
        Ok(Self { entries: VecDeque::new(), file })
    }

    /// Records an entry. Called before the response is sent, so that a client with a response finds its line.
    pub(crate) fn record(&mut self, entry: LedgerEntry) {
        if let Some(file) = &mut self.file {
            let written = serde_json::to_string(&entry)
                .map_err(std::io::Error::from)
                .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
            if let Err(error) = written {
                tracing::error!(%error, "failed to write the ledger");
            }
        }
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// The latest entries, oldest first.
    pub(crate) fn latest(&self) -> impl DoubleEndedIterator<Item = &LedgerEntry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, LedgerEntry, MAX_ENTRIES};

    #[test]
    fn ledger_over_capacity_keeps_latest_in_memory_and_all_in_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut ledger = Ledger::open(Some(file.path())).unwrap();
        for number in 0..MAX_ENTRIES + 2 {
            ledger.record(LedgerEntry { operation: number.to_string(), ..LedgerEntry::default() });
        }
        let latest: Vec<&LedgerEntry> = ledger.latest().collect();
        assert_eq!((latest.len(), latest[0].operation.as_str()), (MAX_ENTRIES, "2"));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), MAX_ENTRIES + 2);
    }
}
