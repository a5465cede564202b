//! ECR as moto plays it, and as a server in the test plays what moto does not.
//!
//! The SDK reads its settings from the environment, which a test must not change under the others: the cases run in a
//! child process, this same test again.

use super::server::{DockerRegistry, Image, MANIFEST, Server, sha256};
use super::{found, repository, tags};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use offbuild::config::RegistrySettings;
use offbuild::names::{Digest, Repository};
use offbuild::registry::registries::Registries;
use offbuild::registry::{CreateOptions, Registry as _, RegistryError};
use offbuild::secret::Redactor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const IN_CHILD: &str = "OFFBUILD_TEST_IN_CHILD";
/// A registry of the account moto plays.
const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const ACCOUNT_PASSWORD: &str = "123456789012-auth-token";

fn in_child() -> bool {
    std::env::var_os(IN_CHILD).is_some()
}

/// Runs the test called `name` again, in a process with nothing but this environment.
async fn again(name: &str, env: &[(&str, &str)]) {
    let home = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env(IN_CHILD, "1")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

fn keys(endpoint: &str) -> [(&str, &str); 3] {
    [("AWS_ENDPOINT_URL_ECR", endpoint), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "hunter22hunter22")]
}

/// moto's server: the one in `OFFBUILD_TEST_MOTO`, else the one of `target/moto-venv`.
fn moto_server() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto-venv/bin/moto_server");
    let path = std::env::var_os("OFFBUILD_TEST_MOTO").map_or(own, PathBuf::from);
    assert!(
        path.is_file(),
        "`{}` is missing: run `python3 -m venv target/moto-venv && target/moto-venv/bin/pip install 'moto[server]'`, or set OFFBUILD_TEST_MOTO",
        path.display()
    );
    path
}

fn registries(settings: &[(&str, RegistrySettings)]) -> Registries {
    registries_masked_by(Redactor::default(), settings)
}

fn registries_masked_by(redactor: Redactor, settings: &[(&str, RegistrySettings)]) -> Registries {
    let settings = settings.iter().map(|(host, settings)| ((*host).to_owned(), settings.clone())).collect();
    Registries::new(settings, Arc::new(|name| std::env::var(name).ok()), redactor)
}

/// Puts an image into moto.
async fn put(client: &aws_sdk_ecr::Client, path: &str, tag: &str, image: &Image) -> Digest {
    let manifest = String::from_utf8(image.manifest()).unwrap();
    let digest = sha256(manifest.as_bytes());
    let put = client.put_image().repository_name(path).image_manifest(manifest).image_manifest_media_type(MANIFEST);
    put.image_digest(digest.as_str()).image_tag(tag).send().await.unwrap();
    digest
}

/// A client of the tests' own, with what the environment says.
async fn client(region: &str) -> aws_sdk_ecr::Client {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let loader = aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(http);
    aws_sdk_ecr::Client::new(&loader.region(aws_config::Region::new(region.to_owned())).load().await)
}

#[tokio::test]
async fn repositories_tags_and_tokens_of_ecr() {
    if !in_child() {
        let program = moto_server();
        let (_moto, host) = Server::start(|port| {
            let mut command = Command::new(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            command
        })
        .await;
        return again("registry::ecr::repositories_tags_and_tokens_of_ecr", &keys(&format!("http://{host}"))).await;
    }
    a_missing_repository_is_made_as_asked().await;
    images_are_found_and_tagged_again().await;
    an_immutable_tag_stays_what_it_is().await;
    a_token_is_a_login().await;
    behind_another_host_the_api_is_asked_all_the_same().await;
}

async fn a_missing_repository_is_made_as_asked() {
    let registries = registries(&[]);
    let web = repository(HOST, "team/made");
    assert_eq!(registries.find(&web, &tags(&["x"])).await.unwrap(), found(&[]));
    let error = registries.ensure(&web, None).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoRepository { .. }), "{error}");
    assert!(error.hint().unwrap().contains("aws ecr create-repository --region eu-west-1 --repository-name team/made"));

    let policy = r#"{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":9},"action":{"type":"expire"}}]}"#;
    let options = CreateOptions { immutable: true, scan_on_push: true, lifecycle_policy: Some(policy.to_owned()) };
    // Whoever comes second in a race finds it made.
    let (one, two) = tokio::join!(registries.ensure(&web, Some(&options)), registries.ensure(&web, Some(&options)));
    assert_eq!([one.unwrap(), two.unwrap()].iter().filter(|made| **made).count(), 1);
    assert!(!registries.ensure(&web, Some(&options)).await.unwrap());
    assert!(!registries.ensure(&web, None).await.unwrap());

    let client = client("eu-west-1").await;
    let made = client.describe_repositories().repository_names("team/made").send().await.unwrap();
    let made = &made.repositories()[0];
    assert_eq!(made.image_tag_mutability(), Some(&aws_sdk_ecr::types::ImageTagMutability::Immutable));
    assert!(made.image_scanning_configuration().unwrap().scan_on_push());
    let kept = client.get_lifecycle_policy().repository_name("team/made").send().await.unwrap();
    assert!(kept.lifecycle_policy_text().unwrap().contains("imageCountMoreThan"));
}

async fn images_are_found_and_tagged_again() {
    let registries = registries(&[]);
    let web = repository(HOST, "found");
    registries.ensure(&web, Some(&CreateOptions::default())).await.unwrap();
    let client = client("eu-west-1").await;
    let one = put(&client, "found", "one", &Image::labelled("revision", "1")).await;
    let two = put(&client, "found", "two", &Image::labelled("revision", "2")).await;
    let mut wanted: Vec<String> = (0..250).map(|i| format!("absent{i}")).collect();
    wanted.extend(tags(&["one", "two", "one"]));
    assert_eq!(registries.find(&web, &wanted).await.unwrap(), found(&[("one", &one), ("two", &two)]));

    registries.retag(&web, &one, "again").await.unwrap();
    registries.retag(&web, &one, "again").await.unwrap();
    assert_eq!(registries.find(&web, &tags(&["again"])).await.unwrap()["again"], one);
    let absent = Digest::new(format!("sha256:{}", "0".repeat(64))).unwrap();
    let error = registries.retag(&web, &absent, "x").await.unwrap_err().to_string();
    assert!(error.contains("does not exist"), "{error}");
    let error = registries.retag(&repository(HOST, "none"), &absent, "x").await.unwrap_err();
    assert!(matches!(error, RegistryError::NoRepository { .. }), "{error}");
}

async fn an_immutable_tag_stays_what_it_is() {
    let registries = registries(&[]);
    let web = repository(HOST, "immutable");
    registries.ensure(&web, Some(&CreateOptions { immutable: true, ..CreateOptions::default() })).await.unwrap();
    let client = client("eu-west-1").await;
    let one = put(&client, "immutable", "one", &Image::labelled("revision", "1")).await;
    let two = put(&client, "immutable", "two", &Image::labelled("revision", "2")).await;
    registries.retag(&web, &one, "one").await.unwrap();
    let error = registries.retag(&web, &two, "one").await.unwrap_err().to_string();
    assert!(error.contains(one.as_str()) && error.contains(two.as_str()), "{error}");
    assert_eq!(registries.find(&web, &tags(&["one"])).await.unwrap()["one"], one);
}

async fn a_token_is_a_login() {
    let redactor = Redactor::default();
    let registries = registries_masked_by(redactor.clone(), &[]);
    // moto's tokens ended in 2015, which must not mean one request per use, nor none at all.
    for fresh in [false, false, true] {
        let login = registries.login(HOST, fresh).await.unwrap().unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("AWS", ACCOUNT_PASSWORD));
    }
    assert_eq!(redactor.redact(&format!("denied: {ACCOUNT_PASSWORD}")), "denied: ***");
}

async fn behind_another_host_the_api_is_asked_all_the_same() {
    // A real registry stands for the proxy: labels and layers come from there, with ECR's token.
    let proxy = DockerRegistry::start(Some(("AWS", ACCOUNT_PASSWORD))).await;
    let ecr = RegistrySettings { ecr: true, region: Some("eu-central-1".to_owned()), insecure: false };
    let registries = registries(&[(&proxy.host, ecr)]);
    let web = repository(&proxy.host, "team/web");
    assert!(registries.ensure(&web, Some(&CreateOptions::default())).await.unwrap());
    let image = Image::labelled("revision", "7");
    let digest = put(&client("eu-central-1").await, "team/web", "one", &image).await;
    proxy.push("team/web", "other", &image).await;
    assert_eq!(registries.find(&web, &tags(&["one", "other"])).await.unwrap(), found(&[("one", &digest)]));
    assert_eq!(registries.labels(&web, &digest).await.unwrap()["revision"], "7");
}

#[tokio::test]
async fn without_credentials_ecr_says_how_to_give_some() {
    if !in_child() {
        let name = "registry::ecr::without_credentials_ecr_says_how_to_give_some";
        return again(name, &[("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:9")]).await;
    }
    let error = registries(&[]).login(HOST, false).await.unwrap_err();
    let RegistryError::Login { hint, .. } = &error else { panic!("{error}") };
    assert!(hint.contains("`AWS_ACCESS_KEY_ID`"), "{hint}");
}

#[tokio::test]
async fn an_expired_single_sign_on_says_how_to_log_in_again() {
    if !in_child() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let profile = "[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://127.0.0.1/start\n\
                       [default]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = ci\n";
        std::fs::write(&config, profile).unwrap();
        let env = [("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:9"), ("AWS_CONFIG_FILE", config.to_str().unwrap())];
        return again("registry::ecr::an_expired_single_sign_on_says_how_to_log_in_again", &env).await;
    }
    // No token was ever cached, which is what one that has ended looks like after a while.
    let error = registries(&[]).login(HOST, false).await.unwrap_err();
    let RegistryError::Login { hint, .. } = &error else { panic!("{error}") };
    assert!(hint.contains("`aws sso login`"), "{error}: {hint}");
}

#[tokio::test]
async fn an_ecr_that_does_not_answer_is_unreachable() {
    if !in_child() {
        return again("registry::ecr::an_ecr_that_does_not_answer_is_unreachable", &keys("http://127.0.0.1:9")).await;
    }
    let error = registries(&[]).find(&repository(HOST, "web"), &tags(&["x"])).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("refused") && !error.to_string().contains("hunter22"), "{error}");
}

/// Plays an ECR that gives tokens for twelve hours and allows nothing else. Counts calls by operation and region.
async fn strict_ecr() -> (String, Arc<Mutex<BTreeMap<String, u32>>>) {
    let calls = Arc::new(Mutex::new(BTreeMap::new()));
    let record = Arc::clone(&calls);
    let answer = async move |headers: HeaderMap| {
        let text = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
        let operation = text("x-amz-target").rsplit('.').next().unwrap().to_owned();
        let region = text("authorization").split('/').nth(2).unwrap().to_owned();
        *record.lock().unwrap().entry(format!("{operation} {region}")).or_insert(0) += 1;
        let kind = [("content-type", "application/x-amz-json-1.1")];
        if operation == "GetAuthorizationToken" {
            let end = time::OffsetDateTime::now_utc().unix_timestamp() + 12 * 3600;
            // QVdTOnA= is AWS:p
            return (StatusCode::OK, kind, format!(r#"{{"authorizationData":[{{"authorizationToken":"QVdTOnA=","expiresAt":{end}}}]}}"#));
        }
        let body = r#"{"__type":"AccessDeniedException","message":"User: arn:aws:iam::123456789012:user/ci is not authorized"}"#;
        (StatusCode::BAD_REQUEST, kind, body.to_owned())
    };
    let answer = async move |headers: HeaderMap| answer(headers).await.into_response();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, calls)
}

#[tokio::test]
async fn a_token_is_shared_and_a_refusal_names_what_to_allow() {
    if !in_child() {
        let (url, calls) = strict_ecr().await;
        let mut env = keys(&url).to_vec();
        env.push(("AWS_DEFAULT_REGION", "ap-south-1"));
        again("registry::ecr::a_token_is_shared_and_a_refusal_names_what_to_allow", &env).await;
        let expected = [("BatchGetImage eu-west-1", 1), ("GetAuthorizationToken ap-south-1", 1), ("GetAuthorizationToken eu-west-1", 2)];
        let calls: Vec<(String, u32)> = calls.lock().unwrap().clone().into_iter().collect();
        assert_eq!(calls, expected.map(|(name, count)| (name.to_owned(), count)));
        return;
    }
    let proxy = "registry.example.com";
    let registries = registries(&[(proxy, RegistrySettings { ecr: true, ..RegistrySettings::default() })]);
    for fresh in [false, true, false] {
        let all = futures_util::future::join_all((0..10).map(|_| registries.login(HOST, fresh))).await;
        assert!(all.into_iter().all(|login| login.unwrap().unwrap().password.expose() == "p"));
    }
    // No region in the host's name: the environment's.
    registries.login(proxy, false).await.unwrap();
    let web: Repository = repository(HOST, "web");
    let error = registries.find(&web, &tags(&["x"])).await.unwrap_err();
    let RegistryError::Login { message, hint, .. } = &error else { panic!("{error}") };
    assert!(message.contains("user/ci is not authorized") && hint.contains("allow `ecr:BatchGetImage`"), "{message} / {hint}");
}
