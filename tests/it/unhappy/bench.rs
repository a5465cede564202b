//! A repository with one app, `web`, and a sandbox of one rack, `staging`, that has it.

use crate::support::repo::Repo;
use crate::support::{Done, Offbuild};
use offbuild::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Running, Version, serve};
use offbuild::secret::Secret;
use regex::Regex;
use std::collections::BTreeMap;
use std::time::Duration;

/// The rack's password: nowhere in any output.
const PASSWORD: &str = "rack-pass-0815";

/// The configuration that leads to the sandbox, up to the apps.
pub(super) const APPS_YAML: &str = "\
version: 1
discover: {include: [\"apps/*\"]}
registry: {repository: \"${REGISTRY_HOST}/{app}\"}
racks: {staging: {host: \"${STAGING_HOST}\", password: \"${STAGING_PASSWORD}\", poll: 50ms}}
defaults: {racks: [staging]}
jobs: 2
";

/// A repository, a sandbox, and the way from one to the other.
pub(super) struct Bench {
    /// The repository.
    pub(super) repo: Repo,
    /// The sandbox; its faults can be changed at any time.
    pub(super) sandbox: Running,
    /// What drives the sandbox.
    pub(super) runtime: tokio::runtime::Runtime,
    replaced: Vec<(String, &'static str)>,
    env: BTreeMap<String, String>,
}

impl Bench {
    /// A bench whose app only names an image that the registry has: nothing is built, so no engine is needed.
    pub(super) fn released() -> Self {
        let bench = Self::new();
        let host = bench.registry();
        bench.runtime.block_on(put_image(&host));
        bench.repo.write("apps/web/convox.yml", format!("services:\n  web:\n    image: {host}/base:1\n"));
        bench.repo.commit("Start");
        bench
    }

    /// A bench whose app is built from a Dockerfile that needs no base image.
    pub(super) fn built() -> Self {
        let bench = Self::new();
        bench.repo.write("apps/web/convox.yml", "services:\n  web:\n    build: .\n");
        bench.repo.write("apps/web/Dockerfile", format!("FROM scratch\nCOPY file /{}\n", crate::support::unique()));
        bench.repo.write("apps/web/file", "x").commit("Start");
        bench
    }

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let repo = Repo::new();
        let rack = RackOptions {
            name: "staging".parse().unwrap(),
            version: Version::V2,
            port: 0,
            password: Some(Secret::new(PASSWORD)),
            tokens: Vec::new(),
            apps: BTreeMap::from([("web".to_owned(), 2)]),
        };
        let options = Options {
            state: repo.dir.path().join("sandbox"),
            racks: vec![rack],
            registry: Some(RegistryOptions { port: 0, kind: RegistryKind::Plain { login: None } }),
            control_port: 0,
            faults: Vec::new(),
            pace: Pace { build: Duration::from_millis(20), promote: Duration::from_millis(20) },
        };
        let sandbox = runtime.block_on(serve(options)).unwrap();
        repo.write("apps.yaml", APPS_YAML);
        let env = sandbox.environment().into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
        let address = sandbox.racks[0].url.trim_start_matches("http://").to_owned();
        let replaced = vec![(address, "RACK"), (sandbox.registry.as_ref().unwrap().host.clone(), "REGISTRY")];
        Self { repo, sandbox, runtime, replaced, env }
    }

    /// The registry's host and port.
    pub(super) fn registry(&self) -> String {
        self.sandbox.registry.as_ref().unwrap().host.clone()
    }

    /// Sets a fault.
    pub(super) fn fault(&self, fault: &str) {
        self.sandbox.faults.add(fault.parse().unwrap());
    }

    /// The changes the rack was asked to make whose path has `part`: a release is one call of `/builds`, one of `/promote`.
    pub(super) fn changes(&self, part: &str) -> Vec<String> {
        self.calls("POST").into_iter().filter(|call| call.contains(part)).collect()
    }

    /// Adds lines to `apps.yaml`, in place of those that begin alike, and commits.
    pub(super) fn configure(&self, lines: &str) {
        let key = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let ours: Vec<String> = lines.lines().map(key).collect();
        let mut text: String = APPS_YAML.lines().filter(|known| !ours.contains(&key(known))).map(|known| format!("{known}\n")).collect();
        text.push_str(lines);
        text.push('\n');
        self.repo.write("apps.yaml", text).commit("Configure");
    }

    /// Calls `text` by a name in what is compared.
    pub(super) fn called(&mut self, text: impl Into<String>, name: &'static str) {
        self.replaced.push((text.into(), name));
    }

    /// Sets a variable of every run.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// The binary in the repository.
    pub(super) fn offbuild(&self) -> Offbuild {
        offbuild(&self.repo).envs(self.env.clone())
    }

    /// Runs it and tells everything it said.
    pub(super) fn says(&self, args: &[&str]) -> String {
        let done = self.offbuild().run(args);
        assert!(!done.stdout.contains(PASSWORD) && !done.stderr.contains(PASSWORD), "the password is in the output");
        let mut text = told(&self.repo, &done);
        for (value, name) in &self.replaced {
            text = text.replace(value, name);
        }
        text
    }

    /// The calls the rack got, `PATH STATUS`, those of `method` only. That a run says on the rack that it is there changes nothing of
    /// an app, so its lease is left out.
    pub(super) fn calls(&self, method: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.sandbox.request_log()).unwrap();
        let calls = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let of_rack = calls.filter(|call| call["rack"] == "staging" && call["method"] == method);
        let of_rack = of_rack.filter(|call| !call["path"].as_str().unwrap().ends_with("/objects/offbuild/lease"));
        of_rack.map(|call| named(&format!("{} {}", call["path"].as_str().unwrap(), call["status"]))).collect()
    }

    /// What the rack says of `web`: its active release, if it has one.
    pub(super) fn is_live(&self) -> bool {
        let status = self.offbuild().run(&["status"]).code(0);
        status.stdout.contains("web@staging  running  R")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What was built for this bench's registry is its alone. What cannot be removed is only space.
        let list = std::process::Command::new("docker")
            .args(["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter"])
            .arg(format!("reference={}/*", self.registry()))
            .output();
        let Ok(list) = list else { return };
        for image in String::from_utf8_lossy(&list.stdout).lines() {
            let _ = std::process::Command::new("docker").args(["image", "rm", "-f", image]).output();
        }
    }
}

/// The binary in a repository, with nothing of the machine's but PATH.
pub(super) fn offbuild(repo: &Repo) -> Offbuild {
    // Wide, so that no message is cut or wrapped where a path is longer.
    Offbuild::new(&repo.root(), &repo.dir.path().join("home")).env("COLUMNS", "400")
}

/// Waits until there is a file.
pub(super) fn wait_for(file: &std::path::Path) {
    let began = std::time::Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "{} did not come", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Everything a run said: its exit code, standard error, standard output.
pub(super) fn told(repo: &Repo, done: &Done) -> String {
    let mut text = format!("exit {}\n{}", done.code, done.stderr);
    if !done.stdout.is_empty() {
        text.push_str(&format!("stdout:\n{}", done.stdout));
    }
    let root = repo.root().canonicalize().unwrap().display().to_string();
    let above = repo.dir.path().canonicalize().unwrap().display().to_string();
    named(&text.replace(&root, "REPO").replace(&above, "ABOVE"))
}

/// The text with ids and times by their names.
fn named(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, name) in [
        (r"\brun \d{8}-\d{6}-[0-9a-f]{4} by .*", "run RUN"),
        (r"\b\d{8}-\d{6}-[0-9a-f]{4}\b", "RUN"),
        (r"\b[0-9a-f]{40}\b", "COMMIT"),
        (r"\b[0-9a-f]{12}\b", "COMMIT"),
        (r"\bR[A-Z]{10}\b", "RELEASE"),
        (r"\bB[A-Z]{10}\b", "BUILD"),
        (r"\b(\d+m )?\d+\.\ds\b", "TIME"),
        (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\b", "WHEN"),
        (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\b", "WHEN"),
        (r"held by .* \(pid \d+\)", "held by WHO"),
        (r"\bafter \d+s: ", "after TIME: "),
        // When the rack was looked at, and which lines of its log had come by then; how a base image is found.
        (r"(?m)^web@staging: the rack says .*\n", ""),
        (r"(?m)^web@staging \| WHEN system/.*\n", ""),
        (r"(?m)^ *(after TIME:|log WHEN) .*\n", ""),
        (r"(?m)^web/web \| => (\[internal\]|\[\d/\d\] FROM) .*\n", ""),
        // How BuildKit says it since engine 23.
        (r#"process "(/bin/sh -c [^"\n]*)" did not complete successfully: "#, "executor failed running [$1]: "),
        // Which of two steps took longer.
        (r"(?s)critical\spath:\s.*?longest\sin\sit:\s.*?,\sTIME\n", ""),
        // A sign of life of a run that was slow.
        (r"(?m)^still running: .*\n", ""),
        // What an engine that keeps its images in containerd says before a refused login.
        ("push access denied, repository does not exist or may require authorization: authorization failed: ", ""),
        // The columns of the summary are as wide as what stands in them.
        (r"(?m)^( *web@[a-z]+|TARGET)  +", "$1  "),
        (r"(?m)^( *web@[a-z]+|TARGET)  (\S+)  +", "$1  $2  "),
        (r"(?m)^( *web@[a-z]+|TARGET)  (\S+)  (\S+)  +", "$1  $2  $3  "),
        (r"(?m)^( *web@[a-z]+|TARGET)  (\S+)  (\S+)  (\S+)  +", "$1  $2  $3  $4  "),
        (r"(?m) +$", ""),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
    }
    text
}

/// Puts an image without layers into the sandbox's registry, as `base:1`.
async fn put_image(host: &str) {
    use sha2::Digest as _;
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let config = "{}";
    let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(config)));
    let begun = http.post(format!("http://{host}/v2/base/blobs/uploads/")).send().await.unwrap();
    let place = begun.headers()["location"].to_str().unwrap().to_owned();
    let put = http.put(format!("http://{host}{place}?digest={digest}")).body(config).send().await.unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    let media = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest},
        "layers": [],
    });
    let put = http.put(format!("http://{host}/v2/base/manifests/1")).header("content-type", media).body(manifest.to_string());
    let put = put.send().await.unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
}
