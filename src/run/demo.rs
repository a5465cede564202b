//! `offbuild demo`: the example monorepo, deployed to a sandbox with the real Docker Engine.
//!
//! A throw-away git repository is made out of `example/`, the sandbox started, and offbuild run on it as anybody would: as a
//! program of its own that is told everything by ordinary settings. Everything goes away in the end.

use super::world::{Env, environment, home};
use crate::build::Builder as _;
use crate::build::docker::Docker;
use crate::cli::DemoArgs;
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::journal::Journal;
use crate::names::RackName;
use crate::registry::registries::Registries;
use crate::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use crate::secret::Redactor;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// The image the example's Dockerfiles start from.
const BASE: &str = "offbuild-demo-base";

macro_rules! example {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../example/", $path)))),*] };
}

/// The example, as it is in the repository.
const EXAMPLE: &[(&str, &str)] = example![
    "apps.yaml",
    "README.md",
    "apps/api/Dockerfile",
    "apps/api/convox.yml",
    "apps/api/main.sh",
    "apps/billing/.dockerignore",
    "apps/billing/Dockerfile",
    "apps/billing/docker-compose.yml",
    "apps/billing/index.html",
    "apps/billing/deploy/before_build.sh",
    "apps/billing/deploy/after_build.sh",
    "apps/billing/deploy/before_release.sh",
    "apps/billing/deploy/after_release.sh",
    "apps/billing/deploy/on_failure.sh",
    "apps/jobs/Dockerfile",
    "apps/jobs/convox.yml",
    "apps/jobs/main.sh",
    "apps/shop/Dockerfile",
    "apps/shop/Dockerfile.worker",
    "apps/shop/convox.yml",
    "apps/shop/public/index.html",
    "apps/shop/worker.sh",
    "libs/money/money.sh",
];

/// Runs the demo.
pub(super) async fn demo(args: &DemoArgs) -> Result<u8> {
    let env = environment();
    let registries = Arc::new(Registries::new(BTreeMap::new(), Arc::clone(&env), Redactor::default()));
    let engine = Docker::connect(Arc::clone(&env), home(&env).as_deref(), registries).map_err(super::deploy::engine_error)?;
    let info = engine.probe().await.map_err(super::deploy::engine_error)?;
    let place = tempfile::Builder::new().prefix("offbuild-demo-").tempdir();
    let place = place.map_err(|error| Error::unusable("a temporary directory cannot be made").because(error))?;
    let repo = place.path().join("monorepo");
    write_example(&repo)?;
    say(&format!("a monorepo of four apps, and the Docker Engine {} ({})", info.version, info.platform));
    engine.import(base_image()?, BASE).await.map_err(super::deploy::engine_error)?;
    commit(&repo, "The example")?;
    let sandbox = serve(sandbox_options(&place.path().join("sandbox"))?).await?;
    say("a sandbox: rack `staging` (version 2), rack `production` (version 3), a registry that behaves like ECR");

    let shown = show(&repo, &sandbox, &env).await;
    let clean = clean(&repo, &engine).await;
    if args.keep {
        say(&format!("kept: {}", place.keep().display()));
    }
    sandbox.stop().await;
    shown?;
    clean?;
    Ok(0)
}

/// What there is to see.
async fn show(repo: &Path, sandbox: &Running, env: &Env) -> Result<()> {
    say("the first rollout: nothing is deployed yet, so everything is");
    offbuild(repo, sandbox, env, &["deploy"]).await?;
    say("one line of `libs/money` changes: `api` and `jobs` use it, `shop` and `billing` do not");
    let library = repo.join("libs/money/money.sh");
    let changed = std::fs::read_to_string(&library).map(|text| format!("{text}# rounds half to even\n"));
    changed
        .and_then(|text| std::fs::write(&library, text))
        .map_err(|error| Error::failed("the example cannot be changed").because(error))?;
    commit(repo, "Round half to even")?;
    offbuild(repo, sandbox, env, &["changed"]).await?;
    offbuild(repo, sandbox, env, &["deploy"]).await?;
    say("once more: the racks run this commit, so there is nothing to do");
    offbuild(repo, sandbox, env, &["deploy"]).await?;
    offbuild(repo, sandbox, env, &["status"]).await
}

fn say(text: &str) {
    eprintln!("\n== {text}");
}

/// Runs this very program on the repository, with the sandbox's variables in its environment.
async fn offbuild(repo: &Path, sandbox: &Running, env: &Env, args: &[&str]) -> Result<()> {
    eprintln!("\n$ offbuild {}", args.join(" "));
    let program = std::env::current_exe().map_err(|error| Error::unusable("this program cannot be found again").because(error))?;
    let variables: BTreeMap<String, String> =
        sandbox.environment().into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
    let status = tokio::process::Command::new(program)
        .args(args)
        .current_dir(repo)
        .envs(variables)
        // The CI the demo may run in is not the example's.
        .env("GITHUB_ACTIONS", "")
        .env("TERM", env("TERM").unwrap_or_else(|| "dumb".to_owned()))
        .status()
        .await
        .map_err(|error| Error::unusable("this program cannot be run again").because(error))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("`offbuild {}` ended with {status}", args.join(" "))))
}

fn write_example(repo: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::unusable("the example cannot be written").because(error);
    for (path, text) in EXAMPLE {
        let file = repo.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&file, text).map_err(failed)?;
        if path.ends_with(".sh") {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Commits everything there is.
fn commit(repo: &Path, message: &str) -> Result<()> {
    let committed = || -> Result<(), git2::Error> {
        let repository = git2::Repository::init(repo)?;
        let mut index = repository.index()?;
        index.add_all(["*"], git2::IndexAddOption::DEFAULT, None)?;
        index.write()?;
        let tree = repository.find_tree(index.write_tree()?)?;
        let who = git2::Signature::now("offbuild demo", "demo@offbuild.example")?;
        let parent = repository.head().ok().and_then(|head| head.peel_to_commit().ok());
        repository.commit(Some("HEAD"), &who, &who, message, &tree, &parent.iter().collect::<Vec<_>>())?;
        Ok(())
    };
    committed().map_err(|error| Error::unusable("the example's repository cannot be made").because(error.message()))
}

/// A root file system with nothing but a static busybox, as a tar.
fn base_image() -> Result<Vec<u8>> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.ok_or_else(|| {
        Error::unusable("there is no busybox to make a base image of").hint("apt-get install busybox-static, or run example/run.sh")
    })?;
    let archive = || -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_path_with_name(busybox, "bin/busybox")?;
        for applet in ["sh", "cat", "echo", "ls", "sleep", "mkdir", "touch", "cp", "date", "test"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            header.set_mode(0o777);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        tar.into_inner()
    };
    archive().map_err(|error| Error::unusable("the base image cannot be made").because(error))
}

fn sandbox_options(state: &Path) -> Result<Options> {
    let rack = |name: &str, version: Version, apps: &[(&str, u8)]| -> Result<RackOptions> {
        Ok(RackOptions {
            name: RackName::new(name).map_err(|error| Error::config(error.to_string()))?,
            version,
            port: 0,
            password: None,
            tokens: Vec::new(),
            apps: apps.iter().map(|(app, generation)| ((*app).to_owned(), *generation)).collect(),
        })
    };
    Ok(Options {
        state: state.to_owned(),
        racks: vec![
            rack("staging", Version::V2, &[("shop", 2), ("api", 2), ("jobs", 2), ("billing", 1)])?,
            rack("production", Version::V3, &[("shop", 3)])?,
        ],
        registry: Some(RegistryOptions { port: 0, kind: RegistryKind::Ecr { api_port: 0 } }),
        control_port: 0,
        faults: Vec::new(),
        pace: Pace::default(),
    })
}

/// Takes the demo's images off the engine: those its journals name, and the base.
async fn clean(repo: &Path, engine: &Docker) -> Result<()> {
    let mut references = BTreeSet::from([format!("{BASE}:latest")]);
    for run in Journal::list(repo)? {
        references.extend(Journal::read(&run.path)?.into_iter().filter_map(|event| match event.kind {
            EventKind::ImagePlanned { reference, .. } => Some(reference),
            _ => None,
        }));
    }
    for reference in references {
        engine.untag(&reference).await.map_err(super::deploy::engine_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_has_every_file_of_the_example() {
        fn list(dir: &Path, root: &Path, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    list(&path, root, found);
                } else {
                    found.insert(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("example");
        let mut there = BTreeSet::new();
        list(&root, &root, &mut there);
        // The demo's own start script.
        there.remove("run.sh");
        let here: BTreeSet<String> = EXAMPLE.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(here, there);
    }
}
