//! What is done for one target, in its rack's lane: stage → `before_release` → promote → wait → `after_release`.
//!
//! A release that an earlier run staged is taken over in place of staging, and its finished hooks do not run again. Right before
//! the promote the lock must still be ours, and the rack is read once more ([`super::guard`]).

use super::guard::{Found, Guarded};
use super::schedule::{AppImages, Failure};
use super::{Context, Stop, failure, hook_env, images};
use crate::config::HookKind;
use crate::event::{EventKind, FailureClass, Stage, Step, TargetOutcome};
use crate::names::{BuildId, Fingerprint, ImageRef, ReleaseId, Repository, ServiceName, Target};
use crate::plan::{AppPlan, Origin, PlannedLive, TargetPlan, Until};
use crate::rack::{Copying, Deliver, ImageMover, Promoted, Rack, RackError, StageRequest, Staged, StagedImage};
use crate::registry::Login;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often what is live may move under a promote before it is given up.
const MOST_LOOKS: u32 = 5;

/// Releases a target and tells how it ended, and its release as soon as there was one.
pub(crate) async fn release(target: &Target, images: &AppImages, context: &Context) -> (TargetOutcome, Option<ReleaseId>) {
    let mut known = Known::default();
    let outcome = released(target, images, context, &mut known).await;
    (outcome, known.release)
}

async fn released(target: &Target, images: &AppImages, context: &Context, known: &mut Known) -> TargetOutcome {
    let plan = Arc::clone(&context.plan);
    let planned = plan.targets().find(|planned| planned.target == *target);
    let (Some(planned), Some(app), Some(rack)) = (planned, plan.apps.get(&target.app), context.ports.racks.get(&target.rack)) else {
        // The composition root makes plan and ports from one list of racks.
        return TargetOutcome::NotAttempted { why: format!("`{target}` is not in the plan") };
    };
    let subject = target.to_string();
    let ended = steps(planned, app, rack, images, context, known).await;
    match ended.map_err(|(stage, stop)| (stage, context.why(&subject, stage, stop))) {
        Ok(outcome) => outcome,
        Err((_, Stop::Cancelled)) => TargetOutcome::Cancelled,
        Err((_, Stop::Ended(outcome))) => outcome,
        Err((stage, stop)) => {
            let rolled_back = match &stop {
                Stop::RolledBack(message) => Some(message.clone()),
                _ => None,
            };
            let Some(failed) = failure(stage, stop) else { return TargetOutcome::Cancelled };
            tell_failure(app, Some((planned, known.release.as_ref(), rack)), &failed, context).await;
            let Failure { stage, class, message, hint } = failed;
            match rolled_back {
                Some(message) => TargetOutcome::RolledBack { message, group: None },
                None => TargetOutcome::Failed { stage, class, message, hint },
            }
        }
    }
}

/// What is known of a target's release when a later step fails.
#[derive(Default)]
struct Known {
    release: Option<ReleaseId>,
}

async fn steps(
    target: &TargetPlan,
    app: &AppPlan,
    rack: &Arc<dyn Rack>,
    images: &AppImages,
    context: &Context,
    known: &mut Known,
) -> Result<TargetOutcome, (Stage, Stop)> {
    let at = |stage: Stage| Step { app: app.name.clone(), rack: Some(target.target.rack.clone()), service: None, stage };
    let on = |stage: Stage| move |stop: Stop| (stage, stop);
    let mut guarded = Guarded::new(target, app, rack, context);

    let (build, mut release) = match &target.origin {
        Origin::Adopt(adopted) => (adopted.build.clone(), adopted.release.clone()),
        Origin::Copy { of, build } => {
            let work = async {
                let copied = rack.copy(&target.config.name, of, &Copying::Rollback, &context.cancel).await;
                copied.map_err(|error| rack_stop(error, FailureClass::Rack))
            };
            let release = context.step(&at(Stage::Stage), format!("a copy of {of}"), work).await.map_err(on(Stage::Stage))?;
            tell_staged(target, build, &release, None, context).await;
            (build.clone(), release)
        }
        Origin::Stage => match stage(&mut guarded, images, at(Stage::Stage)).await.map_err(on(Stage::Stage))? {
            Some(Staged { build, release, .. }) => {
                tell_staged(target, &build, &release, None, context).await;
                (build, release)
            }
            None => return Ok(TargetOutcome::UpToDate),
        },
    };
    known.release = Some(release.clone());
    if context.plan.options.until < Until::Promote {
        return Ok(TargetOutcome::Staged { release });
    }

    let hook = |kind: HookKind, release: &ReleaseId| {
        let done = matches!(&target.origin, Origin::Adopt(adopted) if adopted.done.contains(&kind.stage()));
        let command = || hook_env::release_hook(&context.plan, app, target, kind, Some(release), Some(rack.hook_login()));
        if done { None } else { command() }
    };
    if let Some(command) = hook(HookKind::BeforeRelease, &release) {
        let ran = images::run_hook(&command, &at(Stage::BeforeRelease), context, &context.cancel).await;
        ran.map_err(on(Stage::BeforeRelease))?;
    }
    if context.cancel.is_cancelled() {
        return Err((Stage::Promote, Stop::Cancelled));
    }
    let step = at(Stage::Promote);
    let work = promote(&mut guarded, &build, &mut release, &step);
    let promoted = context.step(&step, release_word(known), work).await;
    known.release = Some(release.clone());
    promoted.map_err(on(Stage::Promote))?;
    if let Some(command) = hook(HookKind::AfterRelease, &release) {
        let ran = images::run_hook(&command, &at(Stage::AfterRelease), context, &context.cancel).await;
        ran.map_err(on(Stage::AfterRelease))?;
    }
    Ok(TargetOutcome::Deployed { release })
}

/// Promotes the release, over what the target was judged over and nothing else. What became active meanwhile is judged; when
/// it may be gone over and was made after `release`, which racks refuse to promote then, `release` becomes a new one of
/// the same build. Its finished `before_release` hook does not run again: image and commit are the same.
async fn promote(guarded: &mut Guarded<'_>, build: &BuildId, release: &mut ReleaseId, step: &Step) -> Result<(), Stop> {
    let Guarded { target, app, rack, context, .. } = *guarded;
    let (name, progress) = (&target.config.name, context.events.progress(step.clone()));
    let mut overtaken: Option<ReleaseId> = None;
    for _ in 0..MOST_LOOKS {
        may_change(&target.target, context).await?;
        let found = match (guarded.look(Some(release), step, &progress).await, overtaken.take()) {
            (Err(Stop::Failed { class: FailureClass::Guard, .. }), Some(active)) => return Err(overtaken_by(&active, release, target)),
            (found, _) => found?,
        };
        let adopted_late = matches!(&target.origin, Origin::Adopt(adopted) if adopted.outdated);
        let active = match found {
            Found::MovedOn(active) => {
                // Whoever goes on with this run compares with what it was to go over last.
                tell_staged(target, build, release, guarded.over(), context).await;
                Some(active)
            }
            Found::AsJudged(live) => live.release.filter(|_| adopted_late),
            Found::Ours => None,
        };
        if let Some(active) = active
            && guarded.is_outdated(release, &active).await?
        {
            let revision = target.config.revision.then_some(app.revision.as_str());
            let made = rack.renew(name, build, revision, &target.description, &context.cancel).await;
            *release = made.map_err(|error| rack_stop(error, FailureClass::Rack))?;
            tell_staged(target, build, release, guarded.over(), context).await;
        }
        let over = guarded.over();
        let promoted = rack.promote(name, release, over, target.config.timeouts.promote, &progress, &context.cancel).await;
        match promoted.map_err(|error| rack_stop(error, FailureClass::Promote))? {
            Promoted::Live => return Ok(()),
            Promoted::RolledBack { active } => {
                let active = active.map_or_else(|| "nothing".to_owned(), |active| active.to_string());
                return Err(Stop::RolledBack(format!("rack `{}` rolled `{name}` back: {active} is active, not {release}", rack.name())));
            }
            // Not an answer yet: what is active now may be older, newer or the same.
            Promoted::Overtaken { active } => overtaken = Some(active),
        }
    }
    let active = overtaken.or_else(|| guarded.over().cloned());
    Err(active.map_or_else(|| Stop::failed(FailureClass::Overtaken, "nothing is active"), |active| overtaken_by(&active, release, target)))
}

/// The locks of a target are still this run's, and nobody locked it by hand.
pub(super) async fn may_change(target: &Target, context: &Context) -> Result<(), Stop> {
    (context.ports.may_promote)(target).await.map_err(|why| {
        let message = format!("{why}, so nothing is changed for `{target}`");
        Stop::failed(FailureClass::Guard, message).hint("see who deploys (offbuild status), then deploy again")
    })
}

fn overtaken_by(active: &ReleaseId, release: &ReleaseId, target: &TargetPlan) -> Stop {
    let message = format!("{active} was promoted on `{}` meanwhile; {release} is not live", target.target);
    Stop::failed(FailureClass::Overtaken, message).hint("deploy again if this commit should be live")
}

fn release_word(known: &Known) -> String {
    known.release.as_ref().map(ToString::to_string).unwrap_or_default()
}

async fn tell_staged(target: &TargetPlan, build: &BuildId, release: &ReleaseId, over: Option<&ReleaseId>, context: &Context) {
    let (target, build, release) = (target.target.clone(), build.clone(), release.clone());
    context.events.record(EventKind::ReleaseStaged { target, build, release, over: over.cloned() }).await;
}

/// Stages the target's release; `None` when the rack runs exactly this already.
async fn stage(guarded: &mut Guarded<'_>, images: &AppImages, step: Step) -> Result<Option<Staged>, Stop> {
    let Guarded { target, app, rack, context, .. } = *guarded;
    let manifest = rewritten(target, images)?;
    if target.live.as_ref().is_some_and(|live| live.running && runs(live.fingerprint.as_ref(), &live.manifest, app, &manifest)) {
        return Ok(None);
    }
    let request = request(target, app, manifest, images, context).await?;
    let progress = context.events.progress(step.clone());
    let mover = Mover { context, step: Step { service: None, stage: Stage::Push, ..step.clone() } };
    let work = async {
        // A release that will not be promoted is better not made: the rack builds the next `env set` on the newest one.
        let found = match guarded.look(None, &step, &progress).await {
            Err(Stop::Ended(TargetOutcome::UpToDate)) => return Ok(None),
            found => found?,
        };
        if let Found::AsJudged(live) = &found {
            // Perhaps what a killed run promoted: staging the same again would promote it twice.
            let now = PlannedLive::of(live);
            if now.is_some_and(|now| runs(now.fingerprint.as_ref(), &now.manifest, app, &request.manifest)) {
                return Ok(None);
            }
        }
        let staged = rack.stage(&request, &mover, &progress, &context.cancel).await;
        staged.map(Some).map_err(|error| rack_stop(error, FailureClass::Rack))
    };
    context.step(&step, target.config.name.clone(), work).await
}

/// The manifest with every built service pinned to its digest.
fn rewritten(target: &TargetPlan, images: &AppImages) -> Result<String, Stop> {
    let pinned: BTreeMap<ServiceName, String> = images
        .iter()
        .map(|(service, (repository, digest))| {
            let image = ImageRef { repository: repository.clone(), tag: None, digest: Some(digest.clone()) };
            (service.clone(), image.to_string())
        })
        .collect();
    target.manifest.rewrite(&pinned).map_err(|problems| {
        let text = &target.manifest.document.text;
        let lines: Vec<String> = problems.iter().map(|problem| crate::yaml::excerpt(problem, text)).collect();
        Stop::failed(FailureClass::Rack, format!("the manifest of `{}` cannot be rewritten:\n{}", target.target, lines.join("\n")))
    })
}

/// True when a build with this fingerprint and manifest is exactly what this target is to run.
fn runs(fingerprint: Option<&Fingerprint>, made_with: &str, app: &AppPlan, manifest: &str) -> bool {
    fingerprint == Some(&app.fingerprint) && made_with == manifest
}

async fn request(
    target: &TargetPlan,
    app: &AppPlan,
    manifest: String,
    images: &AppImages,
    context: &Context,
) -> Result<StageRequest, Stop> {
    // The import's token is for one registry: the one of the app's own images.
    let host = images.values().map(|(repository, _)| repository.host.as_str()).next();
    let login = match (target.config.deliver, host) {
        (Deliver::Auto | Deliver::Import, Some(host)) => {
            context.ports.registry.login(host, false).await.map_err(|error| images::registry_stop(&error))?
        }
        _ => None,
    };
    let name = target.manifest.path.file_name();
    Ok(StageRequest {
        app: target.config.name.clone(),
        manifest_name: name,
        manifest,
        images: images
            .iter()
            .map(|(service, (repository, digest))| StagedImage {
                service: service.clone(),
                repository: repository.clone(),
                digest: digest.clone(),
            })
            .collect(),
        commit: context.plan.head.commit.id.clone(),
        description: target.description.clone(),
        token: context.plan.run.to_string(),
        revision: target.config.revision.then(|| app.revision.clone()),
        deliver: target.config.deliver,
        login,
        timeout: target.config.timeouts.rack_build,
    })
}

/// Runs `on_failure`, which can never hide the first error: what it does wrong is told as its step's failure only.
pub(crate) async fn tell_failure(
    app: &AppPlan,
    target: Option<(&TargetPlan, Option<&ReleaseId>, &Arc<dyn Rack>)>,
    failed: &Failure,
    context: &Context,
) {
    let rack = target.map(|(target, ..)| target.target.rack.clone());
    let told = target.map(|(target, release, rack)| (target, release, Some(rack.hook_login())));
    let Some(command) = hook_env::failure_hook(&context.plan, app, told, failed) else { return };
    let step = Step { app: app.name.clone(), rack, service: None, stage: Stage::OnFailure };
    // The step's own failure is recorded by then, and there is nothing it could stop.
    let _ = images::run_hook(&command, &step, context, &context.cancel).await;
}

pub(crate) fn rack_stop(error: RackError, other: FailureClass) -> Stop {
    let class = match &error {
        RackError::Cancelled => return Stop::Cancelled,
        RackError::Login { .. } => FailureClass::RackLogin,
        RackError::Unreachable { .. } => FailureClass::RackUnreachable,
        RackError::Build { .. } => FailureClass::RackBuild,
        RackError::Timeout { .. } if other == FailureClass::Promote => FailureClass::PromoteTimeout,
        RackError::Timeout { .. } => FailureClass::RackBuildTimeout,
        RackError::Push { .. } => FailureClass::Push,
        RackError::NoApp { .. }
        | RackError::Updating { .. }
        | RackError::Refused { .. }
        | RackError::Unsupported { .. }
        | RackError::Unknown { .. } => other,
    };
    let stop = Stop::failed(class, error.to_string());
    match error.hint() {
        Some(hint) => stop.hint(hint),
        None => stop,
    }
}

/// Moves images through the engine into a rack's own registry.
struct Mover<'c> {
    context: &'c Context,
    step: Step,
}

#[async_trait::async_trait]
impl ImageMover for Mover<'_> {
    async fn push_to(&self, image: &StagedImage, to: &Repository, tag: &str, login: &Login) -> Result<(), String> {
        let ports = &self.context.ports;
        let reference = format!("{}@{}", image.repository, image.digest);
        let text = |error: crate::build::BuildError| error.to_string();
        if ports.builder.image_id(&reference).await.map_err(text)?.is_none() {
            // An image that was not built here comes from its repository first.
            let own = ports.registry.login(&image.repository.host, false).await.map_err(|error| error.to_string())?;
            ports.builder.pull(&image.repository, &image.digest, own.as_ref()).await.map_err(text)?;
        }
        ports.builder.tag(&reference, to, tag).await.map_err(text)?;
        let step = Step { service: Some(image.service.clone()), ..self.step.clone() };
        let progress = self.context.events.progress(step);
        let pushed = ports.builder.push(to, tag, Some(login), &progress, &self.context.cancel).await.map_err(text);
        // The name in the rack's registry is of no use on this machine, and that it stays is no reason to fail.
        if let Err(error) = ports.builder.untag(&format!("{to}:{tag}")).await {
            progress.notice(format!("`{to}:{tag}` stays on the engine: {error}"));
        }
        pushed.map(drop)
    }
}
