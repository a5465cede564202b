//! The image phase of an app: `before_build` → build every image → `after_build` → push, once per app whatever the racks.
//!
//! Builds in flight are bounded by weight; equal builds of several services or apps run once. An app none of whose images
//! has to be built runs no build hook: its images only get this commit's tag.

use super::schedule::{AppImages, ImagesOutcome};
use super::{Context, Stop, failure, hook_env, lanes};
use crate::build::BuildError;
use crate::config::HookKind;
use crate::event::{EventKind, FailureClass, Progress, Stage, Step};
use crate::hooks::{HookCommand, HookError};
use crate::names::{AppName, Digest, ImageId};
use crate::plan::{AppPlan, ImageAction, ImagePlan, Plan};
use crate::registry::RegistryError;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

/// The builds of a run: each runs once, and only so many at a time.
pub(crate) struct Builds {
    made: Vec<OnceCell<Result<ImageId, Stop>>>,
    slots: Semaphore,
    jobs: u32,
}

impl Builds {
    pub(crate) fn new(plan: &Plan) -> Self {
        let jobs = plan.options.jobs.clamp(1, 10_000);
        Self {
            made: plan.builds.iter().map(|_| OnceCell::new()).collect(),
            slots: Semaphore::new(jobs),
            jobs: u32::try_from(jobs).unwrap_or(10_000),
        }
    }

    /// Waits for room for work of this weight; `None` when the run was asked to stop first.
    async fn slot(&self, weight: usize, cancel: &CancellationToken) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let weight = u32::try_from(weight).unwrap_or(self.jobs).clamp(1, self.jobs);
        tokio::select! {
            () = cancel.cancelled() => None,
            permit = self.slots.acquire_many(weight) => permit.ok(),
        }
    }
}

/// Makes an app's images and puts them into their repositories.
pub(crate) async fn make(name: &AppName, context: &Context) -> ImagesOutcome {
    let Some(app) = context.plan.apps.get(name) else { return ImagesOutcome::Ready(AppImages::new()) };
    match phase(app, context).await {
        Ok(images) => ImagesOutcome::Ready(images),
        Err((stage, stop)) => match failure(stage, context.why(app.name.as_str(), stage, stop)) {
            None => ImagesOutcome::Cancelled,
            Some(failed) => {
                lanes::tell_failure(app, None, &failed, context).await;
                ImagesOutcome::Failed(failed)
            }
        },
    }
}

async fn phase(app: &AppPlan, context: &Context) -> Result<AppImages, (Stage, Stop)> {
    if let Some(message) = app.images.iter().find_map(|image| match &image.action {
        ImageAction::Conflict { message, .. } => Some(message),
        _ => None,
    }) {
        let stop = Stop::failed(FailureClass::TagConflict, message.clone())
            .hint("commit again to get a new tag, or delete the tag in the registry if nothing uses it");
        return Err((Stage::Push, stop));
    }
    if app.builds() {
        hook(app, HookKind::BeforeBuild, context).await.map_err(|stop| (Stage::BeforeBuild, stop))?;
        let built = join_all(app.images.iter().map(|image| build(app, image, context))).await;
        built.into_iter().collect::<Result<Vec<()>, Stop>>().map_err(|stop| (Stage::Build, stop))?;
        hook(app, HookKind::AfterBuild, context).await.map_err(|stop| (Stage::AfterBuild, stop))?;
    }
    let pushed = join_all(app.images.iter().map(|image| publish(app, image, context))).await;
    let mut images = AppImages::new();
    for (image, result) in app.images.iter().zip(pushed) {
        let digest = result.map_err(|stop| (Stage::Push, stop))?;
        images.insert(image.service.clone(), (image.repository.clone(), digest));
    }
    // Only when all of the app's images are up: `.latest` never names half an app.
    for image in &app.images {
        let (Some(latest), Some((repository, digest))) = (&image.latest_tag, images.get(&image.service)) else { continue };
        if let Err(error) = context.ports.registry.retag(repository, digest, latest).await {
            let message = format!("`{repository}:{latest}` was not moved: {error}; `latest: false` turns it off");
            context.events.progress(step(app, image, Stage::Push)).notice(message);
        }
    }
    Ok(images)
}

fn step(app: &AppPlan, image: &ImagePlan, stage: Stage) -> Step {
    Step { app: app.name.clone(), rack: None, service: Some(image.service.clone()), stage }
}

async fn hook(app: &AppPlan, kind: HookKind, context: &Context) -> Result<(), Stop> {
    let Some(command) = hook_env::build_hook(&context.plan, app, kind) else { return Ok(()) };
    let Some(_slot) = context.builds.slot(1, &context.stop_builds).await else { return Err(Stop::Cancelled) };
    let step = Step { app: app.name.clone(), rack: None, service: None, stage: kind.stage() };
    run_hook(&command, &step, context, &context.stop_builds).await
}

/// Runs a hook as a step.
pub(crate) async fn run_hook(command: &HookCommand, step: &Step, context: &Context, cancel: &CancellationToken) -> Result<(), Stop> {
    let progress = context.events.progress(step.clone());
    let subject = step.subject();
    let stage = step.stage.name();
    context
        .step(step, command.shown(), async {
            context.ports.hooks.run(command, &progress, cancel).await.map_err(|error| match error {
                HookError::Cancelled => Stop::Cancelled,
                HookError::Timeout { .. } => Stop::failed(FailureClass::HookTimeout, format!("hook `{stage}` of `{subject}`: {error}"))
                    .hint("give it more time with `timeouts: {hook: …}` in apps.yaml, or make it quicker"),
                error => Stop::failed(FailureClass::Hook, format!("hook `{stage}` of `{subject}`: {error}")).hint(format!(
                    "run it by hand: (cd {} && {})",
                    command.directory.display(),
                    command.shown()
                )),
            })
        })
        .await
}

async fn build(app: &AppPlan, image: &ImagePlan, context: &Context) -> Result<(), Stop> {
    let ImageAction::Build { build: index } = image.action else { return Ok(()) };
    let planned = &context.plan.builds[index];
    let step = step(app, image, Stage::Build);
    let me = (app.name.clone(), image.service.clone());
    let made = context.builds.made[index].get_or_init(|| async {
        let Some(_slot) = context.builds.slot(planned.weight, &context.stop_builds).await else { return Err(Stop::Cancelled) };
        let progress = context.events.progress(step.clone());
        let build = |cancel: CancellationToken| {
            let progress = progress.clone();
            async move { context.ports.builder.build(&planned.build, &planned.labels, &progress, &cancel).await }
        };
        let work = async {
            limited(app.timeouts.build, &context.stop_builds, &progress, build).await.map_err(|error| build_stop(error, app, image))
        };
        context.step(&step, planned.dockerfile.to_string(), work).await
    });
    let shared = planned.used_by.first().is_some_and(|first| *first != me);
    let id = match made.await {
        Ok(id) => id,
        Err(stop) if shared => {
            let others: Vec<String> = planned.used_by.iter().map(|(app, service)| format!("{app}/{service}")).collect();
            context.events.progress(step.clone()).notice(format!("the build is shared by {}", others.join(", ")));
            return Err(stop.clone());
        }
        Err(stop) => return Err(stop.clone()),
    };
    context
        .ports
        .builder
        .tag(id.as_str(), &image.repository, &image.tag)
        .await
        .map_err(|error| Stop::failed(FailureClass::Engine, format!("tagging `{}` failed: {error}", image.reference())))
}

/// Runs `work` with a limit: past it, its token fires, it gets a moment to clean up, and the error says what it waited for.
async fn limited<T, F, Work>(limit: Duration, cancel: &CancellationToken, progress: &Progress, work: F) -> Result<T, BuildError>
where
    F: FnOnce(CancellationToken) -> Work,
    Work: Future<Output = Result<T, BuildError>>,
{
    let own = cancel.child_token();
    let work = work(own.clone());
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => result,
        () = tokio::time::sleep(limit) => {
            let at = progress.at();
            let at = if at.is_empty() { at } else { format!(", {at}") };
            own.cancel();
            // What it ends with no longer matters: it ran out of time.
            let _ = tokio::time::timeout(Duration::from_secs(10), work).await;
            Err(BuildError::Timeout { limit, waiting_for: format!("waiting for the engine{at}") })
        }
    }
}

fn build_stop(error: BuildError, app: &AppPlan, image: &ImagePlan) -> Stop {
    let subject = format!("{}/{}", app.name, image.service);
    match error {
        BuildError::Cancelled => Stop::Cancelled,
        BuildError::Engine { message, hint } => {
            let stop = Stop::failed(FailureClass::Engine, format!("build of `{subject}`: {message}"));
            hint.map_or(stop.clone(), |hint| stop.hint(hint))
        }
        BuildError::Missing { message, hint } => {
            let stop = Stop::failed(FailureClass::Build, format!("build of `{subject}`: {message}"));
            hint.map_or(stop.clone(), |hint| stop.hint(hint))
        }
        BuildError::Timeout { .. } => Stop::failed(FailureClass::BuildTimeout, format!("build of `{subject}` {error}"))
            .hint("give it more time with `timeouts: {build: …}` in apps.yaml"),
        BuildError::Registry { message, .. } => Stop::failed(FailureClass::Registry, format!("build of `{subject}`: {message}"))
            .hint("log in to the base image's registry: docker login HOST"),
        BuildError::Failed { message, .. } => Stop::failed(FailureClass::Build, format!("build of `{subject}` failed: {message}")),
    }
}

/// Gets an image into its repository under this commit's tag and its fingerprint's, and tells its digest.
async fn publish(app: &AppPlan, image: &ImagePlan, context: &Context) -> Result<Digest, Stop> {
    let registry = &context.ports.registry;
    let (digest, built) = match &image.action {
        ImageAction::Build { .. } => {
            let step = step(app, image, Stage::Push);
            (context.step(&step, image.reference(), push(app, image, &step, context)).await?, true)
        }
        ImageAction::Reuse { digest } => {
            let step = step(app, image, Stage::Retag);
            let work = async { registry.retag(&image.repository, digest, &image.tag).await.map_err(|error| registry_stop(&error)) };
            context.step(&step, image.reference(), work).await?;
            (digest.clone(), false)
        }
        ImageAction::Present { digest } | ImageAction::Conflict { digest, .. } => (digest.clone(), false),
    };
    if !matches!(image.action, ImageAction::Reuse { .. }) && image.tag != image.fingerprint_tag {
        // Without this tag the next commit builds again; that is worth a word, not a failure.
        if let Err(error) = registry.retag(&image.repository, &digest, &image.fingerprint_tag).await {
            let message = format!("`{}:{}` was not set: {error}", image.repository, image.fingerprint_tag);
            context.events.progress(step(app, image, Stage::Push)).notice(message);
        }
    }
    context
        .events
        .record(EventKind::ImagePushed {
            app: app.name.clone(),
            service: image.service.clone(),
            reference: image.reference(),
            digest: digest.clone(),
            built,
        })
        .await;
    Ok(digest)
}

async fn push(app: &AppPlan, image: &ImagePlan, step: &Step, context: &Context) -> Result<Digest, Stop> {
    let (builder, registry) = (&context.ports.builder, &context.ports.registry);
    let progress = context.events.progress(step.clone());
    if registry.ensure(&image.repository, image.create.as_ref()).await.map_err(|error| registry_stop(&error))? {
        progress.notice(format!("created repository `{}`", image.repository));
    }
    let reference = image.reference();
    let layers = builder
        .layers(&reference)
        .await
        .map_err(|error| Stop::failed(FailureClass::Engine, format!("reading the layers of `{reference}` failed: {error}")))?;
    let turn = tokio::select! {
        () = context.cancel.cancelled() => return Err(Stop::Cancelled),
        turn = context.pushes.turn(&image.repository.host, &layers) => turn,
        () = tokio::time::sleep(app.timeouts.push) => {
            let waiting_for = format!("waiting for other pushes to `{}` that carry layers it shares with them", image.repository.host);
            return Err(push_late(&reference, &BuildError::Timeout { limit: app.timeouts.push, waiting_for }));
        }
    };
    let mut fresh = false;
    let pushed = loop {
        let login = registry.login(&image.repository.host, fresh).await.map_err(|error| registry_stop(&error))?;
        let push = |cancel: CancellationToken| {
            let (progress, login) = (progress.clone(), login.clone());
            async move { builder.push(&image.repository, &image.tag, login.as_ref(), &progress, &cancel).await }
        };
        match limited(app.timeouts.push, &context.cancel, &progress, push).await {
            Ok(digest) => break digest,
            // A token may have run out on the way: once more with a new one.
            Err(BuildError::Registry { login: true, .. }) if !fresh && login.is_some() => fresh = true,
            Err(BuildError::Cancelled) => return Err(Stop::Cancelled),
            Err(error @ BuildError::Timeout { .. }) => return Err(push_late(&reference, &error)),
            Err(error) => {
                let stop = Stop::failed(FailureClass::Push, format!("push of `{reference}` failed: {error}"));
                return Err(match error {
                    BuildError::Registry { login: true, .. } => {
                        stop.hint(format!("check the login: docker login {}", image.repository.host))
                    }
                    _ => stop,
                });
            }
        }
    };
    let there =
        registry.find(&image.repository, std::slice::from_ref(&image.tag)).await.map_err(|error| registry_stop(&error))?.remove(&image.tag);
    match there {
        Some(there) if there == pushed => {
            turn.done();
            Ok(there)
        }
        there => {
            let there = there.map_or_else(|| "nothing".to_owned(), |there| there.to_string());
            let message = format!("`{reference}` was pushed as {pushed}, and the registry has {there}");
            Err(Stop::failed(FailureClass::Push, message).hint("somebody else pushes this tag: let one run finish, then deploy again"))
        }
    }
}

fn push_late(reference: &str, error: &BuildError) -> Stop {
    Stop::failed(FailureClass::PushTimeout, format!("push of `{reference}` {error}"))
        .hint("give it more time with `timeouts: {push: …}` in apps.yaml")
}

pub(crate) fn registry_stop(error: &RegistryError) -> Stop {
    let stop = Stop::failed(FailureClass::Registry, error.to_string());
    match error {
        RegistryError::Login { hint, .. } => stop.hint(hint.clone()),
        RegistryError::NoRepository { repository } => {
            stop.hint(format!("create it, or let offbuild do so with `registry: {{create: true}}`: {repository}"))
        }
        RegistryError::Unreachable { host, .. } => stop.hint(format!("check that `{host}` answers: curl -I https://{host}/v2/")),
        RegistryError::Failed { .. } => stop,
    }
}
