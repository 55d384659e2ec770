//! CreateDatasetImportJob: the rules, in the order in which they are checked.

use serde_json::{Value, json};

use super::{own, text};
use crate::{
    arn::Arn,
    auth::Caller,
    job::{ACTIVE, Job, PENDING, Tag},
    refusal::Refusal,
    source,
    world::World,
};

/// Imports that may run at once per account and region (documented, not adjustable).
const QUOTA: usize = 5;
/// Tags per resource (documented).
pub(super) const MOST_TAGS: usize = 50;

pub(super) fn create(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let (name, dataset_arn) = (text(body, "jobName"), text(body, "datasetArn"));
    let location = body.get("dataSource").map(|source| text(source, "dataLocation")).unwrap_or_default();
    let mode = body.get("importMode").and_then(Value::as_str).unwrap_or("FULL");
    let role = body.get("roleArn").and_then(Value::as_str);
    let tags = parse_tags(body)?;
    if location.is_empty() {
        return Err(Refusal::invalid_input("Invalid Data location."));
    }
    own(caller, dataset_arn, &["dataset"])?;
    let dataset = world.dataset(dataset_arn).ok_or_else(|| Refusal::not_found(dataset_arn))?;
    pass_role(world, caller, role)?;
    readable(world, location)?;
    let arn = Arn::import_job(&caller.region, &caller.account, name);
    if world.jobs.iter().any(|job| job.arn == arn) {
        return Err(Refusal::new(
            "ResourceAlreadyExistsException",
            format!("Another resource with Arn {arn} already exists."),
        ));
    }
    if dataset.status != ACTIVE {
        return Err(Refusal::new(
            "ResourceInUseException",
            format!("The dataset {dataset_arn} is in state {}. It must be ACTIVE.", dataset.status),
        ));
    }
    let bulk = |job: &Job| job.dataset_arn == dataset_arn && job.import_mode == "FULL" && job.status == ACTIVE;
    if mode == "INCREMENTAL" && !world.jobs.iter().any(bulk) {
        return Err(Refusal::invalid_input(
            "An incremental import needs an earlier bulk import into the dataset. Use the import mode FULL first.",
        ));
    }
    let theirs = |job: &&Job| job.account == caller.account && job.region == caller.region && job.is_running();
    if world.jobs.iter().filter(theirs).count() >= QUOTA {
        return Err(Refusal::new(
            "LimitExceededException",
            format!("More than {QUOTA} resources with PENDING or IN_PROGRESS status."),
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
        hold: world.is_held(name),
        checking: false,
        hidden_until_ms: None,
        hidden_lookups: 0,
    };
    world.jobs.push(job);
    world.revision += 1;
    Ok(json!({"datasetImportJobArn": arn}))
}

fn pass_role(world: &World, caller: &Caller, role: Option<&str>) -> Result<(), Refusal> {
    let Some(role) = role else { return Ok(()) };
    if world.refusals.pass_role.iter().any(|refused| refused == role) {
        return Err(Refusal::new(
            "AccessDeniedException",
            format!("User: {} is not authorized to perform: iam:PassRole on resource: {role}", caller.arn),
        ));
    }
    // arn:aws:iam::ACCOUNT:role/NAME
    if world.refusals.roles_of_other_accounts && role.split(':').nth(4) != Some(&caller.account) {
        return Err(Refusal::new("AccessDeniedException", "Cross-account pass role is not allowed."));
    }
    Ok(())
}

/// A bucket that the seed has refuse at once.
fn readable(world: &World, location: &str) -> Result<(), Refusal> {
    match source::parse(location) {
        Some(source) if world.refusals.buckets_at_create.contains(&source.bucket) => {
            Err(Refusal::invalid_input(source::no_access_at_create(&source.bucket)))
        }
        _ => Ok(()),
    }
}

/// The tags of a request: at most 50, each key once, none of AWS's own.
pub(super) fn parse_tags(body: &Value) -> Result<Vec<Tag>, Refusal> {
    let tags = body.get("tags").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if tags.len() > MOST_TAGS {
        return Err(Refusal::too_many_tags());
    }
    let mut read: Vec<Tag> = Vec::new();
    for tag in tags {
        let tag = Tag { tag_key: text(tag, "tagKey").to_owned(), tag_value: text(tag, "tagValue").to_owned() };
        if tag.tag_key.to_ascii_lowercase().starts_with("aws:") {
            return Err(Refusal::invalid_input("Tag keys that start with aws: are reserved for AWS use."));
        }
        if read.iter().any(|known| known.tag_key == tag.tag_key) {
            return Err(Refusal::invalid_input(format!("Duplicate tag key: {}", tag.tag_key)));
        }
        read.push(tag);
    }
    Ok(read)
}
