//! CreateDataDeletionJob, DescribeDataDeletionJob and ListDataDeletionJobs.

use serde_json::{Value, json};

use super::{
    check_arn,
    create::{check_bucket, check_pass_role, parse_tags},
    jobs::list_page,
    string, timestamp,
};
use crate::{
    api::{auth::Caller, error::ApiError},
    arn::Arn,
    store::{
        Store,
        deletion::{DELETION_PENDING, DeletionJob},
    },
};

pub(super) fn create(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let (name, group, role) = (string(body, "jobName"), string(body, "datasetGroupArn"), string(body, "roleArn"));
    let location = body.get("dataSource").map(|source| string(source, "dataLocation")).unwrap_or_default();
    let tags = parse_tags(body)?;
    if location.is_empty() {
        return Err(ApiError::invalid_input("Invalid Data location."));
    }
    check_arn(caller, group, &["dataset-group"])?;
    if !store.datasets.iter().any(|dataset| dataset.parsed_arn.group() == group) {
        return Err(ApiError::not_found(group));
    }
    check_pass_role(store, caller, Some(role))?;
    check_bucket(store, location)?;
    let arn = Arn::deletion_job(&caller.region, &caller.account, name);
    if store.deletions.iter().any(|job| job.arn == arn) {
        return Err(ApiError::already_exists(&arn));
    }
    store.deletions.push(DeletionJob {
        name: name.to_owned(),
        arn: arn.clone(),
        group_arn: group.to_owned(),
        data_location: location.to_owned(),
        role_arn: role.to_owned(),
        tags,
        status: DELETION_PENDING.to_owned(),
        failure_reason: None,
        num_deleted: None,
        created_ms: now_ms,
        updated_ms: now_ms,
        hold: store.is_held(name),
    });
    store.revision += 1;
    Ok(json!({"dataDeletionJobArn": arn}))
}

pub(super) fn describe(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let arn = string(body, "dataDeletionJobArn");
    check_arn(caller, arn, &["data-deletion-job"])?;
    let job = store.deletions.iter().find(|job| job.arn == arn).ok_or_else(|| ApiError::not_found(arn))?;
    let mut fields = summary(job);
    fields["dataSource"] = json!({"dataLocation": job.data_location});
    fields["roleArn"] = json!(job.role_arn);
    if let Some(count) = job.num_deleted {
        fields["numDeleted"] = json!(count);
    }
    Ok(json!({"dataDeletionJob": fields}))
}

/// The most recent job is the first.
pub(super) fn list(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let group = body.get("datasetGroupArn").and_then(Value::as_str);
    if let Some(arn) = group {
        check_arn(caller, arn, &["dataset-group"])?;
    }
    let is_visible = |job: &&DeletionJob| {
        let in_scope = |arn: Arn| arn.account == caller.account && arn.region == caller.region;
        Arn::parse(&job.arn).is_some_and(in_scope) && group.is_none_or(|arn| arn == job.group_arn)
    };
    let jobs: Vec<Value> = store.deletions.iter().rev().filter(is_visible).map(summary).collect();
    let list = format!("deletions {} {} {}", caller.account, caller.region, group.unwrap_or_default());
    list_page(&list, "dataDeletionJobs", body, jobs)
}

fn summary(job: &DeletionJob) -> Value {
    let mut fields = json!({
        "jobName": job.name,
        "dataDeletionJobArn": job.arn,
        "datasetGroupArn": job.group_arn,
        "status": job.status,
        "creationDateTime": timestamp(job.created_ms),
        "lastUpdatedDateTime": timestamp(job.updated_ms),
    });
    if let Some(reason) = &job.failure_reason {
        fields["failureReason"] = json!(reason);
    }
    fields
}
