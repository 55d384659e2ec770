//! The request rate: a token bucket per account and region.

use std::collections::HashMap;

use crate::{refusal::Refusal, seed::Throttle};

/// The buckets, if the seed asks for a rate.
#[derive(Debug)]
pub(crate) struct Throttles {
    rule: Option<Throttle>,
    /// Tokens left, and when they were counted (ms).
    buckets: HashMap<(String, String), (f64, i64)>,
}

impl Throttles {
    pub(crate) fn new(rule: Option<Throttle>) -> Self {
        Self { rule, buckets: HashMap::new() }
    }

    /// Takes a token; the error when there is none.
    pub(crate) fn admit(&mut self, account: &str, region: &str, now_ms: i64) -> Result<(), Refusal> {
        let Some(rule) = &self.rule else { return Ok(()) };
        let key = (account.to_owned(), region.to_owned());
        let (tokens, counted) = self.buckets.entry(key).or_insert((rule.burst, now_ms));
        let seconds = now_ms.saturating_sub(*counted).max(0) as f64 / 1000.0;
        *tokens = (*tokens + seconds * rule.per_second).min(rule.burst);
        *counted = now_ms;
        if *tokens < 1.0 {
            return Err(Refusal::new(&rule.code, "Rate exceeded"));
        }
        *tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Throttles;
    use crate::seed::Throttle;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut throttles = Throttles::new(Some(Throttle { per_second: 1.0, burst: 2.0, code: "TooFast".to_owned() }));
        let admitted: Vec<bool> = [0, 0, 0, 1000, 1000].map(|now| throttles.admit("a", "r", now).is_ok()).into();
        assert_eq!(admitted, [true, true, false, true, false]);
        assert!(throttles.admit("b", "r", 1000).is_ok(), "another account has its own rate");
        assert_eq!(throttles.admit("a", "r", 1000).unwrap_err().code, "TooFast");
    }
}
