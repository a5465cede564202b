//! Builds, pushes and pulls on the real engine, through the same door the rest of the program uses.

use crate::support::engine::Base;
use crate::support::services::{PASSWORD, Registry as RealRegistry, USER, free_port};
use crate::support::{sh, unique};
use offbuild::build::docker::{Docker, Env};
use offbuild::build::{BuildError, Builder as _, ImageBuild, NamedContext, SecretSource, SshSource};
use offbuild::event::{Event, EventKind, Events, Progress, Stage, Step};
use offbuild::names::{AppName, Digest, ImageId, ImageRef, Repository};
use offbuild::registry::{CreateOptions, Login, Registry, RegistryError};
use offbuild::secret::{Redactor, Secret};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// Logins by host; everything else a registry does is not asked for here.
#[derive(Default)]
struct Logins(BTreeMap<String, Login>);

fn not_here<T>() -> Result<T, RegistryError> {
    Err(RegistryError::Failed { host: "test".to_owned(), message: "not asked for".to_owned() })
}

#[async_trait::async_trait]
impl Registry for Logins {
    async fn find(&self, _: &Repository, _: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        not_here()
    }
    async fn ensure(&self, _: &Repository, _: Option<&CreateOptions>) -> Result<bool, RegistryError> {
        not_here()
    }
    async fn retag(&self, _: &Repository, _: &Digest, _: &str) -> Result<(), RegistryError> {
        not_here()
    }
    async fn labels(&self, _: &Repository, _: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        not_here()
    }
    async fn login(&self, host: &str, _: bool) -> Result<Option<Login>, RegistryError> {
        Ok(self.0.get(host).cloned())
    }
}

fn login(password: &str) -> Login {
    Login { user: USER.to_owned(), password: Secret::new(password) }
}

/// An engine, a base image, a context, and the images that were built, which go when the test ends.
struct Bench {
    docker: Docker,
    base: Base,
    dir: tempfile::TempDir,
    built: Mutex<Vec<ImageId>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for id in self.built.lock().unwrap().iter() {
            let _ = Command::new("docker").args(["image", "rm", "-f", id.as_str()]).output();
        }
    }
}

/// Everything an adapter told about a step.
struct Told {
    progress: Progress,
    events: UnboundedReceiver<Event>,
}

impl Told {
    fn new() -> Self {
        let (events, receiver) = Events::new(Redactor::default());
        let step = Step { app: AppName::new("web").unwrap(), rack: None, service: None, stage: Stage::Build };
        Self { progress: events.progress(step), events: receiver }
    }

    /// What was told since the last time, a line each.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            lines.push(line(event.kind));
        }
        lines
    }

    async fn until(&mut self, text: &str) {
        while let Some(event) = self.events.recv().await {
            if line(event.kind).contains(text) {
                return;
            }
        }
    }
}

fn line(kind: EventKind) -> String {
    match kind {
        EventKind::BuildStep { name, cached, done, error, .. } => format!("step cached={cached} done={done} {name} {error:?}"),
        EventKind::Log { output, line, .. } => format!("log {output:?} {line}"),
        EventKind::Notice { message, .. } => format!("notice {message}"),
        other => format!("{other:?}"),
    }
}

fn connect(vars: Vec<(String, String)>, logins: Logins) -> Result<Docker, BuildError> {
    let mut vars: BTreeMap<String, String> = vars.into_iter().collect();
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        vars.entry("DOCKER_HOST".to_owned()).or_insert(host);
    }
    let env: Env = Arc::new(move |name| vars.get(name).cloned());
    Docker::connect(env, None, Arc::new(logins))
}

impl Bench {
    fn new() -> Self {
        Self::with(Vec::new(), Logins::default())
    }

    fn with(vars: Vec<(String, String)>, logins: Logins) -> Self {
        let docker = connect(vars, logins).unwrap();
        Self { docker, base: Base::import(), dir: tempfile::tempdir().unwrap(), built: Mutex::default() }
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A build of the bench's directory with this Dockerfile, in which `BASE` is the base image.
    fn plan(&self, dockerfile: &str) -> ImageBuild {
        let dockerfile = self.write("Dockerfile", &dockerfile.replace("BASE", &self.base.name));
        ImageBuild { context: self.dir.path().to_owned(), dockerfile, context_key: unique(), ..ImageBuild::default() }
    }

    async fn build(&self, build: &ImageBuild, told: &Told) -> Result<ImageId, BuildError> {
        let labels = BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "0123".to_owned())]);
        let built = self.docker.build(build, &labels, &told.progress, &CancellationToken::new()).await;
        if let Ok(id) = &built {
            self.built.lock().unwrap().push(id.clone());
        }
        built
    }

    /// Runs a shell line in an image.
    fn run(&self, id: &ImageId, line: &str) -> String {
        sh(Command::new("docker").args(["run", "--rm", "--network", "none", id.as_str(), "/bin/sh", "-c", line]))
    }
}

#[tokio::test]
async fn a_probe_tells_who_the_engine_is() {
    let docker = connect(Vec::new(), Logins::default()).unwrap();
    let info = docker.probe().await.unwrap();
    assert!(info.platform.starts_with("linux/") && !info.version.is_empty(), "{info:?}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_or_is_none_is_an_error_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let at = |host: String| connect(vec![("DOCKER_HOST".to_owned(), host)], Logins::default()).unwrap();
    let gone = at(format!("unix://{}/no.sock", dir.path().display())).probe().await;
    assert!(matches!(&gone, Err(BuildError::Engine { message, hint: Some(_) }) if message.contains("cannot connect")), "{gone:?}");
    let closed = at(format!("tcp://127.0.0.1:{}", free_port())).probe().await;
    assert!(matches!(&closed, Err(BuildError::Engine { hint: Some(hint), .. }) if hint.contains("DOCKER_TLS_VERIFY")), "{closed:?}");

    // An engine that answers, and knows nothing of `/grpc`.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|uri: axum::http::Uri| async move {
        let known = uri.path().ends_with("/version");
        let status = if known { axum::http::StatusCode::OK } else { axum::http::StatusCode::NOT_FOUND };
        (status, [("content-type", "application/json")], r#"{"Version":"1.0","Os":"linux","Arch":"amd64"}"#)
    });
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let old = at(host).probe().await;
    assert!(matches!(&old, Err(BuildError::Engine { message, .. }) if message.contains("has no BuildKit")), "{old:?}");
    server.abort();
}

#[tokio::test]
async fn a_build_gets_its_arguments_target_labels_secret_and_only_the_files_it_reads() {
    let bench = Bench::with(vec![("TOKEN".to_owned(), "s3cret-value".to_owned())], Logins::default());
    let dockerfile = "FROM BASE AS one\nARG WHO\nCOPY link/a*.txt /in/\n\
        RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = s3cret-value && echo hello $WHO\nFROM one\nRUN false";
    let mut plan = bench.plan(dockerfile);
    plan.target = Some("one".to_owned());
    plan.args.insert("WHO".to_owned(), "world".to_owned());
    plan.secrets.insert("token".to_owned(), SecretSource::Env("TOKEN".to_owned()));
    bench.write("sub/deep/a1.txt", "1");
    bench.write("sub/deep/a2.txt", "2");
    bench.write("sub/deep/b.txt", "3");
    std::os::unix::fs::symlink("sub/deep", bench.dir.path().join("link")).unwrap();
    // A file that cannot travel, where nobody reads.
    std::fs::create_dir(bench.dir.path().join("other")).unwrap();
    std::fs::write(bench.dir.path().join("other").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();

    let mut told = Told::new();
    let id = bench.build(&plan, &told).await.unwrap();
    assert_eq!(bench.run(&id, "cd /in && echo *"), "a1.txt a2.txt");
    let label = "{{index .Config.Labels \"org.opencontainers.image.revision\"}}";
    assert_eq!(sh(Command::new("docker").args(["image", "inspect", "-f", label, id.as_str()])), "0123");
    assert_eq!(bench.docker.image_id(id.as_str()).await.unwrap(), Some(id.clone()));
    let lines = told.lines();
    assert!(lines.iter().any(|line| line == "log Out hello world"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("step cached=false done=true [one 3/3] RUN")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("s3cret-value") && !line.contains("RUN")), "{lines:#?}");

    let again = bench.build(&plan, &told).await.unwrap();
    assert_eq!(again, id);
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.starts_with("step cached=true done=true [one 3/3] RUN")), "{lines:#?}");
}

#[tokio::test]
async fn a_file_that_cannot_travel_is_named() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\nCOPY . /src");
    std::fs::write(bench.dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Failed { message, .. } if message.contains("is no UTF-8")), "{error:?}");
}

#[tokio::test]
async fn dockerignore_has_dockers_semantics_and_the_dockerfiles_own_wins() {
    let bench = Bench::new();
    for path in ["a.log", "keep.log", "d/a.log", "d/tmp/x", "e/in/only", "e/out"] {
        bench.write(path, "");
    }
    let list = "cd /src; for f in * */* */*/*; do test -f $f && echo $f; done; true";
    bench.write(".dockerignore", "*.log\n!keep.log\n**/tmp\ne\n!e/in\n");
    let plan = bench.plan("FROM BASE\nCOPY . /src");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, list), "Dockerfile\nkeep.log\nd/a.log\ne/in/only");
    bench.write("Dockerfile.dockerignore", "*\n!d\n");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, list), "d/a.log\nd/tmp/x");
}

#[tokio::test]
async fn a_dockerfile_may_lie_outside_of_the_context() {
    let bench = Bench::new();
    bench.write("app/file", "x");
    let mut plan = bench.plan("FROM BASE\nCOPY . /src");
    plan.context = bench.dir.path().join("app");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, "cd /src && echo *"), "file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_builds_at_once_of_thousands_of_files() {
    let bench = Bench::new();
    for number in 0..4000 {
        bench.write(&format!("files/d{}/f{number}", number % 40), &format!("content {number}"));
    }
    let plans: Vec<ImageBuild> = (0..8)
        .map(|number| {
            let plan = bench.plan("FROM BASE\nARG N\nCOPY files /files\nRUN set -- /files/*/*; echo $# of $N");
            ImageBuild { args: BTreeMap::from([("N".to_owned(), number.to_string())]), ..plan }
        })
        .collect();
    let mut told: Vec<Told> = plans.iter().map(|_| Told::new()).collect();
    let results = futures_util::future::join_all(plans.iter().zip(&told).map(|(plan, told)| bench.build(plan, told))).await;
    for (number, result) in results.into_iter().enumerate() {
        result.unwrap();
        let lines = told[number].lines();
        assert!(lines.iter().any(|line| *line == format!("log Out 4000 of {number}")), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_failing_step_has_its_line_and_its_log() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\n\nRUN echo first >&2 && \\\n  echo oops >&2 && exit 7\nRUN true");
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    let BuildError::Failed { message, log } = error else { panic!("{error:?}") };
    assert!(message.contains("exit code: 7") && message.contains("\n --> Dockerfile:3\n"), "{message}");
    assert!(message.contains("\n > 4 |   echo oops >&2 && exit 7"), "{message}");
    assert_eq!(log, ["first", "oops"]);
}

#[tokio::test]
async fn a_syntax_error_has_its_line() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\nRUNN true");
    let error = bench.build(&plan, &Told::new()).await.unwrap_err().to_string();
    assert!(error.contains("unknown instruction: RUNN") && error.contains(" > 2 | RUNN true"), "{error}");
}

#[tokio::test]
async fn a_secret_nobody_provides_stops_the_build_before_it_starts() {
    let bench = Bench::new();
    let mut told = Told::new();
    let plan = bench.plan("FROM BASE\nRUN --mount=type=secret,id=token true");
    let error = bench.build(&plan, &told).await.unwrap_err();
    assert!(matches!(&error, BuildError::Missing { message, .. } if message.contains("secret `token`")), "{error:?}");
    assert!(told.lines().is_empty());
}

#[tokio::test]
async fn the_ssh_agent_answers_inside_a_build() {
    let bench = Bench::new();
    let socket = bench.dir.path().join("agent.sock");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    // The only program at hand that speaks to an agent, with the libraries it wants.
    for file in sh(Command::new("sh").args(["-c", "ldd /usr/bin/ssh-add | grep -o '/[^ ]*'; echo /usr/bin/ssh-add"])).lines() {
        let copy = bench.dir.path().join("root").join(file.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
    let mut plan = bench.plan("FROM BASE\nCOPY root /\nRUN --mount=type=ssh ssh-add -l || true");
    plan.ssh.insert("default".to_owned(), SshSource::Socket(socket));
    let mut told = Told::new();
    let built = bench.build(&plan, &told).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let lines = told.lines();
    built.unwrap();
    assert!(lines.iter().any(|line| line == "log Out The agent has no identities."), "{lines:#?}");
}

fn runs(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|part| part == argument.as_bytes())
    })
}

#[tokio::test]
async fn cancelling_ends_the_engines_step() {
    let bench = Bench::new();
    let seconds = format!("{}", 900_000 + fastrand::u32(0..90_000));
    let plan = bench.plan(&format!("FROM BASE\nRUN echo begun; exec sleep {seconds}"));
    let mut told = Told::new();
    let cancel = CancellationToken::new();
    let progress = told.progress.clone();
    let labels = BTreeMap::new();
    let build = bench.docker.build(&plan, &labels, &progress, &cancel);
    let stop = async {
        told.until("log Out begun").await;
        cancel.cancel();
    };
    let (built, ()) = tokio::join!(build, stop);
    assert!(matches!(built, Err(BuildError::Cancelled)), "{built:?}");
    while runs(&seconds) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_engine_is_an_error_and_no_hang() {
    // A socket of ours in front of the engine's, whose connections end when told.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let cut = CancellationToken::new();
    let relay = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cut = relay.clone();
            tokio::spawn(async move {
                let mut far = tokio::net::UnixStream::connect("/var/run/docker.sock").await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    });
    let bench = Bench::with(vec![("DOCKER_HOST".to_owned(), format!("unix://{}", path.display()))], Logins::default());
    let plan = bench.plan(&format!("FROM BASE\nRUN echo begun {}; exec sleep 1000", unique()));
    let mut told = Told::new();
    let progress = told.progress.clone();
    let labels = BTreeMap::new();
    let never = CancellationToken::new();
    let build = bench.docker.build(&plan, &labels, &progress, &never);
    let stop = async {
        told.until("log Out begun").await;
        cut.cancel();
    };
    let (built, ()) = tokio::join!(build, stop);
    assert!(matches!(&built, Err(BuildError::Engine { message, .. }) if message.contains("was lost")), "{built:?}");
}

#[tokio::test]
async fn what_buildkit_keeps_to_itself_is_told() {
    let bench = Bench::new();
    let mut plan = bench.plan("FROM BASE\nRUN head -c 4000000 /dev/zero | od -v");
    plan.cache_from.push(ImageRef::parse(&format!("127.0.0.1:{}/cache:x", free_port())).unwrap());
    plan.inline_cache = true;
    plan.no_cache = true;
    let mut told = Told::new();
    bench.build(&plan, &told).await.unwrap();
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.starts_with("notice the build goes on without a cache")), "no cache notice");
    assert!(lines.iter().any(|line| line.starts_with("notice BuildKit clipped the log of")), "no clip notice");
}

#[tokio::test]
async fn keys_the_engine_does_not_know_are_refused_and_others_work() {
    let bench = Bench::new();
    bench.write("extra/file", "x");
    let context = NamedContext::Directory(bench.dir.path().join("extra"));
    let named = ImageBuild {
        contexts: BTreeMap::from([("extra".to_owned(), context)]),
        ..bench.plan("FROM BASE\nCOPY --from=extra file /file\nRUN --mount=type=bind,from=extra,target=/m cat /m/file")
    };
    let shm = ImageBuild { shm_size: Some(8 << 20), ..bench.plan("FROM BASE") };
    let new = bench.docker.probe().await.unwrap().version.split('.').next().and_then(|major| major.parse::<u32>().ok()) >= Some(23);
    for (key, plan) in [("additional_contexts", named), ("shm_size", shm)] {
        let text = std::fs::read_to_string(&plan.dockerfile).unwrap();
        let built = bench.build(&plan, &Told::new()).await;
        match built {
            Ok(_) => assert!(new, "{key} was ignored with {text}"),
            Err(error) => assert!(!new && error.to_string().starts_with(&format!("`build: {key}:` cannot be honoured")), "{error}"),
        }
    }
    let hosts = BTreeMap::from([("db.example".to_owned(), "10.1.2.3".to_owned())]);
    let plan = bench.plan("FROM BASE\nRUN --network=none true\nRUN cat /etc/hosts");
    let plan = ImageBuild { extra_hosts: hosts, network: Some("none".to_owned()), ..plan };
    std::fs::write(&plan.dockerfile, format!("FROM {}\nRUN cat /etc/hosts", bench.base.name)).unwrap();
    let mut told = Told::new();
    bench.build(&plan, &told).await.unwrap();
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.contains("10.1.2.3") && line.contains("db.example")), "{lines:#?}");
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_push_needs_the_right_password_and_a_registry() {
    let home = home();
    let registry = RealRegistry::start(home.path());
    let mut bench = Bench::new();
    bench.base = Base::import().and_images_of(&registry.host);
    let plan = bench.plan("FROM BASE\nRUN head -c 3000000 /dev/urandom > /big");
    let mut told = Told::new();
    let id = bench.build(&plan, &told).await.unwrap();
    let repository = Repository::parse(&format!("{}/{}", registry.host, unique())).unwrap();
    bench.docker.tag(id.as_str(), &repository, "v1").await.unwrap();
    assert_eq!(bench.docker.layers(id.as_str()).await.unwrap().len(), 2);
    let never = CancellationToken::new();

    let wrong = bench.docker.push(&repository, "v1", Some(&login("wrong-password")), &told.progress, &never).await;
    assert!(matches!(&wrong, Err(BuildError::Registry { login: true, .. })), "{wrong:?}");
    told.lines();
    let digest = bench.docker.push(&repository, "v1", Some(&login(PASSWORD)), &told.progress, &never).await.unwrap();
    assert!(told.lines().iter().any(|line| line.starts_with("Transfer")), "no transfer was told");
    let answer = registry_digest(&registry.host, &repository.path);
    assert_eq!(answer, digest.as_str());
    // Pushed again it is the same.
    assert_eq!(bench.docker.push(&repository, "v1", Some(&login(PASSWORD)), &told.progress, &never).await.unwrap(), digest);

    let nobody = Repository::parse(&format!("127.0.0.1:{}/x", free_port())).unwrap();
    bench.docker.tag(id.as_str(), &nobody, "v1").await.unwrap();
    let refused = bench.docker.push(&nobody, "v1", None, &told.progress, &never).await;
    bench.docker.untag(&format!("{nobody}:v1")).await.unwrap();
    assert!(matches!(&refused, Err(BuildError::Registry { login: false, message }) if message.contains("refused")), "{refused:?}");

    // With its last name the image goes, and comes back by its digest.
    let reference = format!("{repository}:v1");
    bench.docker.untag(&reference).await.unwrap();
    bench.docker.untag(&reference).await.unwrap();
    assert_eq!(bench.docker.image_id(&reference).await.unwrap(), None);
    bench.docker.pull(&repository, &digest, Some(&login(PASSWORD))).await.unwrap();
    assert_eq!(bench.docker.image_id(&format!("{repository}@{digest}")).await.unwrap(), Some(id.clone()));
    bench.docker.untag(&format!("{repository}@{digest}")).await.unwrap();

    let gone = bench.docker.push(&repository, "v2", Some(&login(PASSWORD)), &told.progress, &never).await;
    assert!(matches!(&gone, Err(BuildError::Missing { .. })), "{gone:?}");
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let stopped = bench.docker.push(&repository, "v1", None, &told.progress, &cancelled).await;
    assert!(matches!(stopped, Err(BuildError::Cancelled)), "{stopped:?}");
}

fn registry_digest(host: &str, path: &str) -> String {
    let accept = "Accept: application/vnd.docker.distribution.manifest.v2+json";
    let user = format!("{USER}:{PASSWORD}");
    let url = format!("http://{host}/v2/{path}/manifests/v1");
    let head = sh(Command::new("curl").args(["-sf", "-I", "-u", &user, "-H", accept, &url]));
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("docker-content-digest:"));
    line.unwrap().split_once(':').unwrap().1.trim().to_owned()
}

#[tokio::test]
async fn a_private_base_image_is_pulled_with_the_sessions_login() {
    let home = home();
    let registry = RealRegistry::start(home.path());
    let logins = Logins(BTreeMap::from([(registry.host.clone(), login(PASSWORD))]));
    let mut bench = Bench::with(Vec::new(), logins);
    bench.base = Base::import().and_images_of(&registry.host);
    let repository = Repository::parse(&format!("{}/{}", registry.host, unique())).unwrap();
    let base = format!("{}:latest", bench.base.name);
    bench.docker.tag(&base, &repository, "v1").await.unwrap();
    let told = Told::new();
    bench.docker.push(&repository, "v1", Some(&login(PASSWORD)), &told.progress, &CancellationToken::new()).await.unwrap();
    bench.docker.untag(&format!("{repository}:v1")).await.unwrap();

    let plan = bench.plan("FROM PRIVATE\nRUN true");
    std::fs::write(&plan.dockerfile, format!("FROM {repository}:v1\nRUN true")).unwrap();
    let stranger = connect(Vec::new(), Logins::default()).unwrap();
    let refused = stranger.build(&plan, &BTreeMap::new(), &told.progress, &CancellationToken::new()).await;
    assert!(matches!(&refused, Err(BuildError::Failed { .. })), "{refused:?}");
    bench.build(&plan, &told).await.unwrap();
}

#[tokio::test]
async fn a_missing_directory_is_found_before_the_build() {
    let bench = Bench::new();
    let plan = ImageBuild { context: Path::new("/nowhere/at/all").to_owned(), ..bench.plan("FROM BASE") };
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Missing { message, .. } if message.contains("the build context")), "{error:?}");
}
