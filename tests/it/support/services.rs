//! A real registry with a login, and the sandbox's racks, each in a process of its own on free ports.

use base64::Engine as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's `docker-registry` with Basic authentication.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    _process: Running,
    _port: Port,
    dir: tempfile::TempDir,
}

/// The registry's user.
pub const USER: &str = "ci";
/// Another user of the registry, with the same password.
pub const OTHER: &str = "ci-too";
/// The registry's password: long enough to be masked, and nowhere else.
pub const PASSWORD: &str = "registry-pass-4711";

impl Registry {
    /// Starts one and writes its login into the Docker config below `home`.
    pub fn start(home: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = |name: &str| super::sh(Command::new("htpasswd").args(["-Bbn", name, PASSWORD]));
        let htpasswd = format!("{}\n{}\n", user(USER).trim(), user(OTHER).trim());
        std::fs::write(dir.path().join("htpasswd"), htpasswd).unwrap();
        let port = Port::hold();
        let host = port.host();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {0}/data}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '{host}'}}\nauth:\n  htpasswd: {{realm: r, path: {0}/htpasswd}}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed (tests/run.sh does it)");
        let process = Running(process);
        await_port(port.number);
        login(home, &host, PASSWORD);
        Self { host, _process: process, _port: port, dir }
    }

    /// Takes a tag away, which its API cannot: an image without any stays where it is.
    pub fn forget(&self, repository: &str, tag: &str) {
        let tags = format!("data/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}");
        std::fs::remove_dir_all(self.dir.path().join(tags)).unwrap();
    }
}

/// Writes a login into the Docker config below `home`, in place of what is there.
pub fn login(home: &Path, host: &str, password: &str) {
    login_as(home, host, USER, password);
}

/// Writes a login of this user, in place of what is there.
pub fn login_as(home: &Path, host: &str, user: &str, password: &str) {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    std::fs::create_dir_all(home.join(".docker")).unwrap();
    std::fs::write(home.join(".docker/config.json"), format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}")).unwrap();
}

/// A port of 127.0.0.1 that nobody listens on, and that the kernel gives to nobody else for as long as this lives. A program of the
/// test's may still listen there, as servers say that they reuse addresses.
pub struct Port {
    /// Its number.
    pub number: u16,
    _held: tokio::net::TcpSocket,
}

impl Port {
    /// Takes a free one.
    pub fn hold() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { number: socket.local_addr().unwrap().port(), _held: socket }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// Waits until something listens.
pub fn await_port(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads a child's standard output up to the line that starts with `last`, and goes on reading the rest in the background.
pub fn lines_until(child: &mut Child, last: &str) -> Vec<String> {
    let mut reader = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).unwrap();
        assert!(read > 0, "the program ended after {lines:?}");
        lines.push(line.trim_end().to_owned());
        if line.starts_with(last) {
            break;
        }
    }
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest)
    });
    lines
}

/// A certificate for 127.0.0.1 that signs itself, and its key.
pub fn certificate(name: &str, certificate: &Path, key: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", &format!("/CN={name}")]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
    super::sh(openssl.arg("-keyout").arg(key).arg("-out").arg(certificate));
}
