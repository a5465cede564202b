//! A value that many callers need and one of them fetches.
//!
//! Whoever asks while a fetch is under way gets that fetch's result, good or bad: twenty builds that start together
//! cause one token request, and twenty builds without credentials fail once, not twenty times one after the other.

use super::RegistryError;
use std::time::Instant;
use tokio::sync::Mutex;

/// A value and how long it may be used.
pub struct Fetched<T> {
    /// The value.
    pub value: T,
    /// When to fetch again; `None` for never.
    pub until: Option<Instant>,
}

/// One shared value.
pub struct Shared<T> {
    slot: Mutex<Option<Held<T>>>,
}

struct Held<T> {
    result: Result<Fetched<T>, RegistryError>,
    ended: Instant,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { slot: Mutex::new(None) }
    }
}

impl<T: Clone> Shared<T> {
    /// Returns the value, fetching it when there is none that is still good. `fresh` asks for one that is newer than this
    /// call. `fetch` is not polled when it is not needed.
    pub async fn get(&self, fresh: bool, fetch: impl Future<Output = Result<Fetched<T>, RegistryError>>) -> Result<T, RegistryError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(held) = &*slot {
            let newer = held.ended > asked;
            match &held.result {
                Ok(fetched) if newer || (!fresh && fetched.until.is_none_or(|until| Instant::now() < until)) => {
                    return Ok(fetched.value.clone());
                }
                Err(error) if newer => return Err(error.clone()),
                _ => {}
            }
        }
        let result = fetch.await;
        let answer = match &result {
            Ok(fetched) => Ok(fetched.value.clone()),
            Err(error) => Err(error.clone()),
        };
        *slot = Some(Held { result, ended: Instant::now() });
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    async fn count(calls: &AtomicUsize, until: Option<Instant>) -> Result<Fetched<usize>, RegistryError> {
        let value = calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Fetched { value, until })
    }

    #[tokio::test]
    async fn callers_at_the_same_time_share_one_fetch_even_when_they_want_a_fresh_one() {
        let (shared, calls) = (Shared::default(), AtomicUsize::new(0));
        for fresh in [false, true] {
            let all = (0..20).map(|_| shared.get(fresh, count(&calls, None)));
            futures_util::future::join_all(all).await;
        }
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_value_is_fetched_again_when_it_is_no_longer_good_or_a_newer_one_is_wanted() {
        let (shared, calls) = (Shared::default(), AtomicUsize::new(0));
        assert_eq!(shared.get(false, count(&calls, None)).await.unwrap(), 0);
        assert_eq!(shared.get(false, count(&calls, None)).await.unwrap(), 0);
        assert_eq!(shared.get(true, count(&calls, Some(Instant::now()))).await.unwrap(), 1);
        assert_eq!(shared.get(false, count(&calls, None)).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_waited_for_it_and_by_nobody_else() {
        let (shared, calls) = (Shared::<usize>::default(), AtomicUsize::new(0));
        let fail = async || {
            count(&calls, None).await?;
            Err(RegistryError::Failed { host: "r".to_owned(), message: "no".to_owned() })
        };
        let all = (0..20).map(|_| shared.get(false, fail()));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_err));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert_eq!(shared.get(false, count(&calls, None)).await.unwrap(), 1);
    }
}
