//! The labels of the metrics.

use crate::personalize::{AccountRegion, DatasetArn};
use prometheus_client::encoding::EncodeLabelSet;
use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// The value of the label `controller`.
pub(super) const CONTROLLER: &str = "datasetimportjob";

/// The value of all labels of a series that stands for the accounts, regions or datasets without one.
pub(super) const OTHER: &str = "other";

/// The errors that `personalize_operator_errors_total` counts, each from 0 on. A variant's documentation is the sentence in
/// docs/metrics.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumMessage, IntoStaticStr, VariantArray)]
pub(crate) enum ErrorLabel {
    /// The Kubernetes API failed or refused a call.
    Kubernetes,
    /// The Kubernetes API refused a call by RBAC.
    KubernetesForbidden,
    /// The Kubernetes API did not answer in time.
    KubernetesTimeout,
    /// A reconcile stopped because this replica does not lead or is shutting down.
    NotLeading,
    /// A create waited so long for its turn that its request could arrive too late.
    IntentTooOld,
    /// A reconcile met too many write conflicts.
    #[strum(serialize = "Outrun")]
    Conflict,
    /// A reconcile exceeded the limit of effects.
    #[strum(serialize = "Restless")]
    EffectLimit,
    /// A reconcile panicked.
    Panicked,
    /// A resource could not be decoded.
    Unreadable,
    /// The watch was interrupted.
    Watch,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReconcileLabels {
    pub(super) controller: &'static str,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ControllerLabels {
    pub(super) controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KubeRequestLabels {
    pub(super) code: String,
    pub(super) method: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LeaseLabels {
    pub(super) name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct BuildLabels {
    pub(super) version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct PoolLabels {
    pub(super) account: String,
    pub(super) region: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DatasetLabels {
    pub(super) account: String,
    pub(super) region: String,
    pub(super) group: String,
    pub(super) r#type: String,
}

impl DatasetLabels {
    pub(super) fn of(dataset: &DatasetArn) -> Self {
        let (group, r#type) = dataset.name().split_once('/').unwrap_or((dataset.name(), ""));
        let AccountRegion { account, region, .. } = dataset.account_region();
        Self { account: account.clone(), region: region.clone(), group: group.into(), r#type: r#type.into() }
    }

    pub(super) fn other() -> Self {
        let [account, region, group, r#type] = [OTHER; 4].map(String::from);
        Self { account, region, group, r#type }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ServiceRequestLabels {
    pub(super) operation: &'static str,
    pub(super) code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ErrorLabels {
    pub(super) error: &'static str,
}

pub(super) const CONTROLLER_LABELS: ControllerLabels = ControllerLabels { controller: CONTROLLER };
