//! Where the engine is, found as the docker CLI finds it.
//!
//! `DOCKER_HOST`, else the context `DOCKER_CONTEXT` names, else the current context of Docker's `config.json`, else the default
//! socket. Only configuration files are read here; nothing is connected.

use crate::build::BuildError;
use serde::Deserialize;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The socket of an engine that nothing is configured for.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// An engine's address and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: Address,
    /// `DOCKER_HOST`, a context's name, or the default.
    pub(super) origin: String,
    /// How long an answer may take to begin.
    pub(super) answer: Duration,
}

/// How long the engine has for the beginning of an answer when nobody says it.
const ANSWER: Duration = Duration::from_secs(300);

/// How the engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: Option<TlsFiles> },
    Ssh { user: Option<String>, host: String, port: Option<u16>, socket: Option<String> },
}

/// The PEM files of a TLS endpoint; a missing `ca` means the system's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port, tls } => write!(f, "tcp://{host}:{port}{}", if tls.is_some() { " with TLS" } else { "" }),
            Address::Ssh { user, host, port, .. } => {
                let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "ssh://{user}{host}{port}")
            }
        }?;
        write!(f, " ({})", self.origin)
    }
}

/// Finds the engine; `env` and `home` are the caller's, so that tests have their own.
pub(super) fn resolve(env: &dyn Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Endpoint, BuildError> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let config_dir = set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.map(|home| home.join(".docker")));
    if let Some(host) = set("DOCKER_HOST") {
        let tls = set("DOCKER_TLS_VERIFY").is_some().then(|| {
            let dir = set("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| config_dir.clone()).unwrap_or_default();
            tls_files(&dir)
        });
        let origin = "from `DOCKER_HOST`".to_owned();
        return Ok(Endpoint { address: address(&host, tls, &origin)?, origin, answer: ANSWER });
    }
    let context = match set("DOCKER_CONTEXT") {
        Some(name) => Some((name, "`DOCKER_CONTEXT`".to_owned())),
        None => current_context(config_dir.as_deref())?,
    };
    match (context, config_dir) {
        (Some((name, by)), Some(dir)) if name != "default" => from_context(&name, &by, &dir),
        (Some((name, by)), None) if name != "default" => Err(unusable(
            format!("{by} names the Docker context `{name}`, but there is no home directory to find it in"),
            "set `DOCKER_CONFIG`",
        )),
        _ => Ok(Endpoint { address: Address::Unix(DEFAULT_SOCKET.into()), origin: "the default".to_owned(), answer: ANSWER }),
    }
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

/// The context `config.json` selects, and the file's name for messages.
fn current_context(dir: Option<&Path>) -> Result<Option<(String, String)>, BuildError> {
    let Some(path) = dir.map(|dir| dir.join("config.json")) else { return Ok(None) };
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(format!("cannot read `{}`: {error}", path.display()), "set `DOCKER_HOST` or `DOCKER_CONFIG`")),
    };
    let config: ConfigFile = serde_json::from_slice(&text)
        .map_err(|error| unusable(format!("`{}` is no valid Docker configuration: {error}", path.display()), "correct the file"))?;
    Ok(config.current_context.filter(|name| !name.is_empty()).map(|name| (name, format!("`{}`", path.display()))))
}

#[derive(Deserialize)]
struct ContextFile {
    #[serde(rename = "Endpoints", default)]
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// Reads a context's metadata; the directory is named by the SHA-256 of the context's name (docker/cli, `context/store`).
fn from_context(name: &str, by: &str, dir: &Path) -> Result<Endpoint, BuildError> {
    let id = hex::encode(sha2::Sha256::digest(name.as_bytes()));
    let path = dir.join("contexts/meta").join(&id).join("meta.json");
    let list = "list the contexts with `docker context ls`, choose one with `docker context use NAME`";
    let text = std::fs::read(&path).map_err(|error| {
        unusable(format!("{by} names the Docker context `{name}`, but `{}` cannot be read: {error}", path.display()), list)
    })?;
    let file: ContextFile = serde_json::from_slice(&text)
        .map_err(|error| unusable(format!("the Docker context `{name}` (`{}`) cannot be understood: {error}", path.display()), list))?;
    let Some(endpoint) = file.endpoints.get("docker") else {
        return Err(unusable(format!("the Docker context `{name}` has no `docker` endpoint"), list));
    };
    let origin = format!("context `{name}`");
    if endpoint.skip_tls_verify {
        let message = format!("the Docker context `{name}` skips TLS verification, which is refused: builds carry secrets");
        return Err(unusable(message, "give the context the engine's CA certificate"));
    }
    let files = tls_files(&dir.join("contexts/tls").join(&id).join("docker"));
    let tls = (files != TlsFiles::default()).then_some(files);
    let address = if endpoint.host.is_empty() { Address::Unix(DEFAULT_SOCKET.into()) } else { address(&endpoint.host, tls, &origin)? };
    Ok(Endpoint { address, origin, answer: ANSWER })
}

fn tls_files(dir: &Path) -> TlsFiles {
    let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    TlsFiles { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem") }
}

fn address(text: &str, tls: Option<TlsFiles>, origin: &str) -> Result<Address, BuildError> {
    let wrong = |why: &str| {
        let hint = "use `unix:///path/to/docker.sock`, `tcp://host:2376` or `ssh://user@host`";
        unusable(format!("the engine's address `{text}` ({origin}) cannot be used: {why}"), hint)
    };
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(Address::Unix(if path.is_empty() { DEFAULT_SOCKET } else { path }.into()));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "tcp" | "http" | "https" => {
            let tls = if scheme == "https" { tls.or_else(|| Some(TlsFiles::default())) } else { tls };
            let (host, port) = host_and_port(authority).ok_or_else(|| wrong("the port is no number"))?;
            if host.is_empty() {
                return Err(wrong("it has no host"));
            }
            let port = port.unwrap_or(if tls.is_some() { 2376 } else { 2375 });
            Ok(Address::Tcp { host, port, tls })
        }
        "ssh" => {
            let (user, authority) = match authority.rsplit_once('@') {
                Some((user, _)) if user.contains(':') => return Err(wrong("ssh takes no password here")),
                Some((user, authority)) => (Some(user.to_owned()), authority),
                None => (None, authority),
            };
            let (host, port) = host_and_port(authority).ok_or_else(|| wrong("the port is no number"))?;
            // ssh would take either for an option.
            if host.is_empty() || host.starts_with('-') || user.as_ref().is_some_and(|user| user.starts_with('-')) {
                return Err(wrong("its host or user is no name"));
            }
            Ok(Address::Ssh { user, host, port, socket: (!path.is_empty()).then(|| format!("/{path}")) })
        }
        other => Err(wrong(&format!("`{other}` is not supported"))),
    }
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port.parse().ok()?),
            None => None,
        };
        return Some((host.to_owned(), port));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) => Some((host.to_owned(), Some(port.parse().ok()?))),
        None => Some((authority.to_owned(), None)),
    }
}

fn unusable(message: String, hint: &str) -> BuildError {
    BuildError::Engine { message, hint: Some(hint.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(vars: &[(&str, &str)], home: &Path) -> Result<String, String> {
        let env = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        resolve(&env, Some(home)).map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string())
    }

    fn write(path: PathBuf, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn context(home: &Path, name: &str, meta: &str) -> String {
        let id = hex::encode(sha2::Sha256::digest(name.as_bytes()));
        write(home.join(".docker/contexts/meta").join(&id).join("meta.json"), meta);
        id
    }

    #[test]
    fn docker_host_in_all_its_forms() {
        let home = tempfile::tempdir().unwrap();
        for (host, expected) in [
            ("unix:///run/x.sock", "unix:///run/x.sock (from `DOCKER_HOST`)"),
            ("unix://", "unix:///var/run/docker.sock (from `DOCKER_HOST`)"),
            ("tcp://build.example:4243", "tcp://build.example:4243 (from `DOCKER_HOST`)"),
            ("tcp://build.example", "tcp://build.example:2375 (from `DOCKER_HOST`)"),
            ("build.example:1", "tcp://build.example:1 (from `DOCKER_HOST`)"),
            ("tcp://[::1]:4243", "tcp://::1:4243 (from `DOCKER_HOST`)"),
            ("ssh://me@build.example:22", "ssh://me@build.example:22 (from `DOCKER_HOST`)"),
            ("ssh://build.example", "ssh://build.example (from `DOCKER_HOST`)"),
        ] {
            assert_eq!(found(&[("DOCKER_HOST", host)], home.path()).unwrap(), expected);
        }
        for host in ["npipe:////./pipe/x", "tcp://", "tcp://h:x", "ssh://-oProxyCommand=x", "ssh://u:p@h"] {
            assert!(found(&[("DOCKER_HOST", host)], home.path()).unwrap_err().contains("cannot be used"), "{host}");
        }
    }

    #[test]
    fn tls_is_used_when_it_is_to_be_verified() {
        let home = tempfile::tempdir().unwrap();
        write(home.path().join("certs/ca.pem"), "");
        let certs = home.path().join("certs").display().to_string();
        let vars = |name: &str| match name {
            "DOCKER_HOST" => Some("tcp://h".to_owned()),
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "DOCKER_CERT_PATH" => Some(certs.clone()),
            _ => None,
        };
        let Address::Tcp { port, tls: Some(tls), .. } = resolve(&vars, None).unwrap().address else { panic!("no TLS") };
        assert_eq!((port, tls.ca.is_some(), tls.cert), (2376, true, None));
    }

    #[test]
    fn the_order_is_host_then_context_then_configuration_then_default() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(found(&[], home.path()).unwrap(), "unix:///var/run/docker.sock (the default)");
        context(home.path(), "colima", r#"{"Name":"colima","Endpoints":{"docker":{"Host":"unix:///colima.sock","SkipTLSVerify":false}}}"#);
        context(home.path(), "far", r#"{"Endpoints":{"docker":{"Host":"ssh://far"}}}"#);
        write(home.path().join(".docker/config.json"), r#"{"auths":{},"currentContext":"colima"}"#);
        assert_eq!(found(&[], home.path()).unwrap(), "unix:///colima.sock (context `colima`)");
        assert_eq!(found(&[("DOCKER_CONTEXT", "far")], home.path()).unwrap(), "ssh://far (context `far`)");
        assert_eq!(found(&[("DOCKER_CONTEXT", "default")], home.path()).unwrap(), "unix:///var/run/docker.sock (the default)");
        let both = [("DOCKER_CONTEXT", "far"), ("DOCKER_HOST", "unix:///h.sock")];
        assert_eq!(found(&both, home.path()).unwrap(), "unix:///h.sock (from `DOCKER_HOST`)");
        let elsewhere = home.path().join("other").display().to_string();
        assert_eq!(found(&[("DOCKER_CONFIG", &elsewhere)], home.path()).unwrap(), "unix:///var/run/docker.sock (the default)");
    }

    #[test]
    fn a_contexts_tls_files_are_found() {
        let home = tempfile::tempdir().unwrap();
        let id = context(home.path(), "tls", r#"{"Endpoints":{"docker":{"Host":"tcp://h:2376"}}}"#);
        write(home.path().join(".docker/contexts/tls").join(id).join("docker/ca.pem"), "");
        assert_eq!(found(&[("DOCKER_CONTEXT", "tls")], home.path()).unwrap(), "tcp://h:2376 with TLS (context `tls`)");
    }

    #[test]
    fn a_context_that_cannot_be_used_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        context(home.path(), "loose", r#"{"Endpoints":{"docker":{"Host":"tcp://h:2376","SkipTLSVerify":true}}}"#);
        context(home.path(), "kube", r#"{"Endpoints":{}}"#);
        for (name, text) in [("gone", "cannot be read"), ("loose", "skips TLS verification"), ("kube", "has no `docker` endpoint")] {
            assert!(found(&[("DOCKER_CONTEXT", name)], home.path()).unwrap_err().contains(text), "{name}");
        }
        write(home.path().join(".docker/config.json"), "{");
        assert!(found(&[], home.path()).unwrap_err().contains("no valid Docker configuration"));
    }
}
