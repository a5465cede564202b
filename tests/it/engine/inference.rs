//! What an app's Dockerfile is said to read, against the files that BuildKit itself asks for.
//!
//! Each row is built on the engine from a context it has never seen, so every file it needs is opened for it; the kernel tells
//! which. A file BuildKit does not ask for cannot change the image: what it asks for has to be among the app's inputs.

use super::{Bench, BuildError, Told};
use crate::support::unique;
use offbuild::changes::inputs::{Shared, inputs_of};
use offbuild::changes::reads::reads_of;
use offbuild::config;
use offbuild::files::Files;
use offbuild::manifest::{self, Reading};
use offbuild::names::RepoPath;
use rustix::fs::inotify;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

mod random;

/// The files of every context; no two are alike, as BuildKit need not ask twice for one content.
const FILES: [&str; 16] = [
    "a.txt",
    "apps/api/main.rb",
    "apps/web/main.rb",
    "apps/web/notes.md",
    "docs/api.md",
    "lib/deep/three.rb",
    "lib/one.rb",
    "lib/read me.md",
    "lib/two.rb",
    "odd/!x.rb",
    "odd/.hidden",
    "odd/d-1/x.rb",
    "odd/é.rb",
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
    dockerfile: String,
    /// The context's `.dockerignore`.
    ignore: String,
    /// `Dockerfile.dockerignore`.
    own: Option<&'static str>,
    /// More keys of the compose file's `build:`.
    build: &'static str,
    /// Links of the context, and where they lead.
    links: Vec<(&'static str, &'static str)>,
    /// What a BuildKit says that does not know it yet.
    unknown: &'static str,
    /// What BuildKit asks for.
    read: Vec<&'static str>,
    /// What counts besides, because it cannot be told or may be needed by another target.
    wider: Vec<&'static str>,
}

fn row(name: &'static str, dockerfile: &'static str, read: &[&'static str]) -> Row {
    Row {
        name,
        dockerfile: dockerfile.to_owned(),
        ignore: String::new(),
        own: None,
        build: "",
        links: Vec::new(),
        unknown: "",
        read: read.to_vec(),
        wider: Vec::new(),
    }
}

fn but(left_out: &[&str]) -> Vec<&'static str> {
    FILES.into_iter().filter(|file| !left_out.contains(file)).collect()
}

/// A frontend without heredocs takes them for files, or their text for instructions.
const HEREDOC: &str = "(?i)unknown instruction|heredoc|not found|parse error";
const CONTEXTS: &str = "`build: additional_contexts:` cannot be honoured";

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
        Row { ignore: "**/*.md\nlib/deep\n".to_owned(), ..row("ignored", "FROM BASE\nCOPY lib /x\n", &["lib/one.rb", "lib/two.rb"]) },
        Row {
            ignore: "*\n!lib\nlib/*.rb\n!lib/two.rb\n".to_owned(),
            ..row("brought back", "FROM BASE\nCOPY . /x\n", &["lib/deep/three.rb", "lib/read me.md", "lib/two.rb"])
        },
        Row {
            ignore: "lib\n".to_owned(),
            own: Some("# its own\nother\n"),
            ..row("an ignore file of its own", "FROM BASE\nCOPY lib /x\nCOPY docs other* /y/\n", &[&lib[..], &["docs/api.md"]].concat())
        },
        Row {
            wider: vec!["lib/deep/three.rb", "lib/read me.md", "lib/two.rb"],
            ..row("a class that begins with an exclamation mark", "FROM BASE\nCOPY lib/[!o]* /x/\n", &["lib/one.rb"])
        },
        Row {
            wider: vec!["lib/one.rb", "lib/read me.md"],
            ..row("a class that is negated", "FROM BASE\nCOPY lib/[^or]* /x/\n", &["lib/deep/three.rb", "lib/two.rb"])
        },
        Row { wider: vec!["odd/!x.rb"], ..row("one character of two bytes", "FROM BASE\nCOPY odd/?.rb odd/[é].rb /x/\n", &["odd/é.rb"]) },
        row("a brace in a class", "FROM BASE\nCOPY [{]b}/* /x/\n", &["{b}/five.rb"]),
        row("names of all kinds", "FROM BASE\nCOPY odd/d-1 odd/.hidden odd/!x.rb /x/\n", &["odd/!x.rb", "odd/.hidden", "odd/d-1/x.rb"]),
        row("two stars", "FROM BASE\nCOPY **/one.rb /x/\n", &["lib/one.rb", "other/one.rb"]),
        row("flags that end", "FROM BASE\nCOPY -- a.txt /x/\n", &["a.txt"]),
        row("an argument after a variable", "FROM BASE\nENV DIR=docs\nARG DIR=other/four.rb\nCOPY $DIR /x/\n", &["other/four.rb"]),
        row("an argument without a value after a variable", "FROM BASE\nENV DIR=docs\nARG DIR\nCOPY $DIR /x/\n", &["docs/api.md"]),
        row("a variable after an argument", "FROM BASE\nARG DIR=lib\nENV DIR=docs\nCOPY $DIR /x/\n", &["docs/api.md"]),
        row("an argument of the stage below", "FROM BASE AS one\nARG DIR=docs\nFROM one\nCOPY $DIR /x/\n", &["docs/api.md"]),
        row(
            "an argument of another stage",
            "ARG DIR=docs\nFROM BASE AS one\nARG DIR=lib\nFROM BASE\nARG DIR\nCOPY $DIR /x/\n",
            &["docs/api.md"],
        ),
        row(
            "an argument for FROM",
            "ARG IMAGE=BASE\nARG STAGE=one\nFROM ${IMAGE} AS one\nCOPY docs /d\nFROM $STAGE\nCOPY a.txt /\n",
            &["a.txt", "docs/api.md"],
        ),
        row("variables of one line", "FROM BASE\nENV A=docs\nENV A=lib B=$A\nCOPY $B /x/\n", &["docs/api.md"]),
        Row {
            unknown: r"\$DIR. not found",
            ..row(
                "a mount's source in a variable",
                "FROM BASE\nARG DIR=docs\nRUN --mount=type=bind,source=$DIR,target=/m cat /m/api.md\n",
                &["docs/api.md"],
            )
        },
        row(
            "a mount's source written twice",
            "FROM BASE\nRUN --mount=type=bind,source=other,source=docs,target=/m cat /m/api.md\n",
            &["docs/api.md"],
        ),
        Row {
            build: "args: {IMAGE: BASE}",
            ..row(
                "from an image in a variable",
                "ARG IMAGE\nFROM $IMAGE AS one\nCOPY docs /d\nFROM BASE\nCOPY --from=one /d /d\n",
                &["docs/api.md"],
            )
        },
        row("for a stage on this one", "FROM BASE AS one\nONBUILD COPY docs /d\nFROM one\nCOPY a.txt /\n", &["a.txt", "docs/api.md"]),
        Row {
            wider: vec!["docs/api.md"],
            ..row(
                "for a stage on this one, with what it set last",
                "FROM BASE AS one\nENV DIR=docs\nONBUILD COPY $DIR /d\nENV DIR=other\nFROM one\n",
                &["other/four.rb", "other/one.rb"],
            )
        },
        row(
            "variables for a stage on this one",
            "FROM BASE AS one\nENV DIR=docs\nONBUILD ENV DIR=lib\nCOPY $DIR /d\nFROM one\nRUN true\n",
            &["docs/api.md"],
        ),
        Row {
            unknown: "unknown instruction: DOCS",
            ..row("directives", "# check=skip=all\n# escape=`\nFROM BASE\nCOPY a.txt `\n docs/api.md /x/\n", &["a.txt", "docs/api.md"])
        },
        Row { links: vec![("way", "docs")], wider: FILES.to_vec(), ..row("a link", "FROM BASE\nCOPY way /x/\n", &["docs/api.md"]) },
        Row {
            links: vec![("way", "other")],
            wider: FILES.to_vec(),
            ..row("through a link", "FROM BASE\nCOPY way/four.rb /x/\n", &["other/four.rb"])
        },
        Row {
            links: vec![("links/four.txt", "../other/four.rb")],
            wider: FILES.to_vec(),
            ..row("a star that meets a link", "FROM BASE\nCOPY links/*.txt /x/\n", &["other/four.rb"])
        },
        Row {
            links: vec![("links/way", "../docs")],
            wider: FILES.to_vec(),
            ..row("a star that would go through a link", "FROM BASE\nCOPY li*/wa?/*.md /x/\n", &[])
        },
        Row { links: vec![("docs/way", "../lib")], ..row("a link in a directory", "FROM BASE\nCOPY docs /x/\n", &["docs/api.md"]) },
        Row {
            links: vec![("way", "docs")],
            wider: FILES.to_vec(),
            ..row("a mount of a link", "FROM BASE\nRUN --mount=type=bind,source=way,target=/m cat /m/api.md\n", &["docs/api.md"])
        },
        Row {
            unknown: HEREDOC,
            ..row("text in place", "FROM BASE\nCOPY <<EOF docs/api.md /x/\nCOPY lib /x\nEOF\nCOPY a.txt /\n", &["a.txt", "docs/api.md"])
        },
        Row {
            unknown: HEREDOC,
            ..row(
                "a script",
                "FROM BASE\nRUN <<-'ONE' cat && cat <<TWO\nCOPY lib /x\n\tONE\nCOPY other /x\nTWO\nCOPY a.txt /\n",
                &["a.txt"],
            )
        },
        Row {
            unknown: HEREDOC,
            ..row(
                "a script with a mount",
                "FROM BASE\nRUN --mount=type=bind,source=docs,target=/m <<EOF\ncat /m/api.md\nEOF\n",
                &["docs/api.md"],
            )
        },
        Row { unknown: "nknown flag: (--)?link", ..row("a layer of its own", "FROM BASE\nCOPY --link docs /x/\n", &["docs/api.md"]) },
        Row { unknown: "nknown flag: (--)?exclude", ..row("all but", "FROM BASE\nCOPY --exclude=*.md --exclude=deep lib /x/\n", &lib) },
        Row {
            unknown: "nknown flag: (--)?parents",
            ..row(
                "with the directories above",
                "FROM BASE\nCOPY --parents ./lib/./deep/*.rb docs/**/*.md /x/\n",
                &["docs/api.md", "lib/deep/three.rb"],
            )
        },
        Row {
            unknown: CONTEXTS,
            build: "additional_contexts: {more: ../../docs, other: ../../other}",
            ..row(
                "contexts with names",
                "FROM BASE\nCOPY --from=more api.md /x/\nCOPY a.txt /\nRUN --mount=type=bind,from=other,target=/m cat /m/four.rb\n",
                &["a.txt", "docs/api.md", "other/four.rb", "other/one.rb"],
            )
        },
        Row {
            unknown: CONTEXTS,
            build: "additional_contexts: {one: ../../docs}",
            wider: lib.to_vec(),
            ..row(
                "a context in a stage's place",
                "FROM BASE AS one\nCOPY lib /x\nFROM BASE\nCOPY --from=one api.md /x/\n",
                &["docs/api.md"],
            )
        },
        Row {
            unknown: CONTEXTS,
            build: "additional_contexts: {one: docker-image://BASE}",
            ..row("an image with a name", "FROM one\nCOPY --from=one /bin/sh /lib/one.rb\nCOPY a.txt /\n", &["a.txt"])
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
    let disk = offbuild::files::OnDisk::new(root);
    let (files, links): (&dyn Files, _) = (&disk, |path: &RepoPath| (&disk as &dyn Files).through_links(path));
    let shared = Shared::of(&config, &links).unwrap();
    let inputs = inputs_of(app, &shared, Some(&manifest), &reads_of(&manifest, files), &links).unwrap();
    let files = FILES.into_iter().filter(|file| inputs.contain(&RepoPath::from(*file))).map(str::to_owned).collect();
    (files, manifest.services[0].build.clone().unwrap().image)
}

/// A row's build on the engine: which files BuildKit opened, and which count. With the error of a build that failed.
async fn held(bench: &Bench, told: &Told, row: &Row) -> (BTreeSet<String>, BTreeSet<String>, Option<BuildError>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let named = |text: &str| text.replace("BASE", &bench.base.name);
    let place = |path: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let write = |path: &str, text: &str| std::fs::write(place(path), text).unwrap();
    for file in FILES {
        write(file, &format!("{file} {}\n", unique()));
    }
    for (link, target) in &row.links {
        std::os::unix::fs::symlink(target, place(link)).unwrap();
    }
    write("apps.yaml", "version: 1\ndiscover: {include: [apps/web]}\napps: {web: {precision: context}}\n");
    let compose =
        "services:\n  main:\n    image: registry.example/web\n    build:\n      context: ../..\n      dockerfile: apps/web/Dockerfile\n";
    write("apps/web/docker-compose.yml", &format!("{compose}      {}\n", named(row.build)));
    write("apps/web/Dockerfile", &named(&row.dockerfile));
    write(".dockerignore", &row.ignore);
    if let Some(own) = row.own {
        write("apps/web/Dockerfile.dockerignore", own);
    }
    let (counted, mut build) = inferred(&root);
    build.context_key = unique();
    let opened = Opened::watch(&root);
    let failed = bench.build(&build, told).await.err();
    (opened.files().into_iter().filter(|file| FILES.contains(&file.as_str())).collect(), counted, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_buildkit_asks_for_is_what_counts() {
    let bench = Bench::new();
    let told = Told::new();
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for row in corpus() {
        let (opened, counted, failed) = held(&bench, &told, &row).await;
        let read: BTreeSet<String> = row.read.iter().map(|file| (*file).to_owned()).collect();
        let wider: BTreeSet<String> = row.wider.iter().map(|file| (*file).to_owned()).chain(read.iter().cloned()).collect();
        if counted != wider {
            wrong.push(format!("{}: counted {counted:?}, not {wider:?}", row.name));
        }
        match failed {
            // An older BuildKit: what would be read cannot be asked for.
            Some(error) if !row.unknown.is_empty() && regex::Regex::new(row.unknown).unwrap().is_match(&error.to_string()) => {
                unknown.push(row.name);
                continue;
            }
            Some(error) => wrong.push(format!("{}: {error:?}", row.name)),
            None if opened != read => wrong.push(format!("{}: BuildKit asked for {opened:?}, not {read:?}", row.name)),
            None => {}
        }
        if let Some(forgotten) = opened.difference(&counted).next() {
            wrong.push(format!("{}: `{forgotten}` is read and does not count", row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // How many rows were held against the parser's own answer alone; the frontend in Docker 28 lacks `--parents` only.
    let expected = match bench.major().await {
        20 => 11,
        28 => 1,
        _ => return,
    };
    assert_eq!(unknown.len(), expected, "{unknown:?}");
}
