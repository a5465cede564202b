//! Leases against a store that several runs share, and that fails and lags when told to.

use super::*;
use crate::error::Kind;
use crate::event::{EnvChange, Progress};
use crate::names::{BuildId, RackName, ReleaseId, RunId};
use crate::rack::{ImageMover, Live, LiveRelease, Promoted, RackInfo, RackRead, StageRequest, Staged};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

/// An object store; the rest of the rack is not asked.
#[derive(Default)]
struct Store {
    notes: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    ahead: Option<time::Duration>,
    broken: AtomicBool,
    /// Takes what is written, and never shows it.
    forgets: bool,
    /// Each call takes up to so long.
    lag: Duration,
}

impl Store {
    async fn call(&self) -> Result<(), RackError> {
        if !self.lag.is_zero() {
            tokio::time::sleep(self.lag.mul_f64(fastrand::f64())).await;
        }
        if self.broken.load(Ordering::SeqCst) {
            let (what, message) = ("objects".to_owned(), "AccessDenied".to_owned());
            return Err(RackError::Refused { rack: RackName::new("prod").unwrap(), what, status: 500, message });
        }
        Ok(())
    }

    fn put(&self, app: &str, lease: &Lease) {
        self.notes.lock().unwrap().insert((app.to_owned(), KEY.to_owned()), serde_json::to_vec(lease).unwrap());
    }

    fn get(&self, app: &str) -> Lease {
        serde_json::from_slice(&self.notes.lock().unwrap()[&(app.to_owned(), KEY.to_owned())]).unwrap()
    }
}

#[async_trait::async_trait]
impl RackRead for Store {
    fn name(&self) -> &RackName {
        unreachable!()
    }

    async fn info(&self) -> Result<RackInfo, RackError> {
        unreachable!()
    }

    async fn live(&self, _: &str) -> Result<Live, RackError> {
        unreachable!()
    }

    async fn release(&self, _: &str, _: &ReleaseId) -> Result<Option<LiveRelease>, RackError> {
        unreachable!()
    }

    async fn releases(&self, _: &str) -> Result<Vec<LiveRelease>, RackError> {
        unreachable!()
    }

    async fn env_change(&self, _: &str, _: &ReleaseId, _: &ReleaseId) -> Result<EnvChange, RackError> {
        unreachable!()
    }

    async fn note(&self, app: &str, name: &str) -> Result<Option<Vec<u8>>, RackError> {
        self.call().await?;
        if self.forgets {
            return Ok(None);
        }
        Ok(self.notes.lock().unwrap().get(&(app.to_owned(), name.to_owned())).cloned())
    }

    fn clock_ahead(&self) -> Option<time::Duration> {
        self.ahead
    }
}

#[async_trait::async_trait]
impl Rack for Store {
    async fn stage(&self, _: &StageRequest, _: &dyn ImageMover, _: &Progress, _: &CancellationToken) -> Result<Staged, RackError> {
        unreachable!()
    }

    async fn copy(&self, _: &str, _: &ReleaseId, _: &crate::rack::Copying, _: &CancellationToken) -> Result<ReleaseId, RackError> {
        unreachable!()
    }

    async fn renew(&self, _: &str, _: &BuildId, _: Option<&str>, _: &str, _: &CancellationToken) -> Result<ReleaseId, RackError> {
        unreachable!()
    }

    async fn put_note(&self, app: &str, name: &str, text: &[u8]) -> Result<(), RackError> {
        self.call().await?;
        self.notes.lock().unwrap().insert((app.to_owned(), name.to_owned()), text.to_vec());
        self.call().await
    }

    async fn settled(&self, _: &str, _: Duration, _: &Progress, _: &CancellationToken) -> Result<Live, RackError> {
        unreachable!()
    }

    async fn promote(
        &self,
        _: &str,
        _: &ReleaseId,
        _: Option<&ReleaseId>,
        _: Duration,
        _: &Progress,
        _: &CancellationToken,
    ) -> Result<Promoted, RackError> {
        unreachable!()
    }

    fn hook_login(&self) -> (String, crate::secret::Secret) {
        unreachable!()
    }
}

const NOW: Manner = Manner { wait: Duration::ZERO, look: Duration::from_millis(5), settle: Duration::from_millis(2), over_freezes: false };

fn holder(run: &str) -> Holder {
    Holder::this(RunId::new(run).unwrap(), Some("https://ci.example/7".to_owned()))
}

fn place(store: &Arc<Store>, app: &str) -> Place {
    let target = Target { app: app.parse().unwrap(), rack: RackName::new("prod").unwrap() };
    Place { target, app: app.to_owned(), rack: Arc::clone(store) as Arc<dyn Rack> }
}

fn leases(store: &Arc<Store>, run: &str, apps: &[&str]) -> Leases {
    let places = apps.iter().map(|app| place(store, app)).collect();
    Leases::new(places, holder(run), CommitId::new("1".repeat(40)).unwrap())
}

async fn take(leases: &mut Leases, manner: Manner) -> (Result<bool>, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let taken = leases.acquire(manner, &|text| told.lock().unwrap().push(text)).await;
    (taken, told.into_inner().unwrap())
}

/// A lease of somebody on another machine.
fn theirs(beat: OffsetDateTime) -> Lease {
    let holder = Holder { by: "bob@ci".to_owned(), machine: Some("elsewhere".to_owned()), ..holder("r9") };
    Lease { holder, commit: CommitId::new("2".repeat(40)).unwrap(), beat, ttl: 120, token: "theirs".to_owned(), released: false }
}

#[tokio::test]
async fn a_held_lease_says_who_holds_it_and_what_to_do() {
    let store = Arc::new(Store::default());
    let mut first = leases(&store, "r1", &["web", "api"]);
    let (taken, told) = take(&mut first, NOW).await;
    assert!(!taken.unwrap() && told.is_empty(), "{told:?}");
    let mut second = leases(&store, "r2", &["api"]);
    let error = take(&mut second, NOW).await.0.unwrap_err();
    assert_eq!((error.kind.exit_code(), error.message.as_str()), (5, "another run deploys to `api@prod`"));
    let text = error.to_string();
    let unlock = "offbuild unlock --force api@prod";
    for part in ["for run `r1` of commit 111111111111 since ", " ago", "see https://ci.example/7", "`--lock-wait 15m`", unlock] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(take(&mut leases(&store, "r2", &["other"]), NOW).await.0.is_ok());
    // What was not had gives nothing of the other's back.
    second.release().await;
    assert!(!store.get("api").released);
    first.release().await;
    assert!(store.get("api").released && store.get("web").released);
    assert!(take(&mut second, NOW).await.0.is_ok());
}

#[tokio::test]
async fn whoever_waits_gets_it_when_it_is_given_back() {
    let store = Arc::new(Store::default());
    let mut first = leases(&store, "r1", &["web"]);
    take(&mut first, NOW).await.0.unwrap();
    let mut second = leases(&store, "r2", &["web"]);
    let waiting = take(&mut second, Manner { wait: Duration::from_secs(600), ..NOW });
    let giving = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        first.release().await;
    };
    let ((taken, told), ()) = tokio::join!(waiting, giving);
    assert!(taken.unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("waiting: web@prod is held by "), "{told:?}");
}

#[tokio::test]
async fn a_lease_is_judged_by_the_racks_clock() {
    for ahead in [None, Some(time::Duration::hours(5)), Some(time::Duration::hours(-5))] {
        let store = Arc::new(Store { ahead, ..Store::default() });
        let now = OffsetDateTime::now_utc() + ahead.unwrap_or_default();
        store.put("web", &theirs(now - time::Duration::seconds(100)));
        assert_eq!(take(&mut leases(&store, "r2", &["web"]), NOW).await.0.unwrap_err().kind, Kind::Locked);
        store.put("web", &theirs(now - time::Duration::seconds(130)));
        let mut second = leases(&store, "r2", &["web"]);
        let (taken, told) = take(&mut second, NOW).await;
        assert!(taken.unwrap());
        assert!(told[0].starts_with("took over `web@prod`, held by bob@ci ") && told[0].contains("no sign of life for 2m 1"), "{told:?}");
        assert!((store.get("web").beat - now).abs() < time::Duration::minutes(1));
    }
}

#[tokio::test]
async fn a_heartbeat_that_stands_still_is_over_whatever_the_clocks_say() {
    let store = Arc::new(Store::default());
    let future = OffsetDateTime::now_utc() + time::Duration::days(1);
    store.put("web", &Lease { ttl: 0, ..theirs(future) });
    let mut second = leases(&store, "r2", &["web"]);
    let (taken, told) = take(&mut second, Manner { wait: Duration::from_secs(600), ..NOW }).await;
    assert!(taken.unwrap() && told.last().unwrap().ends_with("its heartbeat stands still"), "{told:?}");
}

#[tokio::test]
async fn the_lease_of_a_process_of_this_machine_that_is_gone_is_taken_over_at_once() {
    let store = Arc::new(Store::default());
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let gone = Holder { pid: child.id(), ..holder("r1") };
    child.wait().unwrap();
    store.put("web", &Lease { holder: gone, ..theirs(OffsetDateTime::now_utc()) });
    let mut second = leases(&store, "r2", &["web"]);
    let (taken, told) = take(&mut second, NOW).await;
    assert!(taken.unwrap() && told[0].ends_with("its process is gone"), "{told:?}");
}

#[tokio::test]
async fn a_store_that_never_shows_what_it_took_is_told_once_and_keeps_nobody() {
    let store = Arc::new(Store { forgets: true, ..Store::default() });
    let (taken, told) = take(&mut leases(&store, "r1", &["web", "api"]), NOW).await;
    assert!(!taken.unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("nor does it see a lock set by hand: what is written there cannot be read"), "{told:?}");
}

#[tokio::test]
async fn a_store_that_fails_is_told_once_and_keeps_nobody() {
    let store = Arc::new(Store::default());
    store.broken.store(true, Ordering::SeqCst);
    let mut first = leases(&store, "r1", &["web"]);
    let (taken, told) = take(&mut first, NOW).await;
    assert!(!taken.unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("`web@prod` cannot be leased, so other runners do not see this run, nor does it see a lock set by hand: ")
            && told[0].contains("AccessDenied")
    );
    assert_eq!(first.question()(place(&store, "web").target).await, Ok(()));
}

#[tokio::test]
async fn a_lock_set_by_hand_refuses_until_it_is_over() {
    let store = Arc::new(Store::default());
    let mut freeze = Freeze {
        by: "ada@laptop".to_owned(),
        message: "incident 12".to_owned(),
        since: OffsetDateTime::now_utc(),
        until: None,
        ci_url: None,
        released: false,
    };
    let mut run = leases(&store, "r1", &["web"]);
    take(&mut run, NOW).await.0.unwrap();
    let question = run.question();
    assert_eq!(question(place(&store, "web").target).await, Ok(()));
    // Set while a run is under way: what that has not promoted yet, it will not.
    freeze::set(&*store, "web", &freeze).await.unwrap();
    let why = question(place(&store, "web").target).await.unwrap_err();
    assert!(why.starts_with("`web@prod` is locked by ada@laptop since ") && why.ends_with(" ago: incident 12"), "{why}");
    run.release().await;
    let error = take(&mut leases(&store, "r2", &["web"]), NOW).await.0.unwrap_err();
    assert_eq!((error.kind.exit_code(), error.hint.as_deref()), (5, Some("when that is over: offbuild unlock web@prod")));
    // A person who goes back by hand goes on.
    let mut back = leases(&store, "r3", &["web"]);
    let (taken, told) = take(&mut back, Manner { over_freezes: true, ..NOW }).await;
    assert!(!taken.unwrap() && told[0].ends_with("incident 12; going on all the same"), "{told:?}");
    assert_eq!(back.question()(place(&store, "web").target).await, Ok(()));
    back.release().await;
    for over in [Freeze { until: Some(OffsetDateTime::now_utc()), ..freeze.clone() }, Freeze { released: true, ..freeze.clone() }] {
        freeze::set(&*store, "web", &over).await.unwrap();
        let mut run = leases(&store, "r4", &["web"]);
        take(&mut run, NOW).await.0.unwrap();
        run.release().await;
    }
    freeze.until = Some(OffsetDateTime::now_utc() + time::Duration::hours(1));
    freeze::set(&*store, "web", &freeze).await.unwrap();
    assert!(take(&mut leases(&store, "r5", &["web"]), NOW).await.0.unwrap_err().message.contains(", until "));
    // What is written on a rack does not reach a terminal as it is.
    freeze::set(&*store, "web", &Freeze { message: "\u{1b}[2Jgone\nerror: none".to_owned(), ..freeze }).await.unwrap();
    let text = take(&mut leases(&store, "r6", &["web"]), NOW).await.0.unwrap_err().message;
    assert!(text.ends_with("[2Jgone error: none") && !text.contains('\u{1b}'), "{text}");
    store.put_note("web", "freeze", b"{").await.unwrap();
    assert_eq!(take(&mut leases(&store, "r7", &["web"]), NOW).await.0.unwrap_err().kind, Kind::Locked);
}

#[tokio::test]
async fn a_lease_that_was_lost_is_known_before_the_promote_and_left_to_whoever_has_it() {
    let store = Arc::new(Store::default());
    let mut run = leases(&store, "r1", &["web"]);
    take(&mut run, NOW).await.0.unwrap();
    let lease = theirs(OffsetDateTime::now_utc());
    store.put("web", &lease);
    run.held.refresh(&run.held.places[0]).await;
    let why = run.question()(place(&store, "web").target).await.unwrap_err();
    assert!(why.starts_with("another run took `web@prod` over, held by bob@ci for run `r9`"), "{why}");
    run.release().await;
    assert_eq!(store.get("web"), lease);
    // Given back, it keeps nobody.
    store.put("web", &Lease { released: true, ..lease });
    assert_eq!(run.question()(place(&store, "web").target).await, Ok(()));
}

#[tokio::test]
async fn a_run_that_is_stopped_while_it_takes_leases_gives_them_back() {
    let store = Arc::new(Store::default());
    let mut run = leases(&store, "r1", &["web"]);
    let manner = Manner { settle: Duration::from_secs(600), ..NOW };
    assert!(tokio::time::timeout(Duration::from_millis(50), run.acquire(manner, &|_| {})).await.is_err());
    assert!(!store.get("web").released);
    run.release().await;
    assert!(store.get("web").released);
}

#[tokio::test]
async fn of_many_that_race_one_is_inside_at_a_time() {
    // Every call takes less than a run gives the others to settle.
    let store = Arc::new(Store { lag: Duration::from_millis(4), ..Store::default() });
    let inside = Arc::new(AtomicUsize::new(0));
    let runs = (0..8).map(|number| {
        let (store, inside) = (Arc::clone(&store), Arc::clone(&inside));
        tokio::spawn(async move {
            // In different orders, so that two could wait for each other.
            let apps = if number % 2 == 0 { ["web", "api"] } else { ["api", "web"] };
            let mut run = leases(&store, &format!("r{number}"), &apps);
            let manner = Manner { wait: Duration::from_secs(600), settle: Duration::from_millis(40), ..NOW };
            take(&mut run, manner).await.0.unwrap();
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            tokio::time::sleep(Duration::from_millis(5)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
            run.release().await;
        })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

/// Whoever can write to the store, or answers for a rack, may write any time.
#[tokio::test]
async fn times_at_the_ends_of_the_calendar_are_told_like_any_other() {
    let last = "9999-12-31T23:59:59-23:59";
    let first = "0000-01-01T00:00:00+23:59";
    for (at, ahead) in [(last, None), (first, None), (last, Some(time::Duration::MAX)), (last, Some(time::Duration::MIN))] {
        let store = Arc::new(Store { ahead, ..Store::default() });
        let freeze = format!(r#"{{"by": "ada@laptop", "message": "m", "since": "{at}", "until": "{last}"}}"#);
        store.put_note("web", "freeze", freeze.as_bytes()).await.unwrap();
        let mut run = leases(&store, "r1", &["web"]);
        let locked = take(&mut run, NOW).await.0;
        assert!(locked.is_err() || ahead == Some(time::Duration::MAX), "{at} {ahead:?}");
        let _ = run.question()(place(&store, "web").target).await;
        store.put_note("web", "freeze", br#"{"by": "", "message": "", "since": "2026-11-22T20:00:00Z", "released": true}"#).await.unwrap();
        let lease = serde_json::to_string(&theirs(OffsetDateTime::now_utc())).unwrap();
        let lease: serde_json::Value = serde_json::from_str(&lease).unwrap();
        let mut lease = lease;
        (lease["beat"], lease["holder"]["since"]) = (at.into(), at.into());
        store.put_note("web", KEY, lease.to_string().as_bytes()).await.unwrap();
        let _ = take(&mut leases(&store, "r2", &["web"]), NOW).await;
    }
}
