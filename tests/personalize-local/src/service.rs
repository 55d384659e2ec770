//! The HTTP side: awsJson1.1 on `POST /`, and what tests order under `/_local/`.

use crate::fault::{Action, Fault};
use crate::model::{self, Refusal};
use crate::seed::{Dataset, Job, Seed};
use crate::signature::{self, Caller};
use crate::state::State;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The service, ready to be served.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    ledger: Mutex<std::fs::File>,
    requests: AtomicU64,
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

impl Service {
    /// A service that holds what the seed says, reads `s3://bucket/key` from `data/bucket/key` and
    /// appends a line per request to the ledger.
    ///
    /// # Errors
    /// When the ledger can't be opened.
    pub fn new(seed: Seed, data: PathBuf, ledger: &std::path::Path) -> std::io::Result<Self> {
        let ledger = OpenOptions::new().create(true).append(true).open(ledger)?;
        let jobs = seed.jobs.clone();
        let state = State { seed, jobs, faults: Vec::new(), data };
        Ok(Self(Arc::new(Inner { state: Mutex::new(state), ledger: Mutex::new(ledger), requests: AtomicU64::new(1) })))
    }

    /// The routes.
    #[must_use]
    pub fn router(self) -> Router {
        Router::new()
            .route("/", post(call))
            .route("/_local/faults", get(faults).post(add_fault).delete(clear_faults))
            .route("/_local/jobs", get(jobs).post(put_job).delete(drop_job))
            .route("/_local/datasets", post(put_dataset))
            .route("/_local/settings", post(settings))
            .with_state(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: &Value) {
        let mut ledger = self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk shows in the tests that read the ledger.
        let _ = writeln!(ledger, "{line}");
    }
}

async fn call(Shared(service): Shared<Service>, headers: HeaderMap, uri: Uri, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("AmazonPersonalize.").unwrap_or_default().to_owned();
    let request: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    let names = [text("jobName"), text("datasetImportJobArn"), text("resourceArn"), text("datasetArn")];
    let accounts = service.state().seed.accounts.clone();
    let caller = signature::verify(&accounts, &headers, &uri, &body);
    let account = caller.as_ref().map(|c| c.account.clone()).unwrap_or_default();
    let fault = take_fault(&service, &operation, &account, &names);
    let effect =
        !matches!(fault, Some(Action::Error { after_effect: false, .. } | Action::Silence { after_effect: false }));
    let outcome = caller
        .clone()
        .and_then(|caller| if effect { carry_out(&service, &operation, &caller, &request) } else { Ok(Value::Null) });
    note(&service, &operation, caller.ok(), &request, &names, &outcome, fault.as_ref());
    answer(&service, outcome, fault).await
}

fn carry_out(service: &Service, operation: &str, caller: &Caller, request: &Value) -> Result<Value, Refusal> {
    model::check(operation, request)?;
    let mut state = service.state();
    state.advance(now());
    state.call(operation, caller, request, now())
}

fn take_fault(service: &Service, operation: &str, account: &str, names: &[String]) -> Option<Action> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut state = service.state();
    let fault = state.faults.iter_mut().find(|f| f.meets(operation, account, &names))?;
    fault.count -= 1;
    Some(fault.action.clone())
}

fn note(
    service: &Service,
    operation: &str,
    caller: Option<Caller>,
    request: &Value,
    names: &[String],
    outcome: &Result<Value, Refusal>,
    fault: Option<&Action>,
) {
    let caller = caller.unwrap_or_default();
    let mut line = json!({
        "time": Timestamp::now().to_string(),
        "operation": operation,
        "region": caller.region,
        "account": caller.account,
        "httpStatus": outcome.as_ref().map_or_else(|r| r.status, |_| 200),
    });
    for (name, value) in ["jobName", "arn", "arn", "datasetArn"].iter().zip(names) {
        if !value.is_empty() {
            line[*name] = value.as_str().into();
        }
    }
    match outcome {
        Ok(answer) if operation == "CreateDatasetImportJob" && answer["datasetImportJobArn"].is_string() => {
            line["datasetImportJobArn"] = answer["datasetImportJobArn"].clone();
            line["datasetArn"] = request["datasetArn"].clone();
        }
        Ok(_) => {}
        Err(refusal) => line["errorCode"] = refusal.code.as_str().into(),
    }
    if let Some(fault) = fault {
        line["fault"] = serde_json::to_value(fault).unwrap_or_default();
        if let Action::Error { code, status, .. } = fault {
            line["errorCode"] = code.as_str().into();
            line["httpStatus"] = (*status).into();
        }
    }
    service.note(&line);
}

async fn answer(service: &Service, outcome: Result<Value, Refusal>, fault: Option<Action>) -> Response {
    let refuse = |r: &Refusal| {
        let error = json!({"__type": r.code, "message": r.message});
        respond(service, r.status, error.to_string().into_bytes().into())
    };
    let right = |answer: &Value| respond(service, 200, answer.to_string().into_bytes().into());
    let answer = match (outcome, &fault) {
        (_, Some(Action::Error { code, message, status, .. })) => {
            return refuse(&Refusal { code: code.clone(), message: message.clone(), status: *status });
        }
        (_, Some(Action::Silence { .. })) => {
            std::future::pending::<()>().await;
            return StatusCode::OK.into_response();
        }
        (Err(refusal), _) => return refuse(&refusal),
        (Ok(answer), _) => answer,
    };
    match fault {
        Some(Action::Delay { ms }) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            right(&answer)
        }
        Some(Action::Garbage) => respond(service, 200, Body::from("<html>not json")),
        Some(Action::NoArn) => right(&json!({})),
        Some(Action::CutBody) => {
            let mut response = right(&answer);
            // More is promised than comes: the connection ends within the body.
            let length = answer.to_string().len() + 100;
            response.headers_mut().insert("content-length", length.into());
            response
        }
        Some(Action::Replace { members }) => {
            let mut answer = answer;
            let inner =
                if answer["datasetImportJob"].is_object() { &mut answer["datasetImportJob"] } else { &mut answer };
            members.into_iter().for_each(|(name, value)| inner[name] = value);
            right(&answer)
        }
        _ => right(&answer),
    }
}

fn respond(service: &Service, status: u16, body: Body) -> Response {
    let id = service.0.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!("00000000-0000-4000-8000-{id:012x}");
    let headers = [("content-type", "application/x-amz-json-1.1".to_owned()), ("x-amzn-requestid", id)];
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), headers, body).into_response()
}

async fn faults(Shared(service): Shared<Service>) -> Json<Vec<Fault>> {
    Json(service.state().faults.clone())
}

async fn add_fault(Shared(service): Shared<Service>, Json(fault): Json<Fault>) {
    service.state().faults.push(fault);
}

async fn clear_faults(Shared(service): Shared<Service>) {
    service.state().faults.clear();
}

async fn jobs(Shared(service): Shared<Service>) -> Json<Vec<Job>> {
    let mut state = service.state();
    state.advance(now());
    Json(state.jobs.clone())
}

/// Adds a job, or replaces the one of the same ARN.
async fn put_job(Shared(service): Shared<Service>, Json(job): Json<Job>) {
    let mut state = service.state();
    let arn = job.arn();
    state.jobs.retain(|j| j.arn() != arn);
    state.jobs.push(job);
}

/// Makes a job vanish.
async fn drop_job(Shared(service): Shared<Service>, name: String) {
    service.state().jobs.retain(|j| j.job_name != name);
}

/// Adds a dataset, or replaces the one of the same ARN.
async fn put_dataset(Shared(service): Shared<Service>, Json(dataset): Json<Dataset>) {
    let mut state = service.state();
    state.seed.datasets.retain(|d| d.arn != dataset.arn);
    state.seed.datasets.push(dataset);
}

/// Replaces durations, refused roles, unreadable buckets and accounts, where they are given.
async fn settings(Shared(service): Shared<Service>, Json(given): Json<Value>) -> Result<(), (StatusCode, String)> {
    let wrong = |e: serde_json::Error| (StatusCode::BAD_REQUEST, e.to_string());
    let mut state = service.state();
    if let Some(durations) = given.get("durations") {
        state.seed.durations = serde_json::from_value(durations.clone()).map_err(wrong)?;
    }
    if let Some(roles) = given.get("refusedRoles") {
        state.seed.refused_roles = serde_json::from_value(roles.clone()).map_err(wrong)?;
    }
    if let Some(buckets) = given.get("unreadableBuckets") {
        state.seed.unreadable_buckets = serde_json::from_value(buckets.clone()).map_err(wrong)?;
    }
    if let Some(accounts) = given.get("accounts") {
        state.seed.accounts = serde_json::from_value(accounts.clone()).map_err(wrong)?;
    }
    Ok(())
}
