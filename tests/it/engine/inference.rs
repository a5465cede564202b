//! What an app's Dockerfile is said to read, against the files that BuildKit itself asks for.
//!
//! Each row is built on the engine from a context it has never seen, so every file it needs is opened for it; the kernel tells
//! which. A file BuildKit does not ask for cannot change the image: what it asks for has to be among the app's inputs.

use super::{Bench, Told};
use crate::support::unique;
use offbuild::changes::inputs::{Shared, inputs_of};
use offbuild::changes::reads::reads_of;
use offbuild::config;
use offbuild::manifest::{self, Reading};
use offbuild::names::RepoPath;
use rustix::fs::inotify;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The files of every context; no two are alike, as BuildKit need not ask twice for one content.
const FILES: [&str; 12] = [
    "a.txt",
    "apps/api/main.rb",
    "apps/web/main.rb",
    "apps/web/notes.md",
    "docs/api.md",
    "lib/deep/three.rb",
    "lib/one.rb",
    "lib/read me.md",
    "lib/two.rb",
    "other/four.rb",
    "other/one.rb",
    "{b}/five.rb",
];

/// Tells which files of a directory are opened.
struct Opened {
    inotify: rustix::fd::OwnedFd,
    directories: BTreeMap<i32, PathBuf>,
}

impl Opened {
    fn watch(root: &Path) -> Self {
        let inotify = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let mut watch = Self { inotify, directories: BTreeMap::new() };
        watch.add(root, Path::new(""));
        watch
    }

    fn add(&mut self, root: &Path, dir: &Path) {
        let full = root.join(dir);
        let number = inotify::add_watch(&self.inotify, &full, inotify::WatchFlags::OPEN).unwrap();
        self.directories.insert(number, dir.to_owned());
        for entry in std::fs::read_dir(&full).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.add(root, &dir.join(entry.file_name()));
            }
        }
    }

    /// The files opened since the last time.
    fn files(&self) -> BTreeSet<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut files = BTreeSet::new();
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
            if let (Some(name), false) = (event.file_name(), event.events().contains(inotify::ReadFlags::ISDIR)) {
                files.insert(self.directories[&event.wd()].join(OsStr::from_bytes(name.to_bytes())).display().to_string());
            }
        }
        files
    }
}

struct Row {
    name: &'static str,
    dockerfile: &'static str,
    /// The context's `.dockerignore`.
    ignore: &'static str,
    /// `Dockerfile.dockerignore`.
    own: Option<&'static str>,
    /// More keys of the compose file's `build:`.
    build: &'static str,
    /// What BuildKit asks for.
    read: Vec<&'static str>,
    /// What counts besides, because it cannot be told or may be needed by another target.
    wider: Vec<&'static str>,
}

fn row(name: &'static str, dockerfile: &'static str, read: &[&'static str]) -> Row {
    Row { name, dockerfile, ignore: "", own: None, build: "", read: read.to_vec(), wider: Vec::new() }
}

fn but(left_out: &[&str]) -> Vec<&'static str> {
    FILES.into_iter().filter(|file| !left_out.contains(file)).collect()
}

fn corpus() -> Vec<Row> {
    let lib = ["lib/deep/three.rb", "lib/one.rb", "lib/read me.md", "lib/two.rb"];
    vec![
        row("one file", "FROM BASE\nCOPY a.txt /\n", &["a.txt"]),
        row("several", "FROM BASE\nCOPY a.txt lib/one.rb /x/\n", &["a.txt", "lib/one.rb"]),
        row("a directory", "FROM BASE\nCOPY lib /lib\n", &lib),
        row("slashes and dots", "FROM BASE\nCOPY ./lib/../a.txt /other/ /x/\n", &["a.txt", "other/four.rb", "other/one.rb"]),
        row("a list with blanks", "FROM BASE\nCOPY [\"lib/read me.md\", \"/x/\"]\n", &["lib/read me.md"]),
        row("continued lines", "FROM BASE\nCOPY a.txt \\\n  # a comment\n  docs/api.md /x/\n", &["a.txt", "docs/api.md"]),
        row("another escape", "# escape=`\nFROM BASE\nCOPY a.txt `\n  docs/api.md /x/\n", &["a.txt", "docs/api.md"]),
        row("a star", "FROM BASE\nCOPY lib/*.rb /x/\n", &["lib/one.rb", "lib/two.rb"]),
        row("a star for directories", "FROM BASE\nCOPY lib/* /x/\n", &lib),
        row("a star in the middle", "FROM BASE\nCOPY */one.rb /x/\n", &["lib/one.rb", "other/one.rb"]),
        row("a question mark and a class", "FROM BASE\nCOPY lib/t?o.rb lib/[no]*.rb /x/\n", &["lib/one.rb", "lib/two.rb"]),
        row("braces are plain", "FROM BASE\nCOPY {b} /x/\n", &["{b}/five.rb"]),
        row("everything", "FROM BASE\nCOPY . /x/\n", &FILES),
        row("ADD", "FROM BASE\nADD other /x/\n", &["other/four.rb", "other/one.rb"]),
        row("flags", "FROM BASE\nCOPY --chown=1:1 lib/one.rb /x/\n", &["lib/one.rb"]),
        row("a bind mount", "FROM BASE\nRUN --mount=type=bind,source=lib,target=/m cat /m/one.rb\n", &lib),
        row("a bind mount of everything", "FROM BASE\nRUN --mount=target=/m cat /m/a.txt\n", &FILES),
        row("a cache mount", "FROM BASE\nRUN --mount=type=cache,target=/m true\nCOPY a.txt /\n", &["a.txt"]),
        row("from a stage", "FROM BASE AS one\nCOPY lib /l\nFROM BASE\nCOPY --from=one /l /l\n", &lib),
        row("from a stage by number", "FROM BASE\nCOPY other /l\nFROM BASE\nCOPY --from=0 /l /l\n", &["other/four.rb", "other/one.rb"]),
        row("a stage on a stage", "FROM BASE AS one\nCOPY a.txt /\nFROM one\nCOPY docs /d\n", &["a.txt", "docs/api.md"]),
        row("a mount from a stage", "FROM BASE AS s\nCOPY a.txt /\nFROM BASE\nRUN --mount=from=s,target=/m cat /m/a.txt\n", &["a.txt"]),
        row("a mount of one file", "FROM BASE\nRUN --mount=type=bind,source=lib/one.rb,target=/m cat /m\n", &["lib/one.rb"]),
        row("a mount from an image", "FROM BASE\nRUN --mount=type=bind,from=BASE,target=/m true\nCOPY a.txt /\n", &["a.txt"]),
        row("a default in place of an argument", "FROM BASE\nARG DIR\nCOPY ${DIR:-docs} /x\n", &["docs/api.md"]),
        row("a variable of the stage below", "FROM BASE AS one\nENV DIR=docs\nFROM one\nCOPY $DIR /x\n", &["docs/api.md"]),
        row("from an image", "FROM BASE\nCOPY --from=BASE /bin/sh /lib/one.rb\nCOPY a.txt /\n", &["a.txt"]),
        row("nothing", "FROM BASE\nRUN true\n", &[]),
        Row {
            wider: vec!["other/four.rb", "other/one.rb"],
            build: "target: one",
            ..row("a target", "FROM BASE AS one\nCOPY lib /l\nFROM one AS two\nCOPY other /o\n", &lib)
        },
        Row {
            wider: vec!["docs/api.md"],
            ..row("a stage nobody needs", "FROM BASE AS unused\nCOPY docs /d\nFROM BASE\nCOPY a.txt /\n", &["a.txt"])
        },
        row("an argument's default", "FROM BASE\nARG DIR=docs\nCOPY $DIR /x\n", &["docs/api.md"]),
        Row { build: "args: {DIR: other}", ..row("an argument", "FROM BASE\nARG DIR=lib\nCOPY ${DIR}/four.rb /x\n", &["other/four.rb"]) },
        Row {
            build: "args: {DIR: docs}",
            ..row("an argument before the first stage", "ARG DIR=lib\nFROM BASE\nARG DIR\nCOPY $DIR /x\n", &["docs/api.md"])
        },
        row("a variable", "FROM BASE\nENV DIR=lib NAME=one\nCOPY ${DIR}/${NAME:-two}.rb /x\n", &["lib/one.rb"]),
        Row {
            wider: but(&["docs/api.md"]),
            ..row("a variable that the base image might set", "FROM BASE\nCOPY docs${SUFFIX} /x\n", &["docs/api.md"])
        },
        Row { ignore: "**/*.md\nlib/deep\n", ..row("ignored", "FROM BASE\nCOPY lib /x\n", &["lib/one.rb", "lib/two.rb"]) },
        Row {
            ignore: "*\n!lib\nlib/*.rb\n!lib/two.rb\n",
            ..row("brought back", "FROM BASE\nCOPY . /x\n", &["lib/deep/three.rb", "lib/read me.md", "lib/two.rb"])
        },
        Row {
            ignore: "lib\n",
            own: Some("# its own\nother\n"),
            ..row("an ignore file of its own", "FROM BASE\nCOPY lib /x\nCOPY docs other* /y/\n", &[&lib[..], &["docs/api.md"]].concat())
        },
    ]
}

/// The inputs among the files, and the build, as the program would have them.
fn inferred(root: &Path) -> (BTreeSet<String>, offbuild::build::ImageBuild) {
    let env = |_: &str| None;
    let config = config::load(root, root, None, &env).unwrap();
    let app = &config.apps[0];
    let read = |path: &RepoPath| std::fs::read_to_string(path.under(root)).map(Some);
    let reading = Reading {
        root,
        app: &app.name,
        dir: &app.dir,
        manifest: &app.manifest,
        generation: app.generation,
        compose: None,
        read: &read,
        env: &env,
        build: &app.build,
    };
    let manifest = manifest::read(&reading).unwrap_or_else(|problems| panic!("{problems:?}"));
    let shared = Shared::of(&config, &|_| Vec::new()).unwrap();
    let reads = reads_of(&manifest, &offbuild::files::OnDisk::new(root));
    let inputs = inputs_of(app, &shared, Some(&manifest), &reads, &|_| Vec::new()).unwrap();
    let files = FILES.into_iter().filter(|file| inputs.contain(&RepoPath::from(*file))).map(str::to_owned).collect();
    (files, manifest.services[0].build.clone().unwrap().image)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_buildkit_asks_for_is_what_counts() {
    let bench = Bench::new();
    let told = Told::new();
    let mut wrong = Vec::new();
    for row in corpus() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for file in FILES {
            write(file, &format!("{file} {}\n", unique()));
        }
        write("apps.yaml", "version: 1\ndiscover: {include: [apps/web]}\napps: {web: {precision: context}}\n");
        let compose = "services:\n  main:\n    image: registry.example/web\n    build:\n      context: ../..\n      dockerfile: apps/web/Dockerfile\n";
        write("apps/web/docker-compose.yml", &format!("{compose}      {}\n", row.build));
        write("apps/web/Dockerfile", &row.dockerfile.replace("BASE", &bench.base.name));
        write(".dockerignore", row.ignore);
        if let Some(own) = row.own {
            write("apps/web/Dockerfile.dockerignore", own);
        }

        let (counted, mut build) = inferred(&root);
        build.context_key = unique();
        let opened = Opened::watch(&root);
        bench.build(&build, &told).await.unwrap_or_else(|error| panic!("{}: {error:?}", row.name));
        let opened: BTreeSet<String> = opened.files().into_iter().filter(|file| FILES.contains(&file.as_str())).collect();

        let read: BTreeSet<String> = row.read.iter().map(|file| (*file).to_owned()).collect();
        let wider: BTreeSet<String> = row.wider.iter().map(|file| (*file).to_owned()).chain(read.iter().cloned()).collect();
        for (what, found, expected) in [("BuildKit asked for", &opened, &read), ("counted", &counted, &wider)] {
            if found != expected {
                wrong.push(format!("{}: {what} {found:?}, not {expected:?}", row.name));
            }
        }
        if let Some(forgotten) = opened.difference(&counted).next() {
            wrong.push(format!("{}: `{forgotten}` is read and does not count", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
