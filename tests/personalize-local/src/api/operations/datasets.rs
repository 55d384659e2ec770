//! DescribeDataset, ListDatasets, DescribeSchema and ListSchemas.

use serde_json::{Value, json};

use super::{jobs::page, own, seconds, text};
use crate::{
    auth::Caller,
    refusal::Refusal,
    world::{KnownDataset, World},
};

pub(super) fn describe(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
    let arn = text(body, "datasetArn");
    own(caller, arn, &["dataset"])?;
    let dataset = world.dataset(arn).ok_or_else(|| Refusal::not_found(arn))?;
    let mut fields = summary(dataset);
    fields["datasetGroupArn"] = json!(group_arn(dataset));
    fields["schemaArn"] = json!(dataset.schema_arn);
    Ok(json!({"dataset": fields}))
}

pub(super) fn list(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
    let group = body.get("datasetGroupArn").and_then(Value::as_str);
    if let Some(arn) = group {
        own(caller, arn, &["dataset-group"])?;
    }
    let datasets = visible(world, caller).filter(|dataset| group.is_none_or(|arn| arn == group_arn(dataset)));
    let scope = format!("datasets {} {} {}", caller.account, caller.region, group.unwrap_or_default());
    page(&scope, "datasets", body, datasets.map(summary).collect())
}

pub(super) fn describe_schema(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
    let arn = text(body, "schemaArn");
    own(caller, arn, &["schema"])?;
    let dataset = visible(world, caller).find(|dataset| dataset.schema_arn == arn);
    let dataset = dataset.ok_or_else(|| Refusal::not_found(arn))?;
    let mut fields = schema_summary(dataset);
    fields["schema"] = json!(dataset.schema);
    Ok(json!({"schema": fields}))
}

pub(super) fn list_schemas(world: &World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
    let mut seen: Vec<&str> = Vec::new();
    let mut schemas = Vec::new();
    for dataset in visible(world, caller) {
        if !seen.contains(&dataset.schema_arn.as_str()) {
            seen.push(&dataset.schema_arn);
            schemas.push(schema_summary(dataset));
        }
    }
    page(&format!("schemas {} {}", caller.account, caller.region), "schemas", body, schemas)
}

fn visible<'a>(world: &'a World, caller: &'a Caller) -> impl Iterator<Item = &'a KnownDataset> {
    let own =
        |dataset: &&KnownDataset| dataset.parts.account == caller.account && dataset.parts.region == caller.region;
    world.datasets.iter().filter(own)
}

/// `dataset/shop/ITEMS` belongs to `dataset-group/shop`.
fn group_arn(dataset: &KnownDataset) -> String {
    let parts = &dataset.parts;
    let group = parts.resource.split('/').nth(1).unwrap_or_default();
    format!("arn:{}:personalize:{}:{}:dataset-group/{group}", parts.partition, parts.region, parts.account)
}

fn summary(dataset: &KnownDataset) -> Value {
    json!({
        "name": dataset.parts.resource.replacen("dataset/", "", 1).replace('/', "-").to_lowercase(),
        "datasetArn": dataset.arn,
        "datasetType": dataset.kind,
        "status": dataset.status,
        "creationDateTime": seconds(dataset.created_ms),
        "lastUpdatedDateTime": seconds(dataset.updated_ms),
    })
}

fn schema_summary(dataset: &KnownDataset) -> Value {
    json!({
        "name": dataset.schema_arn.rsplit('/').next(),
        "schemaArn": dataset.schema_arn,
        "creationDateTime": seconds(dataset.created_ms),
        "lastUpdatedDateTime": seconds(dataset.created_ms),
    })
}
