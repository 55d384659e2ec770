//! What the tenants that misbehave do, and what happens to them.

use super::{FAILING_REGION, FLOOD, SHARED_REGION, Soak};
use crate::env::proxy::Fault;
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

impl Soak {
    /// For a while, the API server fails status writes in one namespace.
    pub(super) fn deny_status_writes(&mut self) -> &'static str {
        let status = |code: u16, message: &str, seconds: u32| {
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
                   "details": {"retryAfterSeconds": seconds}})
            .to_string()
        };
        let failed = "Internal error occurred: failed calling webhook \"slow\": context deadline exceeded";
        let fault = self.rng.pick(&[
            Fault::HangRequest,
            Fault::HangRequest,
            Fault::Delay(Duration::from_secs(2)),
            Fault::Respond(500, Vec::new(), status(500, failed, 0)),
            Fault::Respond(403, Vec::new(), status(403, "admission webhook \"no\" denied the request: no", 0)),
            Fault::Respond(429, Vec::new(), status(429, "admission webhook \"busy\" denied the request: later", 5)),
        ]);
        *self.denial.lock().unwrap() = Some((format!("/namespaces/{}/", self.denied), fault));
        self.denied_until = Some(Instant::now() + self.rng.millis(5_000, 90_000));
        "denials"
    }

    /// Calls to one region fail for a while.
    pub(super) fn fail_region(&mut self) -> &'static str {
        let error = |code: &str, status: u16| json!({"error": {"code": code, "message": "injected", "status": status}});
        let action = self.rng.pick(&[
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceBeforeHeaders": {"effect": false}}),
            json!({"silenceAfterHeaders": {"effect": false}}),
            error("ThrottlingException", 400),
            error("ExpiredTokenException", 403),
            error("AccessDeniedException", 400),
            error("InternalServerException", 500),
            json!("resetBefore"),
        ]);
        let count = 10 + self.rng.below(100);
        let fault = json!({"name": format!(":{FAILING_REGION}:"), "count": count, "action": action});
        self.env.service.inject_fault(&fault);
        "region faults"
    }

    pub(super) fn flood(&mut self) -> &'static str {
        let region = self.rng.pick(&[SHARED_REGION, FAILING_REGION, FAILING_REGION]);
        let name = format!("flood-{}", self.taken);
        let manifest = |i: usize| Self::manifest_in(&format!("{name}-{i}"), region, 20 + i % 10);
        self.create_in(&self.noisy, (0..FLOOD).map(manifest).collect());
        "floods"
    }

    pub(super) fn end_flood(&mut self) -> &'static str {
        self.remove_all(&self.noisy);
        "ends of floods"
    }

    /// Creates a resource that is huge, or that can't be imported.
    pub(super) fn misbehave(&mut self) -> &'static str {
        let name = format!("odd-{}", self.taken);
        let mut manifest = Self::manifest_in(&name, SHARED_REGION, 20 + self.rng.below(10));
        let (key, value) = self.rng.pick(&[
            ("/metadata/annotations", json!({"huge": "x".repeat(200_000)})),
            ("/spec/dataSource/dataLocation", json!("s3://locked/interactions.csv")),
            ("/spec/dataSource/dataLocation", json!("s3://bucket/missing.csv")),
            ("/spec/datasetArn", json!("nonsense")),
            ("/spec/datasetArn", json!("arn:aws:personalize:us-east-1:210987654321:dataset/shop/d1")),
            ("/spec/roleArn", json!("arn:aws:iam::210987654321:role/Reader")),
        ]);
        manifest["metadata"]["annotations"] = json!({});
        *manifest.pointer_mut(key).unwrap() = value;
        self.create_in(&self.noisy, vec![manifest]);
        "odd resources"
    }

    /// Opens connections to the replicas' listeners, sends half of a request, and leaves them open until next time.
    pub(super) fn send_half_requests(&mut self) -> &'static str {
        self.half_sent.clear();
        let urls = self.replicas.iter().filter_map(|replica| replica.operator.as_ref().map(|o| o.url.clone()));
        for address in urls.filter_map(|url| url.strip_prefix("http://").map(str::to_owned)) {
            for _ in 0..40 {
                let Ok(mut stream) = TcpStream::connect(&address) else { break };
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nX-Half: ");
                self.half_sent.push(stream);
            }
        }
        "half-sent requests"
    }

    /// For a while, users are deleted from a dataset group.
    pub(super) fn delete_data(&mut self) -> &'static str {
        if self.deletion.is_none() {
            let name = format!("deletion-{}", self.taken);
            self.env.service.start_data_deletion(&name, "shop");
            self.deletion = Some((name, Instant::now() + self.rng.millis(500, 8_000)));
        }
        "data deletions"
    }
}
