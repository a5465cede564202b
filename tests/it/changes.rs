//! Change detection on real repositories, made with the git program.

mod bases;
mod brute;
mod deciding;
mod flips;
mod paths;
mod rules;
mod same;
mod shared;
mod submodules;
mod untracked;

use crate::support::Offbuild;
use offbuild::changes::base::{self, Choice};
use offbuild::changes::{Ancestry, ChangeKind, History, git::Git, gitcli::GitCli};
use offbuild::names::{CommitId, RepoPath};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository in a temporary directory.
struct Repo {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl Repo {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("repo");
        std::fs::create_dir(&root).unwrap();
        let repo = Self { dir, root };
        let init: Vec<&str> = ["init", "-q", "-b", "main"].into_iter().chain(options.iter().copied()).collect();
        repo.git(&init);
        repo
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.root, args)
    }

    fn write(&self, path: &str, content: &str) {
        let full = self.root.join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, content).unwrap();
    }

    /// Commits everything there is.
    fn commit(&self, subject: &str) -> CommitId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", subject]);
        self.id("HEAD")
    }

    fn id(&self, revision: &str) -> CommitId {
        CommitId::new(self.git(&["rev-parse", revision])).unwrap()
    }

    /// A clone beside it.
    fn clone(&self, name: &str, options: &[&str]) -> PathBuf {
        let to = self.dir.path().join(name);
        let url = format!("file://{}", self.root.display());
        let args: Vec<&str> =
            ["clone", "-q"].into_iter().chain(options.iter().copied()).chain([url.as_str(), to.to_str().unwrap()]).collect();
        self.git(&args);
        to.canonicalize().unwrap()
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let common =
        ["-c", "user.name=A Person", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"];
    let output = command
        .current_dir(dir)
        .args(common)
        .args(args)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_DATE", "2026-01-02T03:04:05Z")
        .env("GIT_COMMITTER_DATE", "2026-01-02T03:04:05Z")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Every reader of repositories; each has to give the same answers.
fn readers(dir: &Path) -> Vec<Box<dyn History>> {
    vec![Box::new(Git::open(dir).unwrap().unwrap()), Box::new(GitCli::open(dir).unwrap())]
}

/// `A path`, `M path`, `D path` on a line each.
fn show(changes: &[offbuild::changes::Change]) -> String {
    let letter = |kind| match kind {
        ChangeKind::Added => "A",
        ChangeKind::Modified => "M",
        ChangeKind::Deleted => "D",
    };
    changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path)).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn changed(repo: &Path, base: &CommitId, head: &CommitId, expected: &[&str]) {
    for reader in readers(repo) {
        assert_eq!(show(&reader.changes(base, head).unwrap()), expected.join("\n"));
    }
}

#[track_caller]
fn dirty(repo: &Path, expected: &[&str]) {
    for reader in readers(repo) {
        let found = reader.dirty().unwrap();
        assert!(found.iter().all(|change| change.dirty));
        assert_eq!(show(&found), expected.join("\n"));
    }
}

/// What is on disk at `path` is hashed as `git add` would store it.
#[track_caller]
fn hashes_as_git_adds(repo: &Repo, path: &str) {
    let hashed: Vec<_> = readers(&repo.root).iter().map(|reader| reader.hash_on_disk(&path.into()).unwrap().unwrap()).collect();
    repo.git(&["add", "--", path]);
    let staged = repo.git(&["ls-files", "-s", "--", path]);
    repo.git(&["reset", "-q", "--", path]);
    for entry in hashed {
        assert_eq!(format!("{:06o} {} 0\t{path}", entry.mode, entry.id), staged);
    }
}

#[test]
fn a_rename_across_apps_is_a_deletion_and_an_addition() {
    let repo = Repo::new();
    repo.write("apps/a/lib.rb", "the same long enough content\n");
    repo.write("apps/a/x", "");
    let base = repo.commit("one");
    std::fs::create_dir_all(repo.root.join("apps/b")).unwrap();
    repo.git(&["mv", "apps/a/lib.rb", "apps/b/lib.rb"]);
    let head = repo.commit("two");
    changed(&repo.root, &base, &head, &["D apps/a/lib.rb", "A apps/b/lib.rb"]);
    changed(&repo.root, &base, &base, &[]);
}

#[test]
fn modes_links_and_kinds_count() {
    let repo = Repo::new();
    repo.write("run.sh", "true\n");
    repo.write("dir/file", "x");
    repo.write("file", "x");
    symlink("run.sh", repo.root.join("link")).unwrap();
    let base = repo.commit("one");
    std::fs::set_permissions(repo.root.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(repo.root.join("link")).unwrap();
    symlink("file", repo.root.join("link")).unwrap();
    std::fs::remove_dir_all(repo.root.join("dir")).unwrap();
    symlink("file", repo.root.join("dir")).unwrap();
    std::fs::remove_file(repo.root.join("file")).unwrap();
    repo.write("file/deep/er", "x");
    let expected = ["A dir", "D dir/file", "D file", "A file/deep/er", "M link", "M run.sh"];
    dirty(&repo.root, &expected);
    for reader in readers(&repo.root) {
        let gone = reader.hash_on_disk(&"dir/file".into()).unwrap();
        assert_eq!(gone, None, "what a link leads to is not in the repository");
    }
    hashes_as_git_adds(&repo, "run.sh");
    hashes_as_git_adds(&repo, "link");
    hashes_as_git_adds(&repo, "file/deep/er");
    let head = repo.commit("two");
    changed(&repo.root, &base, &head, &expected);
    dirty(&repo.root, &[]);
}

#[test]
fn names_are_bytes() {
    let repo = Repo::new();
    repo.write("apps/Web", "x");
    let base = repo.commit("one");
    repo.git(&["mv", "apps/Web", "apps/web"]);
    std::fs::write(repo.root.join(OsStr::from_bytes(b"apps/caf\xe9")), "x").unwrap();
    std::fs::write(repo.root.join("apps/a\nb \"c\""), "x").unwrap();
    dirty(&repo.root, &["D apps/Web", "A apps/a\\nb \"c\"", "A apps/caf\\xe9", "A apps/web"]);
    let head = repo.commit("two");
    changed(&repo.root, &base, &head, &["D apps/Web", "A apps/a\\nb \"c\"", "A apps/caf\\xe9", "A apps/web"]);
    for reader in readers(&repo.root) {
        let path = RepoPath::from_git(b"apps/caf\xe9".as_slice());
        assert_eq!(reader.read(&head, &path).unwrap().as_deref(), Some(b"x".as_slice()));
        assert_eq!(reader.hash_on_disk(&path).unwrap(), reader.files(&head, &path).unwrap().pop());
    }
}

#[test]
fn staged_modified_deleted_and_untracked_are_dirty_and_ignored_is_not() {
    let repo = Repo::new();
    for file in ["staged", "modified", "deleted", "unstaged-delete", "same"] {
        repo.write(file, "1\n");
    }
    repo.write(".gitignore", "target/\n*.log\n");
    repo.commit("one");
    dirty(&repo.root, &[]);
    repo.write("staged", "2\n");
    repo.write("added/staged", "new\n");
    repo.git(&["add", "-A"]);
    repo.git(&["rm", "-q", "deleted"]);
    std::fs::remove_file(repo.root.join("unstaged-delete")).unwrap();
    repo.write("modified", "2\n");
    repo.write("untracked/deep/file", "x");
    repo.write("target/out", "x");
    repo.write("a.log", "x");
    dirty(&repo.root, &["A added/staged", "D deleted", "M modified", "M staged", "D unstaged-delete", "A untracked/deep/file"]);
}

#[test]
fn a_submodule_is_the_commit_it_points_to() {
    let library = Repo::new();
    library.write("lib", "1");
    library.commit("lib one");
    let repo = Repo::new();
    repo.write("apps/a/x", "x");
    repo.git(&["submodule", "--quiet", "add", library.root.to_str().unwrap(), "apps/a/vendor"]);
    let base = repo.commit("one");
    let vendor = repo.root.join("apps/a/vendor");
    dirty(&repo.root, &[]);
    library.write("lib", "2");
    library.commit("lib two");
    git(&vendor, &["pull", "-q", "origin", "main"]);
    dirty(&repo.root, &["M apps/a/vendor"]);
    hashes_as_git_adds(&repo, "apps/a/vendor");
    let head = repo.commit("two");
    changed(&repo.root, &base, &head, &["M apps/a/vendor"]);
    for reader in readers(&repo.root) {
        let clean = reader.hash_on_disk(&"apps/a/vendor".into()).unwrap().unwrap();
        assert_eq!(clean.mode, 0o160_000);
        std::fs::write(vendor.join("lib"), "changed here").unwrap();
        dirty(&repo.root, &["M apps/a/vendor"]);
        let touched = reader.hash_on_disk(&"apps/a/vendor".into()).unwrap().unwrap();
        assert_ne!(clean.id, touched.id, "a submodule with changes never passes for its commit");
        std::fs::write(vendor.join("lib"), "2").unwrap();
    }
    // Not checked out at all: no difference, no error.
    let clone = repo.clone("bare-vendor", &[]);
    dirty(&clone, &[]);
    changed(&clone, &base, &head, &["M apps/a/vendor"]);
}

#[test]
fn merge_base_and_ancestry() {
    let repo = Repo::new();
    let root = repo.commit("root");
    let one = repo.commit("one");
    repo.git(&["checkout", "-q", "-b", "side", root.as_str()]);
    let side = repo.commit("side");
    repo.git(&["checkout", "-q", "--orphan", "other"]);
    let other = repo.commit("unrelated");
    for reader in readers(&repo.root) {
        assert_eq!(reader.merge_bases(&one, &side).unwrap(), std::slice::from_ref(&root));
        assert_eq!(reader.merge_bases(&one, &other).unwrap(), []);
        let table = [
            (&one, &one, Ancestry::Same),
            (&root, &one, Ancestry::Ancestor),
            (&one, &root, Ancestry::Descendant),
            (&one, &side, Ancestry::Diverged),
            (&one, &other, Ancestry::Diverged),
        ];
        for (left, right, expected) in table {
            assert_eq!(reader.ancestry(left, right).unwrap(), expected);
        }
        let unknown = CommitId::new("1234567890123456789012345678901234567890").unwrap();
        assert_eq!(reader.ancestry(&one, &unknown).unwrap(), Ancestry::Unknown);
        assert_eq!(reader.resolve(unknown.as_str()).unwrap(), None);
        assert_eq!(reader.resolve("no-such-branch").unwrap(), None);
        assert_eq!(reader.resolve("side").unwrap(), Some(side.clone()));
        assert_eq!(reader.resolve("side~1").unwrap(), Some(root.clone()));
        assert_eq!(reader.resolve("side~9").unwrap(), None);
        assert_eq!(reader.resolve(&one.as_str()[..10]).unwrap(), Some(one.clone()));
        let tree = repo.git(&["rev-parse", "side^{tree}"]);
        assert_eq!(reader.resolve(&tree).unwrap(), None, "a tree is no commit");
        assert!(!reader.is_shallow());
    }
}

#[test]
fn a_shallow_clone_knows_what_it_does_not_know() {
    let repo = Repo::new();
    let commits: Vec<CommitId> = (0..5)
        .map(|number| {
            repo.write("file", &number.to_string());
            repo.commit(&number.to_string())
        })
        .collect();
    let clone = repo.clone("shallow", &["--depth", "2"]);
    let worktree = clone.parent().unwrap().join("linked");
    git(&clone, &["worktree", "add", "-q", "--detach", worktree.to_str().unwrap()]);
    for dir in [&clone, &worktree] {
        for reader in readers(dir) {
            assert!(reader.is_shallow());
            assert_eq!(reader.resolve(commits[0].as_str()).unwrap(), None);
            assert_eq!(reader.resolve("HEAD~1").unwrap(), Some(commits[3].clone()));
            assert_eq!(reader.resolve("HEAD~2").unwrap(), None);
            assert_eq!(reader.ancestry(&commits[3], &commits[4]).unwrap(), Ancestry::Ancestor);
            assert_eq!(reader.ancestry(&commits[0], &commits[4]).unwrap(), Ancestry::Unknown);
        }
    }
    // One old commit fetched alone: its tree compares, its order is not known.
    git(&clone, &["fetch", "-q", "--depth", "1", "origin", commits[0].as_str()]);
    changed(&clone, &commits[0], &commits[4], &["M file"]);
    for reader in readers(&clone) {
        assert_eq!(reader.merge_bases(&commits[0], &commits[4]).unwrap(), []);
        assert_eq!(reader.ancestry(&commits[0], &commits[4]).unwrap(), Ancestry::Unknown);
    }
}

#[test]
fn a_linked_worktree_is_a_repository_of_its_own() {
    let repo = Repo::new();
    repo.write("file", "1");
    let base = repo.commit("one");
    let linked = repo.dir.path().canonicalize().unwrap().join("linked");
    repo.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    std::fs::write(linked.join("file"), "2").unwrap();
    dirty(&linked, &["M file"]);
    dirty(&repo.root, &[]);
    git(&linked, &["commit", "-q", "-a", "-m", "two"]);
    std::fs::create_dir(linked.join("below")).unwrap();
    for reader in readers(&linked.join("below")) {
        let head = reader.head().unwrap();
        assert_eq!(head.branch.as_deref(), Some("side"));
        assert_eq!(reader.root(), linked);
        assert_eq!(show(&reader.changes(&base, &head.commit.id).unwrap()), "M file");
    }
}

#[test]
fn head_tells_branch_tag_and_source() {
    let repo = Repo::new();
    let one = repo.commit("first line\n\nbody");
    repo.git(&["remote", "add", "origin", "https://someone:hunter2@example.com/team/repo.git"]);
    for reader in readers(&repo.root) {
        let head = reader.head().unwrap();
        assert_eq!((head.commit.subject.as_str(), head.commit.author.as_str()), ("first line", "A Person"));
        assert_eq!(head.commit.time.unix_timestamp(), 1_767_323_045);
        assert_eq!(head.branch.as_deref(), Some("main"));
        assert_eq!(head.describe, one.as_str()[..7]);
        assert_eq!(head.source.as_deref(), Some("https://example.com/team/repo.git"));
    }
    repo.git(&["tag", "v1"]);
    let two = repo.commit("two");
    repo.git(&["checkout", "-q", "--detach"]);
    repo.git(&["remote", "set-url", "origin", "git@example.com:team/repo.git"]);
    for reader in readers(&repo.root) {
        let head = reader.head().unwrap();
        assert_eq!((head.branch, head.describe), (None, format!("v1-1-g{}", &two.as_str()[..7])));
        assert_eq!(head.source.as_deref(), Some("git@example.com:team/repo.git"));
    }
}

#[test]
fn files_and_contents_of_a_commit() {
    let repo = Repo::new();
    repo.write("apps/a/x", "x");
    repo.write("apps/a.txt", "y");
    repo.write("apps/a/deep/z", "z");
    let head = repo.commit("one");
    let names = |reader: &dyn History, dir: &str| -> Vec<String> {
        reader.files(&head, &dir.into()).unwrap().iter().map(|entry| entry.path.to_string()).collect()
    };
    for reader in readers(&repo.root) {
        let reader = reader.as_ref();
        assert_eq!(names(reader, "apps/a"), ["apps/a/deep/z", "apps/a/x"]);
        assert_eq!(names(reader, ""), ["apps/a.txt", "apps/a/deep/z", "apps/a/x"]);
        assert_eq!(names(reader, "apps/a/x"), ["apps/a/x"]);
        assert_eq!(names(reader, "apps/a/x/y"), [""; 0]);
        assert_eq!(names(reader, "nowhere"), [""; 0]);
        assert_eq!(reader.read(&head, &"apps/a/x".into()).unwrap(), Some(b"x".to_vec()));
        assert_eq!(reader.read(&head, &"apps/a".into()).unwrap(), None);
        assert_eq!(reader.read(&head, &"nowhere".into()).unwrap(), None);
        assert_eq!(reader.hash_on_disk(&"apps".into()).unwrap(), None);
    }
}

#[test]
fn what_git_does_to_content_is_done_before_hashing() {
    let repo = Repo::new();
    let attributes = "*.txt text\n*.auto text=auto\n*.bin -text\n*.id ident\n*.up filter=upper\n*.none filter=missing\n*.u16 working-tree-encoding=UTF-16LE\n";
    repo.write(".gitattributes", attributes);
    repo.git(&["config", "filter.upper.clean", "tr a-z A-Z"]);
    repo.git(&["config", "filter.upper.smudge", "tr A-Z a-z"]);
    for name in ["a.txt", "a.auto", "a.bin", "plain"] {
        repo.write(name, "one\r\ntwo\r\n");
    }
    repo.write("a.id", "$Id: what checkout wrote $\n");
    repo.write("a.up", "lower\n");
    repo.write("a.none", "lower\n");
    std::fs::write(repo.root.join("a.u16"), b"a\0b\0").unwrap();
    for name in ["a.txt", "a.auto", "a.bin", "plain", "a.id", "a.up", "a.none", "a.u16"] {
        hashes_as_git_adds(&repo, name);
    }
    let objects = repo.git(&["count-objects"]);
    for reader in readers(&repo.root) {
        reader.hash_on_disk(&"a.txt".into()).unwrap();
        repo.write("a.auto", "never added\r\n");
        reader.hash_on_disk(&"a.auto".into()).unwrap();
    }
    assert_eq!(repo.git(&["count-objects"]), objects, "hashing stores nothing");
    repo.commit("one");
    // Checked out anew, right after the index was written: git sees nothing to report, and neither may we.
    let clone = repo.clone("filtered", &["-c", "filter.upper.clean=tr a-z A-Z", "-c", "filter.upper.smudge=tr A-Z a-z"]);
    assert_eq!(std::fs::read_to_string(clone.join("a.up")).unwrap(), "lower\n");
    let touch = std::fs::File::options().append(true).open(clone.join("a.up")).unwrap();
    touch.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
    dirty(&clone, &[]);
    std::fs::write(clone.join("a.up"), "other\n").unwrap();
    dirty(&clone, &["M a.up"]);
}

#[test]
fn a_sparse_checkout_has_no_deletions() {
    let repo = Repo::new();
    repo.write("apps/a/x", "x");
    repo.write("apps/b/x", "x");
    repo.commit("one");
    repo.git(&["sparse-checkout", "set", "--no-sparse-index", "apps/a"]);
    assert!(!repo.root.join("apps/b").exists());
    dirty(&repo.root, &[]);
    repo.write("apps/a/x", "y");
    dirty(&repo.root, &["M apps/a/x"]);
}

#[test]
fn what_is_no_usable_repository_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = Git::open(dir.path()).err().unwrap();
    assert!(error.message.ends_with("is not in a git repository"), "{error}");
    let repo = Repo::new();
    let error = Git::open(&repo.root).unwrap().unwrap().head().unwrap_err();
    assert_eq!(error.message, "the repository has no commit yet");
    repo.commit("one");
    let bare = repo.clone("bare", &["--bare"]);
    let error = Git::open(&bare).err().unwrap();
    assert!(error.message.contains("is a bare repository"), "{error}");
}

#[test]
fn many_threads_ask_at_once() {
    let repo = Repo::new();
    repo.write("file", "1");
    let base = repo.commit("one");
    repo.write("file", "2");
    let head = repo.commit("two");
    for reader in readers(&repo.root) {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(reader.changes(&base, &head).unwrap().len(), 1));
            }
        });
    }
}

/// `choose` in one line: what was found and the notes.
fn chosen(repo: &Path, flag: Option<&str>, variables: &[(&str, &str)], event: Option<&str>) -> String {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let sources = base::sources(flag, &environment, event);
    let answers: Vec<String> = readers(repo)
        .iter()
        .map(|reader| {
            let head = reader.head().unwrap().commit.id;
            let (text, notes) = match base::choose(reader.as_ref(), &head, &sources).unwrap() {
                Choice::Found(base) => (format!("{} from {}", reader.commit(&base.commit).unwrap().subject, base.source), base.notes),
                Choice::Unreachable(missing) => {
                    let fetch = missing.fetch.map(|fetch| format!("; {fetch}")).unwrap_or_default();
                    (format!("unreachable {}: {}{fetch}", missing.wanted, missing.why), missing.notes)
                }
            };
            notes.iter().fold(text, |text, note| format!("{text} | {note}"))
        })
        .collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    answers[0].clone()
}

#[test]
fn the_base_is_the_first_source_that_exists() {
    const ZERO: &str = "0000000000000000000000000000000000000000";
    const GONE: &str = "1234567890123456789012345678901234567890";
    let origin = Repo::new();
    origin.commit("root");
    let before = origin.commit("before");
    origin.commit("pushed");
    origin.git(&["branch", "orphan"]);
    origin.git(&["checkout", "-q", "--orphan", "unrelated"]);
    let unrelated = origin.commit("unrelated");
    origin.git(&["checkout", "-q", "main"]);
    let clone = origin.clone("ci", &[]);
    let (before, unrelated) = (before.as_str(), unrelated.as_str());
    // On the default branch.
    assert_eq!(chosen(&clone, None, &[], None), "pushed from merge base with `origin/HEAD`");
    assert_eq!(chosen(&clone, None, &[("CI_COMMIT_BEFORE_SHA", before)], None), "before from `CI_COMMIT_BEFORE_SHA`");
    assert_eq!(
        chosen(&clone, None, &[("CI_COMMIT_BEFORE_SHA", GONE)], None),
        format!(
            "unreachable `CI_COMMIT_BEFORE_SHA`: `{GONE}` is not in this repository (force push, or not fetched); git fetch origin {GONE} \
             | `CI_COMMIT_BEFORE_SHA` passed over: `{GONE}` is not in this repository (force push, or not fetched)"
        ),
        "its own tip is no base when a better one was named"
    );
    assert_eq!(chosen(&clone, Some("HEAD~1"), &[("OFFBUILD_BASE", GONE)], None), "before from `--base HEAD~1`");
    assert_eq!(
        chosen(&clone, Some("nope"), &[("OFFBUILD_BASE", before)], None),
        "unreachable `--base nope`: `nope` is not in this repository (force push, or not fetched); \
         git fetch origin --tags '+refs/heads/*:refs/remotes/origin/*'"
    );
    assert_eq!(
        chosen(&clone, Some(unrelated), &[], None),
        format!("unreachable `--base {unrelated}`: it has no commit in common with HEAD")
    );
    // On a new branch.
    git(&clone, &["checkout", "-q", "-b", "topic"]);
    git(&clone, &["commit", "-q", "--allow-empty", "-m", "topic"]);
    assert_eq!(
        chosen(&clone, None, &[("CI_COMMIT_BEFORE_SHA", ZERO)], None),
        "pushed from merge base with `origin/HEAD` | `CI_COMMIT_BEFORE_SHA` passed over: it is the zero id: there was nothing before"
    );
    // A base that went on meanwhile: the commit both have.
    git(&clone, &["checkout", "-q", "-b", "late", before]);
    git(&clone, &["commit", "-q", "--allow-empty", "-m", "late"]);
    let answer = chosen(&clone, None, &[("CHANGE_TARGET", "main")], None);
    assert!(answer.starts_with("before from `CHANGE_TARGET` (main) | ") && answer.contains("is no ancestor of HEAD"), "{answer}");
    // Shallow.
    let shallow = origin.clone("shallow-ci", &["--depth", "1"]);
    assert_eq!(
        chosen(&shallow, Some(before), &[], None),
        format!("unreachable `--base {before}`: `{before}` is not in this shallow clone; git fetch --unshallow origin")
    );
    git(&shallow, &["fetch", "-q", "--unshallow", "origin"]);
    assert_eq!(chosen(&shallow, Some(before), &[], None), format!("before from `--base {before}`"));
}

/// Only the git program reads these; `open` finds that out and answers all the same.
#[test]
fn what_libgit2_cannot_read_is_read_through_git() {
    let filled = |repo: &Repo| {
        repo.write("apps/a/x", "1");
        repo.write("apps/b/x", "b");
        let base = repo.commit("one");
        repo.write("apps/a/x", "2");
        (base, repo.commit("two"))
    };
    let check = |name: &str, dir: &Path, base: &CommitId, head: &CommitId| {
        assert!(Git::open(dir).unwrap().is_none(), "{name}");
        let reader = offbuild::changes::open(dir).unwrap();
        assert_eq!(reader.head().unwrap().commit.id, *head, "{name}");
        assert_eq!(show(&reader.changes(base, head).unwrap()), "M apps/a/x", "{name}");
        assert_eq!(reader.ancestry(base, head).unwrap(), Ancestry::Ancestor, "{name}");
        assert_eq!(show(&reader.dirty().unwrap()), "", "{name}");
        assert_eq!(reader.read(base, &"apps/a/x".into()).unwrap(), Some(b"1".to_vec()), "{name}");
        assert_eq!(reader.files(base, &"apps".into()).unwrap().len(), 2, "{name}");
        let on_disk = reader.hash_on_disk(&"apps/a/x".into()).unwrap();
        assert_eq!(on_disk, reader.files(head, &"apps/a/x".into()).unwrap().pop(), "{name}");
    };
    for option in ["--ref-format=reftable", "--object-format=sha256"] {
        let repo = Repo::with(&[option]);
        let (base, head) = filled(&repo);
        check(option, &repo.root, &base, &head);
    }
    let repo = Repo::new();
    let (base, head) = filled(&repo);
    repo.git(&["config", "uploadpack.allowFilter", "true"]);
    repo.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let treeless = repo.clone("treeless", &["--filter=tree:0"]);
    check("tree-less clone", &treeless, &base, &head);
    repo.git(&["sparse-checkout", "set", "--sparse-index", "apps/a"]);
    check("sparse index", &repo.root, &base, &head);
    repo.git(&["sparse-checkout", "disable"]);
    repo.git(&["update-index", "--split-index"]);
    check("split index", &repo.root, &base, &head);
    repo.git(&["update-index", "--no-split-index"]);
    assert!(Git::open(&repo.root).unwrap().is_some(), "whole again");
    // libgit2 reads a clone without contents, up to a content that is not there.
    let blobless = repo.clone("blobless", &["--filter=blob:none"]);
    let reader = Git::open(&blobless).unwrap().unwrap();
    let missing =
        git(&blobless, &["rev-list", "--objects", "--all", "--missing=print"]).lines().filter(|line| line.starts_with('?')).count();
    assert!(missing > 0);
    assert_eq!(show(&reader.changes(&base, &head).unwrap()), "M apps/a/x");
    assert_eq!(reader.read(&base, &"apps/a/x".into()).unwrap(), Some(b"1".to_vec()));
}

#[test]
fn a_replaced_commit_is_what_git_takes_it_for() {
    let repo = Repo::new();
    let one = repo.commit("one");
    repo.write("file", "2");
    let two = repo.commit("two");
    let three = repo.commit("three");
    repo.git(&["replace", "--graft", three.as_str(), one.as_str()]);
    for packed in [false, true] {
        if packed {
            repo.git(&["pack-refs", "--all"]);
        }
        let reader = offbuild::changes::open(&repo.root).unwrap();
        assert_eq!(reader.resolve("HEAD~1").unwrap(), Some(one.clone()), "packed: {packed}");
        assert_eq!(show(&reader.changes(&one, &three).unwrap()), "A file", "packed: {packed}");
    }
    repo.git(&["replace", "-d", three.as_str()]);
    assert_eq!(Git::open(&repo.root).unwrap().unwrap().resolve("HEAD~1").unwrap(), Some(two));
}

#[test]
fn a_repository_of_another_user_is_refused_with_advice() {
    let repo = Repo::new();
    repo.commit("one");
    let trusted = Command::new("git").args(["config", "--get-all", "safe.directory"]).output().unwrap();
    let give_away = Command::new("chown").args(["-R", "54321"]).arg(&repo.root).output().unwrap();
    if !give_away.status.success() || trusted.status.success() {
        // Only root can make such a repository, and only where none is trusted beforehand.
        return;
    }
    let error = Git::open(&repo.root).err().unwrap();
    let root = repo.root.display();
    assert_eq!(error.message, format!("the repository at `{root}` belongs to another user"));
    assert_eq!(error.hint, Some(format!("if you trust it: `git config --global --add safe.directory {root}`")));
    let error = GitCli::open(&repo.root).unwrap_err().to_string();
    assert!(error.contains("dubious ownership") && error.contains("safe.directory"), "{error}");
    // Told in a way that libgit2 does not hear: git is asked.
    repo.git(&["config", "--file", "../trusting", "safe.directory", root.to_string().as_str()]);
    let trusting = repo.dir.path().join("trusting").display().to_string();
    let ask =
        |config: &str| Offbuild::new(&repo.root, repo.dir.path()).env("GIT_CONFIG_GLOBAL", config).run(&["changed", "--base", "HEAD"]);
    ask("/dev/null").code(3).says("belongs to another user");
    let done = ask(&trusting);
    assert!(!done.stderr.contains("another user"), "{}", done.stderr);
}
