//! `/_local/`: faults and live control over HTTP, kept apart from the service's own `POST /`.

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
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Dataset, Durations, Entry, Fault, Outcome, SeedJob,
    clockwork::{Shared, now_ms},
    page,
    sessions::StsAnswer,
    state_file,
};

pub(crate) fn router(shared: &Shared) -> Router<Shared> {
    let router = Router::new()
        .route("/_local", get(async || Redirect::permanent("/_local/")))
        .route("/_local/", get(overview))
        .route("/_local/faults", post(add_fault).get(list_faults).delete(clear_faults))
        .route("/_local/jobs", get(list_jobs).post(start_job))
        .route("/_local/jobs/finish", post(finish))
        .route("/_local/durations", post(set_durations))
        .route("/_local/holds", post(hold).delete(release))
        .route("/_local/datasets", post(put_dataset))
        .route("/_local/datasets/status", post(dataset_status))
        .route("/_local/ledger", get(ledger))
        .route("/_local/sessions", post(add_session))
        .route("/_local/sts", post(sts))
        .route("/_local/sts/", post(sts));
    router.layer(middleware::from_fn_with_state(shared.clone(), kept))
}

/// What can't be kept across a restart is not answered as if it were.
async fn kept(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    if state_file::keep(&mut shared.lock()) {
        return answer;
    }
    let message = "the state can't be written; the log says why";
    (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({"message": message}))).into_response()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Finish {
    job: String,
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatasetStatus {
    arn: String,
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Name {
    #[serde(default)]
    name: String,
}

async fn overview(State(shared): State<Shared>) -> Html<String> {
    Html(page::render(&shared.lock()))
}

async fn add_fault(State(shared): State<Shared>, Json(fault): Json<Fault>) -> Response {
    if let Some(message) = fault.problem() {
        return (StatusCode::BAD_REQUEST, Json(json!({"message": message}))).into_response();
    }
    shared.lock().faults.push(fault);
    StatusCode::CREATED.into_response()
}

async fn list_faults(State(shared): State<Shared>) -> Json<Vec<Fault>> {
    Json(shared.lock().faults.clone())
}

async fn clear_faults(State(shared): State<Shared>) -> StatusCode {
    shared.lock().faults.clear();
    StatusCode::NO_CONTENT
}

async fn list_jobs(State(shared): State<Shared>) -> Json<Value> {
    Json(json!(shared.lock().jobs))
}

async fn start_job(State(shared): State<Shared>, Json(job): Json<SeedJob>) -> impl IntoResponse {
    match shared.lock().start_job(&job, now_ms()) {
        Ok(arn) => (StatusCode::CREATED, Json(json!({"datasetImportJobArn": arn}))),
        Err(message) => (StatusCode::CONFLICT, Json(json!({"message": message}))),
    }
}

async fn finish(State(shared): State<Shared>, Json(Finish { job, outcome }): Json<Finish>) -> StatusCode {
    found(shared.lock().finish(&job, outcome, now_ms()))
}

/// Holds for jobs under way, too.
async fn set_durations(State(shared): State<Shared>, Json(durations): Json<Durations>) -> StatusCode {
    shared.lock().durations = durations;
    StatusCode::NO_CONTENT
}

async fn hold(State(shared): State<Shared>, Json(Name { name }): Json<Name>) -> StatusCode {
    shared.lock().hold(&name);
    StatusCode::NO_CONTENT
}

async fn release(State(shared): State<Shared>, Json(Name { name }): Json<Name>) -> StatusCode {
    shared.lock().release(&name, now_ms());
    StatusCode::NO_CONTENT
}

async fn put_dataset(State(shared): State<Shared>, Json(dataset): Json<Dataset>) -> impl IntoResponse {
    match shared.lock().add_dataset(&dataset, now_ms()) {
        Ok(()) => (StatusCode::CREATED, Json(json!({}))),
        Err(message) => (StatusCode::BAD_REQUEST, Json(json!({"message": message}))),
    }
}

async fn dataset_status(State(shared): State<Shared>, Json(asked): Json<DatasetStatus>) -> StatusCode {
    found(shared.lock().set_dataset_status(&asked.arn, &asked.status, now_ms()))
}

async fn add_session(State(shared): State<Shared>, Json(answer): Json<StsAnswer>) -> impl IntoResponse {
    match sessions::register(&mut shared.lock(), answer) {
        Ok(account) => (StatusCode::CREATED, Json(json!({"account": account}))),
        Err(message) => (StatusCode::BAD_REQUEST, Json(json!({"message": message}))),
    }
}

async fn sts(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match &shared.sts {
        Some(sts) => sessions::relay(&shared, sts, headers, body).await,
        None => {
            sessions::plain(StatusCode::NOT_FOUND, "there is no STS behind this: start with --sts URL\n".to_owned())
        }
    }
}

async fn ledger(State(shared): State<Shared>) -> Json<Value> {
    // Taken over with the lock, written out without it.
    let entries: Vec<Entry> = shared.lock().ledger.latest().cloned().collect();
    Json(json!(entries))
}

fn found(found: bool) -> StatusCode {
    if found { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}
