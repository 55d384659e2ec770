//! CreateDatasetImportJob. The order of the checks determines the error.

use serde_json::{Value, json};

use super::{check_arn, string};
use crate::{
    api::{auth::Caller, error::ApiError},
    arn::Arn,
    data::source,
    store::{
        Store,
        job::{ACTIVE, Job, PENDING, Tag},
    },
};

/// Maximum running imports per account and region (documented, not adjustable).
const MAX_RUNNING_JOBS: usize = 5;
/// Maximum tags per resource (documented).
pub(super) const MAX_TAGS: usize = 50;

pub(super) fn create(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let (name, dataset_arn) = (string(body, "jobName"), string(body, "datasetArn"));
    let location = body.get("dataSource").map(|source| string(source, "dataLocation")).unwrap_or_default();
    let mode = body.get("importMode").and_then(Value::as_str).unwrap_or("FULL");
    let role = body.get("roleArn").and_then(Value::as_str);
    let tags = parse_tags(body)?;
    if location.is_empty() {
        return Err(ApiError::invalid_input("Invalid Data location."));
    }
    check_arn(caller, dataset_arn, &["dataset"])?;
    let dataset = store.dataset(dataset_arn).ok_or_else(|| ApiError::not_found(dataset_arn))?;
    check_pass_role(store, caller, role)?;
    check_bucket(store, location)?;
    let arn = Arn::import_job(&caller.region, &caller.account, name);
    if store.jobs.iter().any(|job| job.arn == arn) {
        return Err(ApiError::already_exists(&arn));
    }
    if dataset.status != ACTIVE {
        return Err(ApiError::new(
            "ResourceInUseException",
            format!("The dataset {dataset_arn} is in state {}. It must be ACTIVE.", dataset.status),
        ));
    }
    let is_full_import =
        |job: &Job| job.dataset_arn == dataset_arn && job.import_mode == "FULL" && job.status == ACTIVE;
    if mode == "INCREMENTAL" && !store.jobs.iter().any(is_full_import) {
        return Err(ApiError::invalid_input(
            "An incremental import needs an earlier bulk import into the dataset. Use the import mode FULL first.",
        ));
    }
    let uses_quota = |job: &&Job| job.account == caller.account && job.region == caller.region && job.is_running();
    if store.jobs.iter().filter(uses_quota).count() >= MAX_RUNNING_JOBS {
        return Err(ApiError::new(
            "LimitExceededException",
            format!("More than {MAX_RUNNING_JOBS} resources with PENDING or IN_PROGRESS status."),
        ));
    }
    let job = Job {
        name: name.to_owned(),
        arn: arn.clone(),
        account: caller.account.clone(),
        region: caller.region.clone(),
        dataset_arn: dataset_arn.to_owned(),
        data_location: location.to_owned(),
        role_arn: role.map(ToOwned::to_owned),
        import_mode: mode.to_owned(),
        publish_attribution_metrics_to_s3: body["publishAttributionMetricsToS3"] == Value::Bool(true),
        tags,
        status: PENDING.to_owned(),
        failure_reason: None,
        created_ms: now_ms,
        updated_ms: now_ms,
        hold: store.is_held(name),
        checking: false,
        hidden_until_ms: None,
        hidden_lookups: 0,
    };
    store.jobs.push(job);
    store.revision += 1;
    Ok(json!({"datasetImportJobArn": arn}))
}

pub(super) fn check_pass_role(store: &Store, caller: &Caller, role: Option<&str>) -> Result<(), ApiError> {
    let Some(role) = role else { return Ok(()) };
    if store.refusals.pass_role.iter().any(|refused| refused == role) {
        return Err(ApiError::new(
            "AccessDeniedException",
            format!("User: {} is not authorized to perform: iam:PassRole on resource: {role}", caller.arn),
        ));
    }
    // arn:aws:iam::ACCOUNT:role/NAME
    if store.refusals.roles_of_other_accounts && role.split(':').nth(4) != Some(&caller.account) {
        return Err(ApiError::new("AccessDeniedException", "Cross-account pass role is not allowed."));
    }
    Ok(())
}

/// Rejects a bucket that is listed in `bucketsAtCreate` of the seed.
pub(super) fn check_bucket(store: &Store, location: &str) -> Result<(), ApiError> {
    match source::parse(location) {
        Some(location) if store.refusals.buckets_at_create.contains(&location.bucket) => {
            Err(ApiError::invalid_input(source::access_denied_at_create(&location.bucket)))
        }
        _ => Ok(()),
    }
}

/// Parses the tags of a request: at most 50, unique keys, no `aws:` prefix.
pub(super) fn parse_tags(body: &Value) -> Result<Vec<Tag>, ApiError> {
    let tags = body.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if tags.len() > MAX_TAGS {
        return Err(ApiError::too_many_tags());
    }
    let mut parsed: Vec<Tag> = Vec::new();
    for tag in tags {
        let tag = Tag { tag_key: string(tag, "tagKey").to_owned(), tag_value: string(tag, "tagValue").to_owned() };
        if tag.tag_key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::invalid_input("Tag keys that start with aws: are reserved for AWS use."));
        }
        if parsed.iter().any(|known| known.tag_key == tag.tag_key) {
            return Err(ApiError::invalid_input(format!("Duplicate tag key: {}", tag.tag_key)));
        }
        parsed.push(tag);
    }
    Ok(parsed)
}
