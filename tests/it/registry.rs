//! Registries: the real distribution registry with a password file, one that wants tokens, and ECR as moto plays it.

mod ecr;
mod server;
mod tokens;

use offbuild::config::RegistrySettings;
use offbuild::names::{Digest, Repository};
use offbuild::registry::registries::{Env, Registries};
use offbuild::registry::{Registry as _, RegistryError};
use offbuild::secret::Redactor;
use server::{DockerRegistry, Image};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Registries that read Docker's config file from `config`, which is there as long as they are.
fn registries(config: tempfile::TempDir, settings: &[(&str, RegistrySettings)]) -> Registries {
    let settings = settings.iter().map(|(host, settings)| ((*host).to_owned(), settings.clone())).collect();
    let env: Env = Arc::new(move |name| (name == "DOCKER_CONFIG").then(|| config.path().display().to_string()));
    Registries::new(settings, env, Redactor::default())
}

/// Docker's config file with one login.
fn config(host: &str, user: &str, password: &str) -> tempfile::TempDir {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    config_of(&format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#))
}

fn config_of(text: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    dir
}

fn repository(host: &str, path: &str) -> Repository {
    Repository::parse(&format!("{host}/{path}")).unwrap()
}

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn found(pairs: &[(&str, &Digest)]) -> BTreeMap<String, Digest> {
    pairs.iter().map(|(tag, digest)| ((*tag).to_owned(), (*digest).clone())).collect()
}

#[tokio::test]
async fn an_image_is_found_tagged_again_and_its_labels_read() {
    let server = DockerRegistry::start(Some(("deploy", "hunter22"))).await;
    let config = config(&server.host, "deploy", "hunter22");
    let registries = registries(config, &[]);
    let web = repository(&server.host, "team/web");
    let one = server.push("team/web", "one", &Image::labelled("revision", "1")).await;
    let two = server.push("team/web", "two", &Image::labelled("revision", "2")).await;

    assert_eq!(registries.find(&web, &tags(&["one", "two", "three"])).await.unwrap(), found(&[("one", &one), ("two", &two)]));
    assert_eq!(registries.find(&repository(&server.host, "team/none"), &tags(&["one"])).await.unwrap(), found(&[]));
    assert_eq!(registries.labels(&web, &two).await.unwrap(), BTreeMap::from([("revision".to_owned(), "2".to_owned())]));

    registries.retag(&web, &one, "web.latest").await.unwrap();
    registries.retag(&web, &one, "web.latest").await.unwrap();
    assert_eq!(registries.find(&web, &tags(&["web.latest"])).await.unwrap(), found(&[("web.latest", &one)]));
    // A tag moves: what may not move is decided by who plans.
    registries.retag(&web, &two, "web.latest").await.unwrap();
    assert_eq!(registries.find(&web, &tags(&["web.latest"])).await.unwrap(), found(&[("web.latest", &two)]));

    assert!(!registries.ensure(&web, None).await.unwrap());
    let login = registries.login(&server.host, false).await.unwrap().unwrap();
    assert_eq!((login.user.as_str(), login.password.expose()), ("deploy", "hunter22"));
}

#[tokio::test]
async fn a_great_many_tags_are_found_over_few_connections() {
    let server = DockerRegistry::start(None).await;
    let registries = registries(config_of("{}"), &[]);
    let web = repository(&server.host, "web");
    let digest = server.push("web", "t0", &Image::labelled("a", "b")).await;
    let names: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
    assert_eq!(registries.find(&web, &names).await.unwrap(), found(&[("t0", &digest)]));
    assert_eq!(registries.login(&server.host, false).await.unwrap(), None);
}

#[tokio::test]
async fn the_labels_of_an_index_are_those_of_its_first_image() {
    let server = DockerRegistry::start(None).await;
    let registries = registries(config_of("{}"), &[]);
    let web = repository(&server.host, "web");
    let attestation = server.push("web", "x", &Image::labelled("revision", "no")).await;
    let image = server.push("web", "y", &Image::labelled("revision", "yes")).await;
    let index = server.push_index("web", "z", &[(&attestation, "unknown"), (&image, "linux")]).await;
    assert_eq!(registries.find(&web, &tags(&["z"])).await.unwrap(), found(&[("z", &index)]));
    assert_eq!(registries.labels(&web, &index).await.unwrap(), BTreeMap::from([("revision".to_owned(), "yes".to_owned())]));
    registries.retag(&web, &index, "again").await.unwrap();
    assert_eq!(registries.find(&web, &tags(&["again"])).await.unwrap(), found(&[("again", &index)]));
}

#[tokio::test]
async fn an_image_without_labels_has_none() {
    let server = DockerRegistry::start(None).await;
    let registries = registries(config_of("{}"), &[]);
    let web = repository(&server.host, "web");
    let digest = server.push("web", "x", &Image::bare()).await;
    assert_eq!(registries.labels(&web, &digest).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_wrong_or_missing_password_says_which_login_to_renew() {
    let server = DockerRegistry::start(Some(("deploy", "hunter22"))).await;
    let web = repository(&server.host, "web");
    let table = [
        (config(&server.host, "deploy", "hunter33"), "is wrong or may not do this: run `docker login HOST`"),
        (config_of("{}"), "Docker's config file has no login for it: run `docker login HOST`"),
    ];
    for (config, expected) in table {
        let registries = registries(config, &[]);
        let error = registries.find(&web, &tags(&["one"])).await.unwrap_err();
        let RegistryError::Login { hint, .. } = &error else { panic!("{error}") };
        assert!(hint.replace(&server.host, "HOST").contains(expected), "{hint}");
        assert!(!error.to_string().contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_apart() {
    let server = DockerRegistry::start(None).await;
    let registries = registries(config_of("{}"), &[]);
    let absent = Digest::new(format!("sha256:{}", "0".repeat(64))).unwrap();
    let none = repository(&server.host, "none");
    assert!(matches!(registries.labels(&none, &absent).await, Err(RegistryError::NoRepository { .. } | RegistryError::Failed { .. })));
    let error = registries.retag(&none, &absent, "x").await.unwrap_err().to_string();
    assert!(error.contains("none@sha256:000"), "{error}");
    let error = registries.find(&none, &tags(&["../../x"])).await.unwrap_err().to_string();
    assert!(error.contains("`../../x` cannot be a tag"), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_down_is_unreachable() {
    let server = DockerRegistry::start(None).await;
    let registries = registries(config_of("{}"), &[]);
    let web = repository(&server.host, "web");
    drop(server);
    let error = registries.find(&web, &tags(&["one"])).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}
