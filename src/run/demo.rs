//! `offbuild demo`: the example monorepo, deployed to a sandbox with the real Docker Engine.
//!
//! A throw-away git repository is made out of `example/`, the sandbox started, and offbuild run on it as anybody would: as a
//! program of its own that is told everything by ordinary settings. Everything goes away in the end.

use super::world::{Env, environment, home};
use crate::build::Builder as _;
use crate::build::docker::Docker;
use crate::cli::DemoArgs;
use crate::deploy::Signal;
use crate::error::{Error, Kind, Result};
use crate::event::EventKind;
use crate::journal::Journal;
use crate::names::{ImageId, RackName, Repository};
use crate::registry::registries::Registries;
use crate::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use crate::secret::Redactor;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

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

/// INT and TERM as they come.
type Signals = UnboundedReceiver<Signal>;

/// Runs the demo.
pub(super) async fn demo(args: &DemoArgs) -> Result<u8> {
    let env = environment();
    let registries = Arc::new(Registries::new(BTreeMap::new(), Arc::clone(&env), Redactor::of_process()));
    let engine = Docker::connect(Arc::clone(&env), home(&env).as_deref(), registries).map_err(super::carry_out::engine_error)?;
    let info = engine.probe().await.map_err(super::carry_out::engine_error)?;
    let place = tempfile::Builder::new().prefix("offbuild-demo-").tempdir();
    let place = place.map_err(|error| Error::unusable("a temporary directory cannot be made").because(error))?;
    let repo = place.path().join("monorepo");
    write_example(&repo)?;
    say(&format!("a monorepo of four apps, and the Docker Engine {} ({})", info.version, info.platform));
    let base = base_image()?;
    // What there was under that name is there again in the end.
    let before = engine.image_id(BASE).await.map_err(super::carry_out::engine_error)?;
    let mut signals = super::carry_out::signals()?;
    engine.import(base, BASE).await.map_err(super::carry_out::engine_error)?;
    commit(&repo, "The example")?;
    let sandbox = serve(sandbox_options(&place.path().join("sandbox"))?).await?;
    say("a sandbox: rack `staging` (version 2), rack `production` (version 3), a registry that behaves like ECR");

    let shown = show(&repo, &sandbox, &env, &mut signals).await;
    let clean = clean(&repo, &engine, before.as_ref()).await;
    if args.keep {
        say(&format!("kept: {}", place.keep().display()));
    }
    sandbox.stop().await;
    shown?;
    clean?;
    Ok(0)
}

/// What there is to see.
async fn show(repo: &Path, sandbox: &Running, env: &Env, signals: &mut Signals) -> Result<()> {
    say("the first rollout: nothing is deployed yet, so everything is");
    offbuild(repo, sandbox, env, signals, &["deploy"]).await?;
    say("one line of `libs/money` changes: `api` and `jobs` use it, `shop` and `billing` do not");
    let library = repo.join("libs/money/money.sh");
    let changed = std::fs::read_to_string(&library).map(|text| format!("{text}# rounds half to even\n"));
    changed
        .and_then(|text| std::fs::write(&library, text))
        .map_err(|error| Error::failed("the example cannot be changed").because(error))?;
    commit(repo, "Round half to even")?;
    offbuild(repo, sandbox, env, signals, &["changed"]).await?;
    offbuild(repo, sandbox, env, signals, &["deploy"]).await?;
    say("once more: the racks run this commit, so there is nothing to do");
    offbuild(repo, sandbox, env, signals, &["deploy"]).await?;
    offbuild(repo, sandbox, env, signals, &["status"]).await
}

fn say(text: &str) {
    super::tell(format!("\n== {text}"));
}

/// Runs this very program on the repository, with the sandbox's variables in its environment. A signal is handed on to it; what it
/// leaves is cleaned up here.
async fn offbuild(repo: &Path, sandbox: &Running, env: &Env, signals: &mut Signals, args: &[&str]) -> Result<()> {
    super::tell(format!("\n$ offbuild {}", args.join(" ")));
    let program = std::env::current_exe().map_err(|error| Error::unusable("this program cannot be found again").because(error))?;
    let variables: BTreeMap<String, String> =
        sandbox.environment().into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
    let again = |error: std::io::Error| Error::unusable("this program cannot be run again").because(error);
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .current_dir(repo)
        .envs(variables)
        // The CI the demo may run in is not the example's.
        .env("GITHUB_ACTIONS", "")
        .env("TERM", env("TERM").unwrap_or_else(|| "dumb".to_owned()))
        // Out of the terminal's reach, or it would hear an interrupt twice, and twice means at once.
        .process_group(0)
        .spawn()
        .map_err(again)?;
    let mut stopped = None;
    let status = loop {
        tokio::select! {
            ended = child.wait() => break ended.map_err(again)?,
            Some(signal) = signals.recv() => {
                let (kind, send) = match signal {
                    Signal::Int => (Kind::Interrupted, rustix::process::Signal::INT),
                    Signal::Term => (Kind::Terminated, rustix::process::Signal::TERM),
                };
                stopped = Some(kind);
                if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
                    // It has ended by itself meanwhile when this fails.
                    let _ = rustix::process::kill_process(id, send);
                }
            }
        }
    };
    if let Some(kind) = stopped {
        return Err(Error::new(kind, "the demo was stopped"));
    }
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
    let hint = "apt-get install busybox-static, or run example/run.sh";
    let busybox = busybox.ok_or_else(|| Error::unusable("there is no busybox to make a base image of").hint(hint))?;
    let program = std::fs::read(busybox).map_err(|error| Error::unusable(format!("`{busybox}` cannot be read")).because(error))?;
    if needs_libraries(&program) {
        return Err(Error::unusable(format!("`{busybox}` needs libraries, and the base image has none")).hint(hint));
    }
    let archive = || -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(program.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/busybox", program.as_slice())?;
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

/// True for a program that names an interpreter, the linker that loads its libraries. One that is no ELF file of 64 bits in this
/// machine's order is not judged.
fn needs_libraries(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let short = |at: usize| program.get(at..at + 2).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    let table = || {
        let offset = program.get(0x20..0x28)?.try_into().map(u64::from_le_bytes).ok()?;
        Some((usize::try_from(offset).ok()?, short(0x36)?, short(0x38)?))
    };
    let Some((offset, size, count)) = table().filter(|_| program.starts_with(b"\x7fELF\x02\x01")) else { return false };
    let kind = |number: usize| program.get(offset.checked_add(number * size)?..)?.first_chunk().copied().map(u32::from_le_bytes);
    (0..count).any(|number| kind(number) == Some(INTERPRETER))
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

/// Takes the demo's images off the engine: those its journals name, and the base, in whose place comes the one from before.
async fn clean(repo: &Path, engine: &Docker, before: Option<&ImageId>) -> Result<()> {
    let mut references = BTreeSet::from([format!("{BASE}:latest")]);
    for run in Journal::list(repo)? {
        references.extend(Journal::read(&run.path)?.into_iter().filter_map(|event| match event.kind {
            EventKind::ImagePlanned { reference, .. } => Some(reference),
            _ => None,
        }));
    }
    for reference in references {
        engine.untag(&reference).await.map_err(super::carry_out::engine_error)?;
    }
    if let Some(id) = before {
        let base = Repository::parse(BASE).map_err(|error| Error::failed(error.to_string()))?;
        engine.tag(id.as_str(), &base, "latest").await.map_err(super::carry_out::engine_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_linked_when_it_starts_is_known() {
        assert!(needs_libraries(&std::fs::read("/bin/sh").unwrap()));
        assert!(!needs_libraries(&std::fs::read("/bin/busybox").or_else(|_| std::fs::read("/usr/bin/busybox")).unwrap()));
        for other in [b"".as_slice(), b"#!/bin/sh", b"\x7fELF\x02\x01", &[0xff; 80]] {
            assert!(!needs_libraries(other));
        }
    }

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
