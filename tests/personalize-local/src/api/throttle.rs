//! Request throttling: a token bucket per account and region.

use std::collections::HashMap;

use super::error::ApiError;
use crate::store::seed::Throttle;

/// Admits requests at the rate of the seed, if any.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rule: Option<Throttle>,
    /// Available tokens, and when they were last updated (ms).
    buckets: HashMap<(String, String), (f64, i64)>,
}

impl RateLimiter {
    pub(crate) fn new(rule: Option<Throttle>) -> Self {
        Self { rule, buckets: HashMap::new() }
    }

    /// Takes a token; an error if there is none.
    pub(crate) fn admit(&mut self, account: &str, region: &str, now_ms: i64) -> Result<(), ApiError> {
        let Some(rule) = &self.rule else { return Ok(()) };
        let key = (account.to_owned(), region.to_owned());
        let (tokens, updated_ms) = self.buckets.entry(key).or_insert((rule.burst, now_ms));
        let seconds = now_ms.saturating_sub(*updated_ms).max(0) as f64 / 1000.0;
        *tokens = (*tokens + seconds * rule.per_second).min(rule.burst);
        *updated_ms = now_ms;
        if *tokens < 1.0 {
            return Err(ApiError::new(&rule.code, "Rate exceeded"));
        }
        *tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::RateLimiter;
    use crate::store::seed::Throttle;

    #[test]
    fn requests_beyond_the_burst_are_throttled_to_the_rate() {
        let mut limiter = RateLimiter::new(Some(Throttle { per_second: 1.0, burst: 2.0, code: "TooFast".to_owned() }));
        let admitted: Vec<bool> = [0, 0, 0, 1000, 1000].map(|now| limiter.admit("a", "r", now).is_ok()).into();
        assert_eq!(admitted, [true, true, false, true, false]);
        assert!(limiter.admit("b", "r", 1000).is_ok(), "accounts have separate buckets");
        assert_eq!(limiter.admit("a", "r", 1000).unwrap_err().code, "TooFast");
    }
}
