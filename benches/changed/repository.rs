//! Repositories of a given size, made by `git fast-import`.

use super::support::{git, run, stop};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// Shared libraries, whatever the number of apps.
const LIBS: usize = 20;

/// What the graph runners want to find in it.
const RUNNERS: [(&str, &str); 5] = [
    (".gitignore", "node_modules\n.turbo\n.nx\n.moon/cache\n.offbuild\n"),
    (
        "package.json",
        "{\"name\": \"root\", \"private\": true, \"packageManager\": \"npm@10.0.0\", \"workspaces\": [\"apps/*\", \"libs/*\"]}\n",
    ),
    ("turbo.json", "{\"tasks\": {\"build\": {}}}\n"),
    ("nx.json", "{\"defaultBase\": \"main\"}\n"),
    (".moon/workspace.yml", "projects: ['apps/*', 'libs/*']\n"),
];

/// A generated repository with its work tree.
pub struct Repository {
    pub root: PathBuf,
    pub apps: usize,
    pub files: usize,
    pub commits: usize,
}

impl Repository {
    /// The repository of this many apps; made when it is not there yet.
    pub fn of(apps: usize) -> Self {
        let (files, commits) = match apps {
            0..=20 => (apps * 100, 2_000),
            21..=200 => (apps * 250, 5_000),
            _ => (apps * 250, 2_000),
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/bench-repositories/{apps}"));
        let repository = Self { root, apps, files, commits };
        // The last thing made, so that what a stopped run left behind is made again.
        let made = repository.root.join(".git/offbuild-bench");
        if !made.exists() {
            let _ = std::fs::remove_dir_all(&repository.root);
            repository.make().unwrap_or_else(|error| stop(&format!("{}: {error}", repository.root.display())));
            std::fs::write(made, "").unwrap_or_else(|error| stop(&error.to_string()));
        }
        repository
    }

    fn make(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(&self.root)?;
        run(&mut git(&self.root, &["init", "-q", "-b", "main"]));
        let mut import = git(&self.root, &["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
        self.write_history(&mut import)?;
        if !import.wait()?.success() {
            stop("`git fast-import` failed");
        }
        run(&mut git(&self.root, &["reset", "-q", "--hard"]));
        // A file whose time is that of the index is read by every status, which no repository does for long.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        run(&mut git(&self.root, &["update-index", "--really-refresh"]));
        Ok(())
    }

    fn write_history(&self, import: &mut Child) -> std::io::Result<()> {
        let Some(stdin) = import.stdin.take() else { stop("`git fast-import` takes no input") };
        let mut out = BufWriter::new(stdin);
        begin(&mut out, 0, "Everything")?;
        file(&mut out, "100644", "apps.yaml", &self.apps_yaml())?;
        for (path, text) in RUNNERS {
            file(&mut out, "100644", path, text)?;
        }
        for lib in 0..LIBS {
            let package = format!("{{\"name\": \"lib{lib:02}\", \"version\": \"1.0.0\"}}\n");
            file(&mut out, "100644", &format!("libs/lib{lib:02}/package.json"), &package)?;
            for number in 0..10 {
                file(&mut out, "100644", &format!("libs/lib{lib:02}/f{number}.sh"), &format!("lib {lib} {number}\n"))?;
            }
        }
        for app in 0..self.apps {
            let dir = format!("apps/{}", name(app));
            let dockerfile =
                format!("FROM scratch\nCOPY apps/{0} /app\nCOPY libs/lib{1:02} /lib\nCMD [\"/app/run\"]\n", name(app), app % LIBS);
            file(&mut out, "100644", &format!("{dir}/Dockerfile"), &dockerfile)?;
            let manifest = format!("services:\n  web:\n    build:\n      path: ../..\n      manifest: {dir}/Dockerfile\n    port: 3000\n");
            file(&mut out, "100644", &format!("{dir}/convox.yml"), &manifest)?;
            let (app_name, lib) = (name(app), app % LIBS);
            let package =
                format!("{{\"name\": \"{app_name}\", \"version\": \"1.0.0\", \"dependencies\": {{\"lib{lib:02}\": \"1.0.0\"}}}}\n");
            file(&mut out, "100644", &format!("{dir}/package.json"), &package)?;
            file(&mut out, "100755", &format!("{dir}/deploy/before_build.sh"), "#!/bin/sh\n")?;
            for number in 0..(self.files / self.apps).saturating_sub(4) {
                file(&mut out, "100644", &self.source(app, number), &format!("{app} {number}\n"))?;
            }
        }
        let mut random = Random(42);
        for commit in 1..self.commits {
            begin(&mut out, commit, &format!("Change {commit}"))?;
            for _ in 0..3 {
                let (app, number) = (random.below(self.apps), random.below(40));
                file(&mut out, "100644", &self.source(app, number), &format!("{app} {number} {commit}\n"))?;
            }
            if commit % 25 == 0 {
                let lib = random.below(LIBS);
                file(&mut out, "100644", &format!("libs/lib{lib:02}/f0.sh"), &format!("lib {lib} {commit}\n"))?;
            }
        }
        out.flush()
    }

    fn source(&self, app: usize, number: usize) -> String {
        format!("apps/{}/src/m{:02}/f{number:03}.txt", name(app), number % 10)
    }

    fn apps_yaml(&self) -> String {
        let mut text = "version: 1\ndiscover: {include: ['apps/*']}\nregistry: {repository: 'registry.example/{app}'}\n\
                        racks:\n  staging: {host: rack.example, password: none}\ndefaults: {racks: [staging]}\nshared:\n"
            .to_owned();
        for lib in 0..LIBS {
            text.push_str(&format!("  lib{lib:02}: ['libs/lib{lib:02}/**']\n"));
        }
        text.push_str("global: ['ci/**']\nignore: ['**/*.md']\napps:\n");
        for app in 0..self.apps {
            text.push_str(&format!("  {}: {{uses: [lib{:02}]}}\n", name(app), app % LIBS));
        }
        text
    }

    /// Ten changed and ten untracked files.
    pub fn make_dirty(&self) {
        for number in 0..10 {
            let changed = self.root.join(self.source(number % self.apps, number + 40));
            let new = self.root.join(format!("apps/{}/new{number}.txt", name(number % self.apps)));
            let written = std::fs::write(changed, "changed\n").and_then(|()| std::fs::write(new, "new\n"));
            written.unwrap_or_else(|error| stop(&format!("{}: {error}", self.root.display())));
        }
    }

    /// As it was checked out.
    pub fn make_clean(&self) {
        run(&mut git(&self.root, &["checkout", "-q", "--", "apps"]));
        run(&mut git(&self.root, &["clean", "-qfd", "--", "apps"]));
    }
}

/// The name of an app.
pub fn name(app: usize) -> String {
    format!("app{app:04}")
}

/// Begins a commit on top of the last one.
fn begin(out: &mut impl Write, number: usize, message: &str) -> std::io::Result<()> {
    let time = 1_700_000_000 + number * 60;
    write!(out, "commit refs/heads/main\ncommitter Ada <ada@example.com> {time} +0000\ndata {}\n{message}\n", message.len())
}

fn file(out: &mut impl Write, mode: &str, path: &str, text: &str) -> std::io::Result<()> {
    write!(out, "M {mode} inline {path}\ndata {}\n{text}\n", text.len())
}

/// The same numbers every time (an xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}
