//! DescribeDatasetImportJob and ListDatasetImportJobs.

use serde_json::{Map, Value, json};

use super::{own, seconds, text};
use crate::{auth::Caller, job::Job, pages::PageRequest, refusal::Refusal, world::World};

pub(super) fn describe(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let arn = text(body, "datasetImportJobArn");
    own(caller, arn, &["dataset-import-job"])?;
    let job = find(world, arn, now_ms)?;
    let mut fields = summary(job);
    fields.insert("datasetArn".to_owned(), json!(job.dataset_arn));
    fields.insert("dataSource".to_owned(), json!({"dataLocation": job.data_location}));
    if let Some(role) = &job.role_arn {
        fields.insert("roleArn".to_owned(), json!(role));
    }
    fields.insert("publishAttributionMetricsToS3".to_owned(), json!(job.publish_attribution_metrics_to_s3));
    Ok(json!({"datasetImportJob": fields}))
}

/// A job that a lookup may see; a fault can hide it for a while.
pub(super) fn find<'a>(world: &'a mut World, arn: &str, now_ms: i64) -> Result<&'a Job, Refusal> {
    let job = world.jobs.iter_mut().find(|job| job.arn == arn).ok_or_else(|| Refusal::not_found(arn))?;
    if job.hidden_lookups > 0 {
        job.hidden_lookups -= 1;
        return Err(Refusal::not_found(arn));
    }
    if job.hidden_until_ms.is_some_and(|until| now_ms < until) { Err(Refusal::not_found(arn)) } else { Ok(job) }
}

pub(super) fn list(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let dataset = body.get("datasetArn").and_then(Value::as_str);
    if let Some(arn) = dataset {
        own(caller, arn, &["dataset"])?;
    }
    let visible = |job: &&Job| {
        job.account == caller.account
            && job.region == caller.region
            && dataset.is_none_or(|arn| arn == job.dataset_arn)
            && job.hidden_lookups == 0
            && job.hidden_until_ms.is_none_or(|until| now_ms >= until)
    };
    let jobs: Vec<Value> = world.jobs.iter().filter(visible).map(|job| Value::Object(summary(job))).collect();
    let scope = format!("jobs {} {} {}", caller.account, caller.region, dataset.unwrap_or_default());
    page(&scope, "datasetImportJobs", body, jobs)
}

/// One page of a list as an answer.
pub(super) fn page(scope: &str, member: &str, body: &Value, items: Vec<Value>) -> Result<Value, Refusal> {
    let size = body.get("maxResults").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let token = body.get("nextToken").and_then(Value::as_str);
    let (items, next) = PageRequest { list: scope, token, size }.cut(items)?;
    let mut answer = Map::from_iter([(member.to_owned(), Value::Array(items))]);
    if let Some(token) = next {
        answer.insert("nextToken".to_owned(), json!(token));
    }
    Ok(Value::Object(answer))
}

fn summary(job: &Job) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("jobName".to_owned(), json!(job.name)),
        ("datasetImportJobArn".to_owned(), json!(job.arn)),
        ("status".to_owned(), json!(job.status)),
        ("creationDateTime".to_owned(), seconds(job.created_ms)),
        ("lastUpdatedDateTime".to_owned(), seconds(job.updated_ms)),
        ("importMode".to_owned(), json!(job.import_mode)),
    ]);
    if let Some(reason) = &job.failure_reason {
        fields.insert("failureReason".to_owned(), json!(reason));
    }
    fields
}
