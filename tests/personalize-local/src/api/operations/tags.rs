//! TagResource, UntagResource and ListTagsForResource.

use serde_json::{Value, json};

use super::{
    create::{MOST_TAGS, parse_tags},
    jobs, own, text,
};
use crate::{auth::Caller, job::Tag, refusal::Refusal, world::World};

pub(super) fn tag(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let arn = text(body, "resourceArn");
    own(caller, arn, &[])?;
    let new = parse_tags(body)?;
    let known = held(world, arn, now_ms)?;
    let mut tags = known.clone();
    tags.retain(|tag| new.iter().all(|other| other.tag_key != tag.tag_key));
    tags.extend(new);
    if tags.len() > MOST_TAGS {
        return Err(Refusal::too_many_tags());
    }
    *known = tags;
    world.revision += 1;
    Ok(json!({}))
}

pub(super) fn untag(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let arn = text(body, "resourceArn");
    own(caller, arn, &[])?;
    let keys: Vec<&str> =
        body.get("tagKeys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if keys.len() > MOST_TAGS {
        return Err(Refusal::new(
            "TooManyTagKeysException",
            format!("The request has {} tag keys. A resource has at most {MOST_TAGS} tags.", keys.len()),
        ));
    }
    let tags = held(world, arn, now_ms)?;
    tags.retain(|tag| !keys.contains(&tag.tag_key.as_str()));
    world.revision += 1;
    Ok(json!({}))
}

pub(super) fn list(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let arn = text(body, "resourceArn");
    own(caller, arn, &[])?;
    Ok(json!({"tags": held(world, arn, now_ms)?}))
}

/// The tags of a dataset, or of a job that a lookup may see.
fn held<'a>(world: &'a mut World, arn: &str, now_ms: i64) -> Result<&'a mut Vec<Tag>, Refusal> {
    if world.dataset(arn).is_none() {
        jobs::find(world, arn, now_ms)?;
    }
    world.tags_mut(arn).ok_or_else(|| Refusal::not_found(arn))
}
