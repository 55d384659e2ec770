//! Reproducible randomness: the same seed yields the same numbers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A linear congruential generator, good enough to choose what a test does next.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        let mut rng = Self(seed);
        // The first numbers of close seeds are alike.
        for _ in 0..8 {
            rng.below(2);
        }
        rng
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// True with a chance of one in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    pub fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }
}

/// The seed in this environment variable, or the current time.
pub fn seed(variable: &str) -> u64 {
    let given = std::env::var(variable).ok().filter(|seed| !seed.is_empty());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    given.map_or_else(now, |seed| seed.parse().unwrap())
}
