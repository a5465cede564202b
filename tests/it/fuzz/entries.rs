//! What reads bytes of others, one function each: they may refuse, they may not panic, hang or grow. Each answers whether the bytes were
//! taken, so that the tests know that it reads at all. `fuzz/` runs them under
//! cargo-fuzz, `tests/it/fuzz.rs` over mutated samples with the other tests.

use offbuild::build::dockerignore::DockerIgnore;
use offbuild::config::BuildConfig;
use offbuild::files::{Files, Kind, Listed};
use offbuild::journal::Journal;
use offbuild::names::{AppName, RepoPath};
use offbuild::report::{html, state::RunState};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A repository of one app whose files are all the same bytes.
struct Everywhere<'d>(&'d [u8]);

impl Files for Everywhere<'_> {
    fn kind(&self, path: &RepoPath) -> io::Result<Option<Kind>> {
        let text = path.to_string();
        let file = text.rsplit('/').next().is_some_and(|name| name.contains('.') || name == "Dockerfile");
        Ok(Some(if file { Kind::File { executable: true } } else { Kind::Dir }))
    }

    fn link(&self, _path: &RepoPath) -> Option<Vec<u8>> {
        None
    }

    fn read(&self, _path: &RepoPath) -> io::Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }

    fn list(&self, dir: &RepoPath) -> io::Result<Vec<Listed>> {
        let name = |name: &str, is_dir| Listed { name: name.as_bytes().to_vec(), is_dir, is_link: false };
        Ok(match dir.to_string().matches('/').count() {
            0 => vec![name("apps", true), name("web", true)],
            1 => vec![name("convox.yml", false), name("docker-compose.yml", false), name("Dockerfile", false)],
            _ => Vec::new(),
        })
    }
}

/// `apps.yaml`, up to the checked configuration.
pub fn apps_yaml(data: &[u8]) -> bool {
    let here = std::env::temp_dir();
    let var = |name: &str| (name.len().is_multiple_of(2)).then(|| "value".to_owned());
    offbuild::config::load_from(&Everywhere(data), &here, &here, None, &var, &var).is_ok()
}

fn manifest_of(data: &[u8], generation: u8) -> bool {
    let (app, dir) = (AppName::new("web").unwrap(), RepoPath::from_git(b"apps/web"));
    let text = String::from_utf8_lossy(data).into_owned();
    let manifest = if generation == 1 { "docker-compose.yml" } else { "convox.yml" };
    let reading = offbuild::manifest::Reading {
        root: Path::new("/repo"),
        app: &app,
        dir: &dir,
        manifest,
        generation,
        compose: (generation == 2).then_some("docker-compose.yml"),
        // Beside a convox.yml, a compose file only names images.
        read: &|path| Ok(Some(if path.file_name() == manifest { text.clone() } else { "services: {web: {image: a/b}}\n".to_owned() })),
        env: &|name| (name.len().is_multiple_of(2)).then(|| "value".to_owned()),
        build: &BuildConfig::default(),
    };
    offbuild::manifest::read(&reading).is_ok()
}

/// `convox.yml`, with a compose file beside it.
pub fn convox_yml(data: &[u8]) -> bool {
    manifest_of(data, 2)
}

/// A compose file.
pub fn compose(data: &[u8]) -> bool {
    manifest_of(data, 1)
}

/// A Dockerfile.
pub fn dockerfile(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let args = BTreeMap::from([("A".to_owned(), "x".to_owned())]);
    let reads = offbuild::changes::dockerfile::reads(&text, &args);
    reads != offbuild::changes::dockerfile::Reads::default()
}

/// A `.dockerignore`, asked about paths.
pub fn dockerignore(data: &[u8]) -> bool {
    let Ok(ignore) = DockerIgnore::parse(&String::from_utf8_lossy(data)) else { return false };
    for path in [&b"a"[..], b"a/b/c.rb", b"node_modules/x/y", b".git", b"\xff/\n"] {
        let _ = (ignore.is_ignored(path), ignore.may_skip(path), ignore.may_match_below(path));
    }
    true
}

/// A journal, drawn as a page when it can be read.
pub fn journal(data: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), data).unwrap();
    let _ = Journal::read_outline(file.path());
    let Ok(events) = Journal::read(file.path()) else { return false };
    let _ = (RunState::replay(&events), html::render(&events));
    !events.is_empty()
}

/// Text that values are masked in: a value, a zero, text.
pub fn redactor(data: &[u8]) -> bool {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let value = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let redactor = offbuild::secret::Redactor::default();
    let masked = redactor.register(&offbuild::secret::Secret::new(value.as_str()));
    let shown = redactor.redact(&format!("{text}{value}{text}")).into_owned();
    // Stars are what stands there afterwards.
    assert!(
        !masked
            || "***".contains(value.trim())
            || value.contains('*')
            || value.contains('\n')
            || value.contains('\r')
            || !shown.contains(value.trim())
    );
    let mut carry = String::new();
    for line in text.lines() {
        let _ = redactor.redact_line(line, &mut carry);
    }
    masked
}

/// Bytes for people, cut into lines and cleaned of what terminals obey.
pub fn lines(data: &[u8]) -> bool {
    let mut lines = offbuild::event::Lines::new(offbuild::secret::Redactor::default());
    let mut any = false;
    let mut check = |line: String| {
        any = true;
        assert!(!offbuild::report::text::clean(&line).contains(char::is_control));
    };
    data.chunks(7).for_each(|chunk| lines.push(chunk, &mut check));
    lines.finish(&mut check);
    any
}
