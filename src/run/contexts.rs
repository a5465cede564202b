//! What a build would silently go without: submodules that are not checked out, and LFS pointers in the place of their files.
//!
//! Both are inputs as git has them, so a verdict needs neither. A build does: BuildKit would send an empty directory, or the
//! pointer, and the image would be wrong without anybody being told.

use super::read::{self, Found, Judgement};
use super::world::World;
use crate::changes::inputs::Inputs;
use crate::changes::reads::hidden_by;
use crate::changes::verdict::Verdict;
use crate::error::{Error, Result};
use crate::manifest::{Manifest, ServiceBuild};
use crate::names::{AppName, RepoPath, ServiceName};
use crate::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

/// Git's mode of a submodule.
const SUBMODULE: u32 = 0o160_000;
/// How an LFS pointer begins, and a size that none has (git-lfs, `docs/spec.md`).
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const POINTERS_ARE_BELOW: u64 = 1024;
/// Paths of a kind that are told one by one.
const SHOWN: usize = 5;

/// What the apps that may be built read.
pub(super) struct Contexts(BTreeMap<AppName, (Inputs, Arc<Manifest>)>);

impl Contexts {
    /// Of the apps that are to be deployed.
    pub(super) fn of(world: &World, found: &[Found], judgement: &Judgement) -> Result<Self> {
        let deployed = judgement.targets.iter().filter(|judged| judged.decision.verdict == Verdict::Deploy);
        let deployed: BTreeSet<&AppName> = deployed.map(|judged| &judged.target.app).collect();
        if deployed.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        let inputs = read::inputs(world, found)?.into_iter().zip(found);
        let built = inputs.filter(|(inputs, _)| deployed.contains(&inputs.app));
        Ok(Self(built.filter_map(|(inputs, found)| Some((inputs.app.clone(), (inputs, found.manifest.clone()?)))).collect()))
    }

    fn reader(&self, app: &AppName, service: &ServiceName) -> Option<(&Inputs, &ServiceBuild)> {
        let (inputs, manifest) = self.0.get(app)?;
        let build = manifest.services.iter().find(|one| one.name == *service)?.build.as_ref()?;
        Some((inputs, build))
    }

    /// Refuses builds that would go without something, all of them in one error.
    pub(super) fn check(&self, world: &World, plan: &Plan) -> Result<()> {
        let root = world.history.root();
        let (mut submodules, mut pointers) = (BTreeSet::new(), BTreeSet::new());
        for build in &plan.builds {
            // A context outside of the repository is not git's business.
            let Ok(context) = build.build.context.strip_prefix(root) else { continue };
            let context = RepoPath::from_git(context.as_os_str().as_bytes());
            // What one service's build does not see, another's may.
            let readers: Vec<_> = build.used_by.iter().filter_map(|(app, service)| self.reader(app, service)).collect();
            let read = |path: &RepoPath| {
                readers.iter().any(|(inputs, build)| inputs.contain(path) && hidden_by(build, &*world.files, path).is_none())
            };
            let entries = world.history.files(&world.head.commit.id, &context)?;
            let empty = |path: &RepoPath| std::fs::read_dir(path.under(root)).is_ok_and(|mut found| found.next().is_none());
            let missing = entries.iter().filter(|entry| entry.mode == SUBMODULE && read(&entry.path) && empty(&entry.path));
            submodules.extend(missing.map(|entry| entry.path.clone()));
            let attributes = entries.iter().map(|entry| entry.path.clone()).filter(|path| path.file_name() == ".gitattributes");
            let above = std::iter::successors(Some(context.clone()), |dir| (!dir.is_root()).then(|| dir.parent()));
            let above = above.filter_map(|dir| dir.join(".gitattributes"));
            if attributes.chain(above).any(|path| std::fs::read_to_string(path.under(root)).is_ok_and(|text| text.contains("filter=lfs"))) {
                let left = entries.into_iter().filter(|entry| read(&entry.path) && is_pointer(&entry.path.under(root)));
                pointers.extend(left.map(|entry| entry.path));
            }
        }
        let lines = told("submodule", "is not checked out", &submodules).into_iter().chain(told("file", "is an LFS pointer", &pointers));
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() {
            return Ok(());
        }
        let cures = [(&submodules, "git submodule update --init"), (&pointers, "git lfs pull")];
        let cures: Vec<String> = cures.iter().filter(|(paths, _)| !paths.is_empty()).map(|(_, cure)| format!("`{cure}`")).collect();
        Err(Error::unusable(format!("the images would be built without what git has:\n  {}", lines.join("\n  ")))
            .hint(format!("run {}, or hide the paths from the build with `.dockerignore`", cures.join(" and "))))
    }
}

fn told(what: &str, state: &str, paths: &BTreeSet<RepoPath>) -> Vec<String> {
    let mut lines: Vec<String> = paths.iter().take(SHOWN).map(|path| format!("{what} `{path}` {state}")).collect();
    if paths.len() > SHOWN {
        lines.push(format!("and {} more", paths.len() - SHOWN));
    }
    lines
}

fn is_pointer(path: &Path) -> bool {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() < POINTERS_ARE_BELOW) {
        return false;
    }
    let mut start = [0; POINTER.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == POINTER
}
