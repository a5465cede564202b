//! Pushes, pulls, and private base images.

use super::*;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn a_push_needs_the_right_password_and_a_registry() {
    let home = home();
    let registry = RealRegistry::start(home.path());
    let mut bench = Bench::new();
    bench.base = Base::import().and_images_of(&registry.host);
    let plan = bench.plan("FROM BASE\nRUN head -c 32000000 /dev/urandom > /big");
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

    let port = Port::hold();
    let nobody = Repository::parse(&format!("{}/x", port.host())).unwrap();
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
