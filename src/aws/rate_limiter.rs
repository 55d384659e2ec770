//! Limits the calls to one account and region: their rate, which adapts to what the service throttles, and a pause
//! while it throttles all of them. Refused credentials pause only the calls of their session.
//!
//! The rate falls with each throttled call and then grows slowly up to its maximum. The SDK's own rate limiter knows
//! neither a maximum nor priorities, and it waits within the call, where it is too late to check whether the call may
//! still be made.

use crate::personalize::{ErrorKind, Priority, ServiceError};
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// By how much the rate falls when a call is throttled.
const DECREASE: f64 = 0.7;

/// How much the rate grows per second, as a share of the rate.
const INCREASE: f64 = 0.02;

/// The lowest rate, in calls per second.
const MIN_RATE: f64 = 0.5;

/// After this many throttled calls in a row all calls pause.
const MAX_THROTTLED: u32 = 5;

/// The limits of each account and region.
#[derive(Debug, Clone)]
pub struct RateLimits {
    /// The maximum number of calls per second.
    pub calls_per_second: f64,
    /// How long a call waits for its turn before it fails.
    pub max_wait: Duration,
    /// The pause after the service refused a call; it doubles with each further refusal.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Counts the calls that wait for their turn.
    pub waiting: Gauge,
}

impl Default for RateLimits {
    /// The defaults of the flags.
    fn default() -> Self {
        let secs = Duration::from_secs;
        let (max_wait, pause_min, pause_max) = (secs(30), secs(5), secs(300));
        Self { calls_per_second: 10.0, max_wait, pause_min, pause_max, waiting: Gauge::default() }
    }
}

/// The limiter of one account and region.
#[derive(Debug)]
pub(super) struct RateLimiter {
    limits: RateLimits,
    state: Mutex<State>,
    /// Held by the call whose turn is next, for each priority. They are fair: calls go in the order in which they came.
    turns: [tokio::sync::Mutex<()>; 2],
    /// How many calls of high priority wait.
    urgent: AtomicUsize,
}

/// The right to send one call.
#[derive(Debug)]
pub(super) struct Permit {
    limiter: Arc<RateLimiter>,
    session: Arc<Mutex<Gate>>,
    granted: Instant,
    probes: Probes,
}

/// Of which pauses a call finds out whether they are over.
#[derive(Debug, Default, Clone, Copy)]
struct Probes {
    limiter: bool,
    session: bool,
}

/// Counts a call that waits.
struct Waiting<'a>(&'a RateLimiter, Priority);

impl<'a> Waiting<'a> {
    fn new(limiter: &'a RateLimiter, priority: Priority) -> Self {
        limiter.limits.waiting.inc();
        limiter.urgent.fetch_add(usize::from(priority == Priority::High), Ordering::Relaxed);
        Self(limiter, priority)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.limits.waiting.dec();
        self.0.urgent.fetch_sub(usize::from(self.1 == Priority::High), Ordering::Relaxed);
    }
}

impl RateLimiter {
    pub(super) fn new(limits: RateLimits) -> Self {
        let state = Mutex::new(State::new(limits.calls_per_second, Instant::now()));
        Self { limits, state, turns: Default::default(), urgent: AtomicUsize::new(0) }
    }

    /// Waits until a call may be sent, first come first served within a priority.
    ///
    /// # Errors
    /// When the call would be refused, or after [`RateLimits::max_wait`].
    pub(super) async fn acquire(
        self: &Arc<Self>,
        session: &Arc<Mutex<Gate>>,
        priority: Priority,
    ) -> Result<Permit, ServiceError> {
        let now = Instant::now();
        lock(session).check(now)?;
        self.state().gate.check(now)?;
        let _waiting = Waiting::new(self, priority);
        let turn = timeout(self.limits.max_wait, self.turn(session, priority)).await;
        let probes = turn.unwrap_or_else(|_| Err(no_turn()))?;
        Ok(Permit { limiter: Arc::clone(self), session: Arc::clone(session), granted: Instant::now(), probes })
    }

    /// Waits for the turn of a call.
    async fn turn(&self, session: &Mutex<Gate>, priority: Priority) -> Result<Probes, ServiceError> {
        let _first = self.turns[usize::from(priority == Priority::High)].lock().await;
        loop {
            let behind = priority == Priority::Normal && self.urgent.load(Ordering::Relaxed) > 0;
            let delay = self.admit(&mut lock(session), behind)?;
            match delay {
                Ok(probes) => return Ok(probes),
                Err(delay) => sleep(delay).await,
            }
        }
    }

    /// Whether a call of a session may be sent now, or when.
    fn admit(&self, session: &mut Gate, behind: bool) -> Result<Result<Probes, Duration>, ServiceError> {
        let now = Instant::now();
        session.check(now)?;
        Ok(match self.state().admit(behind, now)? {
            Grant::Now { is_probe } => Ok(Probes { limiter: is_probe, session: session.pass() }),
            Grant::After(delay) => Err(delay),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Permit {
    /// Reports how the call ended.
    pub(super) fn report(mut self, error: Option<&ServiceError>) {
        let (probes, limiter, now) = (std::mem::take(&mut self.probes), Arc::clone(&self.limiter), Instant::now());
        limiter.state().ended(error, probes.limiter, self.granted, now, &limiter.limits);
        let refused = error.is_some_and(|error| error.kind == ErrorKind::Credentials);
        lock(&self.session).ended(error, refused, probes.session, now, &limiter.limits);
    }
}

impl Drop for Permit {
    /// A probe that was cancelled found out nothing: the next call is the probe.
    fn drop(&mut self) {
        if self.probes.limiter {
            self.limiter.state().gate.cancel_probe();
        }
        if self.probes.session {
            lock(&self.session).cancel_probe();
        }
    }
}

fn no_turn() -> ServiceError {
    let message = "the call waited too long for its turn";
    let error = ServiceError::unanswered(ErrorKind::Throttled, "ClientSideThrottling", message);
    ServiceError { unsent: true, ..error }
}

/// When a call may be sent.
#[derive(Debug, PartialEq)]
enum Grant {
    Now { is_probe: bool },
    After(Duration),
}

/// The rate and the pause. It reads no clock.
#[derive(Debug)]
struct State {
    max_rate: f64,
    /// In calls per second.
    rate: f64,
    /// The calls that may be sent now.
    tokens: f64,
    updated: Instant,
    /// When the rate fell last.
    reduced: Instant,
    throttled_in_a_row: u32,
    gate: Gate,
}

/// Suspends calls while the service refuses all of them. It reads no clock.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pause: Option<Pause>,
}

/// While the service refuses all calls.
#[derive(Debug)]
struct Pause {
    /// What the calls get that are not sent.
    error: ServiceError,
    /// The number of refused calls in a row.
    refusals: u32,
    until: Instant,
    is_probing: bool,
}

impl State {
    fn new(max_rate: f64, now: Instant) -> Self {
        let (rate, tokens) = (max_rate, max_rate.max(1.0));
        Self { max_rate, rate, tokens, updated: now, reduced: now, throttled_in_a_row: 0, gate: Gate::default() }
    }

    /// When the call may be sent. It waits if it is behind one of a higher priority.
    fn admit(&mut self, behind: bool, now: Instant) -> Result<Grant, ServiceError> {
        self.gate.check(now)?;
        self.refill(now);
        if behind || self.tokens < 1.0 {
            let missing = (1.0 - self.tokens).max(0.1);
            return Ok(Grant::After(Duration::from_secs_f64(missing / self.rate).max(Duration::from_millis(1))));
        }
        self.tokens -= 1.0;
        Ok(Grant::Now { is_probe: self.gate.pass() })
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.updated = now;
        self.rate = (self.rate * (1.0 + INCREASE * elapsed)).min(self.max_rate);
        // An idle account and region may send the calls of one second at once.
        self.tokens = (self.tokens + self.rate * elapsed).min(self.rate.max(1.0));
    }

    /// A call ended that was granted at this moment.
    fn ended(
        &mut self,
        error: Option<&ServiceError>,
        is_probe: bool,
        granted: Instant,
        now: Instant,
        limits: &RateLimits,
    ) {
        let kind = error.map(|error| error.kind);
        self.throttled_in_a_row = if kind == Some(ErrorKind::Throttled) { self.throttled_in_a_row + 1 } else { 0 };
        // Several calls may be throttled because the rate was too high once.
        if kind == Some(ErrorKind::Throttled) && granted >= self.reduced {
            self.refill(now);
            self.rate = (self.rate * DECREASE).max(MIN_RATE.min(self.max_rate));
            (self.tokens, self.reduced) = (0.0, now);
        }
        let refused = kind == Some(ErrorKind::Throttled) && (is_probe || self.throttled_in_a_row >= MAX_THROTTLED);
        self.gate.ended(error, refused, is_probe, now, limits);
    }
}

impl Gate {
    /// Fails during a pause. When it is over, one call is the probe; the others fail until it has ended.
    fn check(&self, now: Instant) -> Result<(), ServiceError> {
        match &self.pause {
            Some(pause) if pause.is_probing || now < pause.until => Err(pause.error.clone()),
            _ => Ok(()),
        }
    }

    /// Lets a call pass. Returns whether it is the probe.
    fn pass(&mut self) -> bool {
        self.pause.as_mut().map(|pause| pause.is_probing = true).is_some()
    }

    /// The probe found out nothing: the next call is the probe.
    fn cancel_probe(&mut self) {
        if let Some(pause) = &mut self.pause {
            pause.is_probing = false;
        }
    }

    /// A call ended. `refused` says that the service refuses all calls at the moment.
    fn ended(
        &mut self,
        error: Option<&ServiceError>,
        refused: bool,
        is_probe: bool,
        now: Instant,
        limits: &RateLimits,
    ) {
        match (&self.pause, error) {
            // The call was sent before the pause, so it says nothing about its end.
            (Some(_), _) if !is_probe => {}
            // A probe without an answer proves nothing.
            (pause, Some(error)) if refused || is_probe && error.kind == ErrorKind::Indeterminate => {
                let refusals = pause.as_ref().map_or(1, |pause| pause.refusals.saturating_add(1));
                let delay = limits.pause_min.saturating_mul(1 << (refusals - 1).min(16)).min(limits.pause_max);
                let error = match pause {
                    Some(pause) if error.kind == ErrorKind::Indeterminate => pause.error.clone(),
                    _ => ServiceError { unsent: true, ..error.clone() },
                };
                self.pause = Some(Pause { error, refusals, until: now + delay, is_probing: false });
            }
            _ => self.pause = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service_error;

    const fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn session() -> Arc<Mutex<Gate>> {
        Arc::default()
    }

    fn limits(calls_per_second: f64) -> RateLimits {
        RateLimits { calls_per_second, ..RateLimits::default() }
    }

    /// Sends calls for an hour, as many as the limiter admits, to a service that throttles more than `limit` per second
    /// with this burst. Returns how many calls were sent and how many were throttled.
    fn send_for_an_hour(max_rate: f64, limit: f64, burst: f64) -> (u32, u32) {
        let start = Instant::now();
        let (limits, mut state) = (limits(max_rate), State::new(max_rate, start));
        let (mut room, mut sent, mut throttled) = (burst, 0, 0);
        for ms in 0..3_600_000 {
            let now = start + millis(ms);
            room = (room + limit / 1000.0).min(burst);
            let Ok(Grant::Now { is_probe }) = state.admit(false, now) else { continue };
            sent += 1;
            let error = (room < 1.0).then(|| service_error(ErrorKind::Throttled));
            if error.is_some() {
                throttled += 1
            } else {
                room -= 1.0
            }
            state.ended(error.as_ref(), is_probe, now, now + millis(1), &limits);
        }
        (sent, throttled)
    }

    #[test]
    fn rate_adapts_to_what_the_service_throttles() {
        for (max_rate, limit, burst) in [(10.0, 5.0, 5.0), (10.0, 2.0, 1.0), (1000.0, 50.0, 100.0)] {
            let (sent, throttled) = send_for_an_hour(max_rate, limit, burst);
            assert!(f64::from(throttled) < 0.05 * f64::from(sent), "{throttled} of {sent} calls are throttled");
            assert!(f64::from(sent) > 0.5 * limit * 3600.0, "{sent} calls use too little of {limit} per second");
        }
    }

    #[test]
    fn rate_never_exceeds_its_maximum() {
        let (sent, throttled) = send_for_an_hour(10.0, 100.0, 100.0);
        assert_eq!(throttled, 0);
        assert!((35_000..=36_010).contains(&sent), "{sent} calls in an hour");
    }

    #[test]
    fn calls_that_overshoot_together_reduce_the_rate_once() {
        let (now, limits) = (Instant::now(), limits(10.0));
        let mut state = State::new(10.0, now);
        let error = service_error(ErrorKind::Throttled);
        for _ in 0..MAX_THROTTLED - 1 {
            state.ended(Some(&error), false, now, now + millis(10), &limits);
        }
        assert!(state.rate > 6.9 && state.gate.pause.is_none(), "{state:?}");
    }

    #[test]
    fn one_call_at_a_time_finds_out_whether_refused_credentials_work_again() {
        let (start, limits) = (Instant::now(), limits(10.0));
        let mut gate = Gate::default();
        let error = service_error(ErrorKind::Credentials);
        gate.ended(Some(&error), true, false, start, &limits);
        // Calls that were sent before the pause neither end it nor make it longer.
        gate.ended(Some(&error), true, false, start, &limits);
        gate.ended(None, false, false, start, &limits);
        let mut now = start;
        for pause in [5000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000] {
            let unsent = gate.check(now + millis(pause - 1)).unwrap_err();
            assert_eq!(unsent, ServiceError { unsent: true, ..error.clone() });
            now += millis(pause);
            assert!(gate.check(now).is_ok() && gate.pass());
            assert!(gate.check(now).is_err(), "one probe at a time");
            // A probe without an answer proves nothing, and the reason stays.
            let failure = if pause == 10_000 { service_error(ErrorKind::Indeterminate) } else { error.clone() };
            gate.ended(Some(&failure), failure == error, true, now, &limits);
        }
        now += limits.pause_max;
        assert!(gate.check(now).is_ok() && gate.pass());
        gate.ended(Some(&service_error(ErrorKind::NotFound)), false, true, now, &limits);
        assert!(gate.check(now).is_ok() && !gate.pass(), "any answer ends the pause");
    }

    #[tokio::test]
    async fn refused_credentials_of_one_session_delay_no_other_of_the_account() {
        let limiter = Arc::new(RateLimiter::new(limits(1000.0)));
        let (refused, other) = (session(), session());
        let permit = limiter.acquire(&refused, Priority::Normal).await.unwrap();
        permit.report(Some(&service_error(ErrorKind::Credentials)));
        assert!(limiter.acquire(&refused, Priority::High).await.is_err());
        assert!(limiter.acquire(&other, Priority::Normal).await.is_ok());
    }

    #[test]
    fn calls_pause_while_all_of_them_are_throttled() {
        let (now, limits) = (Instant::now(), limits(10.0));
        let mut state = State::new(10.0, now);
        let error = service_error(ErrorKind::Throttled);
        for sent in 1..=MAX_THROTTLED {
            assert!(state.admit(false, now).is_ok() && state.gate.pause.is_none());
            state.ended(Some(&error), false, now + limits.pause_max * sent, now + limits.pause_max * sent, &limits);
        }
        assert!(state.admit(false, now + limits.pause_max * MAX_THROTTLED).is_err());
    }

    #[tokio::test]
    async fn cancelled_probe_leaves_the_next_call_to_be_the_probe() {
        let limiter = Arc::new(RateLimiter::new(RateLimits { pause_min: Duration::ZERO, ..limits(1000.0) }));
        let session = session();
        let permit = limiter.acquire(&session, Priority::Normal).await.unwrap();
        permit.report(Some(&service_error(ErrorKind::Credentials)));
        let probe = limiter.acquire(&session, Priority::Normal).await.unwrap();
        assert!(probe.probes.session && limiter.acquire(&session, Priority::High).await.is_err());
        drop(probe);
        assert!(limiter.acquire(&session, Priority::Normal).await.unwrap().probes.session);
    }

    #[tokio::test]
    async fn calls_go_in_order_and_those_of_high_priority_first() {
        let limiter = Arc::new(RateLimiter::new(limits(20.0)));
        for _ in 0..20 {
            limiter.acquire(&session(), Priority::Normal).await.unwrap().report(None);
        }
        let order = Mutex::new(Vec::new());
        let call = async |name, priority| {
            limiter.acquire(&session(), priority).await.unwrap().report(None);
            order.lock().unwrap().push(name);
        };
        let (normal, high) = (Priority::Normal, Priority::High);
        tokio::join!(call("a", normal), call("b", normal), call("c", normal), call("y", high), call("z", high));
        assert_eq!(*order.lock().unwrap(), ["y", "z", "a", "b", "c"]);
        assert_eq!(limiter.limits.waiting.get(), 0);
    }

    #[tokio::test]
    async fn call_that_waits_too_long_fails_without_being_sent() {
        let limiter = Arc::new(RateLimiter::new(RateLimits { max_wait: millis(1), ..limits(0.01) }));
        limiter.acquire(&session(), Priority::Normal).await.unwrap().report(None);
        let error = limiter.acquire(&session(), Priority::High).await.unwrap_err();
        assert_eq!((error.kind, error.unsent), (ErrorKind::Throttled, true));
        assert_eq!((limiter.limits.waiting.get(), limiter.urgent.load(Ordering::Relaxed)), (0, 0));
    }
}
