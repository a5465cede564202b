//! Requests to a registry: timeouts, retries and redirects, and nothing about images.
//!
//! Everything offbuild asks of a registry may be asked twice (GET, HEAD, PUT of a manifest, a token), so every request is
//! retried. Redirects are followed here and not by the client, so that a login never reaches another host.

use crate::retry;
use crate::secret::{Redactor, Secret};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Client, Method, StatusCode, Url};
use std::sync::OnceLock;
use std::time::Duration;

const TRIES: u32 = 4;
/// The first wait before a request is sent again; each next one is twice as long.
const BACKOFF: Duration = Duration::from_millis(250);
/// A connection takes no longer.
const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 5;
/// No manifest or image configuration is larger; what is, is not read into memory.
const LARGEST_BODY: usize = 16 << 20;

/// Longest text that is shown of what says what went wrong, in bytes.
pub const LONGEST_TEXT: usize = 200;

/// A request.
#[derive(Clone)]
pub struct Request {
    /// GET, HEAD, PUT or POST.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// The `Authorization` header, whole.
    pub authorization: Option<Secret>,
    /// The `Accept` header.
    pub accept: Option<&'static str>,
    /// The body and its type.
    pub body: Option<(Vec<u8>, String)>,
}

impl Request {
    /// A request for `url` without anything else.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, authorization: None, accept: None, body: None }
    }
}

/// What the registry answered.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header as text; `None` when it is missing or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What a registry says went wrong: the errors of its JSON, else the start of its text, else the status.
    pub fn problem(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Body {
            errors: Vec<Problem>,
        }
        #[derive(serde::Deserialize)]
        struct Problem {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = format!("HTTP {}", self.status.as_u16());
        if let Ok(body) = serde_json::from_slice::<Body>(&self.body) {
            let all: Vec<String> = body.errors.iter().map(|one| format!("{} {}", one.code, one.message).trim().to_owned()).collect();
            if !all.is_empty() {
                return format!("{} ({status})", all.join("; "));
            }
        }
        let text = String::from_utf8_lossy(&self.body);
        let first = text.lines().next().unwrap_or_default().trim();
        // A page of HTML (a proxy's) says less than its status.
        if first.is_empty() || first.starts_with('<') {
            status
        } else {
            format!("{} ({status})", Redactor::of_process().shortened(first, LONGEST_TEXT))
        }
    }

    /// True when a registry's error has this code.
    pub fn has_code(&self, code: &str) -> bool {
        serde_json::from_slice::<serde_json::Value>(&self.body)
            .is_ok_and(|body| body["errors"].as_array().is_some_and(|all| all.iter().any(|one| one["code"] == code)))
    }
}

/// The clients of all registries, made when they are first needed.
pub struct Http {
    outside: OnceLock<Client>,
    loopback: OnceLock<Client>,
    answer: Duration,
}

impl Http {
    /// Clients that wait so long for one answer. Nothing is sent.
    pub fn new(answer: Duration) -> Self {
        Self { outside: OnceLock::new(), loopback: OnceLock::new(), answer }
    }

    /// Sends a request, again after a failed connection, a 5xx or a 429. The error is a text without the URL, whose query
    /// may hold a signature.
    pub async fn send(&self, request: &Request) -> Result<Answer, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            let result = self.follow(request).await;
            let asked_to_wait = match &result {
                Ok(answer) if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    retry::asked_for(&answer.headers)
                }
                Ok(_) => return result,
                Err(_) => None,
            };
            if tries == TRIES {
                return result;
            }
            tokio::time::sleep(asked_to_wait.unwrap_or_default() + retry::backoff(BACKOFF, tries)).await;
        }
    }

    async fn follow(&self, request: &Request) -> Result<Answer, String> {
        let mut request = request.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.once(&request).await?;
            let follows = answer.status.is_redirection() && matches!(request.method, Method::GET | Method::HEAD);
            let Some(location) = answer.headers.get(LOCATION).filter(|_| follows) else { return Ok(answer) };
            let next = location.to_str().ok().and_then(|text| request.url.join(text).ok()).ok_or("it redirects to what is no URL")?;
            if next.origin() != request.url.origin() {
                if request.url.scheme() == "https" && next.scheme() != "https" {
                    return Err(format!("it redirects from https to {}", next.scheme()));
                }
                request.authorization = None;
            }
            request.url = next;
        }
        Err(format!("it redirects more than {REDIRECTS} times"))
    }

    async fn once(&self, request: &Request) -> Result<Answer, String> {
        let client = self.client(&request.url)?;
        let mut builder = client.request(request.method.clone(), request.url.clone());
        if let Some(authorization) = &request.authorization {
            let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_| "the login has characters no header can have")?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        if let Some(accept) = request.accept {
            builder = builder.header(ACCEPT, accept);
        }
        if let Some((body, kind)) = &request.body {
            builder = builder.header(CONTENT_TYPE, kind).body(body.clone());
        }
        let mut response = builder.send().await.map_err(told)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > LARGEST_BODY {
                return Err(format!("its answer is larger than {LARGEST_BODY} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    fn client(&self, url: &Url) -> Result<&Client, String> {
        // As for every program written in Go, the docker CLI among them, a proxy is not asked for what is on loopback.
        let loopback = url.host_str().is_some_and(is_loopback);
        let slot = if loopback { &self.loopback } else { &self.outside };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        // The TLS of this client comes from the process; the one who was first has installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("offbuild/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT.min(self.answer))
            .timeout(self.answer);
        if loopback {
            // The client refuses to be made where the system trusts nobody (a bare container), though plain HTTP needs no trust.
            let trusted = rustls_native_certs::load_native_certs().certs;
            let trusted = trusted.iter().filter_map(|certificate| reqwest::Certificate::from_der(certificate).ok());
            builder = builder.no_proxy().tls_certs_only(trusted);
        }
        let client = builder.build().map_err(told)?;
        Ok(slot.get_or_init(|| client))
    }
}

/// True for `localhost`, 127.0.0.0/8 and `::1`, with or without a port.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What is below an error of the client, in one line.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // The outer texts only say that it was sending, and which call of hyper's.
        parts.retain(|part| part != "error sending request" && !part.starts_with("client error ("));
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_said_is_not_cut_within_a_secret() {
        Redactor::of_process().register(&Secret::new("hunter22-said-hunter22"));
        for lead in LONGEST_TEXT - 20..LONGEST_TEXT {
            let body = format!("{}hunter22-said-hunter22{}", "x".repeat(lead), " and more".repeat(9)).into_bytes();
            let problem = Answer { status: StatusCode::BAD_GATEWAY, headers: HeaderMap::new(), body }.problem();
            assert!(!problem.contains("hunter") && problem.ends_with("… (HTTP 502)"), "{lead}: {problem}");
        }
    }

    #[test]
    fn loopback_is_told_from_other_hosts() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.example.com", "127.0.0.1.example.com", "128.0.0.1", "[fe80::1]:5000", "localhost.example.com:443"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_problem_is_told_in_one_line() {
        let answer = |body: &str| Answer { status: StatusCode::NOT_FOUND, headers: HeaderMap::new(), body: body.into() };
        let table = [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#,
                "NAME_UNKNOWN repository name not known (HTTP 404)",
            ),
            ("404 page not found\nmore", "404 page not found (HTTP 404)"),
            ("<html>", "HTTP 404"),
            ("", "HTTP 404"),
        ];
        for (body, expected) in table {
            assert_eq!(answer(body).problem(), expected);
        }
        assert!(answer(table[0].0).has_code("NAME_UNKNOWN"));
        assert!(!answer(table[0].0).has_code("DENIED"));
    }
}
