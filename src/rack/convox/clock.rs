//! How far a rack's clock is ahead of this machine's, read off the `Date` of its answers.
//!
//! A `Date` tells whole seconds, cut off, of some moment between a call and its answer. So each answer bounds the distance
//! from both sides, and together they bound it closer than one could. Clocks that agree must not seem to differ by a part of
//! a second: of two runs on one machine the later would else take a time for later than the earlier took it for.

use std::ops::RangeInclusive;
use time::{Duration, OffsetDateTime};

/// What the answers so far say of a rack's clock.
#[derive(Debug, Default)]
pub(super) struct Clock(Option<RangeInclusive<Duration>>);

impl Clock {
    /// An answer that arrived just now, dated `date`, to a call that was sent at `sent`.
    pub(super) fn told(&mut self, date: OffsetDateTime, sent: OffsetDateTime, arrived: OffsetDateTime) {
        let new = date - arrived..=date.saturating_add(Duration::SECOND) - sent;
        let both = self.0.as_ref().map(|known| *known.start().max(new.start())..=*known.end().min(new.end()));
        // Without any in common, this is the first answer, or one of the clocks was set.
        self.0 = Some(both.filter(|both| !both.is_empty()).unwrap_or(new));
    }

    /// The least distance, forward or back, that all answers allow; `None` when none told the time.
    pub(super) fn ahead(&self) -> Option<Duration> {
        // Nothing is within when this machine's clock was set back between a call and its answer.
        let known = self.0.as_ref().filter(|known| !known.is_empty())?;
        Some(Duration::ZERO.clamp(*known.start(), *known.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance after calls at `(sent, arrived, date)`, in milliseconds.
    fn ahead(calls: &[(i64, i64, i64)]) -> Option<i64> {
        let at = |millis| OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(millis);
        let mut clock = Clock::default();
        calls.iter().for_each(|&(sent, arrived, date)| clock.told(at(date), at(sent), at(arrived)));
        clock.ahead().map(|ahead| i64::try_from(ahead.whole_milliseconds()).unwrap())
    }

    #[test]
    fn clocks_that_agree_never_seem_to_differ() {
        for (sent, took, part) in [(0, 0, 0), (10_000, 3, 2), (10_999, 1, 0), (10_999, 2, 1), (10_400, 7_000, 6_999)] {
            assert_eq!(ahead(&[(sent, sent + took, (sent + part) / 1_000 * 1_000)]), Some(0), "sent {sent}, took {took}");
        }
    }

    #[test]
    fn a_clock_that_differs_is_known_better_with_each_answer() {
        assert_eq!(ahead(&[]), None);
        // 90.5 s ahead.
        assert_eq!(ahead(&[(10_000, 10_010, 100_000)]), Some(89_990));
        assert_eq!(ahead(&[(10_000, 10_010, 100_000), (10_499, 10_501, 101_000)]), Some(90_499));
        assert_eq!(ahead(&[(10_499, 10_501, 101_000), (10_000, 15_000, 104_000)]), Some(90_499), "a slow answer tells less");
        // 7.2 s behind.
        assert_eq!(ahead(&[(100_199, 100_201, 93_000)]), Some(-6_199));
    }

    #[test]
    fn a_clock_at_the_end_of_time_is_read_like_any_other() {
        let (date, now) = (time::macros::datetime!(9999-12-31 23:59:59.9 UTC), OffsetDateTime::UNIX_EPOCH);
        let mut clock = Clock::default();
        clock.told(date, now, now);
        assert!(clock.ahead().is_some());
    }

    #[test]
    fn a_clock_that_was_set_is_read_anew() {
        assert_eq!(ahead(&[(10_000, 10_010, 100_000), (20_000, 20_010, 20_000)]), Some(0));
        assert_eq!(ahead(&[(20_000, 10_000, 10_000)]), None, "ours, while it answered");
    }
}
