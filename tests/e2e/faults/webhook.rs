//! Admission that rejects status writes.

use super::{CREATE, assert_imported_once, import_nightly};
use crate::env::{TestEnv, block_on, eventually, text};
use base64::prelude::{BASE64_STANDARD, Engine};
use control_plane::ControlPlane;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Serves a webhook that rejects everything with this status, or never answers if it is null, and counts its calls.
/// Returns its URL and the CA of its certificate.
fn serve_rejecting_webhook(env: &TestEnv, status: Value, calls: &Arc<AtomicUsize>) -> (String, String) {
    let path = env.dir().join("webhook.kubeconfig");
    env.control_plane.kubeconfig_for("webhook", &[], &path).unwrap();
    let config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let file = |value: &Value| fs::read(value.as_str().unwrap()).unwrap();
    let ca = file(&config["clusters"][0]["cluster"]["certificate-authority"]);
    let user = &config["users"][0]["user"];
    let certificate = CertificateDer::from_pem_slice(&file(&user["client-certificate"])).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&file(&user["client-key"])).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let calls = Arc::clone(calls);
    let url = block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, status, calls) = (acceptor.clone(), status.clone(), Arc::clone(&calls));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let serve = service_fn(|request| reject(request, &status, &calls));
                    // The API server may close the connection.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        url
    });
    (url, BASE64_STANDARD.encode(ca))
}

fn denial() -> Value {
    json!({"code": 403, "message": "no status today"})
}

async fn reject(
    request: Request<Incoming>,
    status: &Value,
    calls: &AtomicUsize,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes()).unwrap();
    calls.fetch_add(1, Ordering::SeqCst);
    // kubectl itself waits for as long as Retry-After says.
    let is_probe = review["request"]["name"] == "probe";
    let status = if is_probe { denial() } else { status.clone() };
    if status.is_null() {
        std::future::pending::<()>().await;
    }
    let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": status});
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(Bytes::from(review.to_string()))))
}

fn apply(control_plane: &ControlPlane, manifest: &Value) {
    let applied = control_plane.kubectl(&["apply", "-f", "-"], Some(&manifest.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

/// Waits until status writes are rejected, with a resource that the operator never sees.
fn wait_until_rejecting(env: &TestEnv) {
    env.import("probe", "d9", json!({"suspend": true}));
    let patch =
        ["patch", "dij", "probe", "--subresource=status", "--type=merge", "-p", "{\"status\":{\"attempts\":0}}"];
    eventually("status writes are rejected", || (!env.kubectl(&patch).status.success()).then_some(()));
    env.delete("probe");
}

/// The operator creates nothing while its status writes are rejected, and makes the import afterwards.
fn assert_imported_after_rejection(env: &TestEnv, message: &str, stop_rejecting: impl Fn()) {
    wait_until_rejecting(env);
    let operator = env.start_operator(&[]);
    import_nightly(env);
    eventually("the log contains the message", || operator.log().contains(message).then_some(()));
    assert_eq!(env.service.call_count(CREATE), 0, "without a recorded intent there is no create");
    stop_rejecting();
    assert_imported_once(env);
}

fn delete(control_plane: &ControlPlane, kind: &str, name: &str) {
    assert!(control_plane.kubectl(&["delete", kind, name], None).unwrap().status.success());
}

fn webhook(name: &str, namespace: &str, url: &str, ca: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{"name": "status.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "timeoutSeconds": 2, "clientConfig": {"url": url, "caBundle": ca},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": ["personalize-operator.io"], "apiVersions": ["*"], "operations": ["UPDATE"],
                "resources": ["datasetimportjobs/status"], "scope": "Namespaced"}]}]})
}

/// The same webhook, for this resource and the probe only.
fn webhook_for(resource: &str, configuration: &Value) -> Value {
    let mut configuration = configuration.clone();
    let expression = format!("request.name in ['probe', '{resource}']");
    configuration["webhooks"][0]["matchConditions"] = json!([{"name": "some", "expression": expression}]);
    configuration
}

#[test]
fn fault_29_status_write_rejected_by_a_webhook_prevents_the_create() {
    let env = TestEnv::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let (url, ca) = serve_rejecting_webhook(&env, denial(), &calls);
    let name = format!("no-{}", env.namespace);
    apply(env.control_plane, &webhook(&name, &env.namespace, &url, &ca));
    assert_imported_after_rejection(&env, "no status today", || {
        delete(env.control_plane, "validatingwebhookconfiguration", &name)
    });
    assert!(calls.load(Ordering::SeqCst) >= 2, "the webhook rejected the test and the operator");
}

#[test]
fn fault_29_status_write_without_its_webhook_prevents_the_create() {
    let env = TestEnv::new();
    let (_, ca) = serve_rejecting_webhook(&env, denial(), &Arc::default());
    let name = format!("unreachable-{}", env.namespace);
    apply(env.control_plane, &webhook(&name, &env.namespace, "https://127.0.0.1:1/", &ca));
    let stop_rejecting = || delete(env.control_plane, "validatingwebhookconfiguration", &name);
    assert_imported_after_rejection(&env, "failed calling webhook", stop_rejecting);
}

#[test]
fn fault_80_failing_webhook_for_one_resource_does_not_hold_up_the_others() {
    let env = TestEnv::new();
    let (_, ca) = serve_rejecting_webhook(&env, denial(), &Arc::default());
    let name = format!("failing-{}", env.namespace);
    apply(env.control_plane, &webhook_for("blocked", &webhook(&name, &env.namespace, "https://127.0.0.1:1/", &ca)));
    wait_until_rejecting(&env);
    env.import("blocked", "d1", json!({}));
    let operator = env.start_operator(&["--max-in-flight=1", "--backoff-min=1s"]);
    eventually("a write fails", || operator.log().contains("failed calling webhook").then_some(()));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    delete(env.control_plane, "validatingwebhookconfiguration", &name);
    env.wait_for_reason("blocked", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_82_webhook_that_asks_to_retry_later_delays_only_its_own_resource() {
    let env = TestEnv::new();
    let later =
        json!({"code": 429, "reason": "TooManyRequests", "message": "later", "details": {"retryAfterSeconds": 3600}});
    let calls = Arc::new(AtomicUsize::new(0));
    let (url, ca) = serve_rejecting_webhook(&env, later, &calls);
    let name = format!("later-{}", env.namespace);
    apply(env.control_plane, &webhook_for("delayed", &webhook(&name, &env.namespace, &url, &ca)));
    wait_until_rejecting(&env);
    env.import("delayed", "d1", json!({}));
    let operator = env.start_operator(&["--max-in-flight=1"]);
    eventually("the webhook denies a write", || operator.log().contains("later").then_some(()));
    let denied = calls.load(Ordering::SeqCst);
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(calls.load(Ordering::SeqCst), denied, "the denied write is not repeated so soon");
    assert_eq!(env.accepted_count(), 1);
    delete(env.control_plane, "validatingwebhookconfiguration", &name);
    env.check_invariants();
}

#[test]
fn fault_99_webhook_that_hangs_for_one_resource_does_not_keep_the_quota() {
    let env = TestEnv::new();
    let (url, ca) = serve_rejecting_webhook(&env, Value::Null, &Arc::default());
    let name = format!("hanging-{}", env.namespace);
    let mut hanging = webhook_for("blocked", &webhook(&name, &env.namespace, &url, &ca));
    // The operator gives up before the API server does, so it gets no answer.
    hanging["webhooks"][0]["timeoutSeconds"] = json!(30);
    apply(env.control_plane, &hanging);
    wait_until_rejecting(&env);
    env.import("blocked", "d1", json!({}));
    let operator = env.start_operator(&[
        "--max-in-flight=1",
        "--backoff-min=1h",
        "--backoff-max=1h",
        "--kube-timeout=15s",
        "--grace=60s",
    ]);
    eventually("a write gets no answer", || operator.log().contains("did not answer in time").then_some(()));
    import_nightly(&env);
    env.wait_for_reason("nightly", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 1);
    delete(env.control_plane, "validatingwebhookconfiguration", &name);
    operator.kill();
    let _operator = env.start_operator(&[]);
    env.wait_for_reason("blocked", "ImportSucceeded");
    assert_eq!(env.accepted_count(), 2);
    env.check_invariants_settled();
}

#[test]
fn fault_29_status_write_rejected_by_a_policy_prevents_the_create() {
    let env = TestEnv::new();
    let name = format!("no-{}", env.namespace);
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
         "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["personalize-operator.io"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["datasetimportjobs/status"]}]},
            "validations": [{"expression": "false", "message": "no status today"}]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
         "spec": {"policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}}}}}]});
    apply(env.control_plane, &policy);
    assert_imported_after_rejection(&env, "no status today", || {
        delete(env.control_plane, "validatingadmissionpolicybinding", &name);
        delete(env.control_plane, "validatingadmissionpolicy", &name);
    });
}
