//! Leader election by a Lease, safe against conflicts and skewed clocks.
//!
//! The protocol is that of Kubernetes' own components: whoever sees the lease unchanged for its whole
//! duration, by its own monotonic clock, may take it by a replace with the version it read. Beyond
//! that, a leader knows for itself until when it may act: an effect that must happen once asks
//! [`LeaseHold::holds`] right before it, so a process that slept past its lease does nothing.

use crate::redact;
use crate::telemetry::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How leadership is sought.
#[derive(Debug, Clone)]
pub struct LeaderElectionOptions {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Who this process is; unique among the replicas.
    pub identity: String,
    /// How long a lease lives without being renewed, in whole seconds.
    pub duration: Duration,
}

/// Until when this process may act as the leader.
#[derive(Debug, Clone, Default)]
pub struct LeaseHold(Arc<Mutex<Option<Instant>>>);

impl LeaseHold {
    /// LeaseHold that never ends, for an operator that runs without election.
    #[must_use]
    pub fn forever() -> Self {
        let far = Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600);
        Self(Arc::new(Mutex::new(Some(far))))
    }

    /// Whether this process leads now.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.lock().is_ok_and(|until| until.is_some_and(|until| Instant::now() < until))
    }

    fn set(&self, until: Option<Instant>) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = until;
        }
    }

    /// LeaseHold until this moment.
    #[cfg(test)]
    pub(crate) fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(end))))
    }

    /// It runs out now.
    #[cfg(test)]
    pub(crate) fn run_out(&self) {
        self.set(Some(Instant::now()));
    }
}

/// A candidate for the Lease.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    api: Api<Lease>,
    options: LeaderElectionOptions,
    leadership: LeaseHold,
    metrics: Arc<Metrics>,
}

impl LeaderElection {
    /// A candidate that holds nothing yet.
    #[must_use]
    pub fn new(client: Client, options: LeaderElectionOptions, metrics: Arc<Metrics>) -> Self {
        metrics.set_leader(&options.name, false);
        let api = Api::namespaced(client, &options.namespace);
        Self { api, options, leadership: LeaseHold::default(), metrics }
    }

    /// Until when this candidate may act.
    #[must_use]
    pub fn leadership(&self) -> LeaseHold {
        self.leadership.clone()
    }

    /// Waits until the lease is ours.
    pub async fn campaign(&self) {
        let mut seen: Option<(LeaseSpec, Instant)> = None;
        let mut told = false;
        loop {
            let asked = Instant::now();
            match timeout(self.attempt_timeout(), self.seek(&mut seen)).await {
                Ok(Ok(true)) => {
                    info!(lease = %self.options.name, identity = %self.options.identity, "leading");
                    self.leads(asked);
                    return;
                }
                Ok(Ok(false)) if !told => {
                    told = true;
                    info!(lease = %self.options.name, "another replica leads; standing by");
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    warn!(error = redact::sanitize_display(&error), lease = %self.options.name, "the lease can't be read or written; needs get, create and update on leases in coordination.k8s.io")
                }
                Err(_) => warn!(lease = %self.options.name, "the API server does not answer about the lease"),
            }
            sleep(self.retry_period()).await;
        }
    }

    /// Renews the lease; returns when it is lost.
    pub async fn hold(&self) {
        loop {
            sleep(self.retry_period()).await;
            // One that slept past its lease must not renew it as if nothing had happened: it begins anew, so that
            // whatever it had in mind is dropped.
            if !self.leadership.holds() {
                warn!(lease = %self.options.name, "the lease ran out");
                break;
            }
            let asked = Instant::now();
            match timeout(self.attempt_timeout(), self.seek(&mut None)).await {
                Ok(Ok(true)) => self.leads(asked),
                Ok(Ok(false)) => {
                    warn!(lease = %self.options.name, "another replica took the lease");
                    break;
                }
                Ok(Err(error)) => {
                    warn!(error = redact::sanitize_display(&error), lease = %self.options.name, "the lease could not be renewed")
                }
                Err(_) => warn!(lease = %self.options.name, "the API server did not answer about the lease"),
            }
        }
        self.resign();
    }

    /// Stops acting as the leader.
    pub fn resign(&self) {
        self.leadership.set(None);
        self.metrics.set_leader(&self.options.name, false);
    }

    /// Gives the lease up, so that another replica needn't wait for it to run out.
    pub async fn release(&self) {
        self.resign();
        let give_up = async {
            let mut lease = self.api.get(&self.options.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.options.identity) {
                spec.holder_identity = Some(String::new());
                self.api.replace(&self.options.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(self.attempt_timeout(), give_up).await {
            Ok(Ok(())) => info!(lease = %self.options.name, "gave the lease up"),
            Ok(Err(error)) => {
                warn!(
                    error = redact::sanitize_display(&error),
                    "the lease could not be given up; it runs out by itself"
                )
            }
            Err(_) => warn!("the lease could not be given up in time; it runs out by itself"),
        }
    }

    /// Takes or renews the lease if that is allowed; tells whether it is ours then.
    async fn seek(&self, seen: &mut Option<(LeaseSpec, Instant)>) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.options.name).await? else {
            let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.options.identity;
        if !ours && !holder.is_empty() && !self.has_expired(&spec, seen) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&spec)));
        taken(self.api.replace(&self.options.name, &PostParams::default(), &lease).await)
    }

    /// Whether the lease was seen unchanged for as long as its holder promised to renew it within.
    fn has_expired(&self, spec: &LeaseSpec, seen: &mut Option<(LeaseSpec, Instant)>) -> bool {
        match seen {
            Some((last, since)) if last == spec => {
                let promised = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
                since.elapsed() >= promised.unwrap_or(self.options.duration).max(self.options.duration)
            }
            _ => {
                *seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let kept = old.filter(|old| old.holder_identity.as_deref() == Some(&self.options.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: kept.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if kept.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Leads for two thirds of the lease from when it was asked for: the others begin to count when
    /// they see the write, which is later.
    fn leads(&self, asked: Instant) {
        self.leadership.set(Some(asked + self.options.duration * 2 / 3));
        self.metrics.set_leader(&self.options.name, true);
    }

    fn retry_period(&self) -> Duration {
        self.options.duration / 8
    }

    fn attempt_timeout(&self) -> Duration {
        self.options.duration / 3
    }
}

fn taken(answer: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match answer {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::reconciler::tests::api_server;
    use serde_json::json;

    fn candidate(seconds: u64) -> (LeaderElection, Arc<Mutex<Vec<String>>>) {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "operator", "namespace": "shop", "resourceVersion": "1"},
            "spec": {"holderIdentity": "one", "leaseDurationSeconds": seconds}});
        let (client, asked) = api_server(lease);
        let options = LeaderElectionOptions {
            namespace: "shop".into(),
            name: "operator".into(),
            identity: "one".into(),
            duration: Duration::from_secs(seconds),
        };
        (LeaderElection::new(client, options, Arc::new(Metrics::default())), asked)
    }

    #[test]
    fn leadership_ends_at_its_end() {
        let now = Instant::now();
        assert!(!LeaseHold::default().holds());
        assert!(LeaseHold::forever().holds());
        assert!(LeaseHold::until(now + Duration::from_secs(3600)).holds());
        assert!(!LeaseHold::until(now).holds());
        let leadership = LeaseHold::forever();
        leadership.run_out();
        assert!(!leadership.holds());
    }

    #[tokio::test]
    async fn a_leader_acts_for_two_thirds_of_the_lease_from_when_it_asked() {
        let (candidate, _) = candidate(5400);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        candidate.leads(ago(0));
        assert!(candidate.leadership().holds());
        candidate.leads(ago(3600));
        assert!(!candidate.leadership().holds(), "an answer that comes late gives less");
    }

    #[tokio::test]
    async fn who_slept_past_its_lease_does_not_renew_it() {
        let (candidate, asked) = candidate(1);
        candidate.leadership().run_out();
        candidate.hold().await;
        assert_eq!(*asked.lock().unwrap(), Vec::<String>::new());
        // Beginning anew it may: the lease is still in its name.
        candidate.campaign().await;
        assert!(candidate.leadership().holds());
    }

    #[tokio::test]
    async fn who_has_lost_its_lease_leads_no_more() {
        let (candidate, asked) = candidate(1);
        let theirs = LeaderElection {
            options: LeaderElectionOptions { identity: "two".into(), ..candidate.options.clone() },
            ..candidate
        };
        theirs.leads(Instant::now());
        theirs.hold().await;
        assert!(!theirs.leadership().holds());
        assert!(asked.lock().unwrap().iter().all(|call| call.starts_with("GET ")), "what another holds is left alone");
    }
}
