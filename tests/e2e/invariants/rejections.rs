//! B: a rejection that a resource reports is one that the service gave and would give again.

use super::{History, adoption, text};
use serde_json::Value;

/// The problem with a rejection that a settled resource reports.
pub(super) fn problem(history: &History<'_>, resource: &Value, reason: &str) -> Option<String> {
    let rejects = |line: &&Value| {
        let code = text(line, "errorCode");
        let client = line["httpStatus"].as_u64().is_some_and(|status| (400..500).contains(&status));
        client && !code.is_empty() && matches_reason(reason, code) && concerns(history.jobs, resource, line)
    };
    let Some(last) = history.ledger.iter().rfind(rejects) else {
        return Some(format!("reports {reason}, but the service rejected nothing"));
    };
    let expired = last["fault"].is_string() && !history.faults.iter().any(|fault| persists(fault, last));
    expired.then(|| format!("reports {reason} for a rejection that has ended, and was not tried again"))
}

/// Whether an error code leads to this reason.
fn matches_reason(reason: &str, code: &str) -> bool {
    match reason {
        "AccessDenied" => code.contains("AccessDenied"),
        "TooManyTags" => code.starts_with("TooManyTag"),
        // Invalid input has many error codes. These mean something else.
        _ => ![
            "AccessDenied",
            "TooManyTag",
            "NotFound",
            "AlreadyExists",
            "Throttl",
            "LimitExceeded",
            "InUse",
            "Token",
            "Signature",
            "UnrecognizedClient",
        ]
        .iter()
        .any(|other| code.contains(other)),
    }
}

/// Whether a call was made for this resource: about its job, its dataset, or the tags of another job in the dataset.
fn concerns(jobs: &[Value], resource: &Value, line: &Value) -> bool {
    let Some(request) = adoption::request(resource) else { return false };
    let (dataset, job_name) = (&resource["spec"]["datasetArn"], text(line, "jobName"));
    if job_name.is_empty() {
        return line["datasetArn"] == *dataset;
    }
    let in_dataset = || jobs.iter().any(|job| job["name"] == job_name && job["datasetArn"] == *dataset);
    let base = request.job_name(1);
    job_name.strip_prefix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        || line["operation"] == "ListTagsForResource" && in_dataset()
}

/// Whether a permanent fault keeps rejecting this call.
fn persists(fault: &Value, line: &Value) -> bool {
    let any_or = |key: &str, matches: &dyn Fn(&str) -> bool| fault[key].as_str().is_none_or(matches);
    fault["count"] == 0
        && any_or("operation", &|operation| line["operation"] == operation)
        && any_or("name", &|name| text(line, "jobName").contains(name) || text(line, "datasetArn").contains(name))
}

mod tests {
    use crate::invariants::histories::{
        DATASET, OTHER_DATASET, assert_holds, assert_violates, derived_name, job_owned_by, resource, stalled,
    };
    use crate::invariants::{History, check_settled};
    use serde_json::{Value, json};

    fn rejected_call(operation: &str, job_name: &str, dataset: &str, fault: bool) -> Value {
        let mut line = json!({"time": "2026-01-01T00:02:00.5Z", "operation": operation, "httpStatus": 400,
            "errorCode": "AccessDeniedException"});
        for (key, value) in [("jobName", job_name), ("datasetArn", dataset)] {
            if !value.is_empty() {
                line[key] = json!(value);
            }
        }
        if fault {
            line["fault"] = json!("error");
        }
        line
    }

    fn check_stalled(reason: &str, history: History<'_>) -> Vec<String> {
        let resource = [resource("a", &json!({"observedGeneration": 1, "conditions": stalled(reason)}))];
        check_settled(&History { resources: &resource, ..history })
    }

    fn check_ledger(reason: &str, ledger: &[Value]) -> Vec<String> {
        check_stalled(reason, History { ledger, ..History::default() })
    }

    #[test]
    fn rejection_that_the_service_did_not_give_violates_b() {
        for reason in ["AccessDenied", "InvalidInput", "TooManyTags"] {
            assert_violates("B", &check_ledger(reason, &[]));
        }
        assert_violates(
            "B",
            &check_ledger(
                "InvalidInput",
                &[rejected_call("CreateDatasetImportJob", &derived_name("a"), DATASET, false)],
            ),
        );
        assert_violates(
            "B",
            &check_ledger("AccessDenied", &[rejected_call("CreateDatasetImportJob", "b-1", DATASET, false)]),
        );
        assert_violates(
            "B",
            &check_ledger("AccessDenied", &[rejected_call("DescribeDataset", "", OTHER_DATASET, false)]),
        );
    }

    #[test]
    fn rejection_that_the_service_gave_holds() {
        assert_holds(&check_ledger(
            "AccessDenied",
            &[rejected_call("CreateDatasetImportJob", &derived_name("a"), DATASET, false)],
        ));
        assert_holds(&check_ledger(
            "AccessDenied",
            &[rejected_call("DescribeDatasetImportJob", &format!("{}-2", derived_name("a")), "", false)],
        ));
        assert_holds(&check_ledger("AccessDenied", &[rejected_call("DescribeDataset", "", DATASET, false)]));
        let (ledger, jobs) =
            ([rejected_call("ListTagsForResource", "b-1", "", false)], [job_owned_by("b", "b-1", "ACTIVE", 0, 1)]);
        assert_holds(&check_stalled("AccessDenied", History { ledger: &ledger, jobs: &jobs, ..History::default() }));
        let mut invalid = rejected_call("CreateDatasetImportJob", &derived_name("a"), DATASET, false);
        invalid["errorCode"] = json!("ValidationException");
        assert_holds(&check_ledger("InvalidInput", &[invalid.clone()]));
        invalid["httpStatus"] = json!(500);
        assert_violates("B", &check_ledger("InvalidInput", &[invalid]));
    }

    #[test]
    fn rejection_by_an_expired_fault_violates_b() {
        let create = "CreateDatasetImportJob";
        let injected = rejected_call(create, &derived_name("a"), DATASET, true);
        assert_violates("B", &check_ledger("AccessDenied", std::slice::from_ref(&injected)));
        // A later rejection by the service itself is permanent.
        let later = [injected.clone(), rejected_call(create, &derived_name("a"), DATASET, false)];
        assert_holds(&check_ledger("AccessDenied", &later));
        let earlier = [later[1].clone(), injected];
        assert_violates("B", &check_ledger("AccessDenied", &earlier));
    }

    #[test]
    fn rejection_by_a_permanent_fault_holds() {
        let ledger = [rejected_call("CreateDatasetImportJob", &derived_name("a"), DATASET, true)];
        let with = |fault: Value| {
            check_stalled("AccessDenied", History { ledger: &ledger, faults: &[fault], ..History::default() })
        };
        assert_holds(&with(json!({"operation": "CreateDatasetImportJob", "count": 0})));
        assert_holds(&with(json!({"operation": "CreateDatasetImportJob", "name": "a-", "count": 0})));
        assert_violates("B", &with(json!({"operation": "CreateDatasetImportJob", "count": 2})));
        assert_violates("B", &with(json!({"operation": "DescribeDataset", "count": 0})));
        assert_violates("B", &with(json!({"operation": "CreateDatasetImportJob", "name": "other", "count": 0})));
    }
}
