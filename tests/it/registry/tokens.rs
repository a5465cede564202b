//! Registries that want tokens, fail now and then, or send one elsewhere: played by a server in the test.

use super::server::{Image, MANIFEST, sha256};
use super::{config, config_of, found, registries, repository, tags};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use offbuild::registry::{Registry as _, RegistryError};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server is like, and what it was asked.
#[derive(Default)]
struct Play {
    host: String,
    /// Where blobs are fetched from instead.
    elsewhere: Option<String>,
    /// Requests that fail with 503 before one is answered.
    failures: u32,
    /// Tokens given out so far; only the newest one is good.
    tokens: u32,
    /// Whether the newest token is no longer good.
    revoked: bool,
    /// What was asked: method, path with query, and the kind of login.
    log: Vec<String>,
}

type Shared = Arc<Mutex<Play>>;

async fn serve(play: Play) -> Shared {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let play = Arc::new(Mutex::new(Play { host, ..play }));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&play));
    tokio::spawn(async move { axum::serve(listener, router).await });
    play
}

fn authorization(headers: &HeaderMap) -> String {
    headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

async fn answer(State(play): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    let mut play = play.lock().unwrap();
    let login = authorization(&head.headers);
    let scheme = login.split(' ').next().unwrap_or_default();
    play.log.push(format!("{} {} {scheme}", head.method, head.uri).trim_end().to_owned());
    if play.failures > 0 {
        play.failures -= 1;
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let path = head.uri.path();
    if path == "/token" {
        // dTpw is u:p
        let good = login == "Basic dTpw" || body.contains("refresh_token=identity");
        if !good {
            return (StatusCode::UNAUTHORIZED, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#).into_response();
        }
        play.tokens += 1;
        play.revoked = false;
        return format!(r#"{{"token":"t{}","expires_in":300}}"#, play.tokens).into_response();
    }
    if play.revoked || login != format!("Bearer t{}", play.tokens) {
        let challenge = format!(r#"Bearer realm="http://{}/token",service="registry.test""#, play.host);
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    }
    let image = Image::labelled("revision", "1");
    match path.rsplit('/').nth(1).unwrap_or_default() {
        "manifests" if path.ends_with("/absent") => StatusCode::NOT_FOUND.into_response(),
        // Without the digest's header, which is optional.
        "manifests" => ([("content-type", MANIFEST)], image.manifest()).into_response(),
        "blobs" => match &play.elsewhere {
            Some(host) => (StatusCode::TEMPORARY_REDIRECT, [("location", format!("http://{host}/blob?signature=x"))]).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn log(play: &Shared) -> Vec<String> {
    let play = play.lock().unwrap();
    play.log.iter().map(|line| line.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/")).collect()
}

#[tokio::test]
async fn one_token_per_scope_is_fetched_and_shared() {
    let play = serve(Play::default()).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "p"), &[]);
    let web = repository(&host, "team/web");
    let digest = sha256(&Image::labelled("revision", "1").manifest());

    let wanted = tags(&["present"]);
    let all = futures_util::future::join_all((0..10).map(|_| registries.find(&web, &wanted))).await;
    assert!(all.into_iter().all(|one| one.unwrap() == found(&[("present", &digest)])));
    assert_eq!(registries.find(&web, &tags(&["absent"])).await.unwrap(), found(&[]));
    let log = log(&play);
    let count = |what: &str| log.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("GET /v2/ "), 0);
    assert_eq!(count("GET /v2/"), 1 + 10, "{log:#?}");
    assert_eq!(count("GET /token?scope=repository:team/web:pull&service=registry.test Basic"), 1, "{log:#?}");
}

#[tokio::test]
async fn a_tag_is_set_with_a_token_that_may_push() {
    let play = serve(Play::default()).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "p"), &[]);
    let digest = sha256(&Image::labelled("revision", "1").manifest());
    registries.retag(&repository(&host, "web"), &digest, "again").await.unwrap();
    let log = log(&play);
    assert!(log.contains(&"GET /token?scope=repository:web:pull,push&service=registry.test Basic".to_owned()), "{log:#?}");
    // This registry does not say what the tag is now, so it is looked up.
    // Of its tokens only the newest counts.
    let mut rest: Vec<&String> = log.iter().skip_while(|line| !line.starts_with("PUT")).filter(|line| !line.contains("/token")).collect();
    rest.dedup();
    let expected = ["PUT /v2/web/manifests/again Bearer", "HEAD /v2/web/manifests/again Bearer", "GET /v2/web/manifests/again Bearer"];
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let play = serve(Play::default()).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "p"), &[]);
    let web = repository(&host, "web");
    registries.find(&web, &tags(&["present"])).await.unwrap();
    play.lock().unwrap().revoked = true;
    registries.find(&web, &tags(&["present"])).await.unwrap();
    assert_eq!(play.lock().unwrap().tokens, 2);
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let play = serve(Play::default()).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config_of(&format!(r#"{{"auths":{{"{host}":{{"identitytoken":"identity"}}}}}}"#)), &[]);
    registries.find(&repository(&host, "web"), &tags(&["absent"])).await.unwrap();
    assert!(log(&play).contains(&"POST /token".to_owned()));
}

#[tokio::test]
async fn a_password_the_token_server_refuses_is_told() {
    let play = serve(Play::default()).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "hunter22"), &[]);
    let error = registries.find(&repository(&host, "web"), &tags(&["x"])).await.unwrap_err();
    assert!(matches!(error, RegistryError::Login { .. }), "{error}");
    assert!(error.to_string().contains("wrong password (HTTP 401)"), "{error}");
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again() {
    let play = serve(Play { failures: 2, ..Play::default() }).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "p"), &[]);
    registries.find(&repository(&host, "web"), &tags(&["present"])).await.unwrap();
    play.lock().unwrap().failures = u32::MAX;
    let before = log(&play).len();
    let error = registries.find(&repository(&host, "web"), &tags(&["present"])).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 503"), "{error}");
    assert_eq!(log(&play).len() - before, 4);
}

#[tokio::test]
async fn a_login_does_not_follow_to_another_host() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap().to_string();
    let record = Arc::clone(&seen);
    let blob = async move |headers: HeaderMap| {
        record.lock().unwrap().push(authorization(&headers));
        // The configuration the manifest names.
        r#"{"architecture":"amd64","os":"linux","config":{"Labels":{"revision":"1"}}}"#
    };
    let router = Router::new().route("/blob", axum::routing::get(blob));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let play = serve(Play { elsewhere: Some(elsewhere), ..Play::default() }).await;
    let host = play.lock().unwrap().host.clone();
    let registries = registries(config(&host, "u", "p"), &[]);
    let digest = sha256(&Image::labelled("revision", "1").manifest());
    let labels = registries.labels(&repository(&host, "web"), &digest).await.unwrap();
    assert_eq!(labels["revision"], "1");
    assert_eq!(*seen.lock().unwrap(), [""]);
}

#[tokio::test]
async fn tags_are_looked_up_some_at_a_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let look = async move |request: Request| {
        if request.method() == "HEAD" {
            counts.1.fetch_max(counts.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            counts.0.fetch_sub(1, Ordering::SeqCst);
        }
        if request.uri().path() == "/v2/" { StatusCode::OK } else { StatusCode::NOT_FOUND }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(look)).await });
    let names: Vec<String> = (0..50).map(|i| format!("t{i}")).collect();
    assert_eq!(registries(config_of("{}"), &[]).find(&repository(&host, "web"), &names).await.unwrap(), found(&[]));
    let most = most.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at a time");
}
