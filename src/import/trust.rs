//! Whether a status is trusted.
//!
//! A status decides whether an import is submitted, so a status that somebody else wrote must not. A status that this
//! process wrote, or compared with the service, is recognised by its digest. Any other status is trusted only if
//! `managedFields` names this operator as a manager of all its fields, and either this process knows no digest yet, because
//! an earlier process wrote the status, or the status claims nothing about a job. A status that is not trusted is verified
//! against the service before anything in it is used. If it is final, the operator then applies it under its own name, so
//! that no later process verifies it again.
//!
//! ```
//! use personalize_operator::api::DatasetImportJob;
//! use personalize_operator::import::Trust;
//!
//! let forged: DatasetImportJob = serde_json::from_value(serde_json::json!({
//!     "apiVersion": "personalize-operator.io/v1alpha1", "kind": "DatasetImportJob",
//!     "metadata": { "name": "nightly", "managedFields": [{ "manager": "kubectl-edit", "subresource": "status" }] },
//!     "spec": { "datasetArn": "", "dataSource": { "dataLocation": "" }, "roleArn": "" },
//!     "status": { "status": "ACTIVE" },
//! }))?;
//! assert_eq!(Trust::of(&forged, None, None), Trust::Untrusted);
//! # Ok::<(), serde_json::Error>(())
//! ```

use crate::api::conditions::{self, Reason};
use crate::api::{DatasetImportJob, DatasetImportJobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "personalize-operator";

/// Whether a status is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The operator wrote it, or the service confirmed it.
    Trusted,
    /// Somebody else may have written it.
    Untrusted,
}

impl Trust {
    /// The trust in the status of a resource. `confirmed` is the digest of the status that this process last wrote
    /// or confirmed, `attempted` of one that it has tried to write since.
    #[must_use]
    pub fn of(resource: &DatasetImportJob, confirmed: Option<u64>, attempted: Option<u64>) -> Self {
        let status = resource.status.as_ref();
        let digest = Some(digest(status));
        let is_confirmed = digest == confirmed || digest == attempted;
        // Without a claim the service is asked anyway. So two leaders for a moment don't verify each other's intents.
        let may_be_new = || confirmed.is_none() || !status.is_some_and(claims_job);
        if is_confirmed || is_managed(resource) && may_be_new() { Self::Trusted } else { Self::Untrusted }
    }

    /// Whether it is [`Trust::Trusted`].
    #[must_use]
    pub fn is_trusted(self) -> bool {
        self == Self::Trusted
    }
}

/// A digest of the operator's part of a status.
#[must_use]
pub(crate) fn digest(status: Option<&DatasetImportJobStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&own_part(status)).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// The status without the conditions of other controllers.
pub(crate) fn own_part(status: Option<&DatasetImportJobStatus>) -> Option<DatasetImportJobStatus> {
    let mut status = status?.clone();
    status.conditions.retain(conditions::is_own);
    Some(status)
}

/// Whether `managedFields` names the operator as a manager of every value in its part of the status. A client that changes a
/// value becomes its only manager, so these are the operator's values, even if others have written the same ones.
pub(crate) fn is_managed(resource: &DatasetImportJob) -> bool {
    let Some(status) = own_part(resource.status.as_ref()).filter(|status| *status != crd_default()) else {
        return true;
    };
    let is_own = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(MANAGER) && entry.subresource.as_deref() == Some("status")
    };
    let entries: Vec<_> = resource.managed_fields().iter().filter(is_own).collect();
    let fields: Vec<_> = entries.iter().filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:status")).collect();
    let is_compact = entries.iter().any(|entry| entry.fields_v1.is_none());
    is_compact || serde_json::to_value(status).is_ok_and(|status| cover(&fields, &status))
}

/// Whether these sets of fields together cover a value of the status.
fn cover(fields: &[&Value], value: &Value) -> bool {
    let covers = |key: &str, value: &Value| {
        cover(&fields.iter().filter_map(|fields| fields.get(key)).collect::<Vec<_>>(), value)
    };
    match value {
        Value::Object(values) => values.iter().all(|(key, value)| covers(&format!("f:{key}"), value)),
        // Only the conditions are a list.
        Value::Array(values) => {
            values.iter().all(|value| covers(&format!("k:{}", json!({ "type": value["type"] })), value))
        }
        _ => !fields.is_empty(),
    }
}

/// Whether the status says that the service accepted a job, that a user asked for an attempt, that one follows another, or
/// that the import is not submitted.
fn claims_job(status: &DatasetImportJobStatus) -> bool {
    let has_job = status.dataset_import_job_arn.is_some() || status.attempts.is_some();
    let has_request = status.requested_attempt.is_some();
    let has_retry = status.submission.as_ref().is_some_and(|intent| intent.attempt > 1);
    has_job || has_request || has_retry || Reason::of(status) == Some(Reason::Superseded)
}

/// Reduces `managedFields` to what trust in the status depends on: whether the operator manages its part.
pub fn compact_managed_fields(resource: &mut DatasetImportJob) {
    let entry = ManagedFieldsEntry {
        manager: Some(MANAGER.into()),
        subresource: Some("status".into()),
        ..ManagedFieldsEntry::default()
    };
    resource.metadata.managed_fields = is_managed(resource).then(|| vec![entry]);
}

/// The status that the CRD sets on a new resource.
fn crd_default() -> DatasetImportJobStatus {
    DatasetImportJobStatus { observed_generation: Some(-1), ..DatasetImportJobStatus::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::personalize::ACTIVE;
    use crate::testing::{resource, set_status_manager, spec};
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, FieldsV1, Time};
    use proptest::prelude::*;
    use proptest::sample::select;

    fn written_by(manager: &str) -> DatasetImportJob {
        let mut resource = resource(spec());
        resource.status =
            Some(DatasetImportJobStatus { status: Some(ACTIVE.into()), attempts: Some(1), ..crd_default() });
        set_status_manager(&mut resource, manager);
        resource
    }

    fn condition(type_: &str) -> Condition {
        Condition {
            type_: type_.into(),
            status: "True".into(),
            reason: "Because".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    fn is_trusted(resource: &DatasetImportJob) -> bool {
        Trust::of(resource, None, None).is_trusted()
    }

    /// The entry of a manager of these fields of the status.
    fn entry_of(manager: &str, fields: &Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.into()),
            subresource: Some("status".into()),
            fields_v1: Some(FieldsV1(json!({ "f:status": fields }))),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn status_is_trusted_only_if_the_operator_manages_each_of_its_values() {
        assert!(is_trusted(&written_by(MANAGER)));
        assert!(!is_trusted(&written_by("kubectl-edit")));
        let mut wiped = written_by(MANAGER);
        wiped.metadata.managed_fields = None;
        assert!(!is_trusted(&wiped), "somebody removed managedFields");
        wiped.status = Some(crd_default());
        assert!(is_trusted(&wiped), "a new resource claims nothing");
        wiped.status = None;
        assert!(is_trusted(&wiped));
    }

    #[test]
    fn values_that_others_write_again_stay_trusted_and_those_that_they_change_do_not() {
        let all = json!({"f:observedGeneration": {}, "f:status": {}, "f:attempts": {}});
        let with = |entries: &[(&str, Value)]| {
            let mut resource = written_by(MANAGER);
            let entries = entries.iter().map(|(manager, fields)| entry_of(manager, fields));
            resource.metadata.managed_fields = Some(entries.collect());
            is_trusted(&resource)
        };
        assert!(with(&[(MANAGER, all.clone())]));
        assert!(with(&[("before-first-apply", all.clone()), (MANAGER, all.clone())]));
        let (some, rest) = (json!({"f:attempts": {}}), json!({"f:observedGeneration": {}, "f:status": {}}));
        assert!(with(&[(MANAGER, some.clone()), (MANAGER, rest.clone())]), "it updated some and applied others");
        assert!(!with(&[("kubectl-edit", some), (MANAGER, rest)]), "somebody changed a value");
        assert!(!with(&[("kubectl-edit", all)]));
        let mut of_spec = written_by(MANAGER);
        of_spec.managed_fields_mut()[0].fields_v1 = Some(FieldsV1(json!({"f:spec": {}})));
        assert!(!is_trusted(&of_spec));
    }

    #[test]
    fn claim_that_this_process_did_not_make_is_untrusted_even_under_its_own_name() {
        let forged = written_by(MANAGER);
        assert!(is_trusted(&forged), "an earlier process may have made it");
        let mut queued = forged.clone();
        queued.status = Some(DatasetImportJobStatus { attempts: None, ..forged.status.clone().unwrap() });
        let confirmed = Some(digest(queued.status.as_ref()));
        assert!(!Trust::of(&forged, confirmed, None).is_trusted());
        assert!(Trust::of(&queued, Some(digest(forged.status.as_ref())), None).is_trusted(), "it claims no job");
    }

    #[test]
    fn condition_of_another_controller_keeps_the_status_trusted() {
        let mut shared = written_by(MANAGER);
        let confirmed = Some(digest(shared.status.as_ref()));
        shared.status.as_mut().unwrap().conditions.push(condition("example.org/Billed"));
        shared.metadata.managed_fields = None;
        assert!(Trust::of(&shared, confirmed, None).is_trusted(), "by the digest");
        shared.metadata.managed_fields = Some(vec![
            entry_of(MANAGER, &json!({"f:observedGeneration": {}, "f:status": {}, "f:attempts": {}})),
            entry_of("billing", &json!({"f:conditions": {".": {}, "k:{\"type\":\"example.org/Billed\"}": {".": {}}}})),
        ]);
        assert!(is_trusted(&shared), "by managedFields");
        shared.status.as_mut().unwrap().conditions.push(condition("Ready"));
        assert!(!is_trusted(&shared));
        let ready = "k:{\"type\":\"Ready\"}";
        let leaves = json!({"f:type": {}, "f:status": {}, "f:reason": {}, "f:message": {}, "f:lastTransitionTime": {}});
        shared.managed_fields_mut().push(entry_of(MANAGER, &json!({ "f:conditions": { ready: leaves } })));
        assert!(is_trusted(&shared));
        let mut forged = written_by("kubectl-edit");
        forged.status.as_mut().unwrap().conditions.push(condition("Ready"));
        assert!(!Trust::of(&forged, confirmed, None).is_trusted());
    }

    /// The entry of any manager of any fields.
    fn entry() -> impl Strategy<Value = ManagedFieldsEntry> {
        let billed = "k:{\"type\":\"example.org/Billed\"}";
        let fields = vec![
            json!({"f:metadata": {"f:annotations": {}}}),
            json!({"f:status": {".": {}, "f:attempts": {}}}),
            json!({"f:status": {"f:attempts": {}, "f:status": {}, "f:observedGeneration": {}}}),
            json!({"f:status": {"f:conditions": {".": {}, billed: {}}}}),
            json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {}, billed: {}}}}),
            json!({"f:status": {".": {}}}),
            Value::Null,
        ];
        let managers = vec![Some(MANAGER), Some("kubectl-edit"), None];
        let subresources = vec![Some("status"), Some("scale"), None];
        (select(managers), select(subresources), proptest::option::of(select(fields))).prop_map(
            |(manager, subresource, fields)| ManagedFieldsEntry {
                manager: manager.map(str::to_owned),
                subresource: subresource.map(str::to_owned),
                fields_v1: fields.map(FieldsV1),
                operation: Some("Update".into()),
                ..ManagedFieldsEntry::default()
            },
        )
    }

    proptest! {
        #[test]
        fn trust_needs_only_compact_managed_fields(entries in proptest::collection::vec(entry(), 0..5), is_empty: bool) {
            let mut resource = written_by(MANAGER);
            if is_empty {
                resource.status = Some(crd_default());
            }
            resource.metadata.managed_fields = Some(entries);
            let trust = Trust::of(&resource, None, None);
            compact_managed_fields(&mut resource);
            prop_assert_eq!(Trust::of(&resource, None, None), trust);
            prop_assert!(resource.managed_fields().iter().all(|entry| entry.fields_v1.is_none()));
        }
    }
}
