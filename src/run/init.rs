//! `offbuild init`: an `apps.yaml` for what is there.
//!
//! The apps are found as every command finds them, and are listed as found; what cannot be known (racks, logins, where images
//! go) is written as variables or taken from what the apps' compose files name, so that the file validates as it is written.

use super::world::here;
use crate::cli::{Global, InitArgs};
use crate::config::{self, FILE_NAME};
use crate::discovery::{self, DEFAULT_INCLUDE, Found};
use crate::error::{Error, Result};
use crate::files::OnDisk;
use crate::names::RepoPath;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Writes the file, never over one that is there; with `--dry-run` or `--full` alone prints it.
pub(super) fn init(global: &Global, args: &InitArgs) -> Result<u8> {
    let root = here(global)?;
    let text = if args.full { config::EXAMPLE.to_owned() } else { written(&root)? };
    if args.dry_run || args.full {
        return super::print_data(&text);
    }
    let path = root.join(FILE_NAME);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
        let is_there = error.kind() == std::io::ErrorKind::AlreadyExists;
        let message = format!("`{}` {}", path.display(), if is_there { "is there already" } else { "cannot be written" });
        Error::config(message).because(error).hint("see what would be written: offbuild init --dry-run")
    })?;
    file.write_all(text.as_bytes()).map_err(|error| Error::config(format!("`{}` cannot be written", path.display())).because(error))?;
    super::print(&format!("wrote {}; name your racks and registry in it, then: offbuild validate\n", path.display()))
}

/// The file for the apps below `root`.
fn written(root: &Path) -> Result<String> {
    let include: Vec<String> = DEFAULT_INCLUDE.iter().map(|glob| (*glob).to_owned()).collect();
    let found = discovery::discover(&OnDisk::new(root), &RepoPath::default(), &include, &[]).map_err(Error::config)?;
    Ok(text(&found))
}

fn text(found: &[Found]) -> String {
    let mut text = "\
# Which directories are apps and where they go. `offbuild init --full` prints every key, explained.
version: 1

# An app is a directory with a `convox.yml`, or with a compose file that names an image or a build.
discover:
"
    .to_owned();
    let globs: Vec<String> = globs(found).into_iter().map(|glob| format!("\"{glob}\"")).collect();
    let _ = writeln!(text, "  include: [{}]", globs.join(", "));
    text.push_str(
        "
# Where images go whose service has no `image:` of its own. Change it to yours.
registry:
  repository: ${REGISTRY:-123456789012.dkr.ecr.us-east-1.amazonaws.com}/{app}
  create: true

# Host and password count only when a rack is asked; without them the convox CLI's own login serves.
racks:
  staging:
    host: ${STAGING_HOST}
    password: ${STAGING_PASSWORD}
  # production:
  #   host: ${PRODUCTION_HOST}
  #   password: ${PRODUCTION_PASSWORD}
  #   after: [staging]
  #   protected: true

defaults:
  racks: [staging]

# Paths outside of an app that are its inputs too: `uses: [\"libs/auth/**\"]`. What its Dockerfiles copy is known already.
",
    );
    if found.is_empty() {
        text.push_str("# No app was found yet: give each one's directory a `convox.yml`.\napps: {}\n");
        return text;
    }
    text.push_str("apps:\n");
    for app in found {
        let name = app.dir.parts().last().map(String::from_utf8_lossy).unwrap_or_default();
        let key = if plain(&name) { name.into_owned() } else { format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")) };
        let beside = app.compose.map(|compose| format!(" and {compose}")).unwrap_or_default();
        let hooks = if app.deploy { ", with hooks in deploy/" } else { "" };
        let _ = writeln!(text, "  {key}: {{}} # {}/{}{beside}{hooks}", app.dir, app.manifest);
    }
    text
}

/// The default globs that name an app, or all of them when none does.
fn globs(found: &[Found]) -> Vec<&'static str> {
    let names = |glob: &&str| {
        let parent = glob.strip_suffix("/*").unwrap_or_default();
        found.iter().any(|app| app.dir.to_string().rsplit_once('/').map_or("", |(parent, _)| parent) == parent)
    };
    let used: Vec<&str> = DEFAULT_INCLUDE.into_iter().filter(names).collect();
    if used.is_empty() { DEFAULT_INCLUDE.to_vec() } else { used }
}

/// True when a name is a plain YAML word: it begins with a letter and holds nothing that means something.
fn plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&name.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_listed_and_the_file_loads_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("apps/web/convox.yml", "services:\n  web:\n    build: .\n");
        write("apps/web/docker-compose.yml", "services:\n  web:\n    build: .\n");
        write("apps/old/docker-compose.yml", "web:\n  build: .\n");
        write("apps/old/deploy/before_build.sh", "");
        write("apps/none/README", "");
        let text = written(dir.path()).unwrap();
        assert!(text.contains("  include: [\"apps/*\"]\n"), "{text}");
        assert!(text.contains("  old: {} # apps/old/docker-compose.yml, with hooks in deploy/\n"), "{text}");
        assert!(text.contains("  web: {} # apps/web/convox.yml and docker-compose.yml\n"), "{text}");
        write(FILE_NAME, &text);
        let root = dir.path().canonicalize().unwrap();
        let config = config::load(&root, &root, None, &|_| None).unwrap();
        assert_eq!(config.apps.iter().map(|app| app.name.to_string()).collect::<Vec<_>>(), ["old", "web"]);
    }

    #[test]
    fn an_empty_repository_gets_a_file_that_loads() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE_NAME), written(dir.path()).unwrap()).unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(config::load(&root, &root, None, &|_| None).unwrap().apps.len(), 0);
    }
}
