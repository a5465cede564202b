//! Waits between tries: longer each time, never quite the same, and as long as the other side asks for.
//!
//! What may be tried again, and how often, is the matter of who asks; here is only when.

use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// No answer makes a run wait longer than this before the next try, whatever it asks for.
pub const LONGEST: Duration = Duration::from_secs(60);

/// The wait after `tried` tries without an answer: `first`, twice as long each time, a half more or less, so that runs that
/// failed together do not come back together.
#[must_use]
pub fn backoff(first: Duration, tried: u32) -> Duration {
    let factor = f64::from(2_u32.saturating_pow(tried.saturating_sub(1).min(5))) * (0.5 + fastrand::f64());
    first.mul_f64(factor).min(LONGEST)
}

/// How long an answer asks to be left alone (`Retry-After`, in seconds or as a date), no longer than [`LONGEST`].
#[must_use]
pub fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    asked_at(headers.get(RETRY_AFTER)?.to_str().ok()?, OffsetDateTime::now_utc())
}

fn asked_at(value: &str, now: OffsetDateTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are longer than any wait.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    // The one form of a date that may still be sent is also one of mail's.
    let then = OffsetDateTime::parse(value, &Rfc2822).ok()?;
    Some(Duration::try_from(then - now).unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_asks_in_seconds_or_with_a_date_and_gets_no_more_than_the_longest() {
        let now = time::macros::datetime!(2026-11-22 20:00:00 UTC);
        let table = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("3600", Some(60)),
            ("99999999999999999999999", Some(60)),
            ("Sun, 22 Nov 2026 20:00:05 GMT", Some(5)),
            ("Sun, 22 Nov 2026 21:00:00 GMT", Some(60)),
            ("Sun, 22 Nov 2026 19:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(asked_at(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn waits_grow_and_differ_and_end() {
        let first = Duration::from_millis(100);
        for (tried, around) in [(1, 100), (2, 200), (3, 400), (6, 3200), (40, 3200)] {
            let wait = backoff(first, tried).as_millis();
            assert!(wait >= around / 2 && wait <= around * 3 / 2, "{tried}: {wait}");
        }
        assert_eq!(backoff(Duration::from_secs(3600), 3), LONGEST);
    }
}
