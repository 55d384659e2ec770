//! A proxy between the operator and the two services that it calls. A test decides over each call.

use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt, TryStreamExt};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<BoxBody<Bytes, Failed>>;

/// One call of the operator.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is done to what: `PUT datasetimportjobs/status`, `WATCH datasetimportjobs`,
    /// `CreateDatasetImportJob`.
    pub label: String,
    /// Which call of that label it is, from 1.
    pub nth: usize,
    /// Path and query.
    pub path: String,
    pub body: String,
}

/// What becomes of a call.
#[derive(Debug, Clone)]
pub enum Fate {
    /// It passes.
    Pass,
    /// It passes after a while.
    Delay(Duration),
    /// It arrives after a while, even if nobody waits for the answer any more.
    Late(Duration),
    /// It is on its way until the test lets it arrive, even if nobody waits for the answer any more.
    Hold(watch::Receiver<bool>),
    /// It passes, and so does each part of the answer, late.
    Trickle(Duration),
    /// It does not arrive; this is answered.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// It arrives, and this is answered all the same.
    AnswerAfter(u16, Vec<(&'static str, String)>, String),
    /// It does not arrive, and the connection breaks.
    Break,
    /// It arrives, and the connection breaks before the answer.
    Lose,
    /// Half of it arrives, and the connection breaks.
    Half,
    /// It does not arrive, and nothing ever answers.
    Silence,
    /// It arrives, and nothing ever answers.
    Forget,
    /// It arrives, the answer begins, and nothing follows.
    Freeze,
    /// The operator is killed before it arrives.
    KillBefore,
    /// It arrives and is answered, and the operator is killed before it hears of that.
    KillAfter,
}

type Rule = Box<dyn FnMut(&Call) -> Fate + Send>;

struct State {
    rule: Mutex<Rule>,
    counts: Mutex<HashMap<String, usize>>,
    calls: Mutex<Vec<Call>>,
    victim: AtomicU32,
    service: String,
}

/// A running proxy. It ends with the test.
pub struct Proxy {
    state: Arc<State>,
    pub kubeconfig: PathBuf,
    pub service_url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Starts it before an API server and a service; its files go to `dir`.
    pub fn start(dir: &Path, kubeconfig: &Path, service_url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let state = Arc::new(State {
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            counts: Mutex::default(),
            calls: Mutex::default(),
            victim: AtomicU32::new(0),
            service: service_url.trim_start_matches("http://").to_owned(),
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

    /// From now on this decides over each call.
    pub fn rule(&self, rule: impl FnMut(&Call) -> Fate + Send + 'static) {
        *self.state.rule.lock().unwrap() = Box::new(rule);
    }

    /// Everything passes again.
    pub fn pass(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// Whom to kill.
    pub fn victim(&self, pid: u32) {
        self.state.victim.store(pid, Ordering::SeqCst);
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap().clone()
    }

    /// How many calls of this label there were.
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
                let serve = service_fn(|request| handle(&state, &upstream, kubernetes, request));
                // A connection that breaks is what a test asked for.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
            });
        }
    });
    url
}

async fn handle(
    state: &State,
    upstream: &Client,
    kubernetes: bool,
    request: Request<Incoming>,
) -> Result<Answer, Failed> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let label = if kubernetes {
        label(head.method.as_str(), head.uri.path(), head.uri.query().unwrap_or_default())
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
    let fate = (state.rule.lock().unwrap())(&call);
    state.calls.lock().unwrap().push(call);
    if kubernetes {
        head.headers.remove("host");
    }
    let mut late = None;
    let mut way: Option<BoxFuture<'static, ()>> = None;
    match &fate {
        Fate::Answer(status, headers, body) => return answered(*status, headers, body),
        Fate::Break => return Err("broken as ordered".into()),
        Fate::Half => {
            half(&state.service, &head, &body)?;
            kill(state);
            return Err("broken half-way as ordered".into());
        }
        Fate::Silence => return std::future::pending().await,
        Fate::KillBefore => {
            kill(state);
            return Err("killed before".into());
        }
        Fate::Delay(time) => tokio::time::sleep(*time).await,
        Fate::Trickle(time) => late = Some(*time),
        Fate::Late(time) => way = Some(tokio::time::sleep(*time).boxed()),
        Fate::Hold(open) => {
            let mut open = open.clone();
            way = Some(async move { drop(open.wait_for(|open| *open).await) }.boxed());
        }
        Fate::AnswerAfter(..) | Fate::Pass | Fate::Lose | Fate::Forget | Fate::Freeze | Fate::KillAfter => {}
    }
    let watch = head.uri.query().is_some_and(|q| q.contains("watch=true"));
    let request = Request::from_parts(head, kube::client::Body::from(body.to_vec()));
    let answer = if let Some(way) = way {
        let upstream = upstream.clone();
        let arrival = async move {
            way.await;
            upstream.send(request).await
        };
        tokio::spawn(arrival).await?
    } else {
        upstream.send(request).await
    };
    if let (Fate::KillAfter, Err(_)) = (&fate, &answer) {
        // It may or may not have arrived; the operator dies all the same.
        kill(state);
    }
    let answer = answer?;
    let (head, body) = answer.into_parts();
    let body: BoxBody<Bytes, Failed> = match fate {
        Fate::AnswerAfter(status, headers, text) => {
            body.collect().await?;
            return answered(status, &headers, &text);
        }
        Fate::Lose | Fate::Forget | Fate::KillAfter => {
            if !watch {
                body.collect().await?;
            }
            match fate {
                Fate::Forget => return std::future::pending().await,
                Fate::KillAfter => kill(state),
                _ => {}
            }
            return Err("broken after the effect, as ordered".into());
        }
        Fate::Freeze => BodyExt::boxed(StreamBody::new(futures::stream::pending::<Result<_, Failed>>())),
        _ if late.is_some() => {
            let pause = late.unwrap_or_default();
            let parts = BodyStream::new(body).then(move |part| async move {
                tokio::time::sleep(pause).await;
                part.map_err(Failed::from)
            });
            boxed(parts)
        }
        _ => boxed(TryStreamExt::map_err(BodyStream::new(body), Failed::from)),
    };
    Ok(Response::from_parts(head, body))
}

fn answered(status: u16, headers: &[(&'static str, String)], body: &str) -> Result<Answer, Failed> {
    let mut answer = Response::builder().status(status).header("content-type", "application/json");
    for (name, value) in headers {
        answer = answer.header(*name, value);
    }
    Ok(answer.body(Full::new(Bytes::from(body.to_owned())).map_err(Failed::from).boxed())?)
}

/// A body of these parts. The stream of an upstream body may not be shared between threads; a channel
/// may.
fn boxed(
    parts: impl futures::Stream<Item = Result<hyper::body::Frame<Bytes>, Failed>> + Send + 'static,
) -> BoxBody<Bytes, Failed> {
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

fn kill(state: &State) {
    let pid = state.victim.load(Ordering::SeqCst);
    assert_ne!(pid, 0, "whom to kill must be said first");
    let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
}

/// Sends the head and half of the body to the service.
fn half(service: &str, head: &Parts, body: &[u8]) -> std::io::Result<()> {
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

/// `PUT datasetimportjobs/status` and the like, from a path of the Kubernetes API.
fn label(method: &str, path: &str, query: &str) -> String {
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
