//! Finding, losing and interrupting the engine.

use super::*;

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
    let nobody = Port::hold();
    let closed = at(format!("tcp://{}", nobody.host())).probe().await;
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

/// What becomes of a build after `then` was done once its step runs. One that ends before has failed to begin.
async fn once_begun<T: std::fmt::Debug>(build: impl Future<Output = T>, told: &mut Told, then: impl FnOnce()) -> T {
    tokio::pin!(build);
    tokio::select! {
        early = &mut build => panic!("the build ended before its step ran: {early:?}"),
        () = told.until("log Out begun") => {}
    }
    then();
    build.await
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
    let built = once_begun(build, &mut told, || cancel.cancel()).await;
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
                let mut far = tokio::net::UnixStream::connect(engine::socket()).await.unwrap();
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
    let built = once_begun(build, &mut told, || cut.cancel()).await;
    assert!(matches!(&built, Err(BuildError::Engine { message, .. }) if message.contains("was lost")), "{built:?}");
}

/// A certificate that signs itself, as Docker lays the files out.
fn certificates(dir: &Path) {
    crate::support::services::certificate("engine", &dir.join("cert.pem"), &dir.join("key.pem"));
    std::fs::copy(dir.join("cert.pem"), dir.join("ca.pem")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_behind_tls_is_verified_and_builds() {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(ours.path());
    certificates(others.path());
    let chain: Vec<_> = CertificateDer::pem_file_iter(ours.path().join("cert.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(ours.path().join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                let mut far = tokio::net::UnixStream::connect(engine::socket()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let vars = |certs: &Path| {
        let path = certs.display().to_string();
        let set = [("DOCKER_HOST", host.clone()), ("DOCKER_TLS_VERIFY", "1".to_owned()), ("DOCKER_CERT_PATH", path)];
        set.map(|(name, value)| (name.to_owned(), value)).to_vec()
    };
    let bench = Bench::with(vars(ours.path()), Logins::default());
    bench.write("file", "x");
    let plan = bench.plan("FROM BASE\nCOPY file /file");
    bench.build(&plan, &Told::new()).await.unwrap();

    let stranger = connect(vars(others.path()), Logins::default()).unwrap().probe().await;
    assert!(matches!(&stranger, Err(BuildError::Engine { message, .. }) if message.contains("certificate")), "{stranger:?}");
}
