//! The sandbox's racks in this process: on free ports, with faults that can be set at any moment and a log of every request.

use super::world::wait_for;
use offbuild::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Racks, and ECR when it was asked for.
pub struct Sandbox {
    running: Running,
    runtime: Runtime,
    http: reqwest::Client,
}

/// One request as the sandbox logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The rack's name, `registry` or `ecr`.
    pub place: String,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// ECR's operation.
    pub operation: Option<String>,
}

/// What a rack runs of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveApp {
    /// The active release; empty when there is none.
    pub release: String,
    /// `running`, …
    pub status: String,
    /// The commit its build names.
    pub commit: String,
    /// What its build says of itself.
    pub description: String,
    /// The manifest it was made from.
    pub manifest: String,
}

impl Sandbox {
    /// Serves racks with their apps and the apps' generations.
    pub fn serve(state: &Path, racks: &[(String, Version)], apps: &[(String, u8)], ecr: bool, promote: Duration) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let rack = |(name, version): &(String, Version)| RackOptions {
            name: name.parse().unwrap(),
            version: *version,
            port: 0,
            password: None,
            tokens: Vec::new(),
            apps: apps.iter().cloned().collect(),
        };
        let options = Options {
            state: state.to_owned(),
            racks: racks.iter().map(rack).collect(),
            registry: ecr.then_some(RegistryOptions { port: 0, kind: RegistryKind::Ecr { api_port: 0 } }),
            control_port: 0,
            faults: Vec::new(),
            pace: Pace { build: Duration::from_millis(20), promote },
        };
        let running = runtime.block_on(serve(options)).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { running, runtime, http }
    }

    /// The variables that lead to it.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.running.environment().into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
    }

    /// What no output may show.
    pub fn passwords(&self) -> Vec<String> {
        let racks = self.running.racks.iter().map(|rack| rack.password.expose().to_owned());
        let registry = self.running.registry.iter().filter_map(|registry| Some(registry.login.as_ref()?.password.expose().to_owned()));
        racks.chain(registry).collect()
    }

    /// The host of its registry.
    pub fn registry(&self) -> Option<String> {
        self.running.registry.as_ref().map(|registry| registry.host.clone())
    }

    /// Sets a fault, as `offbuild sandbox --fault` spells it.
    pub fn fault(&self, fault: &str) {
        self.running.faults.add(fault.parse().unwrap());
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.running.faults.clear();
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        let text = std::fs::read_to_string(self.running.request_log()).unwrap();
        let word = |line: &Value, key: &str| line[key].as_str().map(str::to_owned);
        let request = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            Request {
                place: word(&line, "rack").unwrap(),
                method: word(&line, "method").unwrap(),
                path: word(&line, "path").unwrap(),
                // Without the service's name and version.
                operation: word(&line, "operation").map(|full| full.rsplit('.').next().unwrap().to_owned()),
            }
        };
        text.lines().map(request).collect()
    }

    /// How many promotes of an app a rack was sent.
    pub fn promotes(&self, rack: &str, app: &str) -> usize {
        let start = format!("/apps/{app}/releases/");
        let is = |request: &&Request| request.place == rack && request.path.starts_with(&start) && request.path.ends_with("/promote");
        self.requests().iter().filter(is).count()
    }

    /// How many builds of an app a rack was sent.
    pub fn builds(&self, rack: &str, app: &str) -> usize {
        let path = format!("/apps/{app}/builds");
        self.requests().iter().filter(|request| request.place == rack && request.method == "POST" && request.path == path).count()
    }

    /// Sends a request to a rack and returns its answer's body.
    #[track_caller]
    pub fn call(&self, method: &str, rack: &str, path: &str, form: &[(&str, &str)]) -> String {
        self.send(method, rack, path, |request| if form.is_empty() { request } else { request.form(form) })
    }

    #[track_caller]
    fn send(&self, method: &str, rack: &str, path: &str, with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> String {
        let rack = self.running.rack(rack).unwrap();
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}{path}", rack.url)).basic_auth("convox", Some(rack.password.expose()));
        let request = with(request);
        let (status, body) = self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            (answer.status(), answer.text().await.unwrap())
        });
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    /// Keeps a text in an app's object store.
    #[track_caller]
    pub fn put_object(&self, rack: &str, app: &str, key: &str, text: &str) {
        let text = text.to_owned();
        self.send("POST", rack, &format!("/apps/{app}/objects/{key}"), |request| request.body(text));
    }

    /// Stages a manifest as somebody else would, with a build that names a commit and says what they wrote; the release.
    #[track_caller]
    pub fn stage_by_hand(&self, rack: &str, app: &str, manifest: &str, commit: &str, description: &str) -> String {
        let get = |path: &str| -> Value { serde_json::from_str(&self.call("GET", rack, path, &[])).unwrap() };
        let url = self.send("POST", rack, &format!("/apps/{app}/objects/tmp/by-hand.tgz"), |request| request.body(archive(manifest)));
        let url: Value = serde_json::from_str(&url).unwrap();
        let form = [("url", url["Url"].as_str().unwrap()), ("git-sha", commit), ("description", description)];
        let build: Value = serde_json::from_str(&self.call("POST", rack, &format!("/apps/{app}/builds"), &form)).unwrap();
        let path = format!("/apps/{app}/builds/{}", build["id"].as_str().unwrap());
        wait_for(|| !matches!(get(&path)["status"].as_str().unwrap(), "created" | "running"));
        get(&path)["release"].as_str().unwrap().to_owned()
    }

    /// Stages as somebody else would, and promotes it.
    #[track_caller]
    pub fn release_by_hand(&self, rack: &str, app: &str, manifest: &str, commit: &str, description: &str) {
        let release = self.stage_by_hand(rack, app, manifest, commit, description);
        self.promote(rack, app, &release);
    }

    /// Sends a promote as somebody else would, and waits for nothing.
    #[track_caller]
    pub fn begin_promote(&self, rack: &str, app: &str, release: &str) {
        self.call("POST", rack, &format!("/apps/{app}/releases/{release}/promote"), &[]);
    }

    /// Rolls an app back to an earlier release, as the convox CLI does: a new release of its build and environment.
    #[track_caller]
    pub fn roll_back(&self, rack: &str, app: &str, to: &str) {
        let old: Value = serde_json::from_str(&self.call("GET", rack, &format!("/apps/{app}/releases/{to}"), &[])).unwrap();
        let form = [("build", old["build"].as_str().unwrap()), ("env", old["env"].as_str().unwrap())];
        let new: Value = serde_json::from_str(&self.call("POST", rack, &format!("/apps/{app}/releases"), &form)).unwrap();
        self.promote(rack, app, new["id"].as_str().unwrap());
    }

    /// Promotes a release as somebody else would, and waits until it is live.
    #[track_caller]
    fn promote(&self, rack: &str, app: &str, release: &str) {
        self.begin_promote(rack, app, release);
        wait_for(|| {
            let live = self.live(rack, app);
            live.release == release && live.status == "running"
        });
    }

    /// What a rack runs of an app.
    #[track_caller]
    pub fn live(&self, rack: &str, app: &str) -> LiveApp {
        let get = |path: &str| -> Value { serde_json::from_str(&self.call("GET", rack, path, &[])).unwrap() };
        let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let known = get(&format!("/apps/{app}"));
        let (release, status) = (word(&known, "release"), word(&known, "status"));
        let build = match release.as_str() {
            "" => Value::Null,
            release => {
                let release = get(&format!("/apps/{app}/releases/{release}"));
                get(&format!("/apps/{app}/builds/{}", word(&release, "build")))
            }
        };
        let (commit, description, manifest) = (word(&build, "git-sha"), word(&build, "description"), word(&build, "manifest"));
        LiveApp { release, status, commit, description, manifest }
    }
}

/// An archive as it is uploaded for a build.
fn archive(manifest: &str) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(manifest.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "convox.yml", manifest.as_bytes()).unwrap();
    archive.into_inner().unwrap().finish().unwrap()
}
