//! A door before a registry that gives out tokens, as most registries have one: without a token nothing is answered, and the
//! refusal names the place where tokens are. Everybody may read, who has the login may write.
//!
//! Behind it stands the real registry with its Basic login, which only the door uses.

use super::services::{PASSWORD, USER};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// A door that ends with the test.
pub struct Door {
    /// `127.0.0.1:PORT`.
    pub host: String,
    _runtime: Runtime,
}

struct Behind {
    registry: String,
    http: reqwest::Client,
    /// What each token that was given out is good for: its scope.
    given: Mutex<BTreeMap<String, String>>,
}

impl Door {
    /// Opens one before the registry at `registry`.
    pub fn before(registry: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let behind = Behind { registry: registry.to_owned(), http, given: Mutex::default() };
        let router = Router::new().fallback(answer).with_state(Arc::new(behind));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { host, _runtime: runtime }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn answer(State(behind): State<Arc<Behind>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let login = text(&head.headers, header::AUTHORIZATION);
    if head.uri.path() == "/token" {
        // The older of the two ways to ask, which every registry knows: who tries the other one first is told.
        if head.method != Method::GET {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let query = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
        let scope = query.filter(|(name, _)| name == "scope").map(|(_, scope)| scope.into_owned()).collect::<Vec<_>>().join(" ");
        let known = login == format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}")));
        if !known && (!login.is_empty() || scope.contains("push")) {
            return (StatusCode::UNAUTHORIZED, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#).into_response();
        }
        let token = super::unique();
        behind.given.lock().unwrap().insert(token.clone(), scope);
        return format!(r#"{{"token":"{token}","expires_in":300}}"#).into_response();
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let needs = if reads { "pull" } else { "push" };
    let given = login.strip_prefix("Bearer ").and_then(|token| behind.given.lock().unwrap().get(token).cloned());
    let host = text(&head.headers, header::HOST).to_owned();
    if !given.is_some_and(|scope| scope.contains(needs)) {
        let name = head.uri.path().trim_start_matches("/v2/").split("/manifests/").next().unwrap_or_default();
        let name = name.split("/blobs/").next().unwrap_or_default();
        let actions = if reads { "pull" } else { "pull,push" };
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="door",scope="repository:{name}:{actions}""#);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let mut headers = head.headers;
    for name in [header::AUTHORIZATION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        headers.remove(name);
    }
    // Where an upload goes on is told by the host it was begun at, so that stays.
    let passed = behind.http.request(head.method, format!("http://{}{path}", behind.registry)).headers(headers);
    let Ok(said) = passed.basic_auth(USER, Some(PASSWORD)).body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (said.status(), said.headers().clone());
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    (status, headers, Body::from(said.bytes().await.unwrap_or_default())).into_response()
}
