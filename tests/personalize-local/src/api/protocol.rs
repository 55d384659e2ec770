//! awsJson1.1: turns an HTTP request into a response, applies faults, and records the request in the ledger.

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

use super::{
    auth::{self, Caller, SignedRequest},
    error::ApiError,
    operations,
};
use crate::{
    Operation,
    app::AppState,
    clock::now_ms,
    fault::{self, Action, FaultTarget, NAME_MEMBERS},
    sanitize::one_line,
    server::Connection,
    store::{
        Store,
        job::{IN_PROGRESS, Outcome},
        ledger::LedgerEntry,
        state_file,
    },
};

/// The content type of requests and responses.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A response, before a fault changes how it is sent.
struct ApiResponse {
    status: u16,
    body: Value,
    request_id: String,
    error_code: Option<String>,
}

/// Responds to a request to the service. `body` is `None` if it was too long.
pub(crate) async fn respond(app: &AppState, connection: &Connection, parts: Parts, body: Option<Bytes>) -> Response {
    let handled = {
        let mut store = app.lock();
        let stopping = app.stopping.load(Ordering::Relaxed);
        (!stopping).then(|| handle(&mut store, &parts, body.as_deref()))
    };
    match handled {
        Some((response, action)) => send(response, action, connection).await,
        // On shutdown the state file is no longer written, so don't respond. The connection is about to close.
        None => std::future::pending().await,
    }
}

fn handle(store: &mut Store, parts: &Parts, body: Option<&[u8]>) -> (ApiResponse, Option<Action>) {
    let now = Timestamp::now();
    store.requests += 1;
    let request = SignedRequest {
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
        body: body.unwrap_or_default(),
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let target = header("x-amz-target").unwrap_or_default();
    let operation = target.strip_prefix("AmazonPersonalize.").unwrap_or_default();
    let parsed: Result<Value, ApiError> = match body {
        None => Err(ApiError::too_large()),
        Some(_) if !is_json_1_1(parts) => Err(ApiError::unknown_operation()),
        Some([]) => Ok(json!({})),
        Some(body) => serde_json::from_slice(body).map_err(|_| ApiError::new("SerializationException", "")),
    };
    // The signature covers the whole body, so it can't be verified if the body is too long.
    let caller =
        if body.is_some() { auth::authenticate(&request, &store.principals, now) } else { Err(ApiError::too_large()) };
    let empty = json!({});
    let body = parsed.as_ref().unwrap_or(&empty);
    let action = take_fault(store, operation, caller.as_ref().ok(), body);
    let mut result = match &action {
        Some(Action::Error { code, message, status }) => {
            Err(ApiError { code: code.clone(), message: message.clone(), status: *status })
        }
        action if action.as_ref().is_none_or(Action::executes_request) => match (&caller, &parsed) {
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
            (Ok(caller), Ok(body)) => {
                // On a create, the job exists only after the operation. Other operations must see the fault's effect.
                let is_create = operation == "CreateDatasetImportJob";
                if !is_create {
                    apply_job_fault(store, action.as_ref(), body);
                }
                let result = operations::run(store, caller, operation, body, now.as_millisecond());
                if let (Ok(response), true) = (&result, is_create) {
                    apply_job_fault(store, action.as_ref(), response);
                }
                result
            }
        },
        _ => Ok(json!({})),
    };
    let accepted = result.as_ref().ok().and_then(|body| body["datasetImportJobArn"].as_str()).map(str::to_owned);
    // Save before the ledger is written: after a crash, the ledger must not have a job that the state file lacks.
    if !state_file::save_if_changed(store) && result.is_ok() {
        result = Err(ApiError::internal());
    }
    let response = build_response(result, action.as_ref());
    let mut entry = ledger_entry(now, operation, caller.ok(), body, &response, accepted, action.as_ref());
    entry.target = (!target.is_empty() && Operation::find(operation).is_none()).then(|| target.to_owned());
    log_request(&entry, &response);
    store.ledger.record(entry);
    (response, action)
}

/// Whether method, path and content type are those of the protocol.
fn is_json_1_1(parts: &Parts) -> bool {
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    parts.method == Method::POST && parts.uri.path() == "/" && media_type.eq_ignore_ascii_case(CONTENT_TYPE)
}

/// The job name and the ARNs in a request.
fn names(body: &Value) -> Vec<&str> {
    NAME_MEMBERS.iter().filter_map(|member| body[*member].as_str()).collect()
}

fn take_fault(store: &mut Store, operation: &str, caller: Option<&Caller>, body: &Value) -> Option<Action> {
    let names = names(body);
    let job = store.jobs.iter().find(|job| names.contains(&job.arn.as_str()));
    let job_finished = job.is_some_and(|job| !job.is_running());
    let account = caller.map(|caller| caller.account.as_str());
    fault::take_matching(&mut store.faults, &FaultTarget { operation, account, names, job_finished })
}

/// Applies a fault that changes the job in a request or response body.
fn apply_job_fault(store: &mut Store, action: Option<&Action>, body: &Value) {
    let Some(arn) = body["datasetImportJobArn"].as_str().or(body["resourceArn"].as_str()) else { return };
    if !store.jobs.iter().any(|job| job.arn == arn) {
        return;
    }
    match action {
        Some(Action::NotFoundFor { ms, lookups }) => {
            if let Some(job) = store.job_mut(arn) {
                job.hidden_until_ms = Some(now_ms().saturating_add_unsigned(*ms));
                job.hidden_lookups = *lookups;
            }
        }
        Some(Action::FailureReason { text, length }) => {
            let reason = match length {
                Some(length) => text.chars().cycle().take(*length).collect(),
                None => text.clone(),
            };
            store.finish(arn, Outcome::Failed(reason), now_ms());
        }
        Some(Action::Vanish) => store.vanish(arn),
        _ => {}
    }
}

/// Builds the response, with the faults that replace its content.
fn build_response(result: Result<Value, ApiError>, action: Option<&Action>) -> ApiResponse {
    let result = match (action, result) {
        (Some(Action::ErrorAfter { code, message, status }), Ok(_)) => {
            Err(ApiError { code: code.clone(), message: message.clone(), status: *status })
        }
        (Some(Action::NoArn), Ok(_)) => Ok(json!({})),
        (Some(Action::Status(status)), Ok(body)) => Ok(with_status(body, status)),
        (Some(Action::StatusGoesBack), Ok(body)) => Ok(with_status(body, IN_PROGRESS)),
        (_, result) => result,
    };
    let request_id = request_id();
    match result {
        Ok(body) => ApiResponse { status: 200, body, request_id, error_code: None },
        Err(error) => ApiResponse {
            status: error.status,
            body: json!({"__type": error.code, "message": error.message}),
            request_id,
            error_code: Some(error.code),
        },
    }
}

/// A random UUID. The hasher of the standard library is the source of randomness, to avoid a dependency.
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

fn ledger_entry(
    now: Timestamp,
    operation: &str,
    caller: Option<Caller>,
    body: &Value,
    response: &ApiResponse,
    accepted: Option<String>,
    action: Option<&Action>,
) -> LedgerEntry {
    let name_in_arn = |arn: &str| arn.split_once("dataset-import-job/").map(|(_, name)| name.to_owned());
    let job_name = body["jobName"].as_str().map(str::to_owned);
    let arn_members =
        ["datasetImportJobArn", "dataDeletionJobArn", "resourceArn", "schemaArn", "datasetArn", "datasetGroupArn"];
    let no_response =
        matches!(action, Some(Action::SilenceBeforeHeaders { .. } | Action::ResetBefore | Action::ResetAfter));
    LedgerEntry {
        time: now.to_string(),
        request_id: response.request_id.clone(),
        operation: operation.to_owned(),
        target: None,
        arn: arn_members.iter().find_map(|member| body[*member].as_str()).map(str::to_owned),
        job_name: job_name.or_else(|| names(body).into_iter().find_map(name_in_arn)),
        dataset_arn: body["datasetArn"].as_str().map(str::to_owned),
        region: caller.as_ref().map(|caller| caller.region.clone()),
        caller: caller.as_ref().map(|caller| caller.arn.clone()),
        session_tags: caller.as_ref().map(|caller| caller.session_tags.clone()).unwrap_or_default(),
        account: caller.map(|caller| caller.account),
        http_status: if no_response { 0 } else { response.status },
        error_code: response.error_code.clone(),
        dataset_import_job_arn: accepted.filter(|_| operation == "CreateDatasetImportJob"),
        fault: action.map(|action| action.label().to_owned()),
    }
}

/// Logs a request and its result, for example
/// `CreateDatasetImportJob nightly (account 111122223333, eu-west-1): job accepted`. Client input is escaped.
fn log_request(entry: &LedgerEntry, response: &ApiResponse) {
    let LedgerEntry {
        operation,
        account,
        region,
        job_name,
        http_status,
        error_code,
        dataset_import_job_arn,
        fault,
        ..
    } = entry;
    let operation = if operation.is_empty() { "unknown operation" } else { operation };
    let job = job_name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let caller = match (account, region) {
        (Some(account), Some(region)) => format!("account {account}, {region}"),
        _ => "not authenticated".to_owned(),
    };
    let result = match (error_code, dataset_import_job_arn) {
        (Some(code), Some(_)) => format!("job accepted, but the response is {code}"),
        (Some(code), None) => format!("{code}: {}", response.body["message"].as_str().unwrap_or_default()),
        (None, Some(_)) => "job accepted".to_owned(),
        (None, None) => "ok".to_owned(),
    };
    let fault_note = match fault {
        Some(fault) if *http_status == 0 => format!(" (fault {fault}: no response)"),
        Some(fault) => format!(" (fault {fault})"),
        None => String::new(),
    };
    let line = one_line(&format!("{operation}{job} ({caller}): {result}{fault_note}"));
    let is_read = operation.starts_with("Describe") || operation.starts_with("List");
    // Clients poll, so successful reads are logged at debug level.
    if is_read && error_code.is_none() && fault.is_none() {
        tracing::debug!(request = entry.request_id, "{line}");
    } else {
        tracing::info!(request = entry.request_id, "{line}");
    }
}

/// Sends a response, with the faults that affect the connection or the body.
async fn send(response: ApiResponse, action: Option<Action>, connection: &Connection) -> Response {
    let ApiResponse { status, body, request_id, .. } = response;
    let text = body.to_string();
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
                // Give the server time to send the first half.
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
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("x-amzn-requestid", id);
    }
    if matches!(action, Some(Action::CutBody | Action::SilenceAfterHeaders { .. })) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    }
    response
}
