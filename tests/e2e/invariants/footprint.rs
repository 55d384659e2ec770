//! K: what an operator uses is bounded by its configuration, not by what tenants or the network send: memory, file
//! descriptors, sockets, threads, metric series, calls per second to AWS, and requests per second to the API server.

use super::{History, is_by_operator, text};
use serde_json::Value;
use std::collections::BTreeMap;

/// Limit for the peak memory. It stays below this with 10,000 resources or responses of 10 MB.
const MAX_MEMORY_KB: u64 = 400_000;
/// Limit for the threads: those of the runtime, and some that resolve names.
const MAX_THREADS: usize = 64;
/// Limit for the series in `/metrics`: a hundred accounts and regions and five hundred datasets have their own.
const MAX_SERIES: usize = 2000;
/// The connections that the listener accepts at once.
const LISTENER_CONNECTIONS: usize = 128;
/// The accounts and regions whose workers can all be busy at once.
const BUSY_ACCOUNT_REGIONS: usize = 32;
/// Sockets and files beside the listener and the workers: watches, the Lease, events, the log, idle connections.
const OTHER_DESCRIPTORS: usize = 64;
/// Limit for the calls to one account and region in a second.
const MAX_CALLS_PER_SECOND: usize = 500;
/// Limit for the requests to the API server in a second.
const MAX_REQUESTS_PER_SECOND: usize = 1000;

/// What an operator used, each figure at its peak.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// `--concurrency`.
    pub concurrency: usize,
    pub memory_kb: u64,
    pub descriptors: usize,
    pub sockets: usize,
    pub threads: usize,
    pub series: usize,
}

impl Footprint {
    /// Takes the higher of each figure.
    pub fn add(&mut self, other: &Self) {
        self.concurrency = self.concurrency.max(other.concurrency);
        self.memory_kb = self.memory_kb.max(other.memory_kb);
        self.descriptors = self.descriptors.max(other.descriptors);
        self.sockets = self.sockets.max(other.sockets);
        self.threads = self.threads.max(other.threads);
        self.series = self.series.max(other.series);
    }

    /// A worker makes one call at a time, and may leave one idle connection to each of its two servers.
    fn max_sockets(&self) -> usize {
        LISTENER_CONNECTIONS + 2 * BUSY_ACCOUNT_REGIONS * self.concurrency
    }
}

/// The violations in what operators used.
pub fn check_footprints(footprints: &[Footprint]) -> Vec<String> {
    let mut violations = Vec::new();
    for used in footprints {
        let max_sockets = used.max_sockets();
        let figures = [
            ("kB of memory", used.memory_kb, MAX_MEMORY_KB),
            ("file descriptors", as_u64(used.descriptors), as_u64(max_sockets + OTHER_DESCRIPTORS)),
            ("sockets", as_u64(used.sockets), as_u64(max_sockets)),
            ("threads", as_u64(used.threads), as_u64(MAX_THREADS)),
            ("metric series", as_u64(used.series), as_u64(MAX_SERIES)),
        ];
        for (what, value, _) in figures.into_iter().filter(|(_, value, max)| value > max) {
            violations.push(format!("K: an operator used {value} {what}"));
        }
    }
    violations
}

fn as_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap()
}

/// Calls per second to each account and region, and requests per second to the API server.
pub(super) fn check(history: &History<'_>, violations: &mut Vec<String>) {
    let called = history.ledger.iter().map(|line| {
        let (account, region) = (text(line, "account"), text(line, "region"));
        (format!("calls to {account} in {region}"), &line["time"])
    });
    most_per_second(called, MAX_CALLS_PER_SECOND, violations);
    let requests = history.requests.iter().filter(|request| is_by_operator(request));
    let requested = requests.map(|r| ("requests to the API server".to_owned(), &r["requestReceivedTimestamp"]));
    most_per_second(requested, MAX_REQUESTS_PER_SECOND, violations);
}

fn most_per_second<'a>(records: impl Iterator<Item = (String, &'a Value)>, max: usize, violations: &mut Vec<String>) {
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for (what, time) in records {
        let second = time.as_str().and_then(|time| time.get(..19)).unwrap_or_default();
        *counts.entry((what, second)).or_default() += 1;
    }
    for ((what, second), count) in counts.into_iter().filter(|(_, count)| *count > max) {
        violations.push(format!("K: {count} {what} in second {second}"));
    }
}

mod tests {
    use super::{
        Footprint, LISTENER_CONNECTIONS, MAX_CALLS_PER_SECOND, MAX_MEMORY_KB, MAX_REQUESTS_PER_SECOND, MAX_SERIES,
        MAX_THREADS, OTHER_DESCRIPTORS, check_footprints,
    };
    use crate::invariants::histories::{assert_holds, assert_violates};
    use crate::invariants::{History, check};
    use serde_json::{Value, json};

    #[test]
    fn each_excessive_figure_violates_k() {
        let sockets = LISTENER_CONNECTIONS + 64;
        let most = Footprint {
            concurrency: 1,
            memory_kb: MAX_MEMORY_KB,
            descriptors: sockets + OTHER_DESCRIPTORS,
            sockets,
            threads: MAX_THREADS,
            series: MAX_SERIES,
        };
        assert_holds(&check_footprints(&[Footprint::default(), most]));
        for more in [
            Footprint { memory_kb: most.memory_kb + 1, ..most },
            Footprint { descriptors: most.descriptors + 1, ..most },
            Footprint { sockets: most.sockets + 1, ..most },
            Footprint { threads: most.threads + 1, ..most },
            Footprint { series: most.series + 1, ..most },
        ] {
            assert_violates("K", &check_footprints(&[most, more]));
            assert_holds(&check_footprints(&[Footprint { concurrency: 2, ..most }]));
        }
    }

    #[test]
    fn figures_are_added_at_their_peak() {
        let mut used = Footprint { memory_kb: 5, series: 1, ..Footprint::default() };
        used.add(&Footprint { memory_kb: 3, series: 7, ..Footprint::default() });
        assert_eq!(used, Footprint { memory_kb: 5, series: 7, ..Footprint::default() });
    }

    #[test]
    fn too_many_calls_to_one_account_and_region_violate_k() {
        // Each about another job, so that there is no endless loop (G).
        let call = |i: usize, region: &str| {
            json!({"time": "2026-01-01T00:02:00.5Z", "operation": "DescribeDatasetImportJob", "account": "123456789012",
                   "region": region, "jobName": format!("job-{i}")})
        };
        let calls = |count: usize| -> Vec<Value> { (0..count).map(|i| call(i, "eu-west-1")).collect() };
        let with = |ledger: &[Value]| check(&History { ledger, ..History::default() });
        assert_violates("K", &with(&calls(MAX_CALLS_PER_SECOND + 1)));
        let elsewhere = call(0, "us-east-1");
        assert_holds(&with(&[calls(MAX_CALLS_PER_SECOND), vec![elsewhere]].concat()));
    }

    #[test]
    fn too_many_requests_to_the_api_server_violate_k() {
        let request = |agent: &str| {
            json!({"userAgent": agent, "verb": "get", "objectRef": {"resource": "datasetimportjobs", "name": "a"},
                   "requestReceivedTimestamp": "2026-01-01T00:00:30.000000Z", "responseStatus": {"code": 200}})
        };
        let with = |requests: Vec<Value>| check(&History { requests: &requests, ..History::default() });
        let own = vec![request("personalize-operator/0.1.0"); MAX_REQUESTS_PER_SECOND + 1];
        assert_holds(&with(own[1..].to_vec()));
        assert_holds(&with(vec![request("kubectl/v1"); MAX_REQUESTS_PER_SECOND + 1]));
        assert_violates("K", &with(own));
    }
}
