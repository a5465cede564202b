//! What is live, errors, rollbacks, certificates.

use super::*;

#[tokio::test]
async fn what_is_live_is_walked_from_app_to_commit() {
    let mut old = build("complete", "ROLD");
    old["id"] = json!("BOLD");
    let server =
        v3().on("GET /apps/web/builds/BOLD", [ok(old)]).on("GET /apps/web/builds/BNEW", [ok(build("complete", "RNEW"))]).serve().await;
    let live = client(&server).live("web").await.unwrap();
    assert_eq!(server.only("GET /apps/web/releases").query, "limit=20");
    assert_eq!((live.status, live.generation), (AppStatus::Running, 2));
    let active = live.release.unwrap();
    assert_eq!((active.id.as_str(), active.revision.as_deref(), active.created.minute()), ("ROLD", Some("old"), 1));
    assert_eq!(active.build.unwrap().commit.unwrap().as_str(), SHA);
    let newer = live.newer.unwrap();
    assert_eq!((newer.id.as_str(), newer.build_description.as_str()), ("RNEW", "deploy [tok-1]"));
}

#[tokio::test]
async fn what_a_rack_has_deleted_is_no_error() {
    let gone = |what: &'static str| Reply::Json(500, json!({"error": what}));
    let server = v3()
        .on("GET /apps/web/releases/ROLD", [gone("releases.convox.com \"rold\" not found")])
        .on("GET /apps/web/builds/BNEW", [gone("builds.convox.com \"bnew\" not found")])
        .serve()
        .await;
    let live = client(&server).live("web").await.unwrap();
    let active = live.release.unwrap();
    assert_eq!((active.id.as_str(), active.build), ("ROLD", None));
    assert_eq!(live.newer.unwrap().commit, None);

    let server = v2().on(APP, [app("running", "")]).on("GET /apps/web/releases", [ok(json!([]))]).serve().await;
    let live = client(&server).live("web").await.unwrap();
    assert_eq!((live.release, live.newer), (None, None));
}

#[tokio::test]
async fn errors_are_told_apart() {
    let live = async |script: Script| client(&script.serve().await).live("web").await.map(|_| ()).map_err(|error| error.to_string());
    let refused = v2().on(APP, [Reply::Text(401, "invalid authentication\n")]);
    let expected = "rack `prod` refused the login: invalid authentication (user `convox`, host `";
    assert!(live(refused).await.unwrap_err().starts_with(expected));
    let none = v3().on(APP, [Reply::Json(404, json!({"error": "app not found: web"}))]);
    assert_eq!(live(none).await.unwrap_err(), "app `web` does not exist on rack `prod`");
    let unknown = live(v2().on(APP, [Reply::Text(404, "")])).await.unwrap_err();
    assert!(unknown.contains("does not know the call for app `web`"), "{unknown}");
    let flaky = |replies: Vec<Reply>| {
        v2().on(APP, replies)
            .on("GET /apps/web/builds/BOLD", [ok(build("complete", "ROLD"))])
            .on("GET /apps/web/builds/BNEW", [ok(build("complete", "RNEW"))])
    };
    let mut once = vec![Reply::Text(500, "Throttling: Rate exceeded"), Reply::Text(503, "<html>"), Reply::Cut];
    once.push(app("running", "ROLD"));
    assert_eq!(live(flaky(once)).await, Ok(()));
    let gone = live(flaky(vec![Reply::Text(503, "<html>")])).await.unwrap_err();
    assert_eq!(gone, "rack `prod` cannot be reached: status 503: the rack does not answer its balancer (asked for app `web`)");
}

#[tokio::test]
async fn the_console_is_given_the_rack_and_the_session_it_asks_for() {
    let script = v3()
        .on("GET /apps", [Reply::Demand("Session path=\"/session\" token=\"false\""), ok(json!([]))])
        .on("POST /session", [ok(json!({"id": "s-1"}))]);
    let server = script.serve().await;
    let login = RackLogin { relayed: Some("acme/prod".to_owned()), ..login("http", &server.host) };
    let console = Convox::new(&config(None), login, Duration::from_millis(20)).unwrap();
    console.apps().await.unwrap();
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.headers["rack"] == "acme/prod"), "{seen:?}");
    assert_eq!(seen.last().unwrap().headers["session"], "s-1");

    let server = v3().on("GET /apps", [Reply::Demand("Session path=\"/session\" token=\"true\"")]).serve().await;
    let error = client(&server).apps().await.unwrap_err();
    assert!(error.to_string().contains("use a deploy key"), "{error}");
    assert!(server.changes().is_empty());
}

#[tokio::test]
async fn a_rack_is_known_by_its_answer() {
    let info = async |script: Script| client(&script.serve().await).info().await;
    assert_eq!(info(v2()).await.unwrap().major, 2);
    assert_eq!(info(v3()).await.unwrap().major, 3);
    let apps = |generation: &str| [ok(json!([{"name": "web", "generation": generation, "status": "running", "release": ""}]))];
    assert_eq!(info(rack("dev").on("GET /apps", apps("3"))).await.unwrap().major, 3);
    assert_eq!(info(rack("dev").on("GET /apps", apps("2"))).await.unwrap().major, 2);
    for script in [rack("20170101000000"), Script::default(), Script::default().on("GET /system", [Reply::Text(200, "<html>")])] {
        let error = info(script).await.unwrap_err();
        assert!(matches!(error, RackError::Unsupported { .. }), "{error}");
    }
    let nobody = Convox::new(&config(None), login("http", "127.0.0.1:1"), Duration::from_millis(5)).unwrap();
    assert!(matches!(nobody.info().await.unwrap_err(), RackError::Unreachable { .. }));
}

#[tokio::test]
async fn a_copy_is_a_new_release_with_the_old_build_and_env() {
    let server = v3().on("POST /apps/web/releases", [ok(release("RBACK", "BOLD", "", 9))]).serve().await;
    let id = client(&server).copy("web", &ReleaseId::new("ROLD").unwrap(), &Copying::Heal, &CancellationToken::new()).await.unwrap();
    assert_eq!(id.as_str(), "RBACK");
    let form = server.only("POST /apps/web/releases").form();
    assert_eq!((form["build"].as_str(), form["env"].as_str()), ("BOLD", "A=1\nREVISION=old"));
    assert_eq!(
        (form["description"].as_str(), form["parent-release"].as_str()),
        ("[offbuild heal] copy of ROLD, the active release", "ROLD")
    );
}

/// A key and a certificate that signed itself, for `name`, in a directory that ends with the value.
fn self_signed(name: &str) -> (tempfile::TempDir, PathBuf, rustls::ServerConfig) {
    use rustls::pki_types::pem::PemObject as _;
    let dir = tempfile::tempdir().unwrap();
    let (key, cert) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}"), "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(&cert).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (dir, cert, builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

#[tokio::test]
async fn a_certificate_of_its_own_is_refused_until_it_is_known() {
    let (_dir, cert, tls) = self_signed("rack.internal");
    let (_other_dir, other, _) = self_signed("rack.internal");
    let log = vec![Message::Text(b"over tls\n"), Message::End];
    let script = building(build("complete", "RNEW")).on("WS /apps/web/builds/BNEW/logs", [Reply::Socket(log)]);
    let server = script.serve_tls(tls).await;
    for ca_file in [None, Some(other)] {
        let stranger = Convox::new(&config(ca_file), login("https", &server.host), Duration::from_millis(20)).unwrap();
        let error = stranger.info().await.unwrap_err();
        let RackError::Unreachable { hint: Some(hint), .. } = &error else { panic!("{error:?}") };
        assert!(hint.contains("racks.prod.ca_file"), "{hint}");
    }
    assert!(server.seen().is_empty(), "nothing is sent to a rack that is not known");
    let friend = Convox::new(&config(Some(cert)), login("https", &server.host), Duration::from_millis(20)).unwrap();
    let (progress, receiver) = progress(Stage::Stage);
    let staged = friend.stage(&request(Deliver::Build), &Mover::default(), &progress, &CancellationToken::new()).await;
    assert_eq!(staged.unwrap().release.as_str(), "RNEW");
    assert_eq!(told(receiver), ["over tls"]);
    let missing = Convox::new(&config(Some("/nowhere/ca.pem".into())), login("https", &server.host), Duration::from_millis(20));
    assert!(missing.err().unwrap().to_string().contains("/nowhere/ca.pem"));
}
