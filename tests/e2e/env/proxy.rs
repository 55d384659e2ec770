//! A proxy between the operator and the two services that it calls. A test decides what happens to each call.

use crate::invariants::Disturbance;
use futures::{SinkExt, StreamExt, TryStreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type ProxyResponse = Response<BoxBody<Bytes, BoxError>>;

/// One call of the operator.
#[derive(Debug, Clone)]
pub struct Call {
    /// The Kubernetes verb and resource, or the operation of the service: `PUT datasetimportjobs/status`,
    /// `WATCH datasetimportjobs`, `CreateDatasetImportJob`.
    pub label: String,
    /// The number of this call among those with the same label, from 1.
    pub nth: usize,
    /// Path and query.
    pub path: String,
    pub body: String,
}

impl Call {
    /// Whether the call goes to the API server, not to the service.
    pub fn is_kubernetes(&self) -> bool {
        self.label.contains(' ')
    }

    /// The namespace, if the call is about one and not about the Lease.
    fn namespace(&self) -> Option<&str> {
        let (_, rest) = self.path.split_once("/namespaces/").filter(|_| !self.label.ends_with("leases"))?;
        rest.split(['/', '?']).next()
    }

    /// Account and region of the first ARN of the service in the call.
    fn pool(&self) -> Option<(String, String)> {
        let (_, arn) = self.body.split_once("arn:aws:personalize:").filter(|_| !self.is_kubernetes())?;
        let mut parts = arn.split(':').map(str::to_owned);
        let region = parts.next()?;
        Some((parts.next()?, region))
    }
}

/// What happens to a call. A call that is forwarded arrives, even if the operator has given up by then.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The call is forwarded as it is.
    None,
    /// The call is forwarded after a delay.
    Delay(Duration),
    /// The call is forwarded when the test releases it.
    HoldUntil(watch::Receiver<bool>),
    /// The call is forwarded. Each part of the response is delayed.
    SlowResponse(Duration),
    /// The call is not forwarded. The proxy responds with status, headers and body.
    Respond(u16, Vec<(&'static str, String)>, String),
    /// The call is forwarded, but the proxy replaces the response.
    ForwardThenRespond(u16, Vec<(&'static str, String)>, String),
    /// The connection closes before the call is forwarded.
    DropRequest,
    /// The call is forwarded. The connection closes before the response.
    DropResponse,
    /// Half of the request is forwarded, then the operator is killed.
    KillMidRequest,
    /// The call is not forwarded, and no response ever comes.
    HangRequest,
    /// The call is forwarded, and no response ever comes.
    HangResponse,
    /// The call is forwarded. The response stops after its headers.
    HangBody,
    /// The operator is killed before the call is forwarded.
    KillBefore,
    /// The call is forwarded, and the operator is killed before it gets the response.
    KillAfter,
}

type Injector = Box<dyn FnMut(&Call) -> Fault + Send>;

struct State {
    injector: Mutex<Injector>,
    counts: Mutex<HashMap<String, usize>>,
    calls: Mutex<Vec<Call>>,
    operator: AtomicU32,
    service: String,
    disturbances: Arc<Mutex<Vec<Disturbance>>>,
}

/// A running proxy. It stops when the test ends.
pub struct Proxy {
    state: Arc<State>,
    pub kubeconfig: PathBuf,
    pub service_url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Starts it in front of an API server and a service. Writes a kubeconfig for the operator to `dir`, and notes each
    /// fault in `disturbances`.
    pub fn start(dir: &Path, kubeconfig: &Path, service_url: &str, disturbances: Arc<Mutex<Vec<Disturbance>>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let state = Arc::new(State {
            injector: Mutex::new(Box::new(|_| Fault::None)),
            counts: Mutex::default(),
            calls: Mutex::default(),
            operator: AtomicU32::new(0),
            service: service_url.trim_start_matches("http://").to_owned(),
            disturbances,
        });
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let (kubernetes, personalize) = runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
            config.default_retry = false;
            config.read_timeout = None;
            let mut service = Config::new(service_url.parse().unwrap());
            service.default_retry = false;
            service.read_timeout = None;
            let kubernetes = listen(Arc::clone(&state), Client::try_from(config).unwrap(), true).await;
            let personalize = listen(Arc::clone(&state), Client::try_from(service).unwrap(), false).await;
            (kubernetes, personalize)
        });
        let path = dir.join("proxy.kubeconfig");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": kubernetes}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(&path, config.to_string()).unwrap();
        Self { state, kubeconfig: path, service_url: personalize, _runtime: runtime }
    }

    /// Sets the function that decides the fault of each call from now on.
    pub fn inject(&self, injector: impl FnMut(&Call) -> Fault + Send + 'static) {
        *self.state.injector.lock().unwrap() = Box::new(injector);
    }

    /// Injects a fault into the first call that matches.
    pub fn inject_once(&self, fault: Fault, matches: impl Fn(&Call) -> bool + Send + 'static) {
        self.inject_times(1, fault, matches);
    }

    /// Injects a fault into the first `count` calls that match.
    pub fn inject_times(&self, count: usize, fault: Fault, matches: impl Fn(&Call) -> bool + Send + 'static) {
        let mut left = count;
        self.inject(move |call| {
            if left > 0 && matches(call) {
                left -= 1;
                return fault.clone();
            }
            Fault::None
        });
    }

    /// Stops injecting faults.
    pub fn clear(&self) {
        self.inject(|_| Fault::None);
    }

    /// Sets which process the kill faults kill.
    pub fn set_operator(&self, pid: u32) {
        self.state.operator.store(pid, Ordering::SeqCst);
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// How many calls with this label there were.
    pub fn count(&self, label: &str) -> usize {
        self.state.counts.lock().unwrap().get(label).copied().unwrap_or(0)
    }
}

async fn listen(state: Arc<State>, upstream: Client, kubernetes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (state, upstream) = (Arc::clone(&state), upstream.clone());
            tokio::spawn(async move {
                let serve = service_fn(|request| forward(Arc::clone(&state), upstream.clone(), kubernetes, request));
                // Faults close connections on purpose.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
            });
        }
    });
    url
}

/// Handles a call in a task of its own, so that it continues when the operator closes the connection.
async fn forward(
    state: Arc<State>,
    upstream: Client,
    kubernetes: bool,
    request: Request<Incoming>,
) -> Result<ProxyResponse, BoxError> {
    tokio::spawn(async move { handle(&state, &upstream, kubernetes, request).await }).await?
}

async fn handle(
    state: &State,
    upstream: &Client,
    kubernetes: bool,
    request: Request<Incoming>,
) -> Result<ProxyResponse, BoxError> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let label = if kubernetes {
        kubernetes_label(head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default())
    } else {
        let target = head.headers.get("x-amz-target").and_then(|t| t.to_str().ok()).unwrap_or_default();
        target.rsplit('.').next().unwrap_or_default().to_owned()
    };
    let nth = {
        let mut counts = state.counts.lock().unwrap();
        let count = counts.entry(label.clone()).or_default();
        *count += 1;
        *count
    };
    let path = head.uri.to_string();
    let call = Call { label, nth, path, body: String::from_utf8_lossy(&body).into_owned() };
    let fault = (state.injector.lock().unwrap())(&call);
    state.disturbances.lock().unwrap().extend(disturbance(&call, &fault));
    state.calls.lock().unwrap().push(call);
    if kubernetes {
        head.headers.remove("host");
    }
    match &fault {
        Fault::Respond(status, headers, body) => return respond(*status, headers, body),
        Fault::DropRequest => return Err("injected: request dropped".into()),
        Fault::KillMidRequest => {
            send_half(&state.service, &head, &body)?;
            kill_operator(state);
            return Err("injected: killed mid-request".into());
        }
        Fault::HangRequest => return std::future::pending().await,
        Fault::KillBefore => {
            kill_operator(state);
            return Err("injected: killed before the request".into());
        }
        Fault::Delay(delay) => tokio::time::sleep(*delay).await,
        Fault::HoldUntil(released) => drop(released.clone().wait_for(|released| *released).await),
        Fault::ForwardThenRespond(..)
        | Fault::None
        | Fault::DropResponse
        | Fault::HangResponse
        | Fault::HangBody
        | Fault::SlowResponse(_)
        | Fault::KillAfter => {}
    }
    let is_watch = head.uri.query().is_some_and(|q| q.contains("watch=true"));
    let request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
    let response = upstream.send(request).await;
    if let (Fault::KillAfter, Err(_)) = (&fault, &response) {
        // The request may or may not have taken effect. The operator is killed in both cases.
        kill_operator(state);
    }
    let (head, body) = response?.into_parts();
    let body: BoxBody<Bytes, BoxError> = match fault {
        Fault::ForwardThenRespond(status, headers, text) => {
            body.collect().await?;
            return respond(status, &headers, &text);
        }
        Fault::DropResponse | Fault::HangResponse | Fault::KillAfter => {
            if !is_watch {
                body.collect().await?;
            }
            match fault {
                Fault::HangResponse => return std::future::pending().await,
                Fault::KillAfter => kill_operator(state),
                _ => {}
            }
            return Err("injected: response dropped".into());
        }
        Fault::HangBody => BodyExt::boxed(StreamBody::new(futures::stream::pending::<Result<_, BoxError>>())),
        Fault::SlowResponse(delay) => {
            let parts = BodyStream::new(body).then(move |part| async move {
                tokio::time::sleep(delay).await;
                part.map_err(BoxError::from)
            });
            boxed(parts)
        }
        _ => boxed(TryStreamExt::map_err(BodyStream::new(body), BoxError::from)),
    };
    Ok(Response::from_parts(head, body))
}

/// What a fault means for the operator. How long it lasts follows from its answer; a call that hangs ends with a timeout.
fn disturbance(call: &Call, fault: &Fault) -> Option<Disturbance> {
    let headers = match fault {
        Fault::None => return None,
        Fault::Respond(_, headers, _) | Fault::ForwardThenRespond(_, headers, _) => headers.as_slice(),
        _ => &[],
    };
    let asked = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    let seconds = asked.and_then(|(_, value)| value.parse::<i64>().ok()).unwrap_or(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis().try_into().ok()?;
    let namespace = call.namespace().filter(|_| seconds == 0).map(str::to_owned);
    Some(Disturbance { begin: now, end: now + seconds.min(120) * 1000, namespace, pool: call.pool() })
}

fn respond(status: u16, headers: &[(&'static str, String)], body: &str) -> Result<ProxyResponse, BoxError> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_owned())).map_err(BoxError::from).boxed());
    *response.status_mut() = StatusCode::from_u16(status)?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse()?);
    }
    Ok(response)
}

/// A body of these parts. It uses a channel, because the stream of an upstream body is not `Sync`.
fn boxed(
    parts: impl futures::Stream<Item = Result<hyper::body::Frame<Bytes>, BoxError>> + Send + 'static,
) -> BoxBody<Bytes, BoxError> {
    let (mut sender, receiver) = futures::channel::mpsc::channel(16);
    tokio::spawn(async move {
        let mut parts = std::pin::pin!(parts);
        while let Some(part) = parts.next().await {
            if sender.send(part).await.is_err() {
                return;
            }
        }
    });
    BodyExt::boxed(StreamBody::new(receiver))
}

fn kill_operator(state: &State) {
    let pid = state.operator.load(Ordering::SeqCst);
    assert_ne!(pid, 0, "set_operator must be called before a kill fault");
    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// Sends the head and half of the body to the service.
fn send_half(service: &str, head: &Parts, body: &[u8]) -> std::io::Result<()> {
    let mut stream = std::net::TcpStream::connect(service)?;
    write!(stream, "{} {} HTTP/1.1\r\n", head.method, head.uri.path())?;
    for (name, value) in &head.headers {
        stream.write_all(format!("{name}: ").as_bytes())?;
        stream.write_all(value.as_bytes())?;
        stream.write_all(b"\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&body[..body.len() / 2])?;
    stream.flush()
}

/// The label of a Kubernetes call, such as `PUT datasetimportjobs/status`.
fn kubernetes_label(method: &str, path: &str, query: &str) -> String {
    let mut parts = path.trim_matches('/').split('/').peekable();
    let skip = if parts.peek() == Some(&"api") { 2 } else { 3 };
    let rest: Vec<&str> = parts.skip(skip).collect();
    let rest = if rest.first() == Some(&"namespaces") && rest.len() > 2 { &rest[2..] } else { &rest[..] };
    let resource = rest.first().copied().unwrap_or_default();
    let verb = match (method, rest.len()) {
        ("GET", 1) if query.contains("watch=true") => "WATCH",
        ("GET", 1) => "LIST",
        _ => method,
    };
    match rest.get(2) {
        Some(sub) => format!("{verb} {resource}/{sub}"),
        None => format!("{verb} {resource}"),
    }
}
