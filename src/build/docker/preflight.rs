//! What is found out about a build before the engine hears of it.
//!
//! BuildKit would find most of it too, but late and in its own words, and a missing secret not at all: it builds without it and
//! keeps the result. So everything a build names is looked at here, and secrets are read here.

use super::dockerfile::{Dockerfile, MountKind};
use super::{Env, sync::Directories};
use crate::build::{BuildError, ImageBuild, NamedContext, SecretSource, SshSource};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// BuildKit's limit for one secret (moby/buildkit, `session/secrets`).
const LARGEST_SECRET: usize = 500 * 1024;

/// A build whose parts are all there.
pub(super) struct Checked {
    pub(super) directories: Directories,
    /// The Dockerfile's name in its directory.
    pub(super) filename: String,
    /// How messages call the Dockerfile.
    pub(super) shown: String,
    pub(super) dockerfile: Dockerfile,
    pub(super) secrets: BTreeMap<String, Vec<u8>>,
    pub(super) agents: BTreeMap<String, PathBuf>,
}

fn missing(message: String, hint: &str) -> BuildError {
    BuildError::Missing { message, hint: Some(hint.to_owned()) }
}

/// Looks at everything the build names. Reads files: to be called off the async threads. Files below `root`, or else below the
/// context, are called by their path from there.
pub(super) fn check(build: &ImageBuild, env: &Env, root: Option<&Path>) -> Result<Checked, BuildError> {
    let context = directory(&build.context, "the build context")?;
    let file = &build.dockerfile;
    let below = |directory: &Path| file.strip_prefix(directory).ok();
    let shown = root.and_then(below).or_else(|| below(&build.context)).unwrap_or(file).display().to_string();
    let text = std::fs::read(file).map_err(|error| {
        let hint = "write it, or name another with the manifest's `dockerfile:` or `manifest:` key";
        missing(format!("the Dockerfile `{shown}` cannot be read: {error}"), hint)
    })?;
    let dockerfile = Dockerfile::parse(&String::from_utf8_lossy(&text));
    let (folder, filename) = location(file)?;

    let mut roots = BTreeMap::from([("context".to_owned(), context), ("dockerfile".to_owned(), folder)]);
    for (name, source) in &build.contexts {
        if let NamedContext::Directory(path) = source {
            if roots.contains_key(name) {
                return Err(missing(format!("a named context cannot be called `{name}`"), "give it another name"));
            }
            roots.insert(name.clone(), directory(path, &format!("the context `{name}`"))?);
        }
    }
    let secrets = build.secrets.iter().map(|(id, source)| Ok((id.clone(), secret(id, source, env)?))).collect::<Result<_, _>>()?;
    let agents = build.ssh.iter().map(|(id, source)| Ok((id.clone(), agent(id, source, env)?))).collect::<Result<_, _>>()?;
    provided(build, &dockerfile, &shown)?;
    Ok(Checked { directories: Directories::new(roots), filename, shown, dockerfile, secrets, agents })
}

fn directory(path: &Path, what: &str) -> Result<PathBuf, BuildError> {
    let found = path.canonicalize().and_then(|path| std::fs::read_dir(&path).map(|_| path));
    found.map_err(|error| missing(format!("{what} `{}` is no readable directory: {error}", path.display()), "correct its path"))
}

/// The directory to send for the Dockerfile and its name there. A link out of its directory is followed: nothing outside of
/// what is sent can be reached, and a link inside is BuildKit's to follow.
fn location(file: &Path) -> Result<(PathBuf, String), BuildError> {
    let split = |path: &Path| {
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok())?;
        Some((parent, path.file_name()?.to_str()?.to_owned()))
    };
    let real = file.canonicalize().ok();
    let written = split(file);
    let inside = real.as_ref().zip(written.as_ref()).is_some_and(|(real, (parent, _))| real.starts_with(parent));
    let found = if inside { written } else { real.as_deref().and_then(split) };
    found.ok_or_else(|| missing(format!("the Dockerfile's path `{}` cannot be used", file.display()), "rename it in UTF-8"))
}

fn secret(id: &str, source: &SecretSource, env: &Env) -> Result<Vec<u8>, BuildError> {
    let data = match source {
        SecretSource::File(path) => std::fs::read(path).map_err(|error| {
            missing(format!("the file `{}` of secret `{id}` cannot be read: {error}", path.display()), "create it, or correct its path")
        })?,
        SecretSource::Env(name) => env(name)
            .ok_or_else(|| {
                missing(format!("secret `{id}` comes from the environment variable `{name}`, which is not set"), &format!("set `{name}`"))
            })?
            .into_bytes(),
    };
    if data.len() > LARGEST_SECRET {
        return Err(missing(format!("secret `{id}` has {} bytes; BuildKit takes at most {LARGEST_SECRET}", data.len()), "make it smaller"));
    }
    Ok(data)
}

fn agent(id: &str, source: &SshSource, env: &Env) -> Result<PathBuf, BuildError> {
    let start = "start one: `eval $(ssh-agent) && ssh-add`";
    let socket = match source {
        SshSource::Socket(path) => path.clone(),
        SshSource::Agent => env("SSH_AUTH_SOCK")
            .filter(|socket| !socket.is_empty())
            .map(PathBuf::from)
            .ok_or_else(|| missing(format!("ssh `{id}` needs an ssh agent, but `SSH_AUTH_SOCK` is not set"), start))?,
    };
    match std::os::unix::net::UnixStream::connect(&socket) {
        Ok(_) => Ok(socket),
        Err(error) => Err(missing(format!("no ssh agent answers at `{}` for ssh `{id}`: {error}", socket.display()), start)),
    }
}

/// Refuses a Dockerfile that mounts what the build does not provide.
fn provided(build: &ImageBuild, dockerfile: &Dockerfile, shown: &str) -> Result<(), BuildError> {
    for mount in dockerfile.mounts(build.target.as_deref(), &build.args) {
        let (given, what, key) = match mount.kind {
            MountKind::Secret => (build.secrets.contains_key(&mount.id), "secret", "secrets"),
            MountKind::Ssh => (build.ssh.contains_key(&mount.id), "ssh", "ssh"),
        };
        if !given {
            let message = format!(
                "{shown}:{} mounts {what} `{}`, which nobody provides\n{}",
                mount.line,
                mount.id,
                dockerfile.excerpt(mount.line, mount.line)
            );
            return Err(missing(message, &format!("add `{}` to the service's `build: {key}:`", mount.id)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn build(root: &Path, dockerfile: &str) -> ImageBuild {
        std::fs::write(root.join("Dockerfile"), dockerfile).unwrap();
        ImageBuild { context: root.to_owned(), dockerfile: root.join("Dockerfile"), ..ImageBuild::default() }
    }

    fn refused(build: &ImageBuild) -> String {
        let env: Env = Arc::new(|name| (name == "TOKEN").then(|| "value".to_owned()));
        match check(build, &env, None) {
            Err(error @ BuildError::Missing { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
            Ok(_) => "nothing".to_owned(),
        }
    }

    #[test]
    fn everything_a_build_names_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let good = build(dir.path(), "FROM a\nRUN --mount=type=secret,id=token x\nRUN --mount=type=ssh y");
        assert!(refused(&good).starts_with("Dockerfile:2 mounts secret `token`, which nobody provides\n"));
        let token = ("token".to_owned(), SecretSource::Env("TOKEN".to_owned()));
        let with_secret = ImageBuild { secrets: BTreeMap::from([token]), ..good.clone() };
        assert!(refused(&with_secret).starts_with("Dockerfile:3 mounts ssh `default`"));
        let agent = ("default".to_owned(), SshSource::Agent);
        assert!(refused(&ImageBuild { ssh: BTreeMap::from([agent]), ..with_secret.clone() }).contains("`SSH_AUTH_SOCK` is not set"));
        let unset = ("token".to_owned(), SecretSource::Env("UNSET".to_owned()));
        assert!(refused(&ImageBuild { secrets: BTreeMap::from([unset]), ..good.clone() }).contains("`UNSET`, which is not set"));
        let file = ("token".to_owned(), SecretSource::File(dir.path().join("gone")));
        assert!(refused(&ImageBuild { secrets: BTreeMap::from([file]), ..good.clone() }).contains("of secret `token` cannot be read"));
        assert!(refused(&ImageBuild { context: dir.path().join("gone"), ..good.clone() }).contains("is no readable directory"));
        assert!(refused(&ImageBuild { dockerfile: dir.path().join("gone"), ..good }).contains("cannot be read"));
        let plain = build(dir.path(), "FROM a");
        assert_eq!(refused(&plain), "nothing");
    }

    #[test]
    fn a_dockerfile_is_called_as_the_repository_knows_it() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("apps/web");
        std::fs::create_dir_all(&app).unwrap();
        let good = build(&app, "FROM a");
        let env: Env = Arc::new(|_| None);
        let shown = |root: Option<&Path>| check(&good, &env, root).map(|checked| checked.shown).unwrap();
        assert_eq!(shown(Some(dir.path())), "apps/web/Dockerfile");
        assert_eq!(shown(None), "Dockerfile");
        assert_eq!(shown(Some(Path::new("/elsewhere"))), "Dockerfile");
    }

    #[test]
    fn a_dockerfile_that_is_a_link_is_sent_from_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("app")).unwrap();
        std::fs::write(root.join("Dockerfile.shared"), "FROM a").unwrap();
        std::os::unix::fs::symlink("../Dockerfile.shared", root.join("app/Dockerfile")).unwrap();
        assert_eq!(location(&root.join("app/Dockerfile")).unwrap(), (root.clone(), "Dockerfile.shared".to_owned()));
        std::os::unix::fs::symlink("Dockerfile.shared", root.join("Dockerfile")).unwrap();
        assert_eq!(location(&root.join("Dockerfile")).unwrap(), (root, "Dockerfile".to_owned()));
    }
}
