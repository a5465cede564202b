//! HTTP calls to a rack: login, errors, retries.
//!
//! Three kinds of calls. [`Http::get`] and [`Http::repeat`] may be sent any number of times and are retried with backoff and
//! jitter. [`Http::once`] is sent once; its error tells whether the rack said no ([`CallError::Answered`]), never got the
//! call ([`CallError::NotSent`]) or may have carried it out ([`CallError::Lost`]). What to do then is the caller's matter.

use super::tls;
use crate::rack::login::{RackLogin, is_loopback};
use crate::secret::Secret;
use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// A connection, TLS included, takes no longer.
const CONNECT: Duration = Duration::from_secs(15);
/// A read takes no longer, each time it is tried.
const READ: Duration = Duration::from_secs(60);
/// A change takes no longer: a version 2 rack answers a build only when its task has started, a version 3 rack on AWS may
/// set up identities for 90 s within a promote.
const CHANGE: Duration = Duration::from_secs(300);
/// Longest text taken out of an error answer, in bytes.
const LONGEST_MESSAGE: usize = 600;

/// Why a call has no good answer.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// The rack (or the balancer before it) answered an error.
    Answered {
        /// The status of the answer.
        status: u16,
        /// Its text, without the JSON around it; empty when there was none.
        message: String,
    },
    /// No connection: the rack never got it.
    NotSent {
        /// Why.
        message: String,
        /// The certificate was refused: trying again cannot help.
        certificate: bool,
    },
    /// It was sent, and the answer did not come or could not be read.
    Lost {
        /// Why.
        message: String,
    },
}

impl CallError {
    /// The object does not exist. Version 3 says so with 500 for builds, releases and processes.
    pub(super) fn is_not_found(&self) -> bool {
        match self {
            Self::Answered { status: 404, message } => !message.is_empty(),
            Self::Answered { status: 500, message } => message.ends_with("\" not found"),
            _ => false,
        }
    }

    /// The answer came from the balancer: the rack is not there just now, or did not answer it in time.
    pub(super) fn is_balancer(&self) -> bool {
        matches!(self, Self::Answered { status: 502..=504, .. })
    }

    /// AWS asks to come back later.
    fn is_throttled(&self) -> bool {
        matches!(self, Self::Answered { status: 429, .. })
            || matches!(self, Self::Answered { status: 500, message } if message.contains("Throttling") || message.contains("Rate exceeded"))
    }

    /// Nobody knows whether a change that ended like this was carried out.
    pub(super) fn is_unsure(&self) -> bool {
        matches!(self, Self::Lost { .. }) || self.is_balancer() || self.is_throttled()
    }

    /// How often a call that can be repeated is tried when it ends like this.
    fn tries(&self) -> u32 {
        match self {
            Self::NotSent { certificate: true, .. } => 1,
            Self::NotSent { .. } => 3,
            Self::Lost { .. } => 4,
            _ if self.is_balancer() || self.is_throttled() => 5,
            Self::Answered { status: 500, .. } if !self.is_not_found() => 2,
            Self::Answered { .. } => 1,
        }
    }

    /// What it said.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Answered { message, .. } | Self::NotSent { message, .. } | Self::Lost { message } => message,
        }
    }
}

/// What a call carries.
#[derive(Clone, Copy)]
pub(super) enum Body<'a> {
    /// Nothing.
    Empty,
    /// A form.
    Form(&'a [(&'a str, &'a str)]),
    /// Bytes as they are.
    Raw(&'a [u8]),
}

/// A rack's HTTP side.
pub(super) struct Http {
    client: reqwest::Client,
    base: Url,
    /// The console's session, for racks behind it; the console asks for one when it wants one.
    session: Mutex<Option<Secret>>,
    relayed: bool,
    /// The first wait before a call is repeated; each next one is twice as long.
    backoff: Duration,
}

impl Http {
    /// Prepares a client; nothing is sent. The error says what is wrong with the settings.
    pub(super) fn new(login: &RackLogin, ca_file: Option<&Path>, backoff: Duration) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let userinfo = Secret::new(format!("{}:{}", login.user, login.password.expose()));
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(userinfo.expose()));
        let mut basic = HeaderValue::from_str(&basic).map_err(|_| "its password cannot be sent".to_owned())?;
        basic.set_sensitive(true);
        headers.insert(AUTHORIZATION, basic);
        // Version 3 then answers errors as JSON.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // Who is named in the rack's audit events, on racks that ask (version 3 from 3.24.6).
        headers.insert(HeaderName::from_static("convox-actor"), HeaderValue::from_static("offbuild"));
        if let Some(rack) = &login.relayed {
            let rack = HeaderValue::from_str(rack).map_err(|_| format!("`{rack}` cannot be sent as a header"))?;
            headers.insert(HeaderName::from_static("rack"), rack);
        }
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(login.url.scheme() == "https", ca_file)?)
            .default_headers(headers)
            .user_agent(concat!("offbuild/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .connect_timeout(CONNECT)
            // Shorter than the idle timers of balancers: a connection that is about to be closed is not used for a change.
            .pool_idle_timeout(Duration::from_secs(20))
            // A redirect would lead the password elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        if is_loopback(&login.host()) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| chain(&error))?;
        Ok(Self { client, base: login.url.clone(), session: Mutex::default(), relayed: login.relayed.is_some(), backoff })
    }

    /// Reads an object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, CallError> {
        parse(&self.get_bytes(path, query).await?)
    }

    /// Reads bytes.
    pub(super) async fn get_bytes(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<u8>, CallError> {
        self.retried(Method::GET, path, query, Body::Empty, READ).await
    }

    /// Makes a change that may be made twice.
    pub(super) async fn repeat(&self, method: Method, path: &[&str], body: Body<'_>) -> Result<Vec<u8>, CallError> {
        self.retried(method, path, &[], body, CHANGE).await
    }

    /// Makes a change, sending it once.
    pub(super) async fn once(&self, path: &[&str], body: Body<'_>) -> Result<Vec<u8>, CallError> {
        self.call(Method::POST, path, &[], body, CHANGE).await
    }

    async fn retried(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body<'_>,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let mut tried = 0;
        loop {
            let error = match self.call(method.clone(), path, query, body, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tried += 1;
            if tried >= error.tries() {
                return Err(error);
            }
            self.back_off(tried).await;
        }
    }

    /// Waits before the next try: twice as long each time, a half more or less.
    pub(super) async fn back_off(&self, tried: u32) {
        let factor = f64::from(2_u32.saturating_pow(tried.saturating_sub(1).min(5))) * (0.5 + fastrand::f64());
        tokio::time::sleep(self.backoff.mul_f64(factor)).await;
    }

    /// The full address of a path, each part percent-encoded.
    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // Only fails for URLs that cannot have a path; http and https ones can.
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.clear().extend(path);
        }
        url
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Body<'_>,
        limit: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let request = || {
            let mut request = self.client.request(method.clone(), self.url(path)).timeout(limit);
            if !query.is_empty() {
                request = request.query(query);
            }
            match body {
                Body::Empty => request,
                Body::Form(fields) => request.form(fields),
                Body::Raw(bytes) => request.header(reqwest::header::CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec()),
            }
        };
        match self.send(request()).await {
            // The console has passed nothing on, so the call can be sent again.
            Err(Refusal { error, session: Some(path) }) if self.relayed => {
                if !self.begin_session(&path).await {
                    return Err(error);
                }
                self.send(request()).await.map_err(|refusal| refusal.error)
            }
            answer => answer.map_err(|refusal| refusal.error),
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Refusal> {
        let lost = |error: &reqwest::Error| Refusal { error: CallError::Lost { message: chain(error) }, session: None };
        let response = self.in_session(request).send().await.map_err(|error| Refusal { error: transport(&error), session: None })?;
        if response.status().is_success() {
            return response.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| lost(&error));
        }
        let demand = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let session = demand.and_then(session_path).map(str::to_owned);
        Err(Refusal { error: answered(response).await, session })
    }

    fn in_session(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        match &*session {
            Some(session) => request.header("session", session.expose()),
            None => request,
        }
    }

    /// Gets a session from the console, which asks for one with `WWW-Authenticate: Session`. False when there is none to be had.
    async fn begin_session(&self, path: &str) -> bool {
        #[derive(serde::Deserialize)]
        struct Session {
            id: String,
        }
        // The password goes to the console's own host only.
        let Some(url) = self.base.join(path).ok().filter(|url| url.origin() == self.base.origin()) else { return false };
        let Ok(bytes) = self.send(self.client.post(url).timeout(READ)).await else { return false };
        let Ok(session) = parse::<Session>(&bytes) else { return false };
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Secret::new(session.id));
        true
    }

    /// Opens a websocket: the connection after the rack has said 101. `headers` are the stream's options.
    pub(super) async fn upgrade(&self, path: &[&str], headers: &[(&str, String)]) -> Result<reqwest::Upgraded, CallError> {
        use tokio_tungstenite::tungstenite::handshake;
        let key = handshake::client::generate_key();
        // No `Origin`: a rack refuses one whose host is not its own.
        let mut request = self
            .client
            .get(self.url(path))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", &key);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let open = async {
            let response = self.in_session(request).send().await.map_err(|error| transport(&error))?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(answered(response).await);
            }
            let accepted = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
            if accepted != Some(handshake::derive_accept_key(key.as_bytes()).as_str()) {
                return Err(CallError::Lost { message: "the answer to the websocket handshake is not to our key".to_owned() });
            }
            response.upgrade().await.map_err(|error| CallError::Lost { message: chain(&error) })
        };
        tokio::time::timeout(READ, open).await.unwrap_or_else(|_| Err(CallError::Lost { message: "no answer in time".to_owned() }))
    }
}

/// Reads a JSON answer.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    // The parser's message may repeat a value, and values may be secret.
    serde_json::from_slice(bytes).map_err(|error| CallError::Lost {
        message: format!("the answer is not the JSON a rack sends (line {}, column {})", error.line(), error.column()),
    })
}

/// A call that got no good answer, and the path where the console gives the session it asks for.
struct Refusal {
    error: CallError,
    session: Option<String>,
}

/// The path of `Session path="P" token="false"`. With `token="true"` a hardware token would be needed.
fn session_path(demand: &str) -> Option<&str> {
    let fields = demand.strip_prefix("Session ").filter(|fields| fields.contains("token=\"false\""))?;
    fields.split_once("path=\"")?.1.split_once('"').map(|(path, _)| path)
}

/// An error answer: its text or the JSON around it, the console's demand for a session, nothing of a balancer's page.
async fn answered(response: reqwest::Response) -> CallError {
    let status = response.status().as_u16();
    let session = response.headers().get(WWW_AUTHENTICATE).is_some_and(|value| value.as_bytes().starts_with(b"Session"));
    let text = response.bytes().await.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()).unwrap_or_default();
    let message =
        if session { "the console asks for a second factor; use a deploy key, which needs none".to_owned() } else { message_of(&text) };
    CallError::Answered { status, message }
}

fn message_of(text: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Wrapped {
        error: String,
    }
    let text = serde_json::from_str::<Wrapped>(text).map_or_else(|_| text.to_owned(), |wrapped| wrapped.error);
    if text.starts_with('<') {
        return String::new();
    }
    // AWS's texts have a second line with a request id.
    let mut line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    if line.len() > LONGEST_MESSAGE {
        line.truncate(line.floor_char_boundary(LONGEST_MESSAGE));
        line.push('…');
    }
    line
}

/// A failure without an answer: was it before or after the call was sent?
fn transport(error: &reqwest::Error) -> CallError {
    let message = chain(error);
    if error.is_connect() || error.is_builder() {
        CallError::NotSent { message, certificate: is_tls(error) }
    } else {
        CallError::Lost { message }
    }
}

/// True when TLS, not the network, refused the connection.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error's source is the source of what it wraps, so what it wraps has to be asked for.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static)).or_else(|| error.source());
    }
    false
}

/// The innermost causes of a transport error in one line. The outer text only repeats the URL.
fn chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut causes: Vec<String> = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many crates repeat their source in their own text.
        causes.retain(|outer| !outer.contains(&text));
        causes.push(text);
        next = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_taken_out_of_whatever_is_around_it() {
        let table = [
            ("{\"error\":\"app not found: web\"}", "app not found: web"),
            ("app not found: web\n", "app not found: web"),
            ("ValidationError: no.\n\tstatus code: 400, request id: 1\n", "ValidationError: no.; status code: 400, request id: 1"),
            ("<html><body>502</body></html>", ""),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(message_of(text.trim()), expected);
        }
    }

    #[test]
    fn a_missing_object_is_told_from_a_missing_endpoint() {
        let table = [
            (404, "app not found: web", true),
            (404, "", false),
            (500, "builds.convox.com \"bx\" not found", true),
            (500, "stack not found: rack-web", false),
            (400, "x", false),
        ];
        for (status, message, expected) in table {
            assert_eq!(CallError::Answered { status, message: message.to_owned() }.is_not_found(), expected, "{status} {message}");
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let answered = |status, message: &str| CallError::Answered { status, message: message.to_owned() };
        let table = [
            (answered(503, ""), 5),
            (answered(500, "Throttling: Rate exceeded"), 5),
            (answered(500, "what"), 2),
            (answered(500, "pods \"x\" not found"), 1),
            (answered(401, "invalid authentication"), 1),
            (CallError::NotSent { message: String::new(), certificate: true }, 1),
            (CallError::NotSent { message: String::new(), certificate: false }, 3),
        ];
        for (error, expected) in table {
            assert_eq!(error.tries(), expected, "{error:?}");
        }
    }
}
