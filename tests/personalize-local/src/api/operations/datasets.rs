//! DescribeDataset, ListDatasets, DescribeSchema and ListSchemas.

use serde_json::{Value, json};

use super::{check_arn, jobs::list_page, string, timestamp};
use crate::{
    api::{auth::Caller, error::ApiError},
    store::{Store, StoredDataset},
};

pub(super) fn describe(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let arn = string(body, "datasetArn");
    check_arn(caller, arn, &["dataset"])?;
    let dataset = store.dataset(arn).ok_or_else(|| ApiError::not_found(arn))?;
    let mut fields = summary(dataset);
    fields["datasetGroupArn"] = json!(dataset.parsed_arn.group());
    fields["schemaArn"] = json!(dataset.schema_arn);
    Ok(json!({"dataset": fields}))
}

pub(super) fn list(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let group = body.get("datasetGroupArn").and_then(Value::as_str);
    if let Some(arn) = group {
        check_arn(caller, arn, &["dataset-group"])?;
    }
    let datasets = visible(store, caller).filter(|dataset| group.is_none_or(|arn| arn == dataset.parsed_arn.group()));
    let list = format!("datasets {} {} {}", caller.account, caller.region, group.unwrap_or_default());
    list_page(&list, "datasets", body, datasets.map(summary).collect())
}

pub(super) fn describe_schema(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let arn = string(body, "schemaArn");
    check_arn(caller, arn, &["schema"])?;
    let dataset = visible(store, caller).find(|dataset| dataset.schema_arn == arn);
    let dataset = dataset.ok_or_else(|| ApiError::not_found(arn))?;
    let mut fields = schema_summary(dataset);
    fields["schema"] = json!(dataset.schema);
    Ok(json!({"schema": fields}))
}

pub(super) fn list_schemas(store: &Store, caller: &Caller, body: &Value) -> Result<Value, ApiError> {
    let mut seen: Vec<&str> = Vec::new();
    let mut schemas = Vec::new();
    for dataset in visible(store, caller) {
        if !seen.contains(&dataset.schema_arn.as_str()) {
            seen.push(&dataset.schema_arn);
            schemas.push(schema_summary(dataset));
        }
    }
    list_page(&format!("schemas {} {}", caller.account, caller.region), "schemas", body, schemas)
}

fn visible<'a>(store: &'a Store, caller: &'a Caller) -> impl Iterator<Item = &'a StoredDataset> {
    let is_visible = |dataset: &&StoredDataset| {
        dataset.parsed_arn.account == caller.account && dataset.parsed_arn.region == caller.region
    };
    store.datasets.iter().filter(is_visible)
}

fn summary(dataset: &StoredDataset) -> Value {
    json!({
        "name": dataset.parsed_arn.resource.replacen("dataset/", "", 1).replace('/', "-").to_lowercase(),
        "datasetArn": dataset.arn,
        "datasetType": dataset.type_name,
        "status": dataset.status,
        "creationDateTime": timestamp(dataset.created_ms),
        "lastUpdatedDateTime": timestamp(dataset.updated_ms),
    })
}

fn schema_summary(dataset: &StoredDataset) -> Value {
    json!({
        "name": dataset.schema_arn.rsplit('/').next(),
        "schemaArn": dataset.schema_arn,
        "creationDateTime": timestamp(dataset.created_ms),
        "lastUpdatedDateTime": timestamp(dataset.created_ms),
    })
}
