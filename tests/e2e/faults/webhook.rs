//! Admission that says no to a status write.

use super::{CREATE, made_once, nightly};
use crate::env::{Bed, block_on, eventually, text};
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

/// Serves a webhook that says no to everything, and counts how often it was asked. Tells its URL and
/// the authority that vouches for it.
fn denying(bed: &Bed, asked: &Arc<AtomicUsize>) -> (String, String) {
    let path = bed.dir().join("webhook.kubeconfig");
    bed.plane.kubeconfig_for("webhook", &[], &path).unwrap();
    let config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let file = |value: &Value| fs::read(value.as_str().unwrap()).unwrap();
    let authority = file(&config["clusters"][0]["cluster"]["certificate-authority"]);
    let user = &config["users"][0]["user"];
    let certificate = CertificateDer::from_pem_slice(&file(&user["client-certificate"])).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&file(&user["client-key"])).unwrap();
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let asked = Arc::clone(asked);
    let url = block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let serve = service_fn(|request| deny(request, &asked));
                    // The API server closes the connection when it likes.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
        url
    });
    (url, BASE64_STANDARD.encode(authority))
}

async fn deny(request: Request<Incoming>, asked: &AtomicUsize) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let review: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes()).unwrap();
    asked.fetch_add(1, Ordering::SeqCst);
    let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": {"code": 403, "message": "no status today"}});
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
}

fn apply(plane: &ControlPlane, manifest: &Value) {
    let applied = plane.kubectl(&["apply", "-f", "-"], Some(&manifest.to_string())).unwrap();
    assert!(applied.status.success(), "{}", text(&applied));
}

/// Waits until status writes are refused, by a probe that the operator has never seen.
fn in_force(bed: &Bed) {
    bed.import("probe", "d9", json!({"suspend": true}));
    let patch =
        ["patch", "dij", "probe", "--subresource=status", "--type=merge", "-p", "{\"status\":{\"attempts\":0}}"];
    eventually("status writes are refused", || (!bed.kubectl(&patch).status.success()).then_some(()));
    bed.delete("probe");
}

/// The operator meets the refusal, sends nothing, and makes the import once it is lifted.
fn refused_and_made_later(bed: &Bed, refusal: &str, lift: impl Fn()) {
    in_force(bed);
    let operator = bed.operator(&[]);
    nightly(bed);
    eventually("the log tells", || operator.log().contains(refusal).then_some(()));
    assert_eq!(bed.service.calls(CREATE), 0, "what can't be recorded is not begun");
    lift();
    made_once(bed);
}

fn delete(plane: &ControlPlane, kind: &str, name: &str) {
    assert!(plane.kubectl(&["delete", kind, name], None).unwrap().status.success());
}

fn webhook(name: &str, namespace: &str, url: &str, authority: &str) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{"name": "status.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail", "timeoutSeconds": 2, "clientConfig": {"url": url, "caBundle": authority},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": ["personalize-operator.io"], "apiVersions": ["*"], "operations": ["UPDATE"],
                "resources": ["datasetimportjobs/status"], "scope": "Namespaced"}]}]})
}

#[test]
fn fault_29_a_webhook_rejects_the_status_write() {
    let bed = Bed::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let (url, authority) = denying(&bed, &asked);
    let name = format!("no-{}", bed.namespace);
    apply(bed.plane, &webhook(&name, &bed.namespace, &url, &authority));
    refused_and_made_later(&bed, "no status today", || delete(bed.plane, "validatingwebhookconfiguration", &name));
    assert!(asked.load(Ordering::SeqCst) >= 2, "the probe and the operator were refused by the webhook");
}

#[test]
fn fault_29_a_webhook_that_is_away_fails_the_status_write() {
    let bed = Bed::new();
    let (_, authority) = denying(&bed, &Arc::default());
    let name = format!("away-{}", bed.namespace);
    apply(bed.plane, &webhook(&name, &bed.namespace, "https://127.0.0.1:1/", &authority));
    let lift = || delete(bed.plane, "validatingwebhookconfiguration", &name);
    refused_and_made_later(&bed, "failed calling webhook", lift);
}

#[test]
fn fault_29_an_admission_policy_rejects_the_status_write() {
    let bed = Bed::new();
    let name = format!("no-{}", bed.namespace);
    let policy = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
         "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["personalize-operator.io"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["datasetimportjobs/status"]}]},
            "validations": [{"expression": "false", "message": "no status today"}]}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
         "spec": {"policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bed.namespace}}}}}]});
    apply(bed.plane, &policy);
    refused_and_made_later(&bed, "no status today", || {
        delete(bed.plane, "validatingadmissionpolicybinding", &name);
        delete(bed.plane, "validatingadmissionpolicy", &name);
    });
}
