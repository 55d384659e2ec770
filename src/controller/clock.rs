//! The time of one leadership.

use crate::import::timing::{after, since};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// How far the wall clock may be off before a leadership starts over. Times in statuses are wrong by no more than this.
const MAX_DEVIATION: Duration = Duration::from_secs(10);

/// The wall clock when the leadership began, plus the time since then by the monotonic clock. So every wait takes as long
/// as it should, whatever is done to the wall clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub(crate) fn start() -> Self {
        Self { wall: Timestamp::now(), monotonic: Instant::now() }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        after(self.wall, self.monotonic.elapsed())
    }

    /// Whether the wall clock was set since the start, or the machine was suspended.
    pub(crate) fn is_off(&self) -> bool {
        let (wall, own) = (Timestamp::now(), self.now());
        since(wall, own).max(since(own, wall)) > MAX_DEVIATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_off_once_the_wall_clock_differs_either_way() {
        let clock = Clock::start();
        assert!(!clock.is_off());
        let hour = Duration::from_secs(3600);
        for wall in [after(clock.wall, hour), Timestamp::UNIX_EPOCH] {
            assert!(Clock { wall, ..clock }.is_off());
        }
    }
}
