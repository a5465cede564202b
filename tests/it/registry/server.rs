//! Servers on loopback that end with the test.

use crate::support::services::Port;
use offbuild::names::Digest;
use serde_json::json;
use sha2::Digest as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A child process that ends with the value, and its port.
pub struct Server {
    process: Child,
    _port: Port,
}

impl Server {
    /// Starts what `command` says for a free port and waits until it answers there.
    pub async fn start(command: impl FnOnce(u16) -> Command) -> (Self, String) {
        let port = Port::hold();
        let (host, mut command) = (port.host(), command(port.number));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let program = command.get_program().display().to_string();
        let process = command.spawn().unwrap_or_else(|error| panic!("cannot start `{program}`: {error}"));
        let mut server = Self { process, _port: port };
        while tokio::net::TcpStream::connect(&host).await.is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "`{program}` did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (server, host)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client of the tests' own.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))).unwrap()
}

/// The configuration of an image without layers.
pub struct Image(Vec<u8>);

impl Image {
    pub fn labelled(name: &str, value: &str) -> Self {
        Self(json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {name: value}}}).to_string().into_bytes())
    }

    pub fn bare() -> Self {
        Self(json!({"architecture": "amd64", "os": "linux", "config": {}}).to_string().into_bytes())
    }

    pub fn manifest(&self) -> Vec<u8> {
        let config = json!({
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": self.0.len(),
            "digest": sha256(&self.0),
        });
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}).to_string().into_bytes()
    }
}

/// The real distribution registry, with a password file or open to all.
pub struct DockerRegistry {
    pub host: String,
    login: Option<(String, String)>,
    _server: Server,
    _dir: tempfile::TempDir,
}

impl DockerRegistry {
    pub async fn start(login: Option<(&str, &str)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let users: PathBuf = dir.path().join("users");
        if let Some((user, password)) = login {
            let made = Command::new("htpasswd").args(["-Bbn", user, password]).output().expect("htpasswd is installed");
            std::fs::write(&users, made.stdout).unwrap();
        }
        let file = dir.path().join("config.yml");
        let data = dir.path().join("data");
        let (server, host) = Server::start(|port| {
            let mut text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
                data.display()
            );
            if login.is_some() {
                text += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display());
            }
            std::fs::write(&file, text).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(&file);
            command
        })
        .await;
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Self { host, login, _server: server, _dir: dir }
    }

    /// Pushes an image the way the specification says.
    pub async fn push(&self, path: &str, tag: &str, image: &Image) -> Digest {
        let begun = self.send(client().post(self.url(&format!("{path}/blobs/uploads/")))).await;
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let mut at = reqwest::Url::parse(&location).or_else(|_| reqwest::Url::parse(&self.url("")).unwrap().join(&location)).unwrap();
        at.query_pairs_mut().append_pair("digest", sha256(&image.0).as_str());
        self.send(client().put(at).header("content-type", "application/octet-stream").body(image.0.clone())).await;
        self.put(path, tag, MANIFEST, image.manifest()).await
    }

    /// Pushes an index of images with these systems.
    pub async fn push_index(&self, path: &str, tag: &str, images: &[(&Digest, &str)]) -> Digest {
        let mut manifests = Vec::new();
        for (digest, os) in images {
            let size = self.send(client().get(self.url(&format!("{path}/manifests/{digest}"))).header("accept", MANIFEST)).await;
            let size = size.bytes().await.unwrap().len();
            let platform = json!({"os": os, "architecture": if *os == "unknown" { "unknown" } else { "amd64" }});
            manifests.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform}));
        }
        let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string().into_bytes();
        self.put(path, tag, INDEX, body).await
    }

    async fn put(&self, path: &str, tag: &str, kind: &str, body: Vec<u8>) -> Digest {
        let digest = sha256(&body);
        self.send(client().put(self.url(&format!("{path}/manifests/{tag}"))).header("content-type", kind).body(body)).await;
        digest
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/v2/{rest}", self.host)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        let request = match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        request.send().await.unwrap().error_for_status().unwrap()
    }
}
