//! DescribeDatasetImportJob and ListDatasetImportJobs.

use serde_json::{Map, Value, json};

use super::{check_arn, string, timestamp};
use crate::{
    api::{auth::Caller, error::ApiError, pagination::PageRequest},
    store::{Store, job::Job},
};

pub(super) fn describe(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let arn = string(body, "datasetImportJobArn");
    check_arn(caller, arn, &["dataset-import-job"])?;
    let job = find_visible(store, arn, now_ms)?;
    let mut fields = summary(job);
    fields.insert("datasetArn".to_owned(), json!(job.dataset_arn));
    fields.insert("dataSource".to_owned(), json!({"dataLocation": job.data_location}));
    if let Some(role) = &job.role_arn {
        fields.insert("roleArn".to_owned(), json!(role));
    }
    fields.insert("publishAttributionMetricsToS3".to_owned(), json!(job.publish_attribution_metrics_to_s3));
    Ok(json!({"datasetImportJob": fields}))
}

/// Finds a job by ARN, unless the fault `notFoundFor` hides it from this lookup.
pub(super) fn find_visible<'a>(store: &'a mut Store, arn: &str, now_ms: i64) -> Result<&'a Job, ApiError> {
    let job = store.jobs.iter_mut().find(|job| job.arn == arn).ok_or_else(|| ApiError::not_found(arn))?;
    if job.hidden_lookups > 0 {
        job.hidden_lookups -= 1;
        return Err(ApiError::not_found(arn));
    }
    if job.hidden_until_ms.is_some_and(|until| now_ms < until) { Err(ApiError::not_found(arn)) } else { Ok(job) }
}

pub(super) fn list(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let dataset = body.get("datasetArn").and_then(Value::as_str);
    if let Some(arn) = dataset {
        check_arn(caller, arn, &["dataset"])?;
    }
    let is_visible = |job: &&Job| {
        job.account == caller.account
            && job.region == caller.region
            && dataset.is_none_or(|arn| arn == job.dataset_arn)
            && job.hidden_lookups == 0
            && job.hidden_until_ms.is_none_or(|until| now_ms >= until)
    };
    let jobs: Vec<Value> = store.jobs.iter().filter(is_visible).map(|job| Value::Object(summary(job))).collect();
    let list = format!("jobs {} {} {}", caller.account, caller.region, dataset.unwrap_or_default());
    list_page(&list, "datasetImportJobs", body, jobs)
}

/// The response body with one page of a list.
pub(super) fn list_page(list: &str, member: &str, body: &Value, items: Vec<Value>) -> Result<Value, ApiError> {
    let size = body.get("maxResults").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let token = body.get("nextToken").and_then(Value::as_str);
    let (items, next) = PageRequest { list, token, size }.select(items)?;
    let mut response = Map::from_iter([(member.to_owned(), Value::Array(items))]);
    if let Some(token) = next {
        response.insert("nextToken".to_owned(), json!(token));
    }
    Ok(Value::Object(response))
}

fn summary(job: &Job) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("jobName".to_owned(), json!(job.name)),
        ("datasetImportJobArn".to_owned(), json!(job.arn)),
        ("status".to_owned(), json!(job.status)),
        ("creationDateTime".to_owned(), timestamp(job.created_ms)),
        ("lastUpdatedDateTime".to_owned(), timestamp(job.updated_ms)),
        ("importMode".to_owned(), json!(job.import_mode)),
    ]);
    if let Some(reason) = &job.failure_reason {
        fields.insert("failureReason".to_owned(), json!(reason));
    }
    fields
}
