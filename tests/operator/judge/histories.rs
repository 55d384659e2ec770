//! The judge judged: made-up histories, one that is good and for each invariant some that break it.

use super::{judge, judge_settled, judge_with_jobs};
use serde_json::{Value, json};

fn create(name: &str, dataset: &str) -> Value {
    json!({"time": "2026-01-01T00:01:00.5Z", "operation": "CreateDatasetImportJob", "account": "1", "region": "r",
           "jobName": name, "datasetArn": dataset, "datasetImportJobArn": format!("arn:job/{name}")})
}

fn look(job: &str, second: u32) -> Value {
    json!({"time": format!("2026-01-01T00:02:{second:02}.5Z"), "operation": "DescribeDatasetImportJob", "jobName": job})
}

/// A write of the operator to the resource `name`, whose UID is its name, and whose age is the length
/// of that.
fn write(name: &str, status: &Value) -> Value {
    json!({"verb": "update", "requestURI": "/status?&fieldManager=personalize-operator", "objectRef": {"subresource": "status"},
        "requestReceivedTimestamp": "2026-01-01T00:00:30.000000Z", "responseObject": {
        "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len())},
        "status": status}})
}

fn row(ready: &str, succeeded: &str, reconciling: &str, stalled: &str) -> Value {
    json!([{"type": "Ready", "status": ready}, {"type": "Succeeded", "status": succeeded},
           {"type": "Reconciling", "status": reconciling}, {"type": "Stalled", "status": stalled}])
}

fn going() -> Value {
    row("Unknown", "Unknown", "True", "False")
}

fn failed() -> Value {
    row("False", "False", "False", "True")
}

fn intent(job_name: &str, attempt: i64) -> Value {
    json!({"observedGeneration": 1, "submission": {"jobName": job_name, "attempt": attempt}, "conditions": going()})
}

fn told(job_name: &str) -> Value {
    json!({"observedGeneration": 1, "status": "ACTIVE", "completionTime": "x", "conditions": row("True", "True", "False", "False"),
           "datasetImportJobArn": format!("arn:job/{job_name}"), "submission": {"jobName": job_name, "attempt": 1}})
}

fn resource(name: &str, status: &Value) -> Value {
    json!({"metadata": {"name": name, "uid": name, "generation": 1}, "spec": {}, "status": status})
}

fn job(name: &str, status: &str, begin: i64, end: i64) -> Value {
    json!({"name": name, "status": status, "datasetArn": "d", "createdMs": begin, "updatedMs": end})
}

#[track_caller]
fn breaks(invariant: &str, faults: &[String]) {
    assert!(!faults.is_empty() && faults.iter().all(|f| f.starts_with(invariant)), "{invariant}: {faults:?}");
}

#[track_caller]
fn holds(faults: &[String]) {
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn a_good_history_breaks_nothing() {
    let writes = [
        write("a", &intent("a-1", 1)),
        write("bb", &intent("b-1", 1)),
        write("a", &told("a-1")),
        write("bb", &told("b-1")),
    ];
    let ledger = [create("a-1", "d"), look("a-1", 0), create("b-1", "d")];
    let jobs = [job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 5, 9)];
    let resources = [resource("a", &told("a-1")), resource("bb", &told("b-1"))];
    holds(&judge_settled(&ledger, &writes, &resources, &jobs));
}

#[test]
fn a_history_of_nothing_breaks_nothing() {
    holds(&judge_settled(&[], &[], &[], &[]));
}

#[test]
fn a_is_broken_by_a_name_accepted_twice() {
    breaks("A", &judge(&[create("a-1", "d"), create("a-1", "d")], &[write("a", &intent("a-1", 1))]));
}

#[test]
fn a_is_broken_by_two_names_for_one_attempt_and_not_by_a_retry() {
    let ledger = [create("a-1", "d"), create("a-2", "d")];
    breaks("A", &judge(&ledger, &[write("a", &intent("a-1", 1)), write("a", &intent("a-2", 1))]));
    holds(&judge(&ledger, &[write("a", &intent("a-1", 1)), write("a", &intent("a-2", 2))]));
}

#[test]
fn a_is_broken_by_a_create_without_an_intent_or_before_it() {
    breaks("A", &judge(&[create("a-1", "d")], &[]));
    let mut late = write("a", &intent("a-1", 1));
    late["requestReceivedTimestamp"] = json!("2026-01-01T00:01:00.500001Z");
    breaks("A", &judge(&[create("a-1", "d")], &[late]));
}

#[test]
fn b_is_broken_by_a_resource_that_is_forgotten_and_not_by_one_held_back() {
    let mut forgotten = resource("a", &json!({"observedGeneration": 1}));
    breaks("B", &judge_settled(&[], &[], std::slice::from_ref(&forgotten), &[]));
    forgotten["spec"]["suspend"] = json!(true);
    holds(&judge_settled(&[], &[], &[forgotten], &[]));
}

#[test]
fn b_is_broken_by_a_job_that_no_status_tells_of_and_not_if_its_resource_is_gone() {
    let rejected = json!({"observedGeneration": 1, "conditions": failed()});
    let (ledger, writes) = ([create("a-1", "d")], [write("a", &intent("a-1", 1))]);
    breaks("B", &judge_settled(&ledger, &writes, &[resource("a", &rejected)], &[]));
    holds(&judge_settled(&ledger, &writes, &[], &[]));
}

#[test]
fn c_is_broken_by_a_job_that_nobody_here_made_unless_a_person_asked_for_it() {
    let mut adopted = write("a", &told("foreign"));
    breaks("C", &judge(&[], std::slice::from_ref(&adopted)));
    adopted["responseObject"]["metadata"]["annotations"] = json!({"personalize-operator.io/adopt": "true"});
    let mut later = write("a", &told("foreign"));
    later["responseObject"]["status"]["observedGeneration"] = json!(0);
    holds(&judge(&[], &[later, adopted.clone()])[1..]);
    let mut after = write("a", &told("foreign"));
    after["responseObject"]["status"]["attempts"] = json!(1);
    holds(&judge(&[], &[adopted, after]));
}

#[test]
fn c_is_broken_by_an_older_job_of_another_and_not_by_ones_own() {
    let tagged = |owner: &str| {
        let mut old = job("old", "ACTIVE", 0, 1);
        old["tags"] = json!([{"tagKey": "personalize-operator.io/name", "tagValue": owner}]);
        [old]
    };
    breaks("C", &judge_with_jobs(&[], &[write("a", &told("old"))], &tagged("b")));
    holds(&judge_with_jobs(&[], &[write("a", &told("old"))], &tagged("a")));
}

#[test]
fn c_is_broken_by_the_job_of_another_resource() {
    let writes = [write("a", &intent("shared", 1)), write("a", &told("shared")), write("bb", &told("shared"))];
    breaks("C", &judge(&[create("shared", "d")], &writes));
}

#[test]
fn d_is_broken_by_a_generation_that_goes_back_or_ahead() {
    let at = |generation: i64, n: i64| {
        write("a", &json!({"observedGeneration": generation, "attempts": n, "conditions": going()}))
    };
    breaks("D", &judge(&[], &[at(1, 0), at(0, 1)]));
    breaks("D", &judge(&[], &[at(2, 0)]));
    holds(&judge(&[], &[at(0, 0), at(1, 0)]));
}

#[test]
fn d_is_broken_by_conditions_that_contradict_each_other_or_the_job() {
    let with = |status: &str, conditions: Value| {
        write("a", &json!({"observedGeneration": 1, "status": status, "conditions": conditions}))
    };
    breaks("D", &judge(&[], &[with("CREATE PENDING", row("True", "Unknown", "True", "False"))]));
    breaks("D", &judge(&[], &[with("CREATE PENDING", json!([]))]));
    breaks("D", &judge(&[], &[with("CREATE FAILED", row("True", "True", "False", "False"))]));
    let mut early = with("CREATE PENDING", going());
    early["responseObject"]["status"]["completionTime"] = json!("x");
    breaks("D", &judge(&[], &[early]));
}

#[test]
fn d_is_broken_by_a_status_that_the_service_does_not_tell() {
    let (ledger, writes) = ([create("a-1", "d")], [write("a", &intent("a-1", 1)), write("a", &told("a-1"))]);
    let resources = [resource("a", &told("a-1"))];
    breaks("D", &judge_settled(&ledger, &writes, &resources, &[job("a-1", "CREATE FAILED", 0, 1)]));
    breaks("D", &judge_settled(&ledger, &writes, &resources, &[]));
}

#[test]
fn d_is_broken_by_silence_about_the_latest_generation() {
    let mut edited = resource("a", &told("a-1"));
    edited["metadata"]["generation"] = json!(2);
    let (ledger, writes) = ([create("a-1", "d")], [write("a", &intent("a-1", 1)), write("a", &told("a-1"))]);
    breaks("D", &judge_settled(&ledger, &writes, &[edited], &[job("a-1", "ACTIVE", 0, 1)]));
}

#[test]
fn e_is_broken_by_a_write_that_says_nothing_new_but_another_time() {
    let at = |version: &str, moment: &str| {
        let mut write = write("a", &intent("a-1", 1));
        write["responseObject"]["metadata"]["resourceVersion"] = json!(version);
        write["responseObject"]["status"]["conditions"][0]["lastTransitionTime"] = json!(moment);
        write
    };
    breaks("E", &judge(&[], &[at("1", "x"), at("2", "x")]));
    breaks("E", &judge(&[], &[at("1", "x"), at("2", "y")]));
    // An etcd that was restored has forgotten the first.
    holds(&judge(&[], &[at("2", "x"), at("1", "y")]));
    // Of what the API server wrote and told nobody of, only the version is known.
    let mut unseen = at("3", "y");
    unseen["requestObject"]["metadata"]["resourceVersion"] = json!("2");
    holds(&judge(&[], &[at("1", "x"), unseen.clone()]));
    breaks("E", &judge(&[], &[at("2", "x"), unseen]));
    // What somebody else has wiped is written again.
    let mut wiped = write("a", &json!({}));
    wiped["requestURI"] = json!("/status?fieldManager=kubectl-patch");
    holds(&judge(&[], &[at("1", "x"), wiped, at("3", "x")]));
}

#[test]
fn f_is_broken_by_a_secret_in_a_status() {
    let leak = json!({"observedGeneration": 1, "failureReason": crate::service::SECRET_KEY, "conditions": going()});
    breaks("F", &judge(&[], &[write("a", &leak)]));
}

#[test]
fn g_is_broken_by_calls_without_end_and_not_by_looks_now_and_then() {
    breaks("G", &judge(&vec![look("a-1", 0); 100], &[]));
    holds(&judge(&(0..60).map(|second| look("a-1", second)).collect::<Vec<_>>(), &[]));
}

#[test]
fn g_is_broken_by_writes_without_end() {
    let write = |i: i64| write("a", &json!({"observedGeneration": 1, "attempts": i, "conditions": going()}));
    breaks("G", &judge(&[], &(0..100).map(write).collect::<Vec<_>>()));
}

#[test]
fn h_is_broken_by_an_older_import_after_a_newer_one_unless_that_failed() {
    let writes = [write("bb", &intent("b-1", 1)), write("a", &intent("a-1", 1))];
    let ledger = [create("b-1", "d"), create("a-1", "d")];
    breaks("H", &judge(&ledger, &writes));
    breaks("H", &judge_with_jobs(&ledger, &writes, &[job("b-1", "ACTIVE", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
    holds(&judge_with_jobs(&ledger, &writes, &[job("b-1", "CREATE FAILED", 0, 1), job("a-1", "ACTIVE", 1, 2)]));
    holds(&judge(&[create("b-1", "d"), create("a-1", "other")], &writes));
    // One that was deleted and made anew is as old as it is now.
    let mut anew = write("a", &intent("a-1", 1));
    anew["responseObject"]["metadata"]["uid"] = json!("anew");
    anew["responseObject"]["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:09Z");
    holds(&judge(&ledger, &[&writes[..], &[anew.clone()]].concat()));
    anew["requestReceivedTimestamp"] = json!("2026-01-01T00:09:00Z");
    breaks("H", &judge(&ledger, &[&writes[..], &[anew]].concat()));
}

#[test]
fn h_is_broken_by_two_imports_at_once_and_not_by_somebody_elses() {
    let writes = [write("a", &intent("a-1", 1)), write("bb", &intent("b-1", 1))];
    let ledger = [create("a-1", "d"), create("b-1", "d")];
    breaks("H", &judge_with_jobs(&ledger, &writes, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
    breaks("H", &judge_with_jobs(&ledger, &writes, &[job("a-1", "CREATE PENDING", 0, 0), job("b-1", "ACTIVE", 4, 9)]));
    holds(&judge_with_jobs(&ledger[..1], &writes, &[job("a-1", "ACTIVE", 0, 5), job("b-1", "ACTIVE", 4, 9)]));
}

#[test]
fn who_applied_nothing_new_and_was_logged_first_makes_no_write_idle() {
    let versioned = |mut write: Value, from: &str, to: &str| {
        write["requestObject"] = json!({"metadata": {"resourceVersion": from}});
        write["responseObject"]["metadata"]["resourceVersion"] = to.into();
        write
    };
    let own = |from, to| versioned(write("a", &intent("j", 1)), from, to);
    let mut applied = versioned(write("a", &intent("j", 1)), "", "12");
    applied["objectRef"] = json!({});
    holds(&judge(&[], &[applied.clone(), own("11", "12")]));
    breaks("E", &judge(&[], &[applied, own("12", "12")]));
    breaks("E", &judge(&[], &[own("11", "12"), own("12", "13")]));
}
