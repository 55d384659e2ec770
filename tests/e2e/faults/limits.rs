//! Limits: quotas, throttling, long listings and long jobs.

use super::service::{error, fault, ready_state};
use super::{CREATE, DESCRIBE, assert_imported_once, import_nightly};
use crate::env::proxy::Fault;
use crate::env::{ROLE, TestEnv, dataset_arn, eventually, shared_control_plane, text};
use crate::invariants::operator_writes;
use personalize_operator::import::request::ImportRequest;
use regex::Regex;
use serde_json::{Value, json};

/// The seconds between consecutive creates that were rejected with this code.
fn gaps(env: &TestEnv, code: &str) -> Vec<f64> {
    let ledger = env.service.ledger();
    let of = ledger.iter().filter(|l| l["operation"] == CREATE && l["errorCode"] == code);
    let times: Vec<jiff::Timestamp> = of.map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect();
    times.windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect()
}

/// The names of the jobs that were rejected with this code, in order.
fn rejected_names(env: &TestEnv, code: &str) -> Vec<String> {
    let ledger = env.service.ledger();
    let of = ledger.iter().filter(|l| l["operation"] == CREATE && l["errorCode"] == code);
    of.map(|l| l["jobName"].as_str().unwrap().to_owned()).collect()
}

/// The service can't accept three imports, and later it can. All three may find out at once; from then on only the
/// oldest tries, with increasing delays.
fn assert_only_the_oldest_retries(env: &TestEnv, code: &str, message: &str, make_room: impl FnOnce()) {
    for (name, dataset) in [("a", "d0"), ("b", "d1"), ("c", "d2")] {
        env.import(name, dataset, json!({}));
    }
    // A slow machine takes a while from intent to create. It must not take longer than the intent is recent.
    let _operator = env.start_operator(&["--grace=60s"]);
    for name in ["a", "b", "c"] {
        env.wait_for_message(name, message);
        assert_eq!(ready_state(&env.status(name)).0, "Unknown", "waiting is not a failure");
    }
    eventually("the create is retried", || (gaps(env, code).len() >= 7).then_some(()));
    let gaps = gaps(env, code);
    // Jitter shortens each delay by at most half. A slow machine only makes it longer.
    assert!(gaps[2] >= 0.4 && gaps[3..].iter().all(|gap| *gap >= 0.5), "{gaps:?}");
    let rejected = rejected_names(env, code);
    assert!(rejected[3..].iter().all(|name| name.starts_with("a-")), "only the oldest retries: {rejected:?}");
    make_room();
    for name in ["a", "b", "c"] {
        env.wait_for_reason(name, "ImportSucceeded");
    }
    assert_eq!(env.accepted_count(), 3);
    env.check_invariants_settled();
}

#[test]
fn fault_35_exceeded_quota_queues_all_and_only_the_oldest_retries() {
    let env = TestEnv::new();
    // Other tools use up the quota.
    for i in 10..15 {
        env.service.put_job(&json!({"name": format!("foreign-{i}"), "datasetArn": dataset_arn(&format!("d{i}")),
            "status": "CREATE IN_PROGRESS", "hold": true}));
    }
    assert_only_the_oldest_retries(&env, "LimitExceededException", "waiting for a running import to finish", || {
        (10..15).for_each(|i| env.service.finish_job(&format!("foreign-{i}")));
    });
}

#[test]
fn fault_36_throttled_creates_queue_all_and_only_the_oldest_retries() {
    let env = TestEnv::new();
    env.service.inject_fault(&fault(CREATE, 0, &error("ThrottlingException", "Rate exceeded", 400)));
    assert_only_the_oldest_retries(&env, "ThrottlingException", "the service is throttling requests", || {
        env.service.clear_faults()
    });
}

/// Lists return no job and a token for the next page, made from the number of the page. Returns how many pages each of
/// the first two listings read, and the limit of jobs per listing that the log names.
fn endless_listing(token: fn(usize) -> String) -> ([usize; 2], usize) {
    let env = TestEnv::new();
    let proxy = env.start_proxy();
    proxy.inject(move |call| match call.label.as_str() {
        "ListDatasetImportJobs" => {
            let page = json!({"datasetImportJobs": [], "nextToken": token(call.nth)});
            Fault::Respond(200, vec![], page.to_string())
        }
        _ => Fault::None,
    });
    let operator = env.spawn_operator_behind(&proxy, &[]);
    import_nightly(&env);
    env.wait_for_message("nightly", "other imports");
    assert_eq!(ready_state(&env.status("nightly")).0, "Unknown");
    let listing_starts = || {
        let calls = proxy.calls();
        let pages: Vec<_> = calls.iter().filter(|call| call.label == "ListDatasetImportJobs").collect();
        // A listing starts with a call without a token.
        pages
            .iter()
            .enumerate()
            .filter(|(_, call)| !call.body.contains("nextToken"))
            .map(|(i, _)| i)
            .collect::<Vec<_>>()
    };
    eventually("the third listing has started", || (listing_starts().len() > 2).then_some(()));
    let starts = listing_starts();
    assert_eq!(env.service.call_count(CREATE), 0, "without a complete list there is no create");
    proxy.clear();
    assert_imported_once(&env);
    let limit = Regex::new(r"within (\d+) jobs").unwrap();
    let limit = limit.captures(&operator.log()).unwrap()[1].parse().unwrap();
    ([starts[1] - starts[0], starts[2] - starts[1]], limit)
}

#[test]
fn fault_59_endless_pagination_stops_at_the_limit() {
    // Every page has a new token.
    let (pages, jobs) = endless_listing(|nth| format!("page-{nth}"));
    assert_eq!(pages, [jobs / 100; 2], "each listing ends at the limit");
}

#[test]
fn fault_59_repeated_page_token_is_not_followed() {
    let (pages, _) = endless_listing(|_| "the same".into());
    assert_eq!(pages, [2, 2], "no token is followed twice");
}

#[test]
fn fault_60_job_pending_for_days_is_polled_rarely_and_never_recreated() {
    let env = TestEnv::new();
    let manifest = TestEnv::manifest("nightly", "d0", json!({}));
    let spec = serde_json::from_value(manifest["spec"].clone()).unwrap();
    let request = ImportRequest::new(&env.namespace, "nightly", &spec).unwrap();
    // The service accepted the job three days ago, and it is still pending.
    let created = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(72);
    env.service.put_job(&json!({
        "name": request.job_name(1), "datasetArn": dataset_arn("d0"), "dataLocation": "s3://bucket/interactions.csv",
        "roleArn": ROLE, "status": "CREATE PENDING", "createdAt": created, "hold": true, "tags": request.own_tags(),
    }));
    let _operator = env.start_operator(&["--poll-min=100ms", "--poll-max=1s"]);
    import_nightly(&env);
    let pending = env.wait_for_reason("nightly", "Pending");
    let polls = || {
        let ledger = env.service.ledger();
        let of = |l: &&Value| l["operation"] == DESCRIBE && l["errorCode"].is_null();
        ledger.iter().filter(of).map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect::<Vec<jiff::Timestamp>>()
    };
    eventually("the job is polled several times", || (polls().len() >= 4).then_some(()));
    let gaps: Vec<f64> = polls().windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| *gap > 0.9), "an old job is polled at the longest interval: {gaps:?}");
    assert_eq!(operator_writes(&env.audited_writes()).count(), 1, "a poll without news writes nothing");
    assert_eq!(env.status("nightly"), pending);
    env.service.finish_job(&request.job_name(1));
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.service.call_count(CREATE), 0, "the job is not created again");
    env.check_invariants_settled();
}

/// Creates this many imports into the datasets of a region, in one call of kubectl.
fn import_many(env: &TestEnv, count: usize, region: &str) {
    let items: Vec<Value> = (0..count)
        .map(|i| {
            let dataset = dataset_arn(&format!("d{}", i % 30)).replace("eu-west-1", region);
            TestEnv::manifest(&format!("{region}-{i:03}"), "", json!({"datasetArn": dataset}))
        })
        .collect();
    env.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}));
}

/// The reasons of the Ready conditions of all resources.
fn reasons(env: &TestEnv) -> Vec<String> {
    let list = env.kubectl(&["get", "dij", "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].reason}"]);
    String::from_utf8(list.stdout).unwrap().split_whitespace().map(String::from).collect()
}

fn count_of(reasons: &[String], reason: &str) -> usize {
    reasons.iter().filter(|r| *r == reason).count()
}

/// How many Warning events of all resources have this reason.
fn warnings(env: &TestEnv, reason: &str) -> usize {
    let selector = format!("reason={reason},type=Warning");
    let events = env.kubectl(&["get", "events", "-o", "name", "--field-selector", &selector]);
    String::from_utf8(events.stdout).unwrap().lines().count()
}

#[test]
fn fault_95_throttled_calls_of_many_imports_slow_them_down_and_stay_few() {
    let env = TestEnv::with_seed(shared_control_plane(), &json!({"throttle": {"perSecond": 25, "burst": 25}}));
    env.service.set_durations(100, 100);
    // A slow machine may stay below the limit.
    env.service.inject_fault(&json!({"count": 1, "action": error("ThrottlingException", "Rate exceeded", 400)}));
    import_many(&env, 100, "eu-west-1");
    // Another leader would publish the event again.
    let flags = ["--aws-calls-per-second=50", "--backoff-max=5s"];
    let operator = env.start_operator(&flags);
    eventually("every import has finished", || (count_of(&reasons(&env), "ImportSucceeded") == 100).then_some(()));
    let ledger = env.service.ledger();
    let throttled = ledger.iter().filter(|l| l["errorCode"] == "ThrottlingException").count();
    assert!(throttled > 0 && throttled < ledger.len() / 10, "{throttled} of {} calls", ledger.len());
    assert!(warnings(&env, "Throttled") <= 1, "one event for all");
    assert!(operator.metrics().contains("personalize_operator_api_requests_waiting 0"));
    assert_eq!(env.accepted_count(), 100);
    env.check_invariants_settled();
}

#[test]
fn fault_96_refused_credentials_are_one_call_per_backoff_and_delay_no_other_region() {
    let env = TestEnv::new();
    let refused = error("ExpiredTokenException", "The security token included in the request is expired", 403);
    env.service.inject_fault(&json!({"name": ":us-east-1:", "count": 0, "action": refused}));
    let _operator = env.start_operator(&["--aws-calls-per-second=10"]);
    import_many(&env, 50, "us-east-1");
    eventually("all are refused", || (count_of(&reasons(&env), "CredentialsRefused") == 50).then_some(()));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    let times = || {
        let ledger = env.service.ledger();
        let of = ledger.iter().filter(|l| l["region"] == "us-east-1");
        of.map(|l| l["time"].as_str().unwrap().parse().unwrap()).collect::<Vec<jiff::Timestamp>>()
    };
    let first = times().len();
    eventually("it is tried again", || (times().len() >= first + 5).then_some(()));
    let all = times();
    let gaps: Vec<f64> = all[first - 1..].windows(2).map(|w| w[1].duration_since(w[0]).as_secs_f64()).collect();
    assert!(gaps[1..].iter().all(|gap| *gap > 0.9), "one call at a time, after the longest backoff: {gaps:?}");
    let seconds = all[first - 1].duration_since(all[0]).as_secs_f64();
    assert!(first as f64 <= 10.0 + 2.0 * seconds, "{first} calls for 50 resources in {seconds} s");
    assert_eq!(warnings(&env, "CredentialsRefused"), 1, "one event for all");
    env.service.clear_faults();
    eventually("every import has finished", || (count_of(&reasons(&env), "ImportSucceeded") == 51).then_some(()));
    env.check_invariants_settled();
}

#[test]
fn fault_111_flood_of_one_namespace_delays_another_by_one_import_and_the_queue_shows_it() {
    let mut env = TestEnv::new();
    let team = env.add_tenant("team");
    env.service.set_durations(100, 600_000);
    let operator = env.start_operator(&["--max-in-flight=1", "--queue-order=namespaces-in-turn"]);
    env.import("f0", "d0", json!({}));
    env.wait_for_reason("f0", "Importing");
    (1..=4).for_each(|i| env.import(&format!("f{i}"), &format!("d{i}"), json!({})));
    let in_team = |args: &[&str], input: Option<&str>| {
        let args: Vec<&str> = ["-n", &team].into_iter().chain(args.iter().copied()).collect();
        let output = env.control_plane.kubectl(&args, input).unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    for i in [0, 1] {
        let manifest = TestEnv::manifest(&format!("t{i}"), &format!("d1{i}"), json!({}));
        in_team(&["apply", "-f", "-"], Some(&manifest.to_string()));
    }
    let shows = |names: &[&str]| {
        eventually(&format!("/queue shows {names:?}"), || {
            let page: Value = serde_json::from_str(&operator.get("/queue")?.1).ok()?;
            let waiting = page["pools"][0]["waiting"].as_array()?;
            waiting.iter().map(|waiting| &waiting["name"]).eq(names).then(|| page.clone())
        })
    };
    let page = shows(&["t0", "f1", "t1", "f2", "f3", "f4"]);
    let pool = &page["pools"][0];
    assert_eq!((&pool["inFlight"], &pool["quota"], &pool["pending"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!((&pool["waiting"][0]["namespace"], &pool["waiting"][0]["position"]), (&json!(team), &json!(1)));
    in_team(&["annotate", "namespace", &team, "personalize-operator.io/queue-weight=2"], None);
    shows(&["t0", "t1", "f1", "f2", "f3", "f4"]);
    env.service.set_durations(100, 200);
    in_team(&["wait", "dij", "--all", "--for=condition=Ready", "--timeout=300s"], None);
    (0..=4).for_each(|i| drop(env.wait_for_reason(&format!("f{i}"), "ImportSucceeded")));
    let ledger = env.service.ledger();
    let accepted = ledger.iter().filter(|l| l["operation"] == CREATE && l["errorCode"].is_null());
    let order: Vec<&str> = accepted.map(|l| &l["jobName"].as_str().unwrap()[..2]).collect();
    assert_eq!(order, ["f0", "t0", "t1", "f1", "f2", "f3", "f4"]);
    env.check_invariants_settled();
}
