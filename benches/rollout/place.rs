//! Where it happens: an engine with a base image, a registry, a rack.

use super::APPS;
use super::support::{OFFBUILD, option, run, stop, works};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The machine's part of the benchmark.
pub struct Place {
    dir: tempfile::TempDir,
    /// `127.0.0.1:PORT`.
    pub registry: String,
    /// What leads to the rack.
    pub variables: BTreeMap<String, String>,
    /// The base image.
    pub base: String,
    /// A docker client with BuildKit in it.
    pub docker: PathBuf,
    /// How often a step hashes a mebibyte to take a second.
    per_second: f64,
    _registry: Running,
    _sandbox: Running,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new(&self.docker).args(["image", "rm", "-f", &self.base]).output();
    }
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| stop(&format!("no temporary directory: {error}")));
        let docker = docker();
        let base = format!("offbuild-bench-{}", std::process::id());
        import(&docker, dir.path(), &base);
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/registry}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.path().display()
        );
        let file = dir.path().join("registry.yml");
        write(&file, &config);
        let mut command = Command::new("docker-registry");
        let registry = spawn(command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()));
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let (sandbox, variables) = rack(dir.path());
        let per_second = pace();
        let registry_host = format!("127.0.0.1:{port}");
        Self { dir, registry: registry_host, variables, base, docker, per_second, _registry: registry, _sandbox: sandbox }
    }

    /// A directory of the benchmark's own, gone with it.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// How many seconds of one core a `shared` or an `own` step takes: 2.0 and 0.3, or what `shared=…` and `own=…` say.
    pub fn seconds(&self, step: &str) -> f64 {
        let default = if step == "shared" { 2.0 } else { 0.3 };
        option(step).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// True when steps wait, as for a download, instead of computing.
    pub fn waits(&self) -> bool {
        option("steps").as_deref() == Some("wait")
    }

    /// How many mebibytes such a step hashes.
    pub fn mebibytes(&self, step: &str) -> u64 {
        (self.seconds(step) * self.per_second).ceil().max(1.0) as u64
    }

    /// True when `docker buildx bake` can be run.
    pub fn has_bake(&self) -> bool {
        works(Command::new("docker").args(["buildx", "version"]))
    }
}

/// The engine's own client: newer ones have no BuildKit in them.
fn docker() -> PathBuf {
    ["/usr/bin/docker", "/usr/local/bin/docker"]
        .map(PathBuf::from)
        .into_iter()
        .find(|docker| works(Command::new(docker).args(["build", "--help"]).env("DOCKER_BUILDKIT", "1")))
        .unwrap_or_else(|| stop("there is no docker client with BuildKit"))
}

/// Imports a static busybox as the base image.
fn import(docker: &Path, dir: &Path, name: &str) {
    let script = format!(
        "set -e; mkdir -p '{0}/base/bin' '{0}/base/tmp'; cp /bin/busybox '{0}/base/bin/busybox'; cd '{0}/base/bin'; \
         for applet in sh cat echo dd head sha256sum test; do ln -s busybox $applet; done; \
         tar -C '{0}/base' -c . | '{1}' import - '{name}:latest'",
        dir.display(),
        docker.display()
    );
    run(Command::new("sh").args(["-c", &script]));
}

/// Starts a rack on which neither a build nor a promote takes time.
fn rack(dir: &Path) -> (Running, BTreeMap<String, String>) {
    let mut command = Command::new(OFFBUILD);
    command.args(["sandbox", "--rack", "bench=2", "--plain-registry", "--build", "1ms", "--promote", "1ms", "--state"]);
    command.arg(dir.join("sandbox")).stdout(Stdio::piped());
    for app in 1..=APPS {
        command.args(["--app", &format!("bench/app{app:02}:2")]);
    }
    let mut running = spawn(&mut command);
    let Some(stdout) = running.0.stdout.take() else { stop("the sandbox says nothing") };
    let mut variables = BTreeMap::new();
    for line in BufReader::new(stdout).lines().map_while(Result::ok).take_while(|line| !line.starts_with("# ready")) {
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|line| line.split_once('=')) {
            variables.insert(name.to_owned(), value.trim_matches('\'').to_owned());
        }
    }
    (running, variables)
}

/// How many mebibytes busybox hashes in a second on one core of this machine.
fn pace() -> f64 {
    let script = "/bin/busybox dd if=/dev/zero bs=1M count=256 2>/dev/null | /bin/busybox sha256sum";
    let began = Instant::now();
    run(Command::new("sh").args(["-c", script]));
    256.0 / began.elapsed().as_secs_f64()
}

fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| stop(&format!("{command:?} cannot be run: {error}"))))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_or_else(|error| stop(&error.to_string()), |at| at.port())
}

/// Writes a file and the directories it lies in.
pub fn write(file: &Path, text: &str) {
    let written = file.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(file, text));
    written.unwrap_or_else(|error| stop(&format!("{}: {error}", file.display())));
}
