//! Why a reconciliation did not finish.

use crate::controller::kube_client::MAX_RETRY_AFTER;
use crate::telemetry::metrics::ErrorLabel;
use std::time::Duration;
use thiserror::Error;

/// Why a reconciliation did not finish. It is retried.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("the Kubernetes API returned an error: {0}")]
    Kube(#[from] kube::Error),
    #[error("the Kubernetes API did not answer in time")]
    KubeTimeout,
    #[error("the status write may or may not have been applied: {0}")]
    UnconfirmedWrite(Box<Self>),
    #[error("this replica is not the leader any more, or is shutting down")]
    NotLeading,
    #[error("the create waited too long for its turn, so that its request could arrive too late")]
    IntentTooOld,
    #[error("too many write conflicts")]
    Conflicts,
    #[error("effect limit exceeded")]
    EffectLimit,
    #[error("the reconciliation panicked")]
    Panicked,
}

impl Error {
    /// Whether the API server answered that it did not apply the write. A webhook that fails, or that denies with a code
    /// of its own, does so before anything is stored.
    pub(super) fn is_rejection(&self) -> bool {
        let Self::Kube(kube::Error::Api(status)) = self else { return false };
        let by_webhook =
            ["failed calling webhook", "admission webhook"].iter().any(|text| status.message.contains(text));
        by_webhook || (400..500).contains(&status.code) && status.code != 408
    }

    /// How long the API server, or a webhook that denied the request, asked to wait before it is repeated.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Kube(kube::Error::Api(status)) => {
                let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                Duration::from_secs(seconds.into()).min(MAX_RETRY_AFTER)
            }
            Self::UnconfirmedWrite(error) => error.retry_after(),
            _ => Duration::ZERO,
        }
    }

    /// The value of the metric label `error`.
    pub(crate) fn label(&self) -> ErrorLabel {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.is_forbidden() => ErrorLabel::KubernetesForbidden,
            Self::Kube(_) => ErrorLabel::Kubernetes,
            Self::KubeTimeout => ErrorLabel::KubernetesTimeout,
            Self::UnconfirmedWrite(error) => error.label(),
            Self::NotLeading => ErrorLabel::NotLeading,
            Self::IntentTooOld => ErrorLabel::IntentTooOld,
            Self::Conflicts => ErrorLabel::Conflict,
            Self::EffectLimit => ErrorLabel::EffectLimit,
            Self::Panicked => ErrorLabel::Panicked,
        }
    }
}
