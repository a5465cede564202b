//! `changed` against a given base, by the rules an earlier run kept (`.offbuild/cache`): neither configuration nor manifests are
//! read when nothing that they were derived from differs.
//!
//! The rules are read from HEAD's tree. They answer for the work tree, too, as long as nothing there differs that they were
//! derived from, committed or not, ignored by git or not. [`answer`] gives up, and the caller reads everything from disk,
//! whenever anything is out of the ordinary: this is never the only way to an answer, and never another answer.

use super::changed::{Answer, wants_near};
use super::misses::{changes, misses_of};
use super::read;
use super::world::{self, AskedHead, Env, World};
use crate::changes::affected::Matcher;
use crate::changes::base::{Base, Choice};
use crate::changes::committed::{Asked, InCommit};
use crate::changes::rulebook::{Found, Made, MadeApp, Rulebook, Touched};
use crate::changes::verdict::{BaseSource, Basis, Facts, State, Wishes, decide};
use crate::changes::{self, Change, ChangeKind, History, PathReason};
use crate::cli::{Changed, ChangedFormat, Global, Selection};
use crate::config;
use crate::discovery;
use crate::error::Result;
use crate::files::{Files, OnDisk};
use crate::journal;
use crate::names::{AppName, CommitId, RepoPath, Target};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

const RULES: &str = "rules";
const ASKED: &str = "asked";

/// What everything here is about.
struct Repository {
    history: Arc<dyn History>,
    head: CommitId,
    env: Env,
    /// The configuration file.
    file: RepoPath,
}

/// The answer for all apps; `None` when it has to be found by reading everything.
pub(super) fn answer(global: &Global, args: &Changed) -> Result<Option<Answer>> {
    let Selection { apps, racks } = &args.selection;
    let env = world::environment();
    let other_head = AskedHead::of(args.head.as_deref(), &env).is_some();
    if args.base.base.is_none() || args.base.fetch || other_head || !apps.is_empty() || !racks.is_empty() {
        return Ok(None);
    }
    let here = world::here(global)?;
    let history = changes::open(&here)?;
    let head = history.tip()?;
    let files: Arc<dyn Files> = match args.committed {
        true => Arc::new(InCommit::new(Arc::clone(&history), head.clone())),
        false => Arc::new(OnDisk::new(history.root())),
    };
    let Some(file) = config::locate(&*files, &here, history.root(), global.config.as_deref())? else { return Ok(None) };
    let Choice::Found(base) = read::chosen_base(&*history, &head, &env, args.base.base.as_deref())? else {
        return Ok(None);
    };
    let committed = history.changes(&base.commit, &head)?;
    let dirty = if args.committed { Vec::new() } else { history.dirty()? };
    let repository = Repository { history, head, env, file };
    if committed.iter().chain(&dirty).any(|change| repository.moves_apps(change)) {
        return Ok(None);
    }
    let kept = std::fs::read(repository.place(RULES)).ok();
    let made;
    let book = match kept.as_deref().and_then(|bytes| repository.fitting(bytes)) {
        Some(book) => book,
        None => {
            made = repository.make(global)?;
            let Some(book) = made.as_deref().and_then(Rulebook::read) else { return Ok(None) };
            book
        }
    };
    if !args.committed && !repository.fits_disk(&book) {
        return Ok(None);
    }
    let Some(touched) = book.touched(&[&committed, &dirty]) else { return Ok(None) };
    let near = wants_near(global, args).then_some(&*files);
    let mut answer = judge(&repository, &book, &touched, base, &committed, &dirty, near)?;
    if args.format == ChangedFormat::Json {
        answer.head = Some(repository.history.head()?);
    }
    Ok(Some(answer))
}

impl Repository {
    /// True for a change of the configuration, and for a manifest that is gone: which apps there were has to be found out.
    fn moves_apps(&self, change: &Change) -> bool {
        change.path == self.file || (change.kind == ChangeKind::Deleted && discovery::is_manifest(&change.path))
    }

    /// Where the rules, or what was asked for them, are kept: a file for each configuration.
    fn place(&self, what: &str) -> PathBuf {
        let name = hex::encode(&Sha256::digest(self.file.as_bytes())[..6]);
        self.history.root().join(".offbuild/cache").join(format!("{what}-{name}"))
    }

    fn asked(&self, book: &Rulebook<'_>) -> Option<Asked> {
        book.asked(&std::fs::read(self.place(ASKED)).ok()?)
    }

    /// The rules in a file when they are right for HEAD.
    fn fitting<'b>(&self, bytes: &'b [u8]) -> Option<Rulebook<'b>> {
        let book = Rulebook::read(bytes)?;
        let (made_of, head) = (book.commit()?, &self.head);
        if book.file() != self.file || !book.has_variables(&*self.env) {
            return None;
        }
        if made_of != *head {
            self.history.resolve(made_of.as_str()).ok()??;
            let since = self.history.changes(&made_of, head).ok()?;
            let now = InCommit::new(Arc::clone(&self.history), head.clone());
            if !self.asked(&book)?.holds(&since, &now) {
                return None;
            }
        }
        Some(book)
    }

    /// True when all that the rules were derived from is the same on disk.
    fn fits_disk(&self, book: &Rulebook<'_>) -> bool {
        let disk = OnDisk::new(self.history.root());
        let same_apps = || found(&disk, &self.file, book.discover()).is_some_and(|found| found == *book.found());
        self.asked(book).is_some_and(|asked| asked.is_on(&disk)) && same_apps()
    }

    /// Derives the rules from HEAD's files and keeps them; `None` when that cannot be done, for whatever reason.
    fn make(&self, global: &Global) -> Result<Option<Vec<u8>>> {
        let looked_up: Arc<Mutex<BTreeMap<String, Option<String>>>> = Arc::default();
        let (env, noted) = (Arc::clone(&self.env), Arc::clone(&looked_up));
        let env: Env = Arc::new(move |name: &str| {
            let value = env(name);
            noted.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.clone());
            value
        });
        let files = Arc::new(InCommit::new(Arc::clone(&self.history), self.head.clone()));
        let here = world::here(global)?;
        let (history, head) = (Arc::clone(&self.history), self.history.head()?);
        // What is wrong with the configuration is told by who reads it from disk.
        let Ok(world) = World::of(env, &here, history, head, Arc::clone(&files) as _, global, &Selection::default()) else {
            return Ok(None);
        };
        let Ok(apps) = read::apps(&world) else { return Ok(None) };
        let inputs = read::inputs(&world, &apps)?;
        let Some(found) = found(&*files, &self.file, &world.config.discover) else { return Ok(None) };
        let Some(asked) = files.asked().filter(|_| world.config.file.as_ref() == Some(&self.file)) else { return Ok(None) };
        let apps = apps.into_iter().zip(inputs).map(|(app, inputs)| MadeApp {
            racks: app.app.targets.iter().map(|target| target.rack.clone()).collect(),
            inputs,
            warnings: read::warnings_of(&app).collect(),
        });
        let made = Made {
            commit: self.head.clone(),
            file: self.file.clone(),
            unowned: world.config.unowned,
            discover: world.config.discover.clone(),
            found,
            variables: looked_up.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            asked,
            apps: apps.collect(),
        };
        let Some((rules, asked)) = made.to_bytes() else { return Ok(None) };
        // Rules that cannot be kept are derived again the next time.
        if let Err(error) = self.keep(ASKED, &asked).and_then(|()| self.keep(RULES, &rules))
            && global.verbose
        {
            super::tell(format!("note: the rules cannot be kept in `.offbuild/cache`, so each `changed` derives them again: {error}"));
        }
        Ok(Some(rules))
    }

    fn keep(&self, what: &str, bytes: &[u8]) -> std::io::Result<()> {
        let dir = journal::home(self.history.root())?.join("cache");
        std::fs::create_dir_all(&dir)?;
        let aside = tempfile::NamedTempFile::new_in(&dir)?;
        std::fs::write(aside.path(), bytes)?;
        aside.persist(self.place(what))?;
        Ok(())
    }
}

/// What discovery finds, as it is kept.
fn found(files: &dyn Files, file: &RepoPath, discover: &config::Discover) -> Option<Vec<Found>> {
    let found = discovery::discover(files, &file.parent(), &discover.include, &discover.exclude).ok()?;
    let kept = found.into_iter().map(|found| {
        let compose = found.compose.map(str::to_owned);
        (found.dir.as_bytes().to_vec(), found.manifest.to_owned(), compose, found.deploy)
    });
    Some(kept.collect())
}

fn judge(
    repository: &Repository,
    book: &Rulebook<'_>,
    touched: &[Touched],
    base: Base,
    committed: &[Change],
    dirty: &[Change],
    near: Option<&dyn Files>,
) -> Result<Answer> {
    let inputs: Vec<_> = touched.iter().map(|touched| touched.inputs.clone()).collect();
    let matcher = Matcher::new(&inputs);
    let mut affected = matcher.affected(committed);
    affected.apply(book.unowned(), &inputs)?;
    let mut uncommitted = matcher.affected(dirty);
    uncommitted.apply(book.unowned(), &inputs)?;
    let of = |reasons: &BTreeMap<AppName, Vec<PathReason>>, app: &AppName| reasons.get(app).cloned().unwrap_or_default();
    let mut targets = Vec::new();
    for (app, racks) in book.apps() {
        for rack in racks {
            let source = BaseSource::Given(base.source.clone());
            let changed = of(&affected.reasons, &app);
            let facts = Facts {
                state: State::Unasked,
                basis: Basis::Commit { commit: base.commit.clone(), source, changed },
                dirty: of(&uncommitted.reasons, &app),
                rolled_back: None,
                app_digest: String::new(),
                config_changed: false,
                fingerprint: None,
            };
            let wishes = Wishes { all: false, allow_diverged: true, allow_older: false, allow_dirty: true, release_hold: false };
            targets.push((Target { app: app.clone(), rack }, decide(&facts, wishes)));
        }
    }
    let mut answer = Answer::new(Arc::clone(&repository.env), targets);
    let changed = |touched: &&Touched| answer.names.contains(&touched.inputs.app);
    let warnings = touched.iter().filter(changed).flat_map(|touched| touched.warnings.clone());
    if let Some(files) = near {
        let all = changes(committed.iter(), &uncommitted);
        let of = |app: &AppName| inputs.iter().find(|inputs| inputs.app == *app).map(|inputs| misses_of(files, inputs, &all, 0));
        answer.near = answer.targets.iter().map(|(target, _)| of(&target.app).unwrap_or_default()).collect();
    }
    let notes = answer.targets.iter().flat_map(|(_, decision)| decision.notes.iter().cloned()).chain(warnings);
    let notes: std::collections::BTreeSet<String> = notes.chain(read::unowned(&uncommitted.unowned, book.unowned())).collect();
    answer.notes.extend(notes);
    answer.notes.extend(super::compare::base_notes(&base));
    answer.unowned = affected.unowned.into_iter().chain(uncommitted.unowned).collect();
    Ok(answer)
}
