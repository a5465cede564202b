//! HTTP calls to a rack: login, errors, retries.
//!
//! Three kinds of calls. [`Http::get`] and [`Http::repeat`] may be sent any number of times and are retried with backoff and
//! jitter. [`Http::once`] is sent once; its error tells whether the rack said no ([`CallError::Answered`]), never got the
//! call ([`CallError::NotSent`]) or may have carried it out ([`CallError::Lost`]). What to do then is the caller's matter.

use super::clock::Clock;
use super::failure::{CallError, answered, body, chain, transport};
use super::tls;
use crate::rack::login::{RackLogin, is_loopback};
use crate::retry;
use crate::secret::{Redactor, Secret};
use base64::Engine as _;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
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
/// A change takes no longer than so many reads: a version 2 rack answers a build only when its task has started, a version 3
/// rack on AWS may set up identities for 90 s within a promote.
const CHANGE: u32 = 5;

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
    clock: Mutex<Clock>,
    /// The first wait before a call is repeated; each next one is twice as long.
    backoff: Duration,
    /// A read takes no longer, each time it is tried.
    answer: Duration,
}

impl Http {
    /// Prepares a client; nothing is sent. The error says what is wrong with the settings.
    pub(super) fn new(login: &RackLogin, ca_file: Option<&Path>, backoff: Duration, answer: Duration) -> Result<Self, String> {
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
            .connect_timeout(CONNECT.min(answer))
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
            clock: Mutex::default(),
            backoff,
            answer,
        })
    }

    /// Reads an object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, CallError> {
        parse(&self.get_bytes(path, query).await?)
    }

    /// Reads bytes.
    pub(super) async fn get_bytes(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Vec<u8>, CallError> {
        self.retried(Method::GET, path, query, Body::Empty, self.answer).await
    }

    /// Makes a change that may be made twice.
    pub(super) async fn repeat(&self, method: Method, path: &[&str], body: Body<'_>) -> Result<Vec<u8>, CallError> {
        self.retried(method, path, &[], body, self.answer * CHANGE).await
    }

    /// Makes a change, sending it once. When the answer asks to be left alone for a time, it returns after that.
    pub(super) async fn once(&self, path: &[&str], body: Body<'_>) -> Result<Vec<u8>, CallError> {
        match self.call(Method::POST, path, &[], body, self.answer * CHANGE).await {
            Ok(answer) => Ok(answer),
            Err(refusal) => {
                tokio::time::sleep(refusal.wait.unwrap_or_default()).await;
                Err(refusal.error)
            }
        }
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
            let Refusal { error, wait, .. } = match self.call(method.clone(), path, query, body, limit).await {
                Ok(answer) => return Ok(answer),
                Err(refusal) => refusal,
            };
            tried += 1;
            if tried >= error.tries() {
                return Err(error);
            }
            tokio::time::sleep(wait.unwrap_or_default() + retry::backoff(self.backoff, tried)).await;
        }
    }

    /// Waits before the next try: twice as long each time, a half more or less.
    pub(super) async fn back_off(&self, tried: u32) {
        tokio::time::sleep(retry::backoff(self.backoff, tried)).await;
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
    ) -> Result<Vec<u8>, Refusal> {
        let request = || {
            let mut request = self.client.request(method.clone(), self.url(path)).timeout(limit);
            if !query.is_empty() {
                request = request.query(query);
            }
            match body {
                Body::Empty => request,
                Body::Form(fields) => request.form(fields),
                Body::Raw(bytes) => request.header(CONTENT_TYPE, "application/octet-stream").body(bytes.to_vec()),
            }
        };
        match self.send(request()).await {
            // The console has passed nothing on, so the call can be sent again.
            Err(Refusal { session: Some(path), error, wait }) if self.relayed => {
                if !self.begin_session(&path).await {
                    return Err(Refusal { error, session: None, wait });
                }
                self.send(request()).await
            }
            answer => answer,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, Refusal> {
        let sent = OffsetDateTime::now_utc();
        let response = self.in_session(request).send().await.map_err(|error| Refusal::of(transport(&error)))?;
        let arrived = OffsetDateTime::now_utc();
        if response.status().is_success() {
            let date = response.headers().get(DATE).and_then(|value| OffsetDateTime::parse(value.to_str().ok()?, &Rfc2822).ok());
            if let Some(date) = date {
                self.clock.lock().unwrap_or_else(PoisonError::into_inner).told(date, sent, arrived);
            }
            let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            if kind.starts_with(b"text/html") {
                // A change that is answered like this may never have come to the rack.
                let message = "a page of HTML was answered, as a proxy or a login page does, and no rack".to_owned();
                return Err(Refusal::of(CallError::Lost { message }));
            }
            return body(response).await.map_err(|message| Refusal::of(CallError::Lost { message }));
        }
        let demand = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let session = demand.and_then(session_path).map(str::to_owned);
        let comes_later = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let wait = if comes_later { retry::asked_for(response.headers()) } else { None };
        Err(Refusal { error: answered(response).await, session, wait })
    }

    /// How far the rack's clock is ahead of ours, as [`Clock`] knows it.
    pub(super) fn ahead(&self) -> Option<time::Duration> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).ahead()
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
        let Ok(bytes) = self.send(self.client.post(url).timeout(self.answer)).await else { return false };
        let Ok(session) = parse::<Session>(&bytes) else { return false };
        let session = Secret::new(session.id);
        Redactor::of_process().register(&session);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
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
        tokio::time::timeout(self.answer, open).await.unwrap_or_else(|_| Err(CallError::Lost { message: "no answer in time".to_owned() }))
    }
}

/// Reads a JSON answer.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    // The parser's message may repeat a value, and values may be secret.
    serde_json::from_slice(bytes).map_err(|error| CallError::Lost {
        message: format!("the answer is not the JSON a rack sends (line {}, column {})", error.line(), error.column()),
    })
}

/// A call that got no good answer.
struct Refusal {
    error: CallError,
    /// The path where the console gives the session it asks for.
    session: Option<String>,
    /// How long the answer asks to be left alone.
    wait: Option<Duration>,
}

impl Refusal {
    fn of(error: CallError) -> Self {
        Self { error, session: None, wait: None }
    }
}

/// The path of `Session path="P" token="false"`. With `token="true"` a hardware token would be needed.
fn session_path(demand: &str) -> Option<&str> {
    let fields = demand.strip_prefix("Session ").filter(|fields| fields.contains("token=\"false\""))?;
    fields.split_once("path=\"")?.1.split_once('"').map(|(path, _)| path)
}
