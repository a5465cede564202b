//! What the engine and BuildKit answer when something goes wrong, as [`BuildError`]s.
//!
//! All of it is text: there is no code to match on, and the wording differs between versions. So only what decides what a
//! user should do next is read from it.

use super::endpoint::{Address, Endpoint};
use crate::build::BuildError;
use crate::retry;
use std::io;
use std::time::Duration;

/// An engine failure nobody has a cure for.
pub(super) fn engine(message: impl Into<String>) -> BuildError {
    let message = message.into();
    let hint = is_full(&message).then(|| DISK_FULL.to_owned());
    BuildError::Engine { message, hint }
}

const DISK_FULL: &str = "the engine's disk is full: free it with `docker system prune` there, or give it more room";

/// True when a text of the engine says that its disk is full.
pub(super) fn is_full(text: &str) -> bool {
    text.to_ascii_lowercase().contains("no space left on device")
}

/// The engine cannot be connected.
pub(super) fn unreachable(endpoint: &Endpoint, error: &io::Error) -> BuildError {
    let hint = match (&endpoint.address, error.kind()) {
        (_, io::ErrorKind::PermissionDenied) => {
            "add your user to the `docker` group (`sudo usermod -aG docker $USER`, then log in again), or run as root"
        }
        (Address::Unix(_), _) => "start the engine (`sudo systemctl start docker`), or set `DOCKER_HOST` to where it is",
        (Address::Tcp { .. }, _) => "check that the engine listens there and that `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` fit it",
        (Address::Ssh { .. }, _) => "try `ssh HOST docker version`: it must work without a question",
    };
    BuildError::Engine { message: format!("cannot connect to the Docker Engine at {endpoint}: {error}"), hint: Some(hint.to_owned()) }
}

/// The connection ended, or was no HTTP, before there was an answer.
pub(super) fn unanswered(endpoint: &Endpoint, error: &hyper::Error) -> BuildError {
    match std::error::Error::source(error) {
        Some(cause) => match cause.downcast_ref::<io::Error>() {
            Some(cause) => unreachable(endpoint, cause),
            None => engine(format!("the engine at {endpoint} did not answer: {error}: {cause}")),
        },
        None => engine(format!("the engine at {endpoint} did not answer: {error}")),
    }
}

/// How often a call that may be repeated is sent.
const TRIES: u32 = 3;
/// The first wait before that.
const BACKOFF: Duration = Duration::from_millis(250);

/// Makes a call that may be made any number of times, again when it was lost or the engine (or what stands before it) stumbled. Its
/// whole answer has `limit` to come each time: one that never ends is one that did not come.
pub(super) async fn repeated<T, F>(limit: Duration, call: impl Fn() -> F) -> Result<T, bollard::errors::Error>
where
    F: Future<Output = Result<T, bollard::errors::Error>>,
{
    use bollard::errors::Error;
    let stumbles = |error: &Error| match error {
        Error::IOError { err } => may_pass(err),
        Error::HyperResponseError { .. } | Error::RequestTimeoutError => true,
        Error::DockerResponseServerError { status_code, .. } => *status_code == 429 || *status_code >= 500,
        _ => false,
    };
    let mut tried = 1;
    loop {
        match tokio::time::timeout(limit, call()).await.unwrap_or(Err(Error::RequestTimeoutError)) {
            Err(error) if tried < TRIES && stumbles(&error) => tokio::time::sleep(retry::backoff(BACKOFF, tried)).await,
            answer => return answer,
        }
        tried += 1;
    }
}

/// The same for connections that become something else than requests.
pub(super) async fn reconnected<T, F>(connect: impl Fn() -> F) -> Result<T, BuildError>
where
    F: Future<Output = Result<T, Unconnected>>,
{
    tried_again(BACKOFF, |_| {}, connect).await
}

/// The same for what says itself whether it may go through at the next try; `again` is told why there is one.
pub(super) async fn tried_again<T, F>(first: Duration, again: impl Fn(&BuildError), once: impl Fn() -> F) -> Result<T, BuildError>
where
    F: Future<Output = Result<T, Unconnected>>,
{
    let mut tried = 1;
    loop {
        match once().await {
            Ok(done) => return Ok(done),
            Err(Unconnected { again: true, error }) if tried < TRIES => again(&error),
            Err(Unconnected { error, .. }) => return Err(error),
        }
        tokio::time::sleep(retry::backoff(first, tried)).await;
        tried += 1;
    }
}

/// Why there is no connection, and whether there may be one at the next try.
pub(super) struct Unconnected {
    pub(super) error: BuildError,
    pub(super) again: bool,
}

/// False for what no waiting cures: no such socket, no right to it.
pub(super) fn may_pass(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

/// An answer of bollard's to an ordinary call.
pub(super) fn call(endpoint: &Endpoint, doing: &str, error: bollard::errors::Error) -> BuildError {
    use bollard::errors::Error;
    match error {
        Error::IOError { err } => unreachable(endpoint, &err),
        Error::DockerResponseServerError { message, .. } => engine(format!("{doing}: {message}")),
        Error::DockerStreamError { error } => engine(format!("{doing}: {error}")),
        Error::HyperResponseError { err } => unanswered(endpoint, &err),
        Error::RequestTimeoutError => engine(format!("{doing}: the engine at {endpoint} did not answer in time")),
        other => engine(format!("{doing}: {other}")),
    }
}

/// What a registry said through the engine while pushing or pulling.
pub(super) fn registry(reference: &str, text: &str) -> BuildError {
    // The second wording is that of an engine that keeps its images in containerd.
    if text.contains("does not exist locally") || text.contains("tag does not exist: ") {
        return BuildError::Missing {
            message: format!("image `{reference}` is not on the engine: {text}"),
            hint: Some("see that `deploy/after_build.sh` did not remove or rename it".to_owned()),
        };
    }
    if is_full(text) {
        return engine(format!("`{reference}`: {text}"));
    }
    BuildError::Registry { message: format!("`{reference}`: {text}"), login: is_login(text) }
}

/// True when the same push may go through at the next try. The wordings are those of the engine and of Go's HTTP client.
pub(super) fn stumbled(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "unexpected http status: 5",
        "eof",
        "connection reset",
        "connection refused",
        "timeout",
        "toomanyrequests",
        "too many requests",
        "429",
        "service unavailable",
        "internal server error",
        "bad gateway",
    ];
    words.iter().any(|word| text.contains(word))
}

/// True when an answer to a push says what no second try changes.
pub(super) fn refuses(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let words = [
        "does not exist",
        "not found",
        "name unknown",
        "invalid",
        "immutable",
        "unsupported",
        "http response to https client",
        "x509:",
        "no such host",
    ];
    is_login(text) || is_full(text) || words.iter().any(|word| lower.contains(word))
}

/// True when other credentials could help. The wordings are the engine's, the distribution registry's and ECR's.
fn is_login(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let words = [
        "unauthorized",
        "authentication required",
        "no basic auth credentials",
        "authorization token has expired",
        "denied",
        "forbidden",
        "incorrect username or password",
    ];
    // "denied" also ends a message about a policy of immutable tags, which no login changes.
    words.iter().any(|word| text.contains(word)) && !text.contains("immutable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_could_cure() {
        for (text, login) in [
            ("unauthorized: authentication required", true),
            ("no basic auth credentials", true),
            ("denied: Your authorization token has expired. Reauthenticate and try again.", true),
            ("denied: requested access to the resource is denied", true),
            ("Get \"http://127.0.0.1:9/v2/\": dial tcp 127.0.0.1:9: connect: connection refused", false),
            (
                "tag invalid: The image tag 'v1' already exists in the 'web' repository and cannot be overwritten because the tag is immutable.",
                false,
            ),
        ] {
            let BuildError::Registry { login: found, .. } = registry("r:v1", text) else { panic!("{text}") };
            assert_eq!(found, login, "{text}");
        }
    }

    #[test]
    fn a_push_is_sent_again_unless_the_answer_says_no() {
        for (text, last_word) in [
            ("the engine says 500", false),
            ("received unexpected HTTP status: 500 Internal Server Error", false),
            ("open /var/lib/docker/tmp/x: too many open files", false),
            ("unauthorized: authentication required", true),
            ("An image does not exist locally with the tag: r", true),
            ("name unknown: The repository with name 'web' does not exist in the registry", true),
            ("tag invalid: The image tag 'v1' already exists and cannot be overwritten because the tag is immutable.", true),
            ("Get \"https://r.example/v2/\": http: server gave HTTP response to HTTPS client", true),
            ("write /x: no space left on device", true),
        ] {
            assert_eq!(refuses(text), last_word, "{text}");
        }
    }

    #[test]
    fn a_full_disk_and_a_missing_image_are_no_registry_failures() {
        assert!(matches!(registry("r", "write /x: no space left on device"), BuildError::Engine { hint: Some(_), .. }));
        for text in ["An image does not exist locally with the tag: r", "tag does not exist: r:v1"] {
            assert!(matches!(registry("r", text), BuildError::Missing { .. }), "{text}");
        }
    }
}
