//! An API server for tests, in memory.

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A client of an API server with this object, or none if it is null, and the list of requests, such as `PUT /apis/…`.
pub(super) fn fake_api_server(object: Value) -> (Client, Arc<Mutex<Vec<String>>>) {
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let (object, recorded) = (Arc::new(Mutex::new(object)), Arc::clone(&requests));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (object, recorded) = (Arc::clone(&object), Arc::clone(&recorded));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            recorded.lock().unwrap().push(format!("{} {}", head.method, head.uri.path()));
            let mut object = object.lock().unwrap();
            let answer = match (head.method.as_str(), head.uri.path()) {
                ("GET", "/api/v1/namespaces/shop") => {
                    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "shop"}})
                }
                ("PUT", _) => {
                    *object = serde_json::from_slice(&body).unwrap();
                    let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                    object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
                    object.clone()
                }
                ("GET", _) if object.is_null() => {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
                }
                ("GET", _) => object.clone(),
                ("DELETE", _) => object.take(),
                _ => serde_json::from_slice(&body).unwrap(),
            };
            let mut response = http::Response::new(Body::from(answer.to_string().into_bytes()));
            if answer["code"] == 404 {
                *response.status_mut() = http::StatusCode::NOT_FOUND;
            }
            Ok::<_, kube::Error>(response)
        }
    });
    (Client::new(service, "shop"), requests)
}
