//! Docker's config file: its logins and credential helpers. Read only, never written.
//!
//! The rules are the docker CLI's: a helper named for the host, else the store for all hosts, else what the file holds;
//! keys may carry a scheme and a path, and Docker Hub's is `https://index.docker.io/v1/`. One difference: when a helper
//! knows nothing, a login that stands in the file itself is used.

use super::auth::TOKEN_USER;
use super::http::LONGEST_TEXT;
use super::registries::Env;
use super::shared::{Fetched, Shared};
use super::{Login, RegistryError};
use crate::secret::{Redactor, Secret};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// A helper may have to unlock a keychain or ask another service.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The login of one registry from Docker's config file.
pub struct DockerLogins {
    host: String,
    env: Env,
    redactor: Redactor,
    cached: Shared<Option<Login>>,
}

#[derive(Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: String,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

impl DockerLogins {
    /// For the registry `host`. `env` tells `DOCKER_CONFIG`, `HOME` and the `PATH` helpers are looked up in; passwords are
    /// registered with `redactor`.
    pub fn new(host: String, env: Env, redactor: Redactor) -> Self {
        Self { host, env, redactor, cached: Shared::default() }
    }

    /// What masks its logins.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The login; `None` when there is none. `fresh` reads the file and asks the helper again.
    pub async fn get(&self, fresh: bool) -> Result<Option<Login>, RegistryError> {
        let fetch = async {
            let value = self.find().await?;
            if let Some(login) = &value {
                self.redactor.register(&login.password);
            }
            Ok(Fetched { value, until: None })
        };
        self.cached.get(fresh, fetch).await
    }

    async fn find(&self) -> Result<Option<Login>, RegistryError> {
        let file = self.read().await?;
        let wanted = normal(&self.host);
        let named = file.helpers.iter().find(|(key, _)| normal(key) == wanted).map(|(_, helper)| helper);
        if let Some(helper) = named.or(Some(&file.store)).filter(|helper| !helper.is_empty()) {
            // The helper knows the host under the key `docker login` gave it, which stands in `auths` too.
            let own = if wanted == "docker.io" { HUB_KEY } else { self.host.as_str() };
            let mut keys = vec![own];
            keys.extend(file.auths.keys().map(String::as_str).filter(|key| *key != own && normal(key) == wanted));
            for key in keys {
                if let Some(login) = self.ask(helper, key).await? {
                    return Ok(Some(login));
                }
            }
        }
        // The exact key first: a file may have one with a scheme from long ago beside it.
        let exact = file.auths.get(&self.host).into_iter();
        let mut all = exact.chain(file.auths.iter().filter(|(key, _)| normal(key) == wanted).map(|(_, entry)| entry));
        Ok(all.find_map(login))
    }

    async fn read(&self) -> Result<File, RegistryError> {
        let directory = match (self.env)("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => match (self.env)("HOME") {
                Some(home) => PathBuf::from(home).join(".docker"),
                None => return Ok(File::default()),
            },
        };
        let path = directory.join("config.json");
        let text = match tokio::fs::read(&path).await {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
            Err(error) => return Err(self.failed(format!("cannot read Docker's config file `{}`: {error}", path.display()))),
        };
        serde_json::from_slice(&text).map_err(|error| {
            // The error's own text may quote the value it stumbled over.
            let (line, column) = (error.line(), error.column());
            self.failed(format!("Docker's config file `{}` is not what Docker writes: line {line}, column {column}", path.display()))
        })
    }

    /// Asks `docker-credential-HELPER` with its `get` protocol: the key on stdin, JSON or a message on stdout.
    async fn ask(&self, helper: &str, key: &str) -> Result<Option<Login>, RegistryError> {
        #[derive(Deserialize)]
        struct Got {
            #[serde(rename = "Username")]
            user: String,
            #[serde(rename = "Secret")]
            secret: String,
        }
        let program = format!("docker-credential-{helper}");
        let mut command = Command::new(&program);
        command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        if let Some(path) = (self.env)("PATH") {
            command.env("PATH", path);
        }
        let run = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A helper that does not read its input says so by its exit code.
                let _ = stdin.write_all(key.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let hint = format!("install `{program}` or take it out of Docker's config file, or run `docker login {}`", self.host);
        let refused = |message: String| RegistryError::Login { host: self.host.clone(), message, hint: hint.clone() };
        let output = match tokio::time::timeout(HELPER_LIMIT, run).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(refused(format!("cannot run the credential helper `{program}`: {error}"))),
            Err(_) => return Err(refused(format!("the credential helper `{program}` did not answer within {}s", HELPER_LIMIT.as_secs()))),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said.trim();
            // The text of credentials.NewErrCredentialsNotFound in docker/docker-credential-helpers.
            if said.contains("credentials not found") {
                return Ok(None);
            }
            let said = self.redactor.shortened(said.lines().next().unwrap_or_default(), LONGEST_TEXT);
            return Err(refused(format!("the credential helper `{program}` failed: {said} ({})", output.status)));
        }
        let got: Got = serde_json::from_slice(&output.stdout)
            .map_err(|_| refused(format!("the credential helper `{program}` answered something that is no login")))?;
        Ok((!got.secret.is_empty()).then(|| Login { user: got.user, password: Secret::new(got.secret) }))
    }

    fn failed(&self, message: String) -> RegistryError {
        RegistryError::Failed { host: self.host.clone(), message }
    }
}

/// The host a key is for: without scheme and path, and one name for Docker Hub's three.
fn normal(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = key.split('/').next().unwrap_or_default();
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }
}

fn login(entry: &Entry) -> Option<Login> {
    if !entry.identity_token.is_empty() {
        return Some(Login { user: TOKEN_USER.to_owned(), password: Secret::new(entry.identity_token.clone()) });
    }
    if !entry.auth.is_empty() {
        let bytes = STANDARD_NO_PAD.decode(entry.auth.trim_end_matches('=')).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (user, password) = text.split_once(':')?;
        // As the docker CLI does: old ones wrote a NUL at the end.
        return Some(Login { user: user.to_owned(), password: Secret::new(password.trim_matches('\0')) });
    }
    (!entry.username.is_empty()).then(|| Login { user: entry.username.clone(), password: Secret::new(entry.password.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn logins(host: &str, config: &str, helpers: &[(&str, &str)]) -> (DockerLogins, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        for (name, script) in helpers {
            let path = dir.path().join(format!("docker-credential-{name}"));
            // By another process: a file this one has open for writing while another test forks cannot be run yet.
            let made = std::process::Command::new("/bin/sh")
                .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2""#, "sh", script])
                .arg(path)
                .status();
            assert!(made.unwrap().success());
        }
        let root = dir.path().display().to_string();
        let env: Env = Arc::new(move |name| match name {
            "DOCKER_CONFIG" => Some(root.clone()),
            "PATH" => Some(format!("{root}:/usr/bin:/bin")),
            _ => None,
        });
        (DockerLogins::new(host.to_owned(), env, Redactor::default()), dir)
    }

    async fn found(host: &str, config: &str) -> Option<(String, String)> {
        let (logins, _dir) = logins(host, config, &[]);
        logins.get(false).await.unwrap().map(|login| (login.user, login.password.expose().to_owned()))
    }

    #[tokio::test]
    async fn a_login_is_found_under_every_key_docker_writes() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        // dTpw = u:p, dTpwOnE= = u:p:q, dTpwAA== = u:p and a NUL
        let table = [
            ("r.example", r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#, pair("u", "p")),
            ("r.example", r#"{"auths":{"https://r.example/v1/":{"auth":"dTpwOnE="}}}"#, pair("u", "p:q")),
            ("r.example", r#"{"auths":{"r.example":{"auth":"dTpwAA=="}}}"#, pair("u", "p")),
            ("r.example", r#"{"auths":{"r.example":{"auth":"dTpw","identitytoken":"t"}}}"#, pair("<token>", "t")),
            ("r.example", r#"{"auths":{"r.example":{"username":"u","password":"p"}}}"#, pair("u", "p")),
            ("r.example", r#"{"auths":{"https://r.example":{"auth":"dTpwOnE="},"r.example":{"auth":"dTpw"}}}"#, pair("u", "p")),
            ("r.example:5000", r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#, None),
            ("r.example", r#"{"auths":{"r.example":{}},"currentContext":"x"}"#, None),
            ("docker.io", r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#, pair("u", "p")),
            ("r.example", "{}", None),
        ];
        for (host, config, expected) in table {
            assert_eq!(found(host, config).await, expected, "{host} in {config}");
        }
    }

    #[tokio::test]
    async fn a_helper_is_asked_with_the_key_docker_uses() {
        let echo = r#"read -r key; echo "{\"ServerURL\":\"$key\",\"Username\":\"u\",\"Secret\":\"for $key\"}""#;
        let none = "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1";
        let table = [
            ("r.example", r#"{"credsStore":"echo"}"#, Some("for r.example")),
            ("docker.io", r#"{"credsStore":"echo"}"#, Some("for https://index.docker.io/v1/")),
            ("r.example", r#"{"credsStore":"none","credHelpers":{"r.example":"echo"}}"#, Some("for r.example")),
            ("r.example", r#"{"credsStore":"none"}"#, None),
            ("r.example", r#"{"credsStore":"none","auths":{"r.example":{"auth":"dTpw"}}}"#, Some("p")),
        ];
        for (host, config, expected) in table {
            let (logins, _dir) = logins(host, config, &[("echo", echo), ("none", none)]);
            let login = logins.get(false).await.unwrap();
            assert_eq!(login.as_ref().map(|login| login.password.expose()), expected, "{host} in {config}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_a_secret() {
        let table = [
            (r#"{"credsStore":"missing"}"#, "cannot run the credential helper `docker-credential-missing`"),
            (r#"{"credsStore":"locked"}"#, "failed: the keychain is locked (exit status: 3)"),
            (r#"{"credsStore":"odd"}"#, "answered something that is no login"),
            (r#"{"auths":{"r.example":{"auth":["hunter22"]}}}"#, "is not what Docker writes: line 1"),
        ];
        for (config, expected) in table {
            let (logins, _dir) =
                logins("r.example", config, &[("locked", "echo the keychain is locked; exit 3"), ("odd", "echo hunter22")]);
            let error = logins.get(false).await.unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter22"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_fresh_login_is_read_again() {
        let (logins, dir) = logins("r.example", "{}", &[]);
        assert_eq!(logins.get(false).await.unwrap(), None);
        std::fs::write(dir.path().join("config.json"), r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#).unwrap();
        assert_eq!(logins.get(false).await.unwrap(), None);
        assert!(logins.get(true).await.unwrap().is_some());
    }
}
