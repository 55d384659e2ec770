//! What the users of a well-behaved tenant do.

use super::{DATASETS, SHARED_REGION, Soak};
use crate::env::{TestEnv, block_on, dataset_arn};
use kube::api::{Patch, PatchParams};
use serde_json::json;

impl Soak {
    /// A tenant with own datasets imports once more.
    pub(super) fn import_as(&mut self, tenant: &'static str) -> &'static str {
        let (namespace, datasets, action) = match tenant {
            "healthy" => (self.healthy.clone(), 10..14, "healthy"),
            _ => (self.denied.clone(), 14..20, "denied"),
        };
        let dataset = datasets.start + self.rng.below(datasets.len());
        let name = format!("{tenant}-{}", self.taken);
        self.create_in(&namespace, vec![Self::manifest_in(&name, SHARED_REGION, dataset)]);
        action
    }

    pub(super) fn create_resource(&mut self) -> &'static str {
        let name = self.name();
        let dataset = format!("d{}", self.rng.below(DATASETS));
        let file = self.rng.pick(&["interactions", "interactions", "interactions", "few", "no-item"]);
        let mut spec = json!({
            "dataSource": {"dataLocation": format!("s3://bucket/{file}.csv")},
            "importMode": self.rng.pick(&["FULL", "INCREMENTAL"]),
            "backoffLimit": self.rng.below(3),
            "suspend": self.rng.one_in(10),
        });
        if self.rng.one_in(6) {
            spec["jobName"] = json!(format!("chosen-{name}-{}", self.rng.below(3)));
        }
        let manifest = TestEnv::manifest(&name, &dataset, spec);
        // Like tools that replace what they can't change.
        self.remove(&name);
        self.create(manifest.clone());
        self.manifests.insert(name, manifest);
        "created"
    }

    pub(super) fn recreate(&mut self) -> &'static str {
        let name = self.name();
        if let Some(manifest) = self.manifests.get(&name).cloned() {
            self.remove(&name);
            self.create(manifest);
        }
        "recreated"
    }

    pub(super) fn delete(&mut self) -> &'static str {
        let name = self.name();
        self.remove(&name);
        "deleted"
    }

    pub(super) fn edit(&mut self) -> &'static str {
        let name = self.name();
        let patch = match self.rng.below(4) {
            0 => json!({"spec": {"suspend": true}}),
            1 => json!({"spec": {"suspend": false}}),
            2 => json!({"spec": {"backoffLimit": self.rng.below(4)}}),
            _ => json!({"metadata": {"labels": {"edit": self.rng.below(1000).to_string()}}}),
        };
        self.patch(&name, patch);
        "edited"
    }

    pub(super) fn annotate(&mut self) -> &'static str {
        let name = self.name();
        let key = self.rng.pick(&["reconcile-requested-at", "retry-requested-at"]);
        let value = self.rng.below(1_000_000).to_string();
        self.patch(&name, json!({"metadata": {"annotations": {format!("personalize-operator.io/{key}"): value}}}));
        "annotated"
    }

    pub(super) fn clear_status(&mut self) -> &'static str {
        let (name, api) = (self.name(), self.env.api());
        let patch = Patch::Merge(json!({"status": null}));
        let _ = block_on(async move { api.patch_status(&name, &PatchParams::default(), &patch).await });
        "cleared statuses"
    }

    pub(super) fn create_foreign_job(&mut self) -> &'static str {
        let (name, dataset) = (format!("foreign-{}", self.rng.below(1 << 30)), self.rng.below(DATASETS));
        self.env.service.put_job(
            &json!({"name": name, "datasetArn": dataset_arn(&format!("d{dataset}")), "status": "CREATE PENDING"}),
        );
        "foreign jobs"
    }
}
