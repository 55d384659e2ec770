//! The endpoints under `/_local/`: faults and live control over HTTP, separate from the service's `POST /`.

pub(crate) mod dashboard;
pub(crate) mod sessions;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    middleware::{self, Next},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Dataset, Durations, Fault, LedgerEntry, Outcome, SeedJob, app::AppState, clock::now_ms, store::state_file,
};
use sessions::StsResponse;

pub(crate) fn router(app: &AppState) -> Router<AppState> {
    let router = Router::new()
        .route("/_local", get(async || Redirect::permanent("/_local/")))
        .route("/_local/", get(show_dashboard))
        .route("/_local/faults", post(add_fault).get(list_faults).delete(clear_faults))
        .route("/_local/jobs", get(list_jobs).post(start_job))
        .route("/_local/jobs/finish", post(finish_job))
        .route("/_local/deletions", get(list_deletions).post(start_deletion))
        .route("/_local/deletions/finish", post(finish_deletion))
        .route("/_local/durations", post(set_durations))
        .route("/_local/holds", post(hold_jobs).delete(release_jobs))
        .route("/_local/datasets", post(add_dataset))
        .route("/_local/datasets/status", post(set_dataset_status))
        .route("/_local/ledger", get(list_requests))
        .route("/_local/sessions", post(add_session))
        .route("/_local/sessions/expire", post(expire_sessions))
        .route("/_local/sts", post(forward_to_sts))
        .route("/_local/sts/", post(forward_to_sts));
    router.layer(middleware::from_fn_with_state(app.clone(), require_saved_state))
}

/// Responds with an error if the state file can't be written, because a restart would lose the change.
async fn require_saved_state(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if state_file::save_if_changed(&mut app.lock()) {
        return response;
    }
    let message = "failed to write the state file; see the log";
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"message": message}))).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FinishRequest {
    job: String,
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatasetStatusRequest {
    arn: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HoldRequest {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DeletionRequest {
    name: String,
    dataset_group_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExpireRequest {
    account: String,
}

async fn show_dashboard(State(app): State<AppState>) -> Html<String> {
    Html(dashboard::render(&app.lock()))
}

async fn add_fault(State(app): State<AppState>, Json(fault): Json<Fault>) -> Response {
    if let Some(message) = fault.validation_error() {
        return (StatusCode::BAD_REQUEST, Json(json!({"message": message}))).into_response();
    }
    app.lock().faults.push(fault);
    StatusCode::CREATED.into_response()
}

async fn list_faults(State(app): State<AppState>) -> Json<Vec<Fault>> {
    Json(app.lock().faults.clone())
}

async fn clear_faults(State(app): State<AppState>) -> StatusCode {
    app.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn list_jobs(State(app): State<AppState>) -> Json<Value> {
    Json(json!(app.lock().jobs))
}

async fn start_job(State(app): State<AppState>, Json(job): Json<SeedJob>) -> impl IntoResponse {
    match app.lock().start_job(&job, now_ms()) {
        Ok(arn) => (StatusCode::CREATED, Json(json!({"datasetImportJobArn": arn}))),
        Err(message) => (StatusCode::CONFLICT, Json(json!({"message": message}))),
    }
}

async fn finish_job(
    State(app): State<AppState>,
    Json(FinishRequest { job, outcome }): Json<FinishRequest>,
) -> StatusCode {
    found_status(app.lock().finish(&job, outcome, now_ms()))
}

async fn list_deletions(State(app): State<AppState>) -> Json<Value> {
    Json(json!(app.lock().deletions))
}

async fn start_deletion(State(app): State<AppState>, Json(request): Json<DeletionRequest>) -> impl IntoResponse {
    match app.lock().start_deletion(&request.name, &request.dataset_group_arn, now_ms()) {
        Some(arn) => (StatusCode::CREATED, Json(json!({"dataDeletionJobArn": arn}))),
        None => (StatusCode::CONFLICT, Json(json!({"message": "it exists, or the dataset group is invalid"}))),
    }
}

async fn finish_deletion(
    State(app): State<AppState>,
    Json(FinishRequest { job, outcome }): Json<FinishRequest>,
) -> StatusCode {
    found_status(app.lock().finish_deletion(&job, outcome, now_ms()))
}

/// Also applies to running jobs.
async fn set_durations(State(app): State<AppState>, Json(durations): Json<Durations>) -> StatusCode {
    app.lock().durations = durations;
    StatusCode::NO_CONTENT
}

async fn hold_jobs(State(app): State<AppState>, Json(HoldRequest { name }): Json<HoldRequest>) -> StatusCode {
    app.lock().hold(&name);
    StatusCode::NO_CONTENT
}

async fn release_jobs(State(app): State<AppState>, Json(HoldRequest { name }): Json<HoldRequest>) -> StatusCode {
    app.lock().release(&name, now_ms());
    StatusCode::NO_CONTENT
}

async fn add_dataset(State(app): State<AppState>, Json(dataset): Json<Dataset>) -> impl IntoResponse {
    match app.lock().add_dataset(&dataset, now_ms()) {
        Ok(()) => (StatusCode::CREATED, Json(json!({}))),
        Err(message) => (StatusCode::BAD_REQUEST, Json(json!({"message": message}))),
    }
}

async fn set_dataset_status(
    State(app): State<AppState>,
    Json(DatasetStatusRequest { arn, status }): Json<DatasetStatusRequest>,
) -> StatusCode {
    found_status(app.lock().set_dataset_status(&arn, &status, now_ms()))
}

async fn add_session(State(app): State<AppState>, Json(response): Json<StsResponse>) -> impl IntoResponse {
    match sessions::register(&mut app.lock(), response) {
        Ok(account) => (StatusCode::CREATED, Json(json!({"account": account}))),
        Err(message) => (StatusCode::BAD_REQUEST, Json(json!({"message": message}))),
    }
}

async fn expire_sessions(
    State(app): State<AppState>,
    Json(ExpireRequest { account }): Json<ExpireRequest>,
) -> StatusCode {
    found_status(app.lock().expire_sessions(&account, Timestamp::now()))
}

async fn forward_to_sts(State(app): State<AppState>, headers: HeaderMap, body: Bytes) -> Response {
    match &app.sts {
        Some(sts) => sessions::forward(&app, sts, headers, body).await,
        None => {
            let text = "no STS configured; start with --sts URL\n".to_owned();
            sessions::error_response(StatusCode::NOT_FOUND, text)
        }
    }
}

async fn list_requests(State(app): State<AppState>) -> Json<Value> {
    // Clone under the lock, serialize without it.
    let entries: Vec<LedgerEntry> = app.lock().ledger.latest().cloned().collect();
    Json(json!(entries))
}

fn found_status(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
