//! Chance that can be repeated: the same seed draws the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A small generator of numbers, good enough to draw by.
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Self {
        let mut draw = Self(seed);
        // Seeds that are close together begin alike.
        for _ in 0..8 {
            draw.below(2);
        }
        draw
    }

    /// A number below the limit, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    pub fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis(u64::try_from(from + self.below(to - from)).unwrap())
    }
}

/// The seed that this variable gives, or else the time.
pub fn seed(variable: &str) -> u64 {
    let given = std::env::var(variable).ok().filter(|seed| !seed.is_empty());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    given.map_or_else(now, |seed| seed.parse().unwrap())
}
