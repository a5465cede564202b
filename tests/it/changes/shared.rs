//! Git is asked once what several targets need to know.

use super::deciding::{app, shared, target};
use super::{Repo, readers};
use offbuild::changes::affected::Matcher;
use offbuild::changes::base::{Base, Choice};
use offbuild::changes::fingerprint::Fingerprints;
use offbuild::changes::survey::{Asked, Survey};
use offbuild::changes::{Change, CommitInfo, Head, History, Log, TreeEntry};
use offbuild::config::Unowned;
use offbuild::error::Result;
use offbuild::names::{CommitId, RepoPath};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts comparisons, which take their time.
struct Counting {
    inner: Box<dyn History>,
    compared: AtomicUsize,
}

impl History for Counting {
    fn root(&self) -> &Path {
        self.inner.root()
    }
    fn head(&self) -> Result<Head> {
        self.inner.head()
    }
    fn tip(&self) -> Result<CommitId> {
        self.inner.tip()
    }
    fn resolve(&self, revision: &str) -> Result<Option<CommitId>> {
        self.inner.resolve(revision)
    }
    fn commit(&self, id: &CommitId) -> Result<CommitInfo> {
        self.inner.commit(id)
    }
    fn is_shallow(&self) -> bool {
        self.inner.is_shallow()
    }
    fn changes(&self, base: &CommitId, head: &CommitId) -> Result<Vec<Change>> {
        self.compared.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        self.inner.changes(base, head)
    }
    fn dirty(&self) -> Result<Vec<Change>> {
        self.inner.dirty()
    }
    fn merge_bases(&self, one: &CommitId, two: &CommitId) -> Result<Vec<CommitId>> {
        self.inner.merge_bases(one, two)
    }
    fn log(&self, base: &CommitId, head: &CommitId, limit: usize) -> Result<Log> {
        self.inner.log(base, head, limit)
    }
    fn files(&self, commit: &CommitId, dir: &RepoPath) -> Result<Vec<TreeEntry>> {
        self.inner.files(commit, dir)
    }
    fn read(&self, commit: &CommitId, path: &RepoPath) -> Result<Option<Vec<u8>>> {
        self.inner.read(commit, path)
    }
    fn tree(&self, id: &str) -> Result<Vec<TreeEntry>> {
        self.inner.tree(id)
    }
    fn blob(&self, id: &str) -> Result<Vec<u8>> {
        self.inner.blob(id)
    }
    fn hash_on_disk(&self, path: &RepoPath) -> Result<Option<TreeEntry>> {
        self.inner.hash_on_disk(path)
    }
}

#[test]
fn targets_with_the_same_base_share_one_comparison() {
    let repo = Repo::new();
    repo.write("a/x", "1");
    repo.write("b/x", "1");
    let bases = [repo.commit("one"), repo.commit("two")];
    repo.write("a/x", "2");
    let head = repo.commit("three");
    let shared = shared(&[], &[]);
    let apps = [app("a", &["a/**"], &[], &shared), app("b", &["b/**"], &[], &shared)];
    for inner in readers(&repo.root) {
        let history = Counting { inner, compared: AtomicUsize::new(0) };
        let matcher = Matcher::new(&apps);
        let fingerprints = Fingerprints::new(&history, &head, &[]);
        let survey = Survey {
            history: &history,
            head: &head,
            dirty: &[],
            matcher: &matcher,
            fingerprints: &fingerprints,
            unowned: Unowned::Report,
            given: Some(Choice::Found(Base { commit: bases[0].clone(), source: "`--base`".to_owned(), notes: vec![] })),
            digests: None,
            left: None,
            known: Default::default(),
        };
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for inputs in apps.iter().cycle().take(8) {
                let (survey, together) = (&survey, &together);
                scope.spawn(move || {
                    together.wait();
                    let target = target(&inputs.app);
                    survey.facts(Asked { target: &target, inputs, app_digest: "digest", live: None, topped: None }).unwrap();
                });
            }
        });
        assert_eq!(history.compared.load(Ordering::SeqCst), 1, "one base, one comparison");
        for base in [&bases[1], &bases[0], &bases[1]] {
            survey.compared(base).unwrap();
        }
        assert_eq!(history.compared.load(Ordering::SeqCst), 2, "another base is compared by itself");
        assert_eq!(survey.known.all().len(), 2);
    }
}
