//! Leader election with a Lease, safe against write conflicts and clock skew.
//!
//! The protocol is the one of Kubernetes' own components: a replica may take a lease that it saw unchanged for the
//! whole lease duration, measured by its own monotonic clock. It writes by replace, so that the write fails if another
//! replica wrote since the read. In addition, a leader knows locally until when it may act: check
//! [`LeaseHold::is_held`] right before each effect that must happen once. A process that was suspended past its lease
//! then has no effect.

use crate::controller::jitter;
use crate::redact::sanitize_display;
use crate::telemetry::metrics::Metrics;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

/// How a replica takes part in leader election.
#[derive(Debug, Clone)]
pub struct LeaderElectionOptions {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// The name of this process, unique among the replicas.
    pub identity: String,
    /// How long a lease is valid without renewal, in whole seconds.
    pub duration: Duration,
}

/// Until when this process holds the lease.
#[derive(Debug, Clone, Default)]
pub struct LeaseHold(Arc<Mutex<Option<Instant>>>);

impl LeaseHold {
    /// A lease that never expires, for an operator without leader election.
    #[must_use]
    pub fn forever() -> Self {
        Self::until(Instant::now() + Duration::from_secs(100 * 365 * 24 * 3600))
    }

    /// A lease that expires at `end`.
    pub(crate) fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(end))))
    }

    /// Whether this process holds the lease now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.lock().is_ok_and(|until| until.is_some_and(|until| Instant::now() < until))
    }

    fn set(&self, until: Option<Instant>) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = until;
        }
    }

    /// Lets the lease expire now.
    #[cfg(test)]
    pub(crate) fn expire(&self) {
        self.set(Some(Instant::now()));
    }
}

/// What the Lease says about the leader before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// It released the lease, and none of its create requests may still arrive.
    Clean,
    /// It crashed, lost the lease, or stopped during a submission.
    Unclean,
    /// There was no Lease: this is the first leader, or somebody has deleted the Lease.
    First,
}

/// What a replica knows when it begins to lead.
#[derive(Debug, Clone)]
pub struct Leadership {
    /// Until when it leads.
    pub lease: LeaseHold,
    /// What is known of the leader before.
    pub takeover: Takeover,
}

impl Leadership {
    /// The leadership of an operator without leader election.
    #[must_use]
    pub fn forever() -> Self {
        Self { lease: LeaseHold::forever(), takeover: Takeover::First }
    }
}

/// The outcome of an attempt to acquire or renew the lease.
enum Attempt {
    Held(Takeover),
    HeldByAnother,
    Unknown,
}

/// A released Lease with this annotation warns the next leader: create requests may still arrive.
const CREATES_IN_FLIGHT: &str = "personalize-operator.io/creates-in-flight";

/// The last lease that a standby replica read, and when it first read it.
type ObservedLease = Option<(LeaseSpec, Instant)>;

/// One replica's part in the election.
#[derive(Debug, Clone)]
pub struct LeaderElection {
    api: Api<Lease>,
    options: LeaderElectionOptions,
    lease: LeaseHold,
    metrics: Arc<Metrics>,
}

impl LeaderElection {
    /// Takes part in an election, without the lease at first.
    #[must_use]
    pub fn new(client: Client, options: LeaderElectionOptions, metrics: Arc<Metrics>) -> Self {
        metrics.set_leader(&options.name, false);
        let api = Api::namespaced(client, &options.namespace);
        Self { api, options, lease: LeaseHold::default(), metrics }
    }

    /// Waits until this replica holds the lease.
    pub async fn acquire(&self) -> Leadership {
        let mut observed = None;
        let mut announced = false;
        loop {
            match self.try_acquire(&mut observed).await {
                Attempt::Held(takeover) => {
                    info!(lease = %self.options.name, identity = %self.options.identity, ?takeover, "leading");
                    return Leadership { lease: self.lease.clone(), takeover };
                }
                Attempt::HeldByAnother if !announced => {
                    announced = true;
                    info!(lease = %self.options.name, "another replica leads; standing by");
                }
                Attempt::HeldByAnother | Attempt::Unknown => {}
            }
            sleep(self.retry_period()).await;
        }
    }

    /// Renews the lease; returns when it is lost.
    pub async fn renew_until_lost(&self) {
        loop {
            sleep(self.retry_period()).await;
            // If the lease expired while the process was suspended, give up leadership instead of renewing, so that
            // work in progress is cancelled.
            if !self.lease.is_held() {
                warn!(lease = %self.options.name, "the lease expired");
                break;
            }
            if matches!(self.try_acquire(&mut None).await, Attempt::HeldByAnother) {
                warn!(lease = %self.options.name, "another replica took the lease");
                break;
            }
        }
        self.step_down();
    }

    fn step_down(&self) {
        self.lease.set(None);
        self.metrics.set_leader(&self.options.name, false);
    }

    /// Releases the lease, so that another replica need not wait until it expires. `drained` says that no create request
    /// of this replica may still arrive.
    pub async fn release(&self, drained: bool) {
        self.step_down();
        let release = async {
            let mut lease = self.api.get(&self.options.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.options.identity) {
                spec.holder_identity = Some(String::new());
                if !drained {
                    lease.annotations_mut().insert(CREATES_IN_FLIGHT.into(), "true".into());
                }
                self.api.replace(&self.options.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(self.request_timeout(), release).await {
            Ok(Ok(())) => info!(lease = %self.options.name, drained, "released the lease"),
            Ok(Err(error)) => {
                warn!(error = sanitize_display(&error), "the lease could not be released; it will expire")
            }
            Err(_) => warn!("the lease could not be released in time; it will expire"),
        }
    }

    /// Acquires or renews the lease.
    async fn try_acquire(&self, observed: &mut ObservedLease) -> Attempt {
        let (lease, started) = (&*self.options.name, Instant::now());
        match timeout(self.request_timeout(), self.try_write(observed)).await {
            Ok(Ok(Some(takeover))) => {
                self.mark_held(started);
                Attempt::Held(takeover)
            }
            Ok(Ok(None)) => Attempt::HeldByAnother,
            Ok(Err(error)) => {
                if matches!(&error, kube::Error::Api(status) if matches!(status.code, 401 | 403)) {
                    error!(
                        error = sanitize_display(&error),
                        lease,
                        "the lease can't be read or written: check the operator's credentials, and grant it get, create and update on leases in coordination.k8s.io"
                    );
                } else {
                    warn!(error = sanitize_display(&error), lease, "the lease can't be read or written");
                }
                Attempt::Unknown
            }
            Err(_) => {
                warn!(lease, "the API server did not answer a request for the lease in time");
                Attempt::Unknown
            }
        }
    }

    /// Writes the lease if this replica may take it; returns what it said before, or `None` if another replica has it.
    async fn try_write(&self, observed: &mut ObservedLease) -> Result<Option<Takeover>, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.options.name).await? else {
            // A deleted Lease does not stop its holder, which creates it again.
            if let Some((spec, _)) = observed.clone()
                && !self.has_expired(&spec, observed)
            {
                return Ok(None);
            }
            let metadata = ObjectMeta { name: Some(self.options.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return unless_conflict(self.api.create(&PostParams::default(), &lease).await, Takeover::First);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.options.identity;
        if !ours && !holder.is_empty() && !self.has_expired(&spec, observed) {
            return Ok(None);
        }
        let in_flight = lease.annotations_mut().remove(CREATES_IN_FLIGHT).is_some();
        let takeover = if holder.is_empty() && !in_flight { Takeover::Clean } else { Takeover::Unclean };
        lease.spec = Some(self.spec(Some(&spec)));
        unless_conflict(self.api.replace(&self.options.name, &PostParams::default(), &lease).await, takeover)
    }

    /// Whether this replica saw the lease unchanged for the duration within which its holder must renew it.
    fn has_expired(&self, spec: &LeaseSpec, observed: &mut ObservedLease) -> bool {
        match observed {
            Some((last, since)) if last == spec => {
                let holders_duration =
                    spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
                since.elapsed() >= holders_duration.unwrap_or(self.options.duration).max(self.options.duration)
            }
            _ => {
                *observed = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let renewed = old.filter(|old| old.holder_identity.as_deref() == Some(&self.options.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.options.identity.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: renewed.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if renewed.is_some() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    /// Holds the lease for two thirds of its duration, counted from the start of the request: other replicas start
    /// counting when they see the write, which is later.
    fn mark_held(&self, started: Instant) {
        self.lease.set(Some(started + self.options.duration * 2 / 3));
        self.metrics.set_leader(&self.options.name, true);
    }

    /// A tenth to an eighth of the lease duration: replicas do not retry in step, and after a renewal that timed out
    /// there is time for another one.
    fn retry_period(&self) -> Duration {
        self.options.duration.mul_f64((4.0 + jitter()) / 40.0)
    }

    fn request_timeout(&self) -> Duration {
        self.options.duration / 3
    }
}

fn unless_conflict(answer: Result<Lease, kube::Error>, takeover: Takeover) -> Result<Option<Takeover>, kube::Error> {
    match answer {
        Ok(_) => Ok(Some(takeover)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake_api_server::fake_api_server;
    use serde_json::{Value, json};

    fn election(seconds: u64) -> (LeaderElection, Arc<Mutex<Vec<String>>>) {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "operator", "namespace": "shop", "resourceVersion": "1"},
            "spec": {"holderIdentity": "one", "leaseDurationSeconds": seconds}});
        election_with(lease, seconds)
    }

    fn election_with(lease: Value, seconds: u64) -> (LeaderElection, Arc<Mutex<Vec<String>>>) {
        let (client, calls) = fake_api_server(lease);
        let options = LeaderElectionOptions {
            namespace: "shop".into(),
            name: "operator".into(),
            identity: "one".into(),
            duration: Duration::from_secs(seconds),
        };
        (LeaderElection::new(client, options, Arc::new(Metrics::default())), calls)
    }

    #[test]
    fn lease_is_held_until_it_expires() {
        let now = Instant::now();
        assert!(!LeaseHold::default().is_held());
        assert!(LeaseHold::forever().is_held());
        assert!(LeaseHold::until(now + Duration::from_secs(3600)).is_held());
        assert!(!LeaseHold::until(now).is_held());
        let lease = LeaseHold::forever();
        lease.expire();
        assert!(!lease.is_held());
    }

    #[tokio::test]
    async fn acquired_lease_is_held_for_two_thirds_of_its_duration_from_the_request() {
        let (election, _) = election(5400);
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        election.mark_held(ago(0));
        assert!(election.lease.is_held());
        election.mark_held(ago(3600));
        assert!(!election.lease.is_held(), "a late response leaves less time");
    }

    #[tokio::test]
    async fn expired_lease_is_not_renewed_but_acquired_again() {
        let (election, calls) = election(1);
        election.lease.expire();
        election.renew_until_lost().await;
        assert_eq!(*calls.lock().unwrap(), Vec::<String>::new());
        // The Lease still names this replica, so it can acquire it at once.
        election.acquire().await;
        assert!(election.lease.is_held());
    }

    #[tokio::test]
    async fn lease_taken_by_another_replica_is_lost_and_not_overwritten() {
        let (election, calls) = election(1);
        let other = LeaderElection {
            options: LeaderElectionOptions { identity: "two".into(), ..election.options.clone() },
            ..election
        };
        other.mark_held(Instant::now());
        other.renew_until_lost().await;
        assert!(!other.lease.is_held());
        assert!(
            calls.lock().unwrap().iter().all(|call| call.starts_with("GET ")),
            "the lease of the other replica is not written"
        );
    }

    #[tokio::test]
    async fn lease_of_a_crashed_leader_is_taken_over_uncleanly() {
        let (election, _) = election(1);
        assert_eq!(election.acquire().await.takeover, Takeover::Unclean, "an earlier process had the same identity");
    }

    #[tokio::test]
    async fn release_says_whether_create_requests_may_still_arrive() {
        let (election, _) = election(1);
        for (drained, takeover) in [(true, Takeover::Clean), (false, Takeover::Unclean), (true, Takeover::Clean)] {
            election.acquire().await;
            election.release(drained).await;
            assert_eq!(election.acquire().await.takeover, takeover);
        }
    }

    #[tokio::test]
    async fn deleted_lease_is_created_only_after_its_last_holder_could_have_renewed_it() {
        let (election, requests) = election_with(Value::Null, 1);
        let held = LeaseSpec { holder_identity: Some("two".into()), ..LeaseSpec::default() };
        let mut observed = Some((held.clone(), Instant::now()));
        assert!(matches!(election.try_acquire(&mut observed).await, Attempt::HeldByAnother));
        assert!(requests.lock().unwrap().iter().all(|request| request.starts_with("GET ")), "nothing is created");
        let earlier = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        let expired = election.try_acquire(&mut Some((held, earlier))).await;
        assert!(matches!(expired, Attempt::Held(Takeover::First)), "its holder is gone");
        let new = election.try_acquire(&mut None).await;
        assert!(matches!(new, Attempt::Held(Takeover::First)), "a new installation has no Lease");
    }
}
