//! The operations: request in, answer or refusal out, with the world locked.

mod create;
mod datasets;
mod jobs;
mod tags;

use serde_json::{Value, json};

use crate::{arn::Arn, auth::Caller, constraints, model::Operation, refusal::Refusal, world::World};

/// Runs an operation for a caller. `now_ms` is milliseconds since the epoch.
pub(crate) fn run(
    world: &mut World,
    caller: &Caller,
    operation: &str,
    body: &Value,
    now_ms: i64,
) -> Result<Value, Refusal> {
    let Some(known) = Operation::named(operation) else {
        return Err(Refusal::unknown_operation());
    };
    let violations = constraints::check(known.input, body)
        .map_err(|constraints::WrongType(message)| Refusal::new("SerializationException", message))?;
    if !violations.is_empty() {
        return Err(Refusal::validation(&violations));
    }
    world.throttles.admit(&caller.account, &caller.region, now_ms)?;
    match known.name {
        "CreateDatasetImportJob" => create::create(world, caller, body, now_ms),
        "DescribeDatasetImportJob" => jobs::describe(world, caller, body, now_ms),
        "ListDatasetImportJobs" => jobs::list(world, caller, body, now_ms),
        "DescribeDataset" => datasets::describe(world, caller, body),
        "ListDatasets" => datasets::list(world, caller, body),
        "DescribeSchema" => datasets::describe_schema(world, caller, body),
        "ListSchemas" => datasets::list_schemas(world, caller, body),
        "TagResource" => tags::tag(world, caller, body, now_ms),
        "UntagResource" => tags::untag(world, caller, body, now_ms),
        _ => tags::list(world, caller, body, now_ms),
    }
}

/// A string member; empty if absent, which the constraints have excluded for required ones.
fn text<'a>(body: &'a Value, member: &str) -> &'a str {
    body.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// Epoch seconds as a float, as the service sends them.
fn seconds(ms: i64) -> Value {
    json!(ms as f64 / 1000.0)
}

/// An ARN of a kind of resource in the caller's account and region.
fn own(caller: &Caller, arn: &str, kinds: &[&str]) -> Result<(), Refusal> {
    let invalid = || Refusal::invalid_input(format!("The provided ARN is invalid: {arn}"));
    let parts = Arn::parse(arn).ok_or_else(invalid)?;
    let kind = parts.resource.split('/').next().unwrap_or_default();
    if !kinds.is_empty() && !kinds.contains(&kind) {
        return Err(invalid());
    }
    if parts.region != caller.region {
        return Err(Refusal::invalid_input(format!(
            "The region {} of the ARN {arn} does not match the region {} of the request.",
            parts.region, caller.region
        )));
    }
    if parts.account != caller.account {
        return Err(Refusal::new(
            "AccessDeniedException",
            format!("User: {} is not authorized to access this resource: {arn}", caller.arn),
        ));
    }
    Ok(())
}
