//! The operations: each takes a request body and the locked store, and returns a response body or an error.

mod create;
mod datasets;
mod deletions;
mod jobs;
mod tags;

use serde_json::{Value, json};

use super::{auth::Caller, constraints, error::ApiError, model::Operation};
use crate::{arn::Arn, store::Store};

/// Runs an operation for a caller. `now_ms` is milliseconds since the epoch.
pub(crate) fn run(
    store: &mut Store,
    caller: &Caller,
    operation: &str,
    body: &Value,
    now_ms: i64,
) -> Result<Value, ApiError> {
    let Some(operation) = Operation::find(operation) else {
        return Err(ApiError::unknown_operation());
    };
    let violations = constraints::check(operation.input, body)
        .map_err(|constraints::WrongType(message)| ApiError::new("SerializationException", message))?;
    if !violations.is_empty() {
        return Err(ApiError::validation(&violations));
    }
    store.rate_limiter.admit(&caller.account, &caller.region, now_ms)?;
    match operation.name {
        "CreateDatasetImportJob" => create::create(store, caller, body, now_ms),
        "DescribeDatasetImportJob" => jobs::describe(store, caller, body, now_ms),
        "ListDatasetImportJobs" => jobs::list(store, caller, body, now_ms),
        "DescribeDataset" => datasets::describe(store, caller, body),
        "ListDatasets" => datasets::list(store, caller, body),
        "DescribeSchema" => datasets::describe_schema(store, caller, body),
        "ListSchemas" => datasets::list_schemas(store, caller, body),
        "TagResource" => tags::tag(store, caller, body, now_ms),
        "UntagResource" => tags::untag(store, caller, body, now_ms),
        "CreateDataDeletionJob" => deletions::create(store, caller, body, now_ms),
        "DescribeDataDeletionJob" => deletions::describe(store, caller, body),
        "ListDataDeletionJobs" => deletions::list(store, caller, body),
        _ => tags::list(store, caller, body, now_ms),
    }
}

/// A string member; empty if absent. Required members are present after the check of the constraints.
fn string<'a>(body: &'a Value, member: &str) -> &'a str {
    body.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// A timestamp in the format of the service: epoch seconds as a float.
fn timestamp(ms: i64) -> Value {
    json!(ms as f64 / 1000.0)
}

/// Checks that an ARN has one of the resource types (any type if empty) and is in the caller's account and region.
fn check_arn(caller: &Caller, arn: &str, resource_types: &[&str]) -> Result<(), ApiError> {
    let invalid = || ApiError::invalid_input(format!("The provided ARN is invalid: {arn}"));
    let parts = Arn::parse(arn).ok_or_else(invalid)?;
    let resource_type = parts.resource.split('/').next().unwrap_or_default();
    if !resource_types.is_empty() && !resource_types.contains(&resource_type) {
        return Err(invalid());
    }
    if parts.region != caller.region {
        return Err(ApiError::invalid_input(format!(
            "The region {} of the ARN {arn} does not match the region {} of the request.",
            parts.region, caller.region
        )));
    }
    if parts.account != caller.account {
        return Err(ApiError::new(
            "AccessDeniedException",
            format!("User: {} is not authorized to access this resource: {arn}", caller.arn),
        ));
    }
    Ok(())
}
