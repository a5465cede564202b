//! A rack whose certificate nobody signed.

use super::bench::Bench;
use crate::support::services::certificate as self_signed;
use std::sync::Arc;

#[test]
fn a_rack_with_a_certificate_of_its_own() {
    let mut bench = Bench::released();
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    self_signed("rack", &certificate, &key);
    let address = serve(&bench, &certificate, &key);
    bench.set("STAGING_HOST", format!("https://{address}"));
    bench.called(address, "TLS");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 3
    error: rack `staging` cannot be reached: invalid peer certificate: UnknownIssuer
      next: if the rack has a certificate of its own, save it with `openssl s_client -connect TLS </dev/null | openssl x509 > rack.pem`, check that it is the rack's, and name the file in `racks.staging.ca_file`
    "#);
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));

    std::fs::copy(&certificate, bench.repo.path("rack.pem")).unwrap();
    bench.configure("racks: {staging: {host: \"${STAGING_HOST}\", password: \"${STAGING_PASSWORD}\", poll: 50ms, ca_file: rack.pem}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 0
    offbuild deploy COMMIT on main "Configure"
    run RUN
    web@staging: deploy: never deployed
    1 target to deploy, 0 images to build, 2 at a time
    web@staging: stage started (web)
    web@staging | rack `staging` (version 20260421192651) builds from the manifest and pulls the images
    web@staging | Running: docker pull REGISTRY/base:1
    web@staging | Digest: sha256:c512d672400a70f985a0b560012538262a2d5803ecde325dcf0162d3616cddeb
    web@staging | Status: Downloaded newer image for REGISTRY/base:1
    web@staging | Running: docker tag REGISTRY/base:1 staging/web:web.BUILD
    web@staging | Injecting: convox-env
    web@staging | Running: docker build -t staging/web:web.BUILD .
    web@staging | Running: docker push staging/web:web.BUILD
    web@staging: stage done in TIME
    web@staging: release RELEASE is staged
    web@staging: promote started (RELEASE)
    web@staging: promote done in TIME
    web@staging: deployed, RELEASE is live

    TARGET  OUTCOME  RELEASE  TOOK  WHY
    web@staging  deployed  RELEASE  TIME  never deployed

    live now
      web@staging  RELEASE  this commit

    1 deployed (TIME)
    "#);
    assert!(bench.is_live());

    bench.configure("racks: {staging: {host: \"${STAGING_HOST}\", password: \"${STAGING_PASSWORD}\", ca_file: gone.pem}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 2
    error: rack `staging` cannot be used: its `ca_file` `REPO/gone.pem` cannot be read: I/O error: No such file or directory (os error 2)
      next: correct `racks.staging` in apps.yaml
    "#);
    bench.configure("racks: {staging: {host: \"${STAGING_HOST}\", password: \"${STAGING_PASSWORD}\", ca_file: apps.yaml}}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 2
    error: rack `staging` cannot be used: its `ca_file` `REPO/apps.yaml` cannot be read: no PEM certificate is in it
      next: correct `racks.staging` in apps.yaml
    "#);
}

/// TLS in front of the rack; its address.
fn serve(bench: &Bench, certificate: &std::path::Path, key: &std::path::Path) -> String {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let rack = bench.sandbox.racks[0].url.trim_start_matches("http://").to_owned();
    let listener = bench.runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    bench.runtime.spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (acceptor, rack) = (acceptor.clone(), rack.clone());
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                let mut far = tokio::net::TcpStream::connect(rack).await.unwrap();
                // A connection that breaks is the client's to report.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}
