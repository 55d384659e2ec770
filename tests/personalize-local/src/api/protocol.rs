//! awsJson1.1: from an HTTP request to an answer, with faults on the way and a line in the ledger.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::Ordering,
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    Operation,
    auth::{self, Caller, Signed},
    clockwork::{Shared, now_ms},
    fault::{self, Action, NAMING, Subject},
    job::{IN_PROGRESS, Outcome},
    ledger::Entry,
    operations,
    refusal::Refusal,
    server::Connection,
    state_file,
    text::one_line,
    world::World,
};

/// The type of every body, in both directions.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An answer, before a fault spoils it.
struct Answer {
    status: u16,
    body: Value,
    request_id: String,
    error: Option<String>,
}

/// Answers a request to the service. The body is absent if it was too long.
pub(crate) async fn answer(shared: &Shared, connection: &Connection, parts: Parts, body: Option<Bytes>) -> Response {
    let decided = {
        let mut world = shared.lock();
        let stopping = shared.stopping.load(Ordering::Relaxed);
        (!stopping).then(|| decide(&mut world, &parts, body.as_deref()))
    };
    match decided {
        Some((answer, action)) => send(answer, action, connection).await,
        // What is answered now could not be kept any more. The connection ends in a moment.
        None => std::future::pending().await,
    }
}

fn decide(world: &mut World, parts: &Parts, body: Option<&[u8]>) -> (Answer, Option<Action>) {
    let now = Timestamp::now();
    world.requests += 1;
    let request =
        Signed { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: body.unwrap_or_default() };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let target = header("x-amz-target").unwrap_or_default();
    let operation = target.strip_prefix("AmazonPersonalize.").unwrap_or_default();
    let parsed: Result<Value, Refusal> = match body {
        None => Err(Refusal::too_large()),
        Some(_) if !is_json_1_1(parts) => Err(Refusal::unknown_operation()),
        Some([]) => Ok(json!({})),
        Some(body) => serde_json::from_slice(body).map_err(|_| Refusal::new("SerializationException", "")),
    };
    // A signature covers the whole body.
    let caller = if body.is_some() { auth::caller(&request, &world.keys, now) } else { Err(Refusal::too_large()) };
    let empty = json!({});
    let body = parsed.as_ref().unwrap_or(&empty);
    let action = take_fault(world, operation, caller.as_ref().ok(), body);
    let mut outcome = match &action {
        Some(Action::Error { code, message, status }) => {
            Err(Refusal { code: code.clone(), message: message.clone(), status: *status })
        }
        action if action.as_ref().is_none_or(Action::keeps_effect) => match (&caller, &parsed) {
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal.clone()),
            (Ok(caller), Ok(body)) => {
                let before = action.as_ref().filter(|_| operation != "CreateDatasetImportJob");
                touch_job(world, before, body);
                let outcome = operations::run(world, caller, operation, body, now.as_millisecond());
                if let (Ok(answer), "CreateDatasetImportJob") = (&outcome, operation) {
                    touch_job(world, action.as_ref(), answer);
                }
                outcome
            }
        },
        _ => Ok(json!({})),
    };
    let accepted = outcome.as_ref().ok().and_then(|answer| answer["datasetImportJobArn"].as_str()).map(str::to_owned);
    // A kill between this and the ledger must not leave an accepted job in the ledger that nobody finds afterwards.
    if !state_file::keep(world) && outcome.is_ok() {
        outcome = Err(Refusal::internal());
    }
    let answer = finish(outcome, action.as_ref());
    let mut entry = entry(now, operation, caller.ok(), body, &answer, accepted, action.as_ref());
    entry.target = (!target.is_empty() && Operation::named(operation).is_none()).then(|| target.to_owned());
    tell(&entry, &answer);
    world.ledger.record(entry);
    (answer, action)
}

/// What makes a request one of this protocol: method, path and type of the body.
fn is_json_1_1(parts: &Parts) -> bool {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    parts.method == Method::POST && parts.uri.path() == "/" && media.eq_ignore_ascii_case(CONTENT_TYPE)
}

fn names(body: &Value) -> Vec<&str> {
    NAMING.iter().filter_map(|member| body[*member].as_str()).collect()
}

fn take_fault(world: &mut World, operation: &str, caller: Option<&Caller>, body: &Value) -> Option<Action> {
    let names = names(body);
    let job = world.jobs.iter().find(|job| names.contains(&job.arn.as_str()));
    let finished = job.is_some_and(|job| !job.is_running());
    let account = caller.map(|caller| caller.account.as_str());
    fault::take(&mut world.faults, &Subject { operation, account, names, finished })
}

/// What a fault does to the job itself.
fn touch_job(world: &mut World, action: Option<&Action>, about: &Value) {
    let Some(arn) = about["datasetImportJobArn"].as_str().or(about["resourceArn"].as_str()) else { return };
    if !world.jobs.iter().any(|job| job.arn == arn) {
        return;
    }
    match action {
        Some(Action::NotFoundFor { ms, lookups }) => {
            if let Some(job) = world.job_mut(arn) {
                job.hidden_until_ms = Some(now_ms().saturating_add_unsigned(*ms));
                job.hidden_lookups = *lookups;
            }
        }
        Some(Action::FailureReason { text, length }) => {
            let reason = match length {
                Some(length) => text.chars().cycle().take(*length).collect(),
                None => text.clone(),
            };
            world.finish(arn, Outcome::Failed(reason), now_ms());
        }
        Some(Action::Vanish) => world.vanish(arn),
        _ => {}
    }
}

fn finish(outcome: Result<Value, Refusal>, action: Option<&Action>) -> Answer {
    let outcome = match (action, outcome) {
        (Some(Action::ErrorAfter { code, message, status }), Ok(_)) => {
            Err(Refusal { code: code.clone(), message: message.clone(), status: *status })
        }
        (Some(Action::NoArn), Ok(_)) => Ok(json!({})),
        (Some(Action::Status(status)), Ok(body)) => Ok(with_status(body, status)),
        (Some(Action::StatusGoesBack), Ok(body)) => Ok(with_status(body, IN_PROGRESS)),
        (_, outcome) => outcome,
    };
    let request_id = request_id();
    match outcome {
        Ok(body) => Answer { status: 200, body, request_id, error: None },
        Err(refusal) => Answer {
            status: refusal.status,
            body: json!({"__type": refusal.code, "message": refusal.message}),
            request_id,
            error: Some(refusal.code),
        },
    }
}

/// A random UUID. The standard library's hasher is the nearest source of chance.
fn request_id() -> String {
    let [high, low] = [RandomState::new().hash_one(0), RandomState::new().hash_one(1)];
    let variant = (low >> 48) & 0x3fff | 0x8000;
    format!(
        "{:08x}-{:04x}-4{:03x}-{variant:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low & 0xffff_ffff_ffff
    )
}

fn with_status(mut body: Value, status: &str) -> Value {
    if let Some(job) = body.get_mut("datasetImportJob") {
        job["status"] = json!(status);
    }
    for job in body.get_mut("datasetImportJobs").and_then(Value::as_array_mut).into_iter().flatten() {
        job["status"] = json!(status);
    }
    body
}

fn entry(
    now: Timestamp,
    operation: &str,
    caller: Option<Caller>,
    body: &Value,
    answer: &Answer,
    accepted: Option<String>,
    action: Option<&Action>,
) -> Entry {
    let arn_name = |arn: &str| arn.split_once("dataset-import-job/").map(|(_, name)| name.to_owned());
    let job_name = body["jobName"].as_str().map(str::to_owned);
    let about = ["datasetImportJobArn", "resourceArn", "schemaArn", "datasetArn", "datasetGroupArn"];
    let unseen = matches!(action, Some(Action::SilenceBeforeHeaders { .. } | Action::ResetBefore | Action::ResetAfter));
    Entry {
        time: now.to_string(),
        request_id: answer.request_id.clone(),
        operation: operation.to_owned(),
        target: None,
        arn: about.iter().find_map(|member| body[*member].as_str()).map(str::to_owned),
        job_name: job_name.or_else(|| names(body).into_iter().find_map(arn_name)),
        dataset_arn: body["datasetArn"].as_str().map(str::to_owned),
        region: caller.as_ref().map(|caller| caller.region.clone()),
        account: caller.map(|caller| caller.account),
        http_status: if unseen { 0 } else { answer.status },
        error_code: answer.error.clone(),
        dataset_import_job_arn: accepted.filter(|_| operation == "CreateDatasetImportJob"),
        fault: action.map(|action| action.label().to_owned()),
    }
}

/// One sentence of the story in the log. What a client sent is escaped.
fn tell(entry: &Entry, answer: &Answer) {
    let Entry { operation, account, region, job_name, http_status, error_code, dataset_import_job_arn, fault, .. } =
        entry;
    let operation = if operation.is_empty() { "no operation" } else { operation };
    let who = match (account, region) {
        (Some(account), Some(region)) => format!("{account} in {region}"),
        _ => "somebody unknown".to_owned(),
    };
    let what = job_name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let became = match (error_code, dataset_import_job_arn) {
        (Some(code), Some(_)) => format!("the job is accepted, but the answer is {code}"),
        (Some(code), None) => format!("{code}: {}", answer.body["message"].as_str().unwrap_or_default()),
        (None, Some(_)) => "the job is accepted".to_owned(),
        (None, None) => "done".to_owned(),
    };
    let spoilt = match fault {
        Some(fault) if *http_status == 0 => format!(" (fault {fault}: the client learns nothing)"),
        Some(fault) => format!(" (fault {fault})"),
        None => String::new(),
    };
    let sentence = one_line(&format!("{who} asks {operation}{what}: {became}{spoilt}"));
    let read = operation.starts_with("Describe") || operation.starts_with("List");
    // Clients poll: a look that goes well is not worth a line.
    if read && error_code.is_none() && fault.is_none() {
        tracing::debug!(request = entry.request_id, "{sentence}");
    } else {
        tracing::info!(request = entry.request_id, "{sentence}");
    }
}

async fn send(answer: Answer, action: Option<Action>, connection: &Connection) -> Response {
    let text = answer.body.to_string();
    let body = match action {
        Some(Action::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Body::from(text.clone())
        }
        Some(Action::SilenceBeforeHeaders { .. }) => std::future::pending().await,
        Some(Action::SilenceAfterHeaders { .. }) => {
            Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>())
        }
        Some(Action::CutBody) => {
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let cut = stream::once(async {
                // The first half must be on its way before the connection closes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
            });
            Body::from_stream(stream::once(async { Ok(half) }).chain(cut))
        }
        Some(Action::Garbage) => Body::from("<html>\u{0}garbage"),
        Some(Action::ResetBefore | Action::ResetAfter) => {
            connection.reset();
            std::future::pending().await
        }
        _ => Body::from(text.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    if let Ok(id) = HeaderValue::from_str(&answer.request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    if matches!(action, Some(Action::CutBody | Action::SilenceAfterHeaders { .. })) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    }
    response
}
