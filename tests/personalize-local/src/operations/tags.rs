//! TagResource, UntagResource and ListTagsForResource.

use serde_json::{Value, json};

use super::{
    create::{MOST_TAGS, parse_tags},
    jobs, own, text,
};
use crate::{auth::Caller, refusal::Refusal, world::World};

pub(super) fn tag(world: &mut World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
    let arn = text(body, "resourceArn");
    own(caller, arn, &[])?;
    let new = parse_tags(body)?;
    let known = world.tags_mut(arn).ok_or_else(|| Refusal::not_found(arn))?;
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

pub(super) fn untag(world: &mut World, caller: &Caller, body: &Value) -> Result<Value, Refusal> {
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
    let tags = world.tags_mut(arn).ok_or_else(|| Refusal::not_found(arn))?;
    tags.retain(|tag| !keys.contains(&tag.tag_key.as_str()));
    world.revision += 1;
    Ok(json!({}))
}

pub(super) fn list(world: &mut World, caller: &Caller, body: &Value, now_ms: i64) -> Result<Value, Refusal> {
    let arn = text(body, "resourceArn");
    own(caller, arn, &[])?;
    if world.dataset(arn).is_none() {
        jobs::find(world, arn, now_ms)?;
    }
    let tags = world.tags_mut(arn).ok_or_else(|| Refusal::not_found(arn))?;
    Ok(json!({"tags": tags}))
}
