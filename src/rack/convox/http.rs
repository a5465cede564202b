//! HTTP calls to a rack: login, errors, retries.
//!
//! Three kinds of calls. [`Http::get`] and [`Http::repeat`] may be sent any number of times and are retried with backoff and
//! jitter. [`Http::once`] is sent once; its error tells whether the rack said no ([`CallError::Answered`]), never got the
//! call ([`CallError::NotSent`]) or may have carried it out ([`CallError::Lost`]). What to do then is the caller's matter.

use super::failure::{CallError, answered, chain, transport};
use super::tls;
use crate::rack::login::{RackLogin, is_loopback};
use crate::secret::Secret;
use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use url::Url;

/// A connection, TLS included, takes no longer.
const CONNECT: Duration = Duration::from_secs(15);
/// A read takes no longer, each time it is tried.
const READ: Duration = Duration::from_secs(60);
/// A change takes no longer: a version 2 rack answers a build only when its task has started, a version 3 rack on AWS may
/// set up identities for 90 s within a promote.
const CHANGE: Duration = Duration::from_secs(300);

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
    /// How far the rack's clock was ahead of ours with its last good answer.
    ahead: Mutex<Option<time::Duration>>,
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
        Ok(Self {
            client,
            base: login.url.clone(),
            session: Mutex::default(),
            relayed: login.relayed.is_some(),
            ahead: Mutex::default(),
            backoff,
        })
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
            let said = response.headers().get(DATE).and_then(|value| OffsetDateTime::parse(value.to_str().ok()?, &Rfc2822).ok());
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = said.map(|said| said - OffsetDateTime::now_utc());
            return response.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| lost(&error));
        }
        let demand = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let session = demand.and_then(session_path).map(str::to_owned);
        Err(Refusal { error: answered(response).await, session })
    }

    /// How far the rack's clock was ahead of ours with its last good answer, to a second or the call's length; `None` when it
    /// did not tell the time.
    pub(super) fn ahead(&self) -> Option<time::Duration> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
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
