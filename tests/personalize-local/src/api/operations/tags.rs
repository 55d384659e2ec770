//! TagResource, UntagResource and ListTagsForResource.

use serde_json::{Value, json};

use super::{
    check_arn,
    create::{MAX_TAGS, parse_tags},
    jobs, string,
};
use crate::{
    api::{auth::Caller, error::ApiError},
    store::{Store, job::Tag},
};

pub(super) fn tag(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let arn = string(body, "resourceArn");
    check_arn(caller, arn, &[])?;
    let new = parse_tags(body)?;
    let current = visible_tags(store, arn, now_ms)?;
    let mut tags = current.clone();
    tags.retain(|tag| new.iter().all(|other| other.tag_key != tag.tag_key));
    tags.extend(new);
    if tags.len() > MAX_TAGS {
        return Err(ApiError::too_many_tags());
    }
    *current = tags;
    store.revision += 1;
    Ok(json!({}))
}

pub(super) fn untag(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let arn = string(body, "resourceArn");
    check_arn(caller, arn, &[])?;
    let keys: Vec<&str> =
        body.get("tagKeys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if keys.len() > MAX_TAGS {
        return Err(ApiError::new(
            "TooManyTagKeysException",
            format!("The request has {} tag keys. A resource has at most {MAX_TAGS} tags.", keys.len()),
        ));
    }
    let tags = visible_tags(store, arn, now_ms)?;
    tags.retain(|tag| !keys.contains(&tag.tag_key.as_str()));
    store.revision += 1;
    Ok(json!({}))
}

pub(super) fn list(store: &mut Store, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, ApiError> {
    let arn = string(body, "resourceArn");
    check_arn(caller, arn, &[])?;
    Ok(json!({"tags": visible_tags(store, arn, now_ms)?}))
}

/// The tags of a dataset or job, unless the fault `notFoundFor` hides the job.
fn visible_tags<'a>(store: &'a mut Store, arn: &str, now_ms: i64) -> Result<&'a mut Vec<Tag>, ApiError> {
    if store.dataset(arn).is_none() && !store.deletions.iter().any(|job| job.arn == arn) {
        jobs::find_visible(store, arn, now_ms)?;
    }
    store.tags_mut(arn).ok_or_else(|| ApiError::not_found(arn))
}
