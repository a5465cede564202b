//! The sandbox over its sockets: what a rack of each version answers, what an engine and the AWS SDK can do with its
//! registry, and that it remembers.

use futures_util::StreamExt as _;
use offbuild::registry::Login;
use offbuild::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use offbuild::secret::Secret;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const PASSWORD: &str = "pass/word+1";
const DIGEST_ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn rack(name: &str, version: Version) -> RackOptions {
    RackOptions {
        name: name.parse().unwrap(),
        version,
        port: 0,
        password: Some(Secret::new(PASSWORD)),
        tokens: vec![Secret::new("a.b.c")],
        apps: BTreeMap::from([("web".to_owned(), 2), ("old".to_owned(), 1)]),
    }
}

fn options(state: &Path, kind: RegistryKind) -> Options {
    Options {
        state: state.to_owned(),
        racks: vec![rack("two", Version::V2), rack("three", Version::V3)],
        registry: Some(RegistryOptions { port: 0, kind }),
        control_port: 0,
        faults: Vec::new(),
        // Long enough that a busy machine sees every state that is asked about.
        pace: Pace { build: Duration::from_millis(300), promote: Duration::from_millis(800) },
    }
}

async fn ecr(state: &Path) -> Running {
    serve(options(state, RegistryKind::Ecr { api_port: 0 })).await.unwrap()
}

/// A rack as a client sees it.
struct Client {
    url: String,
    http: reqwest::Client,
}

/// Status and body.
type Answered = (u16, String);

impl Client {
    fn new(running: &Running, rack: &str) -> Self {
        Self { url: running.rack(rack).unwrap().url.clone(), http: http() }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url)).basic_auth("convox", Some(PASSWORD))
    }

    async fn send(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Answered {
        let request = self.request(method, path);
        let request = if form.is_empty() { request } else { request.form(form) };
        read(request).await
    }

    async fn json(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let (status, body) = self.send(method, path, form).await;
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Uploads a manifest and starts a build of it; the build's id.
    async fn build(&self, app: &str, file: &str, manifest: &str) -> String {
        let stored = read(self.request("POST", &format!("/apps/{app}/objects/tmp/x.tgz")).body(tgz(&[(file, manifest)]))).await;
        assert_eq!(stored.0, 200);
        let url: Value = serde_json::from_str(&stored.1).unwrap();
        let form = [("url", url["Url"].as_str().unwrap()), ("git-sha", "c0ffee"), ("description", "first")];
        self.json("POST", &format!("/apps/{app}/builds"), &form).await["id"].as_str().unwrap().to_owned()
    }

    /// The build once it has ended.
    async fn ended(&self, app: &str, id: &str) -> Value {
        loop {
            let build = self.json("GET", &format!("/apps/{app}/builds/{id}"), &[]).await;
            if !matches!(build["status"].as_str().unwrap(), "created" | "running") {
                return build;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Promotes, and gives the sequence of `status/release` until the app runs.
    async fn promote(&self, app: &str, release: &str) -> Vec<String> {
        let promoted = self.send("POST", &format!("/apps/{app}/releases/{release}/promote"), &[]).await;
        assert_eq!(promoted, (200, "ok\n".to_owned()));
        let mut seen: Vec<String> = Vec::new();
        loop {
            let app = self.json("GET", &format!("/apps/{app}"), &[]).await;
            let line = format!("{}/{}", app["status"].as_str().unwrap(), app["release"].as_str().unwrap());
            if seen.last() != Some(&line) {
                seen.push(line);
            }
            if app["status"] == "running" {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Opens a websocket and reads its text up to the empty binary message.
    async fn stream(&self, path: &str, headers: &[(&'static str, &str)], password: &str) -> String {
        let mut request = format!("{}{path}", self.url.replace("http://", "ws://")).into_client_request().unwrap();
        let credentials = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("convox:{password}"));
        request.headers_mut().insert("authorization", format!("Basic {credentials}").parse().unwrap());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (mut socket, answer) = tokio_tungstenite::connect_async(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), 101);
        let mut text = String::new();
        loop {
            match socket.next().await.unwrap().unwrap() {
                Message::Text(part) => text.push_str(&part),
                Message::Binary(end) => {
                    assert!(end.is_empty());
                    return text;
                }
                other => panic!("{other:?} on a log stream"),
            }
        }
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn read(request: reqwest::RequestBuilder) -> Answered {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn tgz(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Pushes an image with one layer as a client that speaks the distribution API; its manifest's digest.
async fn push(host: &str, login: Option<&Login>, repository: &str, tag: &str) -> String {
    let http = http();
    let request = |method: reqwest::Method, url: String| {
        let request = http.request(method, url);
        match login {
            Some(login) => request.basic_auth(&login.user, Some(login.password.expose())),
            None => request,
        }
    };
    let base = format!("http://{host}/v2/{repository}");
    let config: &[u8] = br#"{"config":{"Labels":{"who":"me"}}}"#;
    let layer = format!("layer of {repository}:{tag}").into_bytes();
    for blob in [config.to_vec(), layer.clone()] {
        let started = request(reqwest::Method::POST, format!("{base}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(started.status(), 202, "{}", started.text().await.unwrap());
        let mut location = started.headers()["location"].to_str().unwrap().to_owned();
        // In two chunks, then closed with the digest.
        for chunk in blob.chunks(blob.len().div_ceil(2)) {
            let answer = request(reqwest::Method::PATCH, format!("http://{host}{location}")).body(chunk.to_vec()).send().await.unwrap();
            assert_eq!(answer.status(), 202);
            location = answer.headers()["location"].to_str().unwrap().to_owned();
        }
        let closed = request(reqwest::Method::PUT, format!("http://{host}{location}?digest={}", digest(&blob))).send().await.unwrap();
        assert_eq!(closed.status(), 201);
    }
    let media = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest(config)},
        "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": layer.len(), "digest": digest(&layer)}],
    })
    .to_string();
    let put = request(reqwest::Method::PUT, format!("{base}/manifests/{tag}")).header("content-type", media).body(manifest.clone());
    let put = put.send().await.unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    digest(manifest.as_bytes())
}

/// A registry with `web:v1` in it, and a manifest that names it by digest.
async fn with_image(running: &Running) -> String {
    let registry = running.registry.as_ref().unwrap();
    sdk(running).create_repository().repository_name("web").send().await.unwrap();
    let digest = push(&registry.host, registry.login.as_ref(), "web", "v1").await;
    format!("services:\n  web:\n    image: {}/web@{digest}\n    port: 3000\n", registry.host)
}

fn sdk(running: &Running) -> aws_sdk_ecr::Client {
    use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
    use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
    let client = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_sdk_ecr::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("sandbox", "sandbox", None, None, "test"))
        .endpoint_url(running.registry.as_ref().unwrap().ecr.clone().unwrap())
        .http_client(client)
        .build();
    aws_sdk_ecr::Client::from_conf(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_version_answers_errors_as_the_contract_has_them() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    /// What it is, method, path, form, and what each version answers.
    type Row =
        (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], (u16, &'static str), (u16, &'static str));
    let table: &[Row] = &[
        ("auth", "GET", "/auth", &[], (200, "ok\n"), (200, "ok\n")),
        ("unknown path", "GET", "/racks", &[], (404, ""), (404, "")),
        ("other method", "DELETE", "/apps/web", &[], (404, ""), (405, "")),
        ("unknown app", "GET", "/apps/x", &[], (404, "app not found: x\n"), (404, "app not found: x\n")),
        ("unknown build", "GET", "/apps/web/builds/BX", &[], (404, "build not found: BX\n"), (500, "builds.convox.com \"bx\" not found\n")),
        (
            "unknown release",
            "GET",
            "/apps/web/releases/RX",
            &[],
            (404, "release not found: RX\n"),
            (500, "releases.convox.com \"rx\" not found\n"),
        ),
        ("unknown process", "GET", "/apps/web/processes/p1", &[], (404, "process not found: p1\n"), (500, "pods \"p1\" not found\n")),
        ("unknown object", "GET", "/apps/web/objects/a/b", &[], (404, "key not found: a/b\n"), (404, "object not found: a/b\n")),
        ("object exists", "HEAD", "/apps/web/objects/a/b", &[], (200, ""), (200, "")),
        (
            "object of no app",
            "POST",
            "/apps/x/objects/k",
            &[],
            (500, "stack not found: two-x\n"),
            (200, "{\n  \"Url\": \"object://x/k\"\n}\n"),
        ),
        ("build of no app", "POST", "/apps/x/builds", &[], (404, "app not found: x\n"), (404, "app not found: x\n")),
        ("app exists", "POST", "/apps", &[("name", "web")], (500, "app already exists: web\n"), (409, "app already exists: web\n")),
        (
            "app name",
            "POST",
            "/apps",
            &[("name", "rack")],
            (500, "App name can contain only lowercase alphanumeric characters and dashes and must start with a letter\n"),
            (400, "app name is reserved\n"),
        ),
        ("cancel", "POST", "/apps/web/cancel", &[], (403, "app is not updating\n"), (403, "app is not updating\n")),
        (
            "limit",
            "GET",
            "/apps/web/builds?limit=x",
            &[],
            (500, "strconv.Atoi: parsing \"x\": invalid syntax\n"),
            (500, "strconv.Atoi: parsing \"x\": invalid syntax\n"),
        ),
        ("promote of no app", "POST", "/apps/x/releases/R/promote", &[], (404, "app not found: x\n"), (404, "app not found: x\n")),
        (
            "promote of no release",
            "POST",
            "/apps/web/releases/RX/promote",
            &[],
            (404, "release not found: RX\n"),
            (500, "releases.convox.com \"rx\" not found\n"),
        ),
        (
            "build of no release",
            "POST",
            "/apps/web/releases",
            &[("build", "BX")],
            (404, "build not found: BX\n"),
            (500, "builds.convox.com \"bx\" not found\n"),
        ),
        ("logs without upgrade", "GET", "/apps/web/logs", &[], (404, ""), (404, "")),
        ("import from a registry", "POST", "/apps/web/builds/BX/image", &[], (404, ""), (422, "image param required\n")),
        ("event", "POST", "/events", &[("action", "x")], (200, "ok\n"), (200, "ok\n")),
        ("no builds", "GET", "/apps/web/builds", &[], (200, "[]\n"), (200, "[]\n")),
    ];
    let (two, three) = (Client::new(&running, "two"), Client::new(&running, "three"));
    for (what, method, path, form, on_two, on_three) in table {
        assert_eq!(two.send(method, path, form).await, (on_two.0, on_two.1.to_owned()), "{what} on version 2");
        assert_eq!(three.send(method, path, form).await, (on_three.0, on_three.1.to_owned()), "{what} on version 3");
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_are_checked_as_each_version_checks_them() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    for (name, challenge) in [("two", None), ("three", Some("Basic realm=\"convox\""))] {
        let client = Client::new(&running, name);
        let url = |path: &str| format!("{}{path}", client.url);
        let refused = client.http.get(url("/system")).basic_auth("convox", Some("wrong")).send().await.unwrap();
        assert_eq!(refused.headers().get("www-authenticate").map(|value| value.to_str().unwrap()), challenge);
        assert_eq!(refused.headers()["request-id"].len(), 12);
        assert_eq!((refused.status().as_u16(), refused.text().await.unwrap().as_str()), (401, "invalid authentication\n"));
        assert_eq!(read(client.http.get(url("/check"))).await, (200, "ok".to_owned()));
        assert_eq!(read(client.http.get(url("/auth"))).await.0, 401);
        assert_eq!(read(client.http.get(url("/auth")).basic_auth("jwt", Some("a.b.c"))).await.0, 200);
        assert_eq!(read(client.http.get(url("/auth")).basic_auth("anyone", Some(PASSWORD))).await.0, 200);
        let (status, text) = read(client.http.get(url("/auth")).basic_auth("jwt", Some(PASSWORD))).await;
        assert!(status == 401 && text.starts_with("invalid authentication: "), "{text}");

        let token = client.json("POST", "/system/jwt/token", &[("role", "read"), ("durationInHour", "1")]).await;
        let token = token["token"].as_str().unwrap();
        assert_eq!(read(client.http.get(url("/apps/web")).basic_auth("jwt", Some(token))).await.0, 200);
        let written = read(client.http.post(url("/apps/web/cancel")).basic_auth("jwt", Some(token))).await;
        assert_eq!(written, (401, "you are unauthorized to access this\n".to_owned()));

        let json = client.request("GET", "/apps/x").header("accept", "application/json");
        let expected = if name == "three" { "{\"error\":\"app not found: x\"}\n" } else { "app not found: x\n" };
        assert_eq!(read(json).await, (404, expected.to_owned()));
        let system = client.json("GET", "/system", &[]).await;
        assert_eq!(system["version"], if name == "three" { "3.24.9" } else { "20260421192651" });
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_names_its_image_becomes_a_release_and_runs() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let manifest = with_image(&running).await;
    for (name, generation) in [("two", "2"), ("three", "3")] {
        let client = Client::new(&running, name);
        let id = client.build("web", "convox.yml", &manifest).await;
        let log = client.stream(&format!("/apps/web/builds/{id}/logs"), &[], PASSWORD).await;
        let build = client.ended("web", &id).await;
        assert_eq!((&build["status"], &build["git-sha"], &build["manifest"]), (&json!("complete"), &json!("c0ffee"), &json!(manifest)));
        let stored = client.send("GET", &format!("/apps/web/objects/build/{id}/logs"), &[]).await.1;
        assert!(stored.ends_with(&log) && stored.contains(&format!("{name}/web:web.{id}")), "{stored}");

        let release = build["release"].as_str().unwrap().to_owned();
        let shown = client.json("GET", &format!("/apps/web/releases/{release}"), &[]).await;
        assert_eq!((&shown["build"], &shown["description"]), (&json!(id), &json!("first")));
        let first = client.promote("web", &release).await;
        let app = client.json("GET", "/apps/web", &[]).await;
        assert_eq!((&app["release"], &app["generation"]), (&json!(release), &json!(generation)));

        // A newer release with an env of its own, made of the same build.
        let form = [("build", id.as_str()), ("env", "REVISION=abc\nB=2"), ("description", "second")];
        let newer = client.json("POST", "/apps/web/releases", &form).await["id"].as_str().unwrap().to_owned();
        let second = client.promote("web", &newer).await;
        let sequence = if name == "two" {
            vec![format!("updating/{release}"), format!("running/{newer}")]
        } else {
            vec![format!("updating/{newer}"), format!("running/{newer}")]
        };
        assert_eq!(second, sequence);
        assert_eq!(first.last(), Some(&format!("running/{release}")));
        let list = client.json("GET", "/apps/web/releases?limit=1", &[]).await;
        let env = if name == "two" { "" } else { "REVISION=abc\nB=2" };
        assert_eq!((&list[0]["id"], &list[0]["env"]), (&json!(newer), &json!(env)));

        let older = client.send("POST", &format!("/apps/web/releases/{release}/promote"), &[]).await;
        assert_eq!(older, (if name == "two" { 500 } else { 400 }, "can not promote an older release, try rollback\n".to_owned()));
        let again = client.send("POST", &format!("/apps/web/releases/{newer}/promote"), &[]).await;
        assert_eq!(again.0, if name == "two" { 500 } else { 200 }, "{}", again.1);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_fails_with_the_text_of_the_real_one() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    with_image(&running).await;
    let host = &running.registry.as_ref().unwrap().host;
    let missing = format!("services:\n  web:\n    image: {host}/web:nope\n");
    let foreign = format!("services:\n  web:\n    image: {host}/other:v1\n");
    let table = [
        (
            "convox.yml",
            missing.as_str(),
            format!("ERROR: Error response from daemon: manifest for {host}/web:nope not found: manifest unknown: manifest unknown\n"),
            "ERROR: exit status 1\n".to_owned(),
        ),
        (
            "convox.yml",
            foreign.as_str(),
            format!(
                "ERROR: Error response from daemon: repository {host}/other not found: name unknown: The repository with name 'other' \
                 does not exist in the registry with id '123456789012'\n"
            ),
            "ERROR: exit status 1\n".to_owned(),
        ),
        (
            "else.yml",
            "services: {}\n",
            "ERROR: reading manifest convox.yml: open convox.yml: no such file or directory\n".to_owned(),
            "/convox.yml: no such file or directory\n".to_owned(),
        ),
        (
            "convox.yml",
            "services:\n  web:\n    image: x\n    environment: [NEEDED]\n",
            "ERROR: parse manifest: required env: NEEDED\n".to_owned(),
            "ERROR: required env: NEEDED\n".to_owned(),
        ),
        (
            "convox.yml",
            "services:\n  web:\n    build: .\n",
            "lstat Dockerfile: no such file or directory\n".to_owned(),
            "ERROR: exit status 1\n".to_owned(),
        ),
    ];
    for (file, manifest, on_two, on_three) in &table {
        for (name, end) in [("two", on_two), ("three", on_three)] {
            let client = Client::new(&running, name);
            let id = client.build("web", file, manifest).await;
            let build = client.ended("web", &id).await;
            assert_eq!((&build["status"], &build["release"]), (&json!("failed"), &json!("")));
            let log = client.stream(&format!("/apps/web/builds/{id}/logs"), &[], PASSWORD).await;
            assert!(log.ends_with(end.as_str()), "{name}: {log}");
        }
    }
    let two = Client::new(&running, "two");
    let id = two.json("POST", "/apps/web/builds", &[("external", "true")]).await["id"].as_str().unwrap().to_owned();
    two.ended("web", &id).await;
    let log = two.stream(&format!("/apps/web/builds/{id}/logs"), &[], PASSWORD).await;
    assert_eq!(log, "ERROR: only object:// sources are supported (got )\n");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_upgraded_before_anything_is_checked() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    for (name, unknown) in [("two", "ERROR: build not found: BX\n"), ("three", "ERROR: builds.convox.com \"bx\" not found\n")] {
        let client = Client::new(&running, name);
        assert_eq!(client.stream("/apps/web/builds/BX/logs", &[], PASSWORD).await, unknown);
        assert_eq!(client.stream("/apps/web/logs", &[], "wrong").await, "ERROR: invalid authentication\n");
        assert_eq!(client.stream("/apps/x/logs", &[], PASSWORD).await, "ERROR: app not found: x\n");
        assert_eq!(client.stream("/apps/web/logs", &[("follow", "false")], PASSWORD).await, "");
        let gone = client.stream("/apps/web/processes/p1/exec", &[("command", "ls")], PASSWORD).await;
        if name == "two" {
            assert_eq!(gone, "ERROR: process not found: p1\n");
        } else {
            assert_eq!(gone, "F1E49A85-0AD7-4AEF-A618-C249C6E6568D:0\nERROR: pods \"p1\" not found\n");
        }
        let host = client.url.trim_start_matches("http://");
        for (origin, status) in [("http://evil.example".to_owned(), 403), (format!("http://{host}"), 101)] {
            let upgrade = client.request("GET", "/apps/web/logs").header("upgrade", "websocket").header("connection", "upgrade");
            let upgrade = upgrade.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").header("sec-websocket-version", "13");
            assert_eq!(upgrade.header("origin", &origin).send().await.unwrap().status(), status, "{origin}");
        }
        let other = client.request("GET", "/apps/web/logs").header("upgrade", "WebSocket").header("connection", "upgrade");
        assert_eq!(read(other).await, (404, String::new()));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_stays_open_after_its_end_and_answers_no_ping() {
    use futures_util::SinkExt as _;
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let client = Client::new(&running, "two");
    let mut request = format!("{}/apps/web/logs", client.url.replace("http://", "ws://")).into_client_request().unwrap();
    request.headers_mut().insert("follow", "false".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Text(_)))));
    assert!(matches!(socket.next().await, Some(Ok(Message::Binary(end))) if end.is_empty()));
    socket.send(Message::Ping(Default::default())).await.unwrap();
    let more = tokio::time::timeout(Duration::from_millis(100), socket.next()).await;
    assert!(more.is_err(), "{more:?} after the end");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_off_command_tells_its_exit_code() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let manifest = with_image(&running).await;
    for name in ["two", "three"] {
        let client = Client::new(&running, name);
        let none = client.send("POST", "/apps/web/services/web/processes", &[]).await;
        assert_eq!(none, (500, "no releases for app: web\n".to_owned()));
        let id = client.build("web", "convox.yml", &manifest).await;
        let release = client.ended("web", &id).await["release"].as_str().unwrap().to_owned();
        let run = client.request("POST", "/apps/web/services/web/processes").header("command", "sleep 60").header("release", &release);
        let process: Value = serde_json::from_str(&read(run).await.1).unwrap();
        assert_eq!((&process["release"], process["ports"].is_null()), (&json!(release), name == "three"));
        let path = format!("/apps/web/processes/{}", process["id"].as_str().unwrap());
        assert_eq!(client.json("GET", &path, &[]).await["status"], "running");
        let output = client.stream(&format!("{path}/exec"), &[("command", "sh -c 'exit 3'")], PASSWORD).await;
        assert!(output.ends_with("F1E49A85-0AD7-4AEF-A618-C249C6E6568D:3\n"), "{output}");
        assert_eq!(client.send("DELETE", &path, &[]).await, (200, "ok\n".to_owned()));
        assert_ne!(client.send("DELETE", &path, &[]).await.0, 200);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_3_takes_images_by_import_and_by_push() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let manifest = with_image(&running).await;
    let registry = running.registry.as_ref().unwrap();
    let (client, login) = (Client::new(&running, "three"), registry.login.clone().unwrap());
    let external = async || {
        let build = client.json("POST", "/apps/web/builds", &[("external", "true"), ("git-sha", "c0ffee")]).await;
        let id = build["id"].as_str().unwrap().to_owned();
        assert_eq!(build["status"], "created");
        let image = format!("{}/web:v1", registry.host);
        let none = client.send("POST", &format!("/apps/web/builds/{id}/image"), &[("image", &image)]).await;
        assert_eq!(none.0, 422, "{}", none.1);
        client.json("PUT", &format!("/apps/web/builds/{id}"), &[("manifest", &manifest)]).await;
        (id, build["repository"].as_str().unwrap().to_owned())
    };

    let (id, _) = external().await;
    let image = format!("{}/web:v1", registry.host);
    let form = [("image", image.as_str()), ("src-creds-user", &login.user), ("src-creds-pass", login.password.expose())];
    assert_eq!(client.send("POST", &format!("/apps/web/builds/{id}/image"), &form).await, (202, String::new()));
    assert_eq!(client.send("POST", &format!("/apps/web/builds/{id}/image"), &form).await.0, 409);
    let build = client.ended("web", &id).await;
    assert_eq!((&build["status"], &build["release"]), (&json!("complete"), &json!("")), "an import makes no release");
    let release = client.json("POST", "/apps/web/releases", &[("build", &id)]).await["id"].as_str().unwrap().to_owned();
    assert_eq!(client.promote("web", &release).await.last(), Some(&format!("running/{release}")));

    let (id, _) = external().await;
    let form = [("image", image.as_str()), ("src-creds-user", "AWS"), ("src-creds-pass", "wrong")];
    client.send("POST", &format!("/apps/web/builds/{id}/image"), &form).await;
    let build = client.ended("web", &id).await;
    assert!(build["status"] == "failed" && build["reason"].as_str().unwrap().contains("authentication required"), "{build}");

    // Nothing was pushed: the promote is accepted and comes to nothing.
    let (id, repository) = external().await;
    let unpushed = client.json("POST", "/apps/web/releases", &[("build", &id)]).await["id"].as_str().unwrap().to_owned();
    let sequence = client.promote("web", &unpushed).await;
    let expected: Vec<String> = ["updating/", "rollback/"].map(|status| format!("{status}{unpushed}")).into();
    assert_eq!(sequence[..2], expected);
    assert_eq!(sequence.last(), Some(&format!("running/{release}")));

    let url = url::Url::parse(&repository).unwrap();
    assert_eq!((url.scheme(), url.username(), url.path()), ("https", "convox", "/three/web"));
    assert_eq!(percent_encoding::percent_decode_str(url.password().unwrap()).decode_utf8().unwrap(), PASSWORD);
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let login = Login { user: "convox".to_owned(), password: Secret::new(PASSWORD) };
    push(&host, Some(&login), "three/web", &format!("web.{id}")).await;
    let pushed = client.json("POST", "/apps/web/releases", &[("build", &id)]).await["id"].as_str().unwrap().to_owned();
    assert_eq!(client.promote("web", &pushed).await.last(), Some(&format!("running/{pushed}")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_and_requests_are_logged() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let manifest = with_image(&running).await;
    let client = Client::new(&running, "two");
    let control = format!("{}/faults", running.control);
    let set = async |fault: &str| assert_eq!(read(client.http.post(&control).body(fault.to_owned())).await.0, 200);
    let bad = read(client.http.post(&control).body("two:explode")).await;
    assert!(bad.0 == 400 && bad.1.contains("`promote-hangs`"), "{}", bad.1);

    set("two:web:rack-build-fails").await;
    let id = client.build("web", "convox.yml", &manifest).await;
    assert_eq!(client.ended("web", &id).await["status"], "failed");
    assert_eq!(read(client.http.delete(&control)).await, (200, String::new()));
    let id = client.build("web", "convox.yml", &manifest).await;
    let first = client.ended("web", &id).await["release"].as_str().unwrap().to_owned();

    set("two:web:promote-rolls-back").await;
    let sequence = client.promote("web", &first).await;
    assert_eq!(sequence, ["updating/", "rollback/", "running/"]);
    let log = client.stream("/apps/web/logs", &[("follow", "false"), ("prefix", "true")], PASSWORD).await;
    let sources: Vec<&str> = log.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(sources, ["system/cloudformation"; 3], "{log}");
    read(client.http.delete(&control)).await;

    set("two:web:promote-hangs").await;
    let promote = format!("/apps/web/releases/{first}/promote");
    assert_eq!(client.send("POST", &promote, &[]).await.0, 200);
    assert_eq!(client.send("POST", &promote, &[]).await, (403, "app is currently updating\n".to_owned()));
    let forced = client.send("POST", &promote, &[("force", "true")]).await;
    assert!(forced.0 == 500 && forced.1.contains("is in UPDATE_IN_PROGRESS state"), "{}", forced.1);
    assert_eq!(client.send("POST", "/apps/web/cancel", &[]).await.0, 200);
    read(client.http.delete(&control)).await;
    while client.json("GET", "/apps/web", &[]).await["status"] != "running" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    set("two:web:promote-answer-lost\ntwo:500-once:/apps/web/releases").await;
    assert_eq!(client.send("POST", &promote, &[]).await.0, 500);
    assert!(client.request("POST", &promote).send().await.is_err(), "an answer came");
    assert_eq!(client.json("GET", "/apps/web", &[]).await["status"], "updating", "the promote took all the same");

    set("two:401").await;
    assert_eq!(client.send("GET", "/auth", &[]).await.0, 401);
    set("two:down").await;
    assert!(client.request("GET", "/auth").send().await.is_err());
    assert_eq!(Client::new(&running, "three").send("GET", "/auth", &[]).await.0, 200);

    let text = std::fs::read_to_string(running.request_log()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let promotes = lines.iter().filter(|line| line["rack"] == "two" && line["method"] == "POST" && line["path"] == promote.as_str());
    let statuses: Vec<&Value> = promotes.map(|line| &line["status"]).collect();
    assert_eq!(statuses, [&json!(200), &json!(200), &json!(403), &json!(500), &json!(500), &Value::Null]);
    assert!(lines.iter().any(|line| line["operation"].as_str().is_some_and(|name| name.ends_with(".CreateRepository"))));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_remembers_and_frees_its_ports() {
    let state = tempfile::tempdir().unwrap();
    let mut again = options(state.path(), RegistryKind::Ecr { api_port: 0 });
    let running = serve(again.clone()).await.unwrap();
    let manifest = with_image(&running).await;
    let client = Client::new(&running, "three");
    let id = client.build("web", "convox.yml", &manifest).await;
    let release = client.ended("web", &id).await["release"].as_str().unwrap().to_owned();
    assert_eq!(client.send("POST", &format!("/apps/web/releases/{release}/promote"), &[]).await.0, 200);
    let (environment, token) = (running.environment(), running.registry.clone().unwrap().login);
    assert_eq!(environment["THREE_HOST"].expose(), client.url);
    assert!(running.exports().contains(&format!("export TWO_PASSWORD='{PASSWORD}'\n")));
    let yaml: serde_yaml::Value = serde_yaml::from_str(&running.apps_yaml()).unwrap();
    assert_eq!(yaml["racks"]["three"]["host"], "${THREE_HOST}");
    assert_eq!(yaml["registry"]["type"], "ecr");
    let ports: Vec<u16> = running.racks.iter().map(|rack| rack.url.rsplit(':').next().unwrap().parse().unwrap()).collect();
    // A log that is followed must not keep the sandbox from stopping.
    let mut request = format!("{}/apps/web/logs", client.url.replace("http://", "ws://")).into_client_request().unwrap();
    request.headers_mut().insert("authorization", "Basic Y29udm94OnBhc3Mvd29yZCsx".parse().unwrap());
    let followed = tokio_tungstenite::connect_async(request).await.unwrap();
    running.stop().await;
    drop(followed);

    for (rack, port) in again.racks.iter_mut().zip(ports) {
        rack.port = port;
    }
    let running = serve(again).await.unwrap();
    assert_eq!(running.registry.as_ref().unwrap().login, token);
    let client = Client::new(&running, "three");
    while client.json("GET", "/apps/web", &[]).await["status"] != "running" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.json("GET", "/apps/web", &[]).await["release"], json!(release));
    assert_eq!(client.json("GET", &format!("/apps/web/builds/{id}"), &[]).await["git-sha"], "c0ffee");
    let images = sdk(&running).describe_repositories().send().await.unwrap();
    assert_eq!(images.repositories()[0].repository_name(), Some("web"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_sdk_finds_ecr() {
    use aws_sdk_ecr::types::{ImageFailureCode, ImageIdentifier, ImageTagMutability, LayerAvailability};
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    let (ecr, registry) = (sdk(&running), running.registry.clone().unwrap());

    let token = ecr.get_authorization_token().send().await.unwrap();
    let data = &token.authorization_data()[0];
    let login = registry.login.clone().unwrap();
    let expected = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("AWS:{}", login.password.expose()));
    assert_eq!(data.authorization_token(), Some(expected.as_str()));
    assert_eq!(data.proxy_endpoint(), Some(format!("http://{}", registry.host).as_str()));
    assert!(data.expires_at().unwrap().secs() > time::OffsetDateTime::now_utc().unix_timestamp() + 11 * 3600);

    let error = ecr.describe_repositories().repository_names("web").send().await.unwrap_err().into_service_error();
    assert!(error.is_repository_not_found_exception(), "{error:?}");
    let base = format!("http://{}/v2/web", registry.host);
    let early = http().post(format!("{base}/blobs/uploads/")).basic_auth(&login.user, Some(login.password.expose()));
    let (status, body) = read(early).await;
    assert!(status == 404 && body.contains("NAME_UNKNOWN"), "{body}");
    assert_eq!(read(http().get(format!("{base}/tags/list"))).await.0, 401);

    let create = || ecr.create_repository().repository_name("web").image_tag_mutability(ImageTagMutability::Immutable);
    let created = create().send().await.unwrap();
    assert_eq!(created.repository().unwrap().repository_uri(), Some(format!("{}/web", registry.host).as_str()));
    assert!(create().send().await.unwrap_err().into_service_error().is_repository_already_exists_exception());
    let policy = r#"{"rules":[]}"#;
    ecr.put_lifecycle_policy().repository_name("web").lifecycle_policy_text(policy).send().await.unwrap();

    let digest = push(&registry.host, Some(&login), "web", "v1").await;
    let id = |tag: &str| ImageIdentifier::builder().image_tag(tag).build();
    let found = ecr.batch_get_image().repository_name("web").image_ids(id("v1")).image_ids(id("v2")).send().await.unwrap();
    assert_eq!(found.images()[0].image_id().unwrap().image_digest(), Some(digest.as_str()));
    assert_eq!(found.failures()[0].failure_code(), Some(&ImageFailureCode::ImageNotFound));

    let manifest = found.images()[0].image_manifest().unwrap();
    let put = |tag: &str, manifest: &str| ecr.put_image().repository_name("web").image_manifest(manifest).image_tag(tag);
    let tagged = put("v2", manifest).send().await.unwrap();
    assert_eq!(tagged.image().unwrap().image_id().unwrap().image_digest(), Some(digest.as_str()));
    assert!(put("v2", manifest).send().await.unwrap_err().into_service_error().is_image_already_exists_exception());
    let other = format!("{manifest} ");
    assert!(put("v2", &other).send().await.unwrap_err().into_service_error().is_image_tag_already_exists_exception());
    let unknown = manifest.replace(&digest_in(manifest), DIGEST_ZERO);
    assert!(put("v3", &unknown).send().await.unwrap_err().into_service_error().is_layers_not_found_exception());

    let config = digest_in(manifest);
    let layers = ecr.batch_check_layer_availability().repository_name("web").layer_digests(&config).layer_digests(DIGEST_ZERO);
    let layers = layers.send().await.unwrap();
    let available: Vec<_> = layers.layers().iter().filter_map(|layer| layer.layer_availability()).collect();
    assert_eq!(available, [&LayerAvailability::Available, &LayerAvailability::Unavailable]);
    let url = ecr.get_download_url_for_layer().repository_name("web").layer_digest(&config).send().await.unwrap();
    let (status, body) = read(http().get(url.download_url().unwrap())).await;
    assert_eq!((status, body.as_str()), (200, r#"{"config":{"Labels":{"who":"me"}}}"#));
    running.stop().await;
}

/// The digest of a manifest's configuration.
fn digest_in(manifest: &str) -> String {
    let manifest: Value = serde_json::from_str(manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_checks_what_it_is_given() {
    let state = tempfile::tempdir().unwrap();
    let running = serve(options(state.path(), RegistryKind::Plain { login: None })).await.unwrap();
    let host = running.registry.as_ref().unwrap().host.clone();
    let digest = push(&host, None, "team/web", "v1").await;
    let url = |path: &str| format!("http://{host}/v2/{path}");
    let head = http().head(url("team/web/manifests/v1")).send().await.unwrap();
    assert_eq!((head.headers()["docker-content-digest"].to_str().unwrap(), head.status().as_u16()), (digest.as_str(), 200));
    assert_ne!(head.headers()["content-length"], "0");
    assert_eq!(read(http().get(url("team/web/tags/list"))).await.1, r#"{"name":"team/web","tags":["v1"]}"#);
    let code = async |request: reqwest::RequestBuilder| {
        let (status, body) = read(request).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        format!("{status} {}", body["errors"][0]["code"].as_str().unwrap())
    };
    assert_eq!(code(http().get(url("team/web/manifests/v9"))).await, "404 MANIFEST_UNKNOWN");
    assert_eq!(code(http().get(url("nobody/manifests/v9"))).await, "404 NAME_UNKNOWN");
    assert_eq!(code(http().get(url(&format!("team/web/blobs/{DIGEST_ZERO}")))).await, "404 BLOB_UNKNOWN");
    assert_eq!(code(http().put(url("team/web/manifests/v2")).body("{")).await, "400 MANIFEST_INVALID");
    assert_eq!(code(http().get(url("Team/manifests/v1"))).await, "400 NAME_INVALID");
    let wrong = http().post(url(&format!("team/web/blobs/uploads/?digest={DIGEST_ZERO}"))).body("not that");
    assert_eq!(code(wrong).await, "400 DIGEST_INVALID");
    let whole = self::digest(b"whole");
    assert_eq!(http().post(url(&format!("team/web/blobs/uploads/?digest={whole}"))).body("whole").send().await.unwrap().status(), 201);
    let mount = http().post(url(&format!("other/blobs/uploads/?mount={whole}&from=team/web"))).send().await.unwrap();
    assert_eq!(mount.status(), 201);
    assert_eq!(read(http().get(url(&format!("other/blobs/{whole}")))).await, (200, "whole".to_owned()));
    for (fault, request, status) in [
        ("registry:push-500", http().post(url("x/blobs/uploads/")), 500),
        ("registry:manifest-missing", http().get(url("team/web/manifests/v1")), 404),
        ("registry:login-refused", http().get(url("")), 401),
    ] {
        running.faults.clear();
        running.faults.add(fault.parse().unwrap());
        assert_eq!(read(request).await.0, status, "{fault}");
    }
    running.stop().await;
}

#[test]
fn the_example_is_read_without_a_problem() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("example");
    let config = offbuild::config::load(&root, &root, Some(&root.join("apps.yaml")), &|_| None).unwrap();
    let mut read = Vec::new();
    for app in &config.apps {
        let reading = offbuild::manifest::Reading {
            root: &root,
            app: &app.name,
            dir: &app.dir,
            manifest: &app.manifest,
            generation: app.generation,
            compose: app.compose.as_deref(),
            read: &|path| {
                std::fs::read_to_string(path.under(&root)).map(Some).or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(None),
                    _ => Err(error),
                })
            },
            env: &|_| None,
            build: &app.build,
        };
        let manifest = offbuild::manifest::read(&reading).unwrap();
        let racks: Vec<&str> = app.targets.iter().map(|target| target.rack.as_str()).collect();
        for service in &manifest.services {
            let build = service.build.as_ref().expect("every service of the example is built");
            assert!(build.dockerfile.under(&root).is_file(), "{}", build.dockerfile);
            read.push(format!("{}:{} generation {} on {}", app.name, service.name, app.generation, racks.join(", ")));
        }
    }
    read.sort();
    assert_eq!(
        read,
        [
            "api:main generation 2 on staging",
            "billing:web generation 1 on staging",
            "jobs:main generation 2 on staging",
            "shop:web generation 2 on staging, production",
            "shop:worker generation 2 on staging, production",
        ]
    );
}

#[test]
fn the_hooks_of_the_example_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let hooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("example/apps/billing/deploy");
    for name in ["before_build", "after_build", "before_release", "after_release", "on_failure"] {
        let mode = std::fs::metadata(hooks.join(format!("{name}.sh"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name}.sh is not executable");
    }
}

/// Images that are removed from the engine whatever happens.
struct Images(Vec<String>);

impl Drop for Images {
    fn drop(&mut self) {
        let _ = std::process::Command::new("docker").arg("rmi").args(&self.0).output();
    }
}

/// Runs the docker CLI with a configuration of its own; its output.
fn docker(config: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("docker").arg("--config").arg(config).args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {arguments:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_pushes_and_pulls() {
    let state = tempfile::tempdir().unwrap();
    let running = ecr(state.path()).await;
    sdk(&running).create_repository().repository_name("engine/web").send().await.unwrap();
    let registry = running.registry.clone().unwrap();
    let login = registry.login.clone().unwrap();
    let three = Client::new(&running, "three");
    let external = three.json("POST", "/apps/web/builds", &[("external", "true")]).await;
    let own = format!("{}/three/web:web.{}", three.url.trim_start_matches("http://"), external["id"].as_str().unwrap());
    let config = tempfile::tempdir().unwrap();
    let encode = |user: &str, word: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{user}:{word}"));
    let auths = json!({"auths": {
        &registry.host: {"auth": encode(&login.user, login.password.expose())},
        own.split('/').next().unwrap(): {"auth": encode("convox", PASSWORD)},
    }});
    std::fs::write(config.path().join("config.json"), auths.to_string()).unwrap();
    let image = format!("{}/engine/web:v1", registry.host);
    let work = {
        let (config, image, own) = (config.path().to_owned(), image.clone(), own.clone());
        move || {
            let _images = Images(vec![image.clone(), own.clone()]);
            let rootfs = config.join("rootfs.tar");
            let mut tar = tar::Builder::new(std::fs::File::create(&rootfs).unwrap());
            // Larger than one read, so that chunks matter; not compressible to nothing.
            let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(3 << 20).collect();
            let mut header = tar::Header::new_gnu();
            header.set_size(noise.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, "noise", noise.as_slice()).unwrap();
            tar.into_inner().unwrap();
            docker(&config, &["import", rootfs.to_str().unwrap(), &image]);
            docker(&config, &["tag", &image, &own]);
            let pushed = docker(&config, &["push", &image]);
            docker(&config, &["push", &own]);
            docker(&config, &["rmi", &image, &own]);
            let pulled = docker(&config, &["pull", &image]);
            (pushed, pulled)
        }
    };
    let (pushed, pulled) = tokio::task::spawn_blocking(work).await.unwrap();
    let found = sdk(&running).batch_get_image().repository_name("engine/web");
    let found = found.image_ids(aws_sdk_ecr::types::ImageIdentifier::builder().image_tag("v1").build()).send().await.unwrap();
    let digest = found.images()[0].image_id().unwrap().image_digest().unwrap().to_owned();
    assert!(pushed.contains(&digest) && pulled.contains(&digest), "{pushed}{pulled}");
    running.stop().await;
}
