//! I: whatever one namespace, dataset, account or region does or suffers, an import elsewhere that could go is submitted
//! within a bounded time that does not depend on how many resources suffer.
//!
//! `waiting` says which resource is next in its account and region, and what it may wait for. It may be next for a
//! number of the leader's Lease renewals that follows from the timeouts of the configuration (`Limits::renewals`), and
//! at most a fixed number of younger resources may go before it once a quarter of that has passed. A resource that is next for longer violates I if
//! anything that is not its own suffers meanwhile, and otherwise J.

use super::waiting::{Kind, Wait};

pub(super) fn check(waits: &[Wait], violations: &mut Vec<String>) {
    for Wait { name, kind, count } in waits {
        match kind {
            Kind::HeldUp => violations.push(format!(
                "I: {name} could go and was not submitted for {count} renewals of the Lease, while others suffered"
            )),
            Kind::Passed => {
                violations.push(format!("I: {name} could go and {count} younger resources went before it"));
            }
            Kind::Forgotten | Kind::Silent => {}
        }
    }
}

mod tests {
    use crate::invariants::histories::{
        DATASET, OTHER_DATASET, accepted_create, assert_holds, assert_violates, at, call, created, derived_name,
        hanging_call, in_progress, intent, job_in_dataset, job_owned_by, millis_at, renewals, stalled, succeeded,
        summarized, with_dataset, write,
    };
    use crate::invariants::{Disturbance, History, Limits, check};
    use serde_json::{Value, json};

    /// A resource is created in the first second of a day in which another region hangs.
    fn check_with(
        seconds: usize,
        change: impl FnOnce(&mut Vec<Value>, &mut Vec<Value>, &mut Vec<Value>),
    ) -> Vec<String> {
        let (mut writes, mut jobs) = (vec![created("a", &json!({}))], vec![]);
        let mut ledger: Vec<Value> = (0..seconds).map(|second| hanging_call("b-1", "us-east-1", second)).collect();
        change(&mut writes, &mut ledger, &mut jobs);
        ledger.sort_by_key(|line| line["time"].to_string());
        let requests = renewals(seconds);
        check(&History { writes: &writes, ledger: &ledger, jobs: &jobs, requests: &requests, ..History::default() })
    }

    /// The resource exists from the second 1 on.
    fn too_long() -> usize {
        Limits::default().renewals + 2
    }

    #[test]
    fn import_held_up_by_others_violates_i() {
        assert_holds(&check_with(too_long() - 1, |_, _, _| {}));
        assert_violates("I", &check_with(too_long(), |_, _, _| {}));
        let queued = json!({"observedGeneration": 1, "conditions": in_progress()});
        let mut queued = write("a", &queued);
        queued["requestReceivedTimestamp"] = json!(at(2));
        let status = &mut queued["responseObject"]["status"];
        (status["conditions"][0]["reason"], status["reason"]) = (json!("Queued"), json!("Queued"));
        assert_violates("I", &check_with(too_long(), |writes, _, _| writes.push(queued)));
    }

    #[test]
    fn failing_calls_of_another_namespace_are_no_excuse() {
        let elsewhere = |name: &str, namespace: &str| {
            let mut other = with_dataset(created(name, &json!({})), OTHER_DATASET);
            other["responseObject"]["metadata"]["namespace"] = json!(namespace);
            other["objectRef"]["namespace"] = json!(namespace);
            other
        };
        let failing = |dataset: &str, second: usize| {
            let mut call = hanging_call("", "eu-west-1", second);
            call["datasetArn"] = json!(dataset);
            call
        };
        let one = |writes: &mut Vec<Value>, ledger: &mut Vec<Value>| {
            writes.push(elsewhere("bb", "other"));
            ledger.extend((0..30).map(|second| failing(OTHER_DATASET, 2 * second)));
        };
        assert_violates("I", &check_with(too_long(), |writes, ledger, _| one(writes, ledger)));
        // Two namespaces may occupy all workers of the account and region.
        assert_holds(&check_with(too_long(), |writes, ledger, _| {
            one(writes, ledger);
            writes.push(elsewhere("ccc", "third"));
        }));
    }

    #[test]
    fn disturbance_of_its_own_starts_the_count_again() {
        let own_job = derived_name("a");
        assert_holds(&check_with(too_long(), |_, ledger, _| ledger.push(hanging_call(&own_job, "eu-west-1", 30))));
        assert_violates("I", &check_with(too_long(), |_, ledger, _| ledger.push(call(&own_job, "eu-west-1", 30))));
        let mut throttled = call("c-1", "eu-west-1", 30);
        throttled["httpStatus"] = json!(400);
        throttled["errorCode"] = json!("ThrottlingException");
        assert_holds(&check_with(too_long(), |_, ledger, _| ledger.push(throttled.clone())));
        throttled["region"] = json!("us-east-1");
        assert_violates("I", &check_with(too_long(), |_, ledger, _| ledger.push(throttled)));
    }

    #[test]
    fn request_or_network_that_fails_for_its_namespace_starts_the_count_again() {
        let (writes, ledger) = ([created("a", &json!({}))], [hanging_call("b-1", "us-east-1", 5)]);
        let with = |namespace: &str, verb: &str, uri: &str, code: u16, disturbances: &[Disturbance]| {
            let mut requests = renewals(too_long());
            requests.push(json!({"userAgent": "personalize-operator/0.1.0", "verb": verb, "requestURI": uri,
                "objectRef": {"resource": "datasetimportjobs", "namespace": namespace},
                "requestReceivedTimestamp": at(30), "responseStatus": {"code": code}}));
            check(&History {
                writes: &writes,
                ledger: &ledger,
                requests: &requests,
                disturbances,
                ..History::default()
            })
        };
        assert_violates("I", &with("shop", "update", "/a/status", 200, &[]));
        assert_violates("I", &with("shop", "list", "/datasetimportjobs?&limit=1", 200, &[]));
        assert_violates("I", &with("other", "update", "/a/status", 500, &[]));
        assert_holds(&with("shop", "update", "/a/status", 500, &[]));
        assert_holds(&with("shop", "list", "/datasetimportjobs?&limit=500", 200, &[]));
        let begin = millis_at("00:00:30");
        let network = |namespace: Option<&str>, region: Option<&str>| {
            let namespace = namespace.map(str::to_owned);
            let pool = region.map(|region| ("123456789012".to_owned(), region.to_owned()));
            with("shop", "get", "/a", 200, &[Disturbance { begin, end: begin, namespace, pool }])
        };
        assert_violates("I", &network(Some("other"), None));
        assert_violates("I", &network(None, Some("us-east-1")));
        assert_holds(&network(Some("shop"), None));
        assert_holds(&network(None, Some("eu-west-1")));
        assert_holds(&network(None, None));
    }

    #[test]
    fn import_that_could_not_go_holds() {
        let changed = |change: &dyn Fn(&mut Value)| {
            check_with(too_long(), |writes, _, _| change(&mut writes[0]["responseObject"]))
        };
        assert_holds(&changed(&|resource| resource["spec"]["suspend"] = json!(true)));
        assert_holds(&changed(&|resource| resource["spec"]["datasetArn"] = json!("nonsense")));
        assert_holds(&changed(&|resource| resource["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:09Z")));
        assert_holds(&changed(&|resource| resource["status"] = json!({"conditions": stalled("NotPermitted")})));
        assert_holds(&check_with(too_long(), |writes, _, _| {
            let mut deletion = created("a", &Value::Null);
            deletion["verb"] = json!("delete");
            deletion["objectRef"] = json!({"namespace": "shop", "name": "a"});
            deletion["requestReceivedTimestamp"] = json!(at(40));
            deletion["responseObject"] = json!({"kind": "Status", "details": {"uid": "a"}});
            writes.push(deletion);
        }));
        // Without a leader there is no clock.
        let writes = [created("a", &json!({}))];
        assert_holds(&check(&History { writes: &writes, ..History::default() }));
    }

    #[test]
    fn import_behind_its_dataset_or_the_quota_holds() {
        let running = |dataset: &str, i: usize| {
            let mut job = job_in_dataset(dataset, &format!("foreign-{i}"), "CREATE IN_PROGRESS", 0, 0);
            job["tags"] = json!([]);
            job
        };
        assert_holds(&check_with(too_long(), |_, _, jobs| jobs.push(running(DATASET, 0))));
        let others = |count: usize| {
            check_with(too_long(), |_, _, jobs| jobs.extend((0..count).map(|i| running(OTHER_DATASET, i))))
        };
        assert_holds(&others(5));
        assert_violates("I", &others(4));
        let behind = |older: Value| {
            check_with(too_long() + 2, |writes, _, _| {
                writes[0] = created("aaa", &json!({}));
                writes.push(older);
            })
        };
        assert_violates("I", &behind(created("aa", &json!({"conditions": stalled("AccessDenied")}))));
        assert_eq!(behind(created("aa", &json!({}))).len(), 1, "only the older one");
        let mut suspended = created("aa", &json!({}));
        suspended["responseObject"]["spec"]["suspend"] = json!(true);
        assert_violates("I", &behind(suspended));
        let in_flight = with_dataset(created("aa", &intent("foreign", 1)), OTHER_DATASET);
        assert_violates("I", &behind(in_flight));
    }

    #[test]
    fn import_that_many_younger_ones_pass_violates_i() {
        let passed = |by: usize, from: usize| {
            check_with(50, |writes, ledger, jobs| {
                writes[0] = created("aaa", &json!({}));
                for i in 0..by {
                    let (dataset, name) = (format!("{OTHER_DATASET}-{i}"), format!("younger-{i}"));
                    let mut younger = with_dataset(created(&name, &json!({})), &dataset);
                    younger["responseObject"]["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:09Z");
                    younger["requestReceivedTimestamp"] = json!("2026-01-01T00:00:09Z");
                    let request = crate::invariants::adoption::request(&younger["responseObject"]).unwrap();
                    let job_name = request.job_name(1);
                    let mut recorded = younger.clone();
                    recorded["verb"] = json!("update");
                    recorded["userAgent"] = json!("personalize-operator/0.1.0");
                    recorded["requestURI"] = json!("/status?&fieldManager=personalize-operator");
                    recorded["responseObject"]["status"] = summarized(&intent(&job_name, 1));
                    recorded["requestReceivedTimestamp"] = json!(at(from + i));
                    let mut done = recorded.clone();
                    done["responseObject"]["status"] = summarized(&succeeded(&job_name));
                    let mut create = accepted_create(&job_name, &dataset);
                    create["time"] = json!(at(from + i));
                    let mut job =
                        job_owned_by(&name, &job_name, "ACTIVE", millis_at("00:00:10"), millis_at("00:00:10"));
                    job["datasetArn"] = json!(dataset);
                    job["tags"][2]["tagValue"] = json!(request.hash());
                    writes.extend([younger, recorded, done]);
                    ledger.push(create);
                    jobs.push(job);
                }
            })
        };
        let delay_is_over = Limits::default().renewals / 4 + 5;
        assert_holds(&passed(20, delay_is_over));
        assert_violates("I", &passed(21, delay_is_over));
        assert_holds(&passed(21, 10));
    }
}
