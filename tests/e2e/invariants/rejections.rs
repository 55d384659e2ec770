//! B: what a resource calls a refusal is one that the service gave, and still gives.

use super::{Books, adoption, text};
use serde_json::Value;

/// What is wrong with a refusal that a resource at rest tells.
pub(super) fn groundless(books: &Books<'_>, resource: &Value, reason: &str) -> Option<String> {
    let refuses = |line: &&Value| {
        let code = text(line, "errorCode");
        let client = line["httpStatus"].as_u64().is_some_and(|status| (400..500).contains(&status));
        client && !code.is_empty() && fits(reason, code) && concerns(books.jobs, resource, line)
    };
    let Some(last) = books.ledger.iter().rfind(refuses) else {
        return Some(format!("tells {reason}, and the service refused it nothing"));
    };
    let ordered = last["fault"].is_string() && !books.faults.iter().any(|fault| lasts(fault, last));
    ordered.then(|| format!("tells {reason} for a refusal that is over, and was not tried again"))
}

/// Whether an error code may lead to this reason.
fn fits(reason: &str, code: &str) -> bool {
    match reason {
        "AccessDenied" => code.contains("AccessDenied"),
        "TooManyTags" => code.starts_with("TooManyTag"),
        // What the service finds wrong has many names; these are the ones that mean something else.
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

/// Whether a call may have been made for this resource: about its job, its dataset, or the tags of another
/// job there.
fn concerns(jobs: &[Value], resource: &Value, line: &Value) -> bool {
    let Some(request) = adoption::request(resource) else { return false };
    let (dataset, job_name) = (&resource["spec"]["datasetArn"], text(line, "jobName"));
    if job_name.is_empty() {
        return line["datasetArn"] == *dataset;
    }
    let there = || jobs.iter().any(|job| job["name"] == job_name && job["datasetArn"] == *dataset);
    let base = request.job_name(1);
    job_name.strip_prefix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        || line["operation"] == "ListTagsForResource" && there()
}

/// Whether a fault that never ends refuses this call again and again.
fn lasts(fault: &Value, line: &Value) -> bool {
    let any_or = |key: &str, fits: &dyn Fn(&str) -> bool| fault[key].as_str().is_none_or(fits);
    fault["count"] == 0
        && any_or("operation", &|operation| line["operation"] == operation)
        && any_or("name", &|name| text(line, "jobName").contains(name) || text(line, "datasetArn").contains(name))
}

mod tests {
    use crate::invariants::histories::{ANOTHER, D, breaks, holds, job_of, own_name, resource, stalled};
    use crate::invariants::{Books, judge_settled};
    use serde_json::{Value, json};

    fn denied(operation: &str, job_name: &str, dataset: &str, fault: bool) -> Value {
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

    fn refused(reason: &str, books: Books<'_>) -> Vec<String> {
        let resource = [resource("a", &json!({"observedGeneration": 1, "conditions": stalled(reason)}))];
        judge_settled(&Books { resources: &resource, ..books })
    }

    fn said(reason: &str, ledger: &[Value]) -> Vec<String> {
        refused(reason, Books { ledger, ..Books::default() })
    }

    #[test]
    fn b_is_broken_by_a_refusal_that_nobody_gave() {
        for reason in ["AccessDenied", "InvalidInput", "TooManyTags"] {
            breaks("B", &said(reason, &[]));
        }
        breaks("B", &said("InvalidInput", &[denied("CreateDatasetImportJob", &own_name("a"), D, false)]));
        breaks("B", &said("AccessDenied", &[denied("CreateDatasetImportJob", "b-1", D, false)]));
        breaks("B", &said("AccessDenied", &[denied("DescribeDataset", "", ANOTHER, false)]));
    }

    #[test]
    fn b_is_not_broken_by_a_refusal_that_the_service_gave() {
        holds(&said("AccessDenied", &[denied("CreateDatasetImportJob", &own_name("a"), D, false)]));
        holds(&said("AccessDenied", &[denied("DescribeDatasetImportJob", &format!("{}-2", own_name("a")), "", false)]));
        holds(&said("AccessDenied", &[denied("DescribeDataset", "", D, false)]));
        let (ledger, jobs) = ([denied("ListTagsForResource", "b-1", "", false)], [job_of("b", "b-1", "ACTIVE", 0, 1)]);
        holds(&refused("AccessDenied", Books { ledger: &ledger, jobs: &jobs, ..Books::default() }));
        let mut invalid = denied("CreateDatasetImportJob", &own_name("a"), D, false);
        invalid["errorCode"] = json!("ValidationException");
        holds(&said("InvalidInput", &[invalid.clone()]));
        invalid["httpStatus"] = json!(500);
        breaks("B", &said("InvalidInput", &[invalid]));
    }

    #[test]
    fn b_is_broken_by_a_refusal_that_was_ordered_and_is_over() {
        let create = "CreateDatasetImportJob";
        let ordered = denied(create, &own_name("a"), D, true);
        breaks("B", &said("AccessDenied", std::slice::from_ref(&ordered)));
        // What the service itself refused afterwards stands.
        let later = [ordered.clone(), denied(create, &own_name("a"), D, false)];
        holds(&said("AccessDenied", &later));
        let earlier = [later[1].clone(), ordered];
        breaks("B", &said("AccessDenied", &earlier));
    }

    #[test]
    fn b_is_not_broken_by_a_refusal_that_is_ordered_for_ever() {
        let ledger = [denied("CreateDatasetImportJob", &own_name("a"), D, true)];
        let with =
            |fault: Value| refused("AccessDenied", Books { ledger: &ledger, faults: &[fault], ..Books::default() });
        holds(&with(json!({"operation": "CreateDatasetImportJob", "count": 0})));
        holds(&with(json!({"operation": "CreateDatasetImportJob", "name": "a-", "count": 0})));
        breaks("B", &with(json!({"operation": "CreateDatasetImportJob", "count": 2})));
        breaks("B", &with(json!({"operation": "DescribeDataset", "count": 0})));
        breaks("B", &with(json!({"operation": "CreateDatasetImportJob", "name": "other", "count": 0})));
    }
}
