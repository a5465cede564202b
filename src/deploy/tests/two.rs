//! Two runs of different commits on one rack, interleaved at every step: the newer commit is what runs at the end.

use super::*;
use crate::changes::description::{Recorded, describe};
use crate::plan::PlannedLive;
use crate::rack::LiveBuild;
use std::collections::BTreeSet;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A release on the shared rack.
#[derive(Debug, Clone, PartialEq)]
struct Made {
    id: ReleaseId,
    build: BuildId,
    commit: u8,
    description: String,
    env: BTreeMap<String, String>,
}

/// What both runs see: releases in the order they were made, and which one is active.
#[derive(Debug, Default)]
struct State {
    releases: Vec<Made>,
    active: Option<usize>,
    /// The commits that were promoted, in order.
    promoted: Vec<u8>,
    updating: bool,
    /// Somebody's release of this commit, made and promoted between a look and the promote after it.
    slips_in: Option<u8>,
    /// What is active was put there by hand, on top of something newer.
    rolled_back: bool,
}

impl State {
    /// A release made as racks make them: a copy of the newest one with something else in it.
    fn make(&mut self, from: Option<(BuildId, u8, String)>, env: &[(&str, &str)]) -> ReleaseId {
        let id = ReleaseId::new(format!("R{}", self.releases.len())).unwrap();
        let newest = self.releases.last().cloned();
        let mut made = newest.unwrap_or_else(|| Made {
            id: id.clone(),
            build: BuildId::new("B0").unwrap(),
            commit: 0,
            description: String::new(),
            env: BTreeMap::new(),
        });
        if let Some((build, commit, description)) = from {
            (made.build, made.commit, made.description) = (build, commit, description);
        }
        made.env.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        made.id = id.clone();
        self.releases.push(made);
        id
    }

    fn active(&self) -> Option<&Made> {
        self.active.map(|at| &self.releases[at])
    }

    fn at(&self, id: &ReleaseId) -> usize {
        self.releases.iter().position(|made| made.id == *id).unwrap()
    }
}

#[derive(Clone)]
struct Shared {
    name: RackName,
    state: Arc<Mutex<State>>,
    /// Whose run it is.
    commit: u8,
}

fn commit(number: u8) -> CommitId {
    CommitId::new(format!("{number:040x}")).unwrap()
}

fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint::from_sha256(&[number; 32])
}

fn description(number: u8) -> String {
    describe("s", &Recorded::new(fingerprint(number), "cafe", false), &RunId::new("run").unwrap(), None)
}

impl Shared {
    fn of(commit: u8, state: &Arc<Mutex<State>>) -> Self {
        Self { name: rack_name("east"), state: Arc::clone(state), commit }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn live_release(at: usize, made: &Made) -> LiveRelease {
    LiveRelease {
        id: made.id.clone(),
        created: OffsetDateTime::from_unix_timestamp(at as i64).unwrap(),
        description: String::new(),
        build: Some(LiveBuild {
            id: made.build.clone(),
            commit: Some(commit(made.commit)),
            description: made.description.clone(),
            manifest: String::new(),
        }),
        revision: None,
    }
}

#[async_trait::async_trait]
impl RackRead for Shared {
    fn name(&self) -> &RackName {
        &self.name
    }

    async fn info(&self) -> Result<RackInfo, RackError> {
        Ok(RackInfo { major: 2, version: "20260421192651".into(), name: "shared".into() })
    }

    async fn live(&self, _: &str) -> Result<Live, RackError> {
        let state = self.lock();
        let release = state.active.map(|at| live_release(at, &state.releases[at]));
        let replaced = state.rolled_back.then(|| crate::rack::NewerRelease {
            id: ReleaseId::new("RBEFORE").unwrap(),
            build: Some(BuildId::new("BBEFORE").unwrap()),
            commit: Some(commit(2)),
            build_description: description(2),
        });
        let newest = state.releases.last().filter(|_| state.active.is_some_and(|at| at + 1 < state.releases.len()));
        let newer = newest.map(|made| crate::rack::NewerRelease {
            id: made.id.clone(),
            build: Some(made.build.clone()),
            commit: Some(commit(made.commit)),
            build_description: made.description.clone(),
        });
        Ok(Live { status: AppStatus::Running, generation: 2, release, newer, replaced })
    }

    async fn release(&self, _: &str, id: &ReleaseId) -> Result<Option<LiveRelease>, RackError> {
        let state = self.lock();
        let at = state.at(id);
        Ok(Some(live_release(at, &state.releases[at])))
    }

    async fn releases(&self, _: &str) -> Result<Vec<LiveRelease>, RackError> {
        Ok(Vec::new())
    }

    async fn env_change(&self, _: &str, _: &ReleaseId, _: &ReleaseId) -> Result<EnvChange, RackError> {
        Ok(EnvChange::default())
    }

    async fn note(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, RackError> {
        Ok(None)
    }

    fn clock_ahead(&self) -> Option<time::Duration> {
        None
    }
}

#[async_trait::async_trait]
impl Rack for Shared {
    async fn stage(&self, request: &StageRequest, _: &dyn ImageMover, _: &Progress, _: &CancellationToken) -> Result<Staged, RackError> {
        let build = BuildId::new(format!("B{}", self.commit)).unwrap();
        let from = (build.clone(), self.commit, request.description.clone());
        let release = self.lock().make(Some(from), &[("REVISION", request.commit.as_str())]);
        Ok(Staged { build, release, deliver: Deliver::Build })
    }

    async fn copy(&self, _: &str, of: &ReleaseId, _: &crate::rack::Copying, _: &CancellationToken) -> Result<ReleaseId, RackError> {
        let mut state = self.lock();
        let Made { build, commit, description, .. } = state.releases[state.at(of)].clone();
        Ok(state.make(Some((build, commit, description)), &[]))
    }

    async fn renew(
        &self,
        _: &str,
        build: &BuildId,
        revision: Option<&str>,
        description: &str,
        _: &CancellationToken,
    ) -> Result<ReleaseId, RackError> {
        let from = (build.clone(), self.commit, description.to_owned());
        Ok(self.lock().make(Some(from), &[("REVISION", revision.unwrap())]))
    }

    async fn put_note(&self, _: &str, _: &str, _: &[u8]) -> Result<(), RackError> {
        Ok(())
    }

    async fn settled(&self, app: &str, _: Duration, _: &Progress, _: &CancellationToken) -> Result<Live, RackError> {
        self.live(app).await
    }

    async fn promote(
        &self,
        _: &str,
        release: &ReleaseId,
        over: Option<&ReleaseId>,
        _: Duration,
        _: &Progress,
        _: &CancellationToken,
    ) -> Result<Promoted, RackError> {
        {
            let mut state = self.lock();
            if let Some(commit) = state.slips_in.take() {
                state.make(Some((BuildId::new(format!("B{commit}")).unwrap(), commit, description(commit))), &[]);
                state.active = Some(state.releases.len() - 1);
            }
            let active = state.active().map(|made| made.id.clone());
            if active.as_ref() == Some(release) {
                return Ok(Promoted::Live);
            }
            let older = state.active.is_some_and(|at| state.at(release) < at);
            if let Some(active) = active.filter(|active| older || over != Some(active)) {
                return Ok(Promoted::Overtaken { active });
            }
            assert!(!std::mem::replace(&mut state.updating, true), "two promotes at once");
        }
        tokio::task::yield_now().await;
        let mut state = self.lock();
        state.updating = false;
        state.active = Some(state.at(release));
        state.promoted.push(self.commit);
        Ok(Promoted::Live)
    }

    fn hook_login(&self) -> (String, Secret) {
        ("rack.example".into(), Secret::new("rack-password"))
    }
}

/// A run that stands still when it has recorded as many events as it may.
struct Paused {
    world: World,
    may: watch::Sender<u64>,
    stands: watch::Receiver<bool>,
    run: JoinHandle<Ended>,
}

/// The plan for a commit, over what is live now.
fn plan_of(number: u8, rack: &Shared) -> Plan {
    let mut plan = plan(&[("east", &[], &[("a", &[])])]);
    plan.head.commit.id = commit(number);
    plan.builds.clear();
    let app = plan.apps.get_mut(&app_name("a")).unwrap();
    (app.fingerprint, app.revision) = (fingerprint(number), commit(number).to_string());
    app.images[0].action = ImageAction::Reuse { digest: digest(&number.to_string()) };
    let target = &mut plan.lanes[0].targets[0];
    target.description = description(number);
    let state = rack.lock();
    target.live = state.active().map(|made| PlannedLive {
        release: made.id.clone(),
        commit: Some(commit(made.commit)),
        fingerprint: None,
        manifest: String::new(),
        running: true,
    });
    plan
}

/// How commits stand here: the larger number is the newer one, and `9` is of another branch.
fn stands(number: u8) -> Arc<dyn Fn(&CommitId, Option<OffsetDateTime>) -> Ancestry + Send + Sync> {
    Arc::new(move |live, _| {
        let live = (0..=9).find(|other| commit(*other) == *live).unwrap();
        match (number, live) {
            (one, two) if one == two => Ancestry::Same,
            (9, _) | (_, 9) => Ancestry::Diverged,
            (one, two) if one < two => Ancestry::Ancestor,
            _ => Ancestry::Descendant,
        }
    })
}

impl Paused {
    /// Starts a run of `plan`, which stands still after event number `last`.
    fn start(plan: Plan, rack: &Shared, last: u64) -> Self {
        let world = World::default();
        let mut ports = world.ports(&plan);
        ports.racks = BTreeMap::from([(rack.name.clone(), Arc::new(rack.clone()) as Arc<dyn Rack>)]);
        ports.stands = stands(rack.commit);
        let (events, mut receiver) = Events::new(Redactor::default());
        let acks = events.acks();
        let (may, mut allowed) = watch::channel(last);
        let (tell, stands) = watch::channel(false);
        tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                tell.send_replace(event.seq > *allowed.borrow());
                if allowed.wait_for(|last| event.seq <= *last).await.is_err() {
                    return;
                }
                tell.send_replace(false);
                acks.through(event.seq);
            }
            tell.send_replace(true);
        });
        let run = tokio::spawn(async move {
            let (_keep, signals) = unbounded_channel();
            run(Arc::new(plan), ports, &events, signals, None).await
        });
        Self { world, may, stands, run }
    }

    /// Waits until it stands still, or has ended; `true` for the latter.
    async fn stand(&mut self) -> bool {
        self.stands.wait_for(|stands| *stands).await.unwrap();
        self.run.is_finished()
    }

    /// Lets it come to its end; the outcome of its target.
    async fn end(self) -> (String, Vec<String>) {
        // Gone, when the run has ended.
        let _ = self.may.send(u64::MAX);
        let ended = self.run.await.unwrap();
        (ended.targets.values().next().unwrap().word(), self.world.calls())
    }
}

/// A rack that runs commit 0.
fn shared() -> Arc<Mutex<State>> {
    let mut state = State::default();
    state.make(Some((BuildId::new("B0").unwrap(), 0, description(0))), &[("REVISION", "0")]);
    state.active = Some(0);
    Arc::new(Mutex::new(state))
}

fn times(calls: &[String], call: &str) -> usize {
    calls.iter().filter(|made| *made == call).count()
}

#[tokio::test]
async fn interleaved_at_every_pair_of_steps_the_newer_commit_is_what_runs() {
    for (first, second) in [(1, 2), (2, 1)] {
        let mut seen = BTreeSet::new();
        let mut at = 0;
        loop {
            let mut first_ended = false;
            let mut until = 0;
            loop {
                let state = shared();
                let (a, b) = (Shared::of(first, &state), Shared::of(second, &state));
                // Both plans are made before either does anything.
                let plans = (plan_of(first, &a), plan_of(second, &b));
                let mut one = Paused::start(plans.0, &a, at);
                first_ended |= one.stand().await;
                let mut two = Paused::start(plans.1, &b, until);
                let ended = two.stand().await;
                let one = one.end().await;
                let two = two.end().await;
                let place = format!("commit {first} paused after {at}, {second} after {until}");
                let (older, newer) = if first < second { (&one, &two) } else { (&two, &one) };
                let state = state.lock().unwrap();
                let live = state.active().unwrap();
                assert_eq!(live.commit, 2, "{place}: {state:?}");
                assert_eq!(live.env["REVISION"], commit(2).to_string(), "{place}");
                assert_eq!(newer.0, "deployed", "{place}: {newer:?}");
                assert!(["deployed", "stale"].contains(&older.0.as_str()), "{place}: {older:?}");
                // What is promoted follows the order of the commits, and none twice.
                assert!(state.promoted.is_sorted_by(|one, two| one < two), "{place}: {:?}", state.promoted);
                for (word, calls) in [older, newer] {
                    assert!(times(calls, "before_release a@east") <= 1, "{place}: {calls:?}");
                    assert_eq!(times(calls, "after_release a@east"), usize::from(word == "deployed"), "{place}: {calls:?}");
                    assert_eq!(times(calls, "on_failure a@east"), 0, "{place}: {calls:?}");
                }
                seen.insert((older.0.clone(), state.releases.len()));
                if ended {
                    break;
                }
                until += 1;
            }
            if first_ended {
                break;
            }
            at += 1;
        }
        assert!(at > 8, "the run has more events than {at}");
        // The older one was skipped before and after it had staged, and the newer one was staged anew over it.
        let words: BTreeSet<&str> = seen.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words, BTreeSet::from(["deployed", "stale"]));
        assert!(seen.contains(&("stale".to_owned(), 2)) && seen.contains(&("stale".to_owned(), 3)), "{seen:?}");
        assert!(seen.contains(&("deployed".to_owned(), 4)), "{seen:?}");
    }
}

#[tokio::test]
async fn a_release_that_slips_in_between_look_and_promote_is_judged() {
    for (theirs, word, live) in [(1, "deployed", 2), (2, "up-to-date", 2), (3, "stale", 3), (9, "failed(overtaken)", 9)] {
        let state = shared();
        let rack = Shared::of(2, &state);
        state.lock().unwrap().slips_in = Some(theirs);
        let (ended, calls) = Paused::start(plan_of(2, &rack), &rack, u64::MAX).end().await;
        assert_eq!(ended, word);
        assert_eq!(times(&calls, "before_release a@east"), 1, "{calls:?}");
        assert_eq!(state.lock().unwrap().active().unwrap().commit, live);
    }
}

#[tokio::test]
async fn two_runs_of_one_commit_promote_it_once() {
    let mut until = 0;
    loop {
        let state = shared();
        let rack = Shared::of(1, &state);
        let (plan, other) = (plan_of(1, &rack), plan_of(1, &rack));
        let mut one = Paused::start(plan, &rack, until);
        let ended = one.stand().await;
        let two = Paused::start(other, &rack, u64::MAX).end().await;
        let one = one.end().await;
        assert_eq!(state.lock().unwrap().promoted, [1], "paused after {until}");
        let words = BTreeSet::from([one.0.as_str(), two.0.as_str()]);
        assert!(
            words.contains("deployed") && words.is_subset(&BTreeSet::from(["deployed", "up-to-date"])),
            "paused after {until}: {words:?}"
        );
        if ended {
            break;
        }
        until += 1;
    }
}

#[tokio::test]
async fn a_variable_that_is_set_meanwhile_is_kept() {
    let mut until = 0;
    loop {
        let state = shared();
        let rack = Shared::of(1, &state);
        let mut run = Paused::start(plan_of(1, &rack), &rack, until);
        let ended = run.stand().await;
        {
            // `convox env set --promote`: a copy of the newest release, whoever made that.
            let mut state = state.lock().unwrap();
            state.make(None, &[("MODE", "new")]);
            state.active = Some(state.releases.len() - 1);
        }
        let (word, _) = run.end().await;
        let state = state.lock().unwrap();
        let live = state.active().unwrap();
        assert_eq!((live.commit, live.env["MODE"].as_str()), (1, "new"), "paused after {until}: {state:?}");
        assert!(["deployed", "up-to-date"].contains(&word.as_str()), "paused after {until}: {word}");
        if ended {
            break;
        }
        until += 1;
    }
}

#[tokio::test]
async fn flags_go_over_a_newer_or_another_commit_that_slips_in() {
    let table = [
        (2, false, false, "stale", 2),
        (2, true, false, "deployed", 1),
        (9, false, false, "failed(guard)", 9),
        (9, true, false, "failed(guard)", 9),
        (9, false, true, "deployed", 1),
    ];
    for (theirs, allow_older, allow_diverged, word, live) in table {
        let state = shared();
        let rack = Shared::of(1, &state);
        let mut plan = plan_of(1, &rack);
        (plan.options.allow_older, plan.options.allow_diverged) = (allow_older, allow_diverged);
        let other = Shared::of(theirs, &state);
        let other_plan = plan_of(theirs, &other);
        assert_eq!(Paused::start(other_plan, &other, u64::MAX).end().await.0, "deployed");
        assert_eq!(Paused::start(plan, &rack, u64::MAX).end().await.0, word, "{theirs} {allow_older} {allow_diverged}");
        assert_eq!(state.lock().unwrap().active().unwrap().commit, live);
    }
}

#[tokio::test]
async fn a_rollback_by_hand_in_between_is_not_gone_over() {
    let state = shared();
    let rack = Shared::of(3, &state);
    let plan = plan_of(3, &rack);
    {
        let mut state = state.lock().unwrap();
        state.make(Some((BuildId::new("B1").unwrap(), 1, description(1))), &[]);
        (state.active, state.rolled_back) = (Some(1), true);
    }
    let (word, calls) = Paused::start(plan, &rack, u64::MAX).end().await;
    assert_eq!(word, "failed(guard)");
    assert_eq!(times(&calls, "before_release a@east"), 0);
    assert_eq!(state.lock().unwrap().promoted, [0_u8; 0]);
}

/// What somebody else staged before this run staged, and promotes when this run is anywhere: the release of this run may then be
/// the rack's newest and never live, however the target ends.
#[tokio::test]
async fn healing_leaves_no_trap_however_a_target_ends() {
    let mut words = BTreeSet::new();
    for theirs in [1, 2, 9] {
        let mut until = 0;
        loop {
            let state = shared();
            let rack = Shared::of(1, &state);
            state.lock().unwrap().make(Some((BuildId::new(format!("B{theirs}")).unwrap(), theirs, description(theirs))), &[]);
            let mut plan = plan_of(1, &rack);
            plan.options.heal = true;
            let mut run = Paused::start(plan, &rack, until);
            let ended = run.stand().await;
            if ended {
                break;
            }
            state.lock().unwrap().active.get_or_insert(0);
            if state.lock().unwrap().promoted.is_empty() {
                state.lock().unwrap().active = Some(1);
            }
            let (word, _) = run.end().await;
            let state = state.lock().unwrap();
            let (newest, live) = (state.releases.last().unwrap(), state.active().unwrap());
            assert_eq!(newest.build, live.build, "{theirs} after {until}, {word}: {state:?}");
            words.insert(word);
            until += 1;
        }
    }
    let expected = ["deployed", "failed(guard)", "stale", "up-to-date"];
    assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
