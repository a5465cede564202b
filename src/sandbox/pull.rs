//! Asks registries for manifests, as a rack that pulls an image does first.
//!
//! Only the manifest is fetched: that is what decides whether a pull can begin. Anonymous tokens are asked for where a
//! registry wants them, so that public images work when there is a network.

use super::registry::store::digest_of;
use super::wire;
use crate::names::{Digest, ImageRef};
use crate::registry::Login;
use hyper::StatusCode;
use std::time::Duration;

/// What a puller says it can read.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// How long a registry may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an image could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PullError {
    /// The registry does not have it.
    NotFound,
    /// The registry does not have the repository; what it said.
    NoRepository(String),
    /// The registry wants a login, or another one.
    Denied,
    /// The registry did not answer, or nothing useful.
    Broken(String),
}

/// A client of registries.
#[derive(Clone)]
pub(super) struct Puller {
    http: reqwest::Client,
}

/// The URL of the manifest an image names.
pub(super) fn manifest_url(image: &ImageRef) -> String {
    let host = match image.repository.host.as_str() {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    // As the engine has it: loopback needs no certificate.
    let scheme = if name == "localhost" || name.starts_with("127.") { "http" } else { "https" };
    let reference = image.digest.as_ref().map(Digest::as_str).or(image.tag.as_deref()).unwrap_or("latest");
    format!("{scheme}://{host}/v2/{}/manifests/{reference}", image.repository.path)
}

impl Puller {
    /// A client.
    pub(super) fn new() -> crate::error::Result<Self> {
        // A second installation is refused, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Given, so that there may be none (a bare container): the sandbox's own registry speaks plain HTTP.
        let trusted = rustls_native_certs::load_native_certs().certs;
        let trusted = trusted.iter().filter_map(|certificate| reqwest::Certificate::from_der(certificate).ok());
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().tls_certs_only(trusted).build();
        let http = http.map_err(|error| crate::error::Error::unusable("the sandbox cannot make an http client").caused_by(&error))?;
        Ok(Self { http })
    }

    /// The digest of the manifest an image names.
    pub(super) async fn digest(&self, image: &ImageRef, login: Option<&Login>) -> Result<Digest, PullError> {
        let url = manifest_url(image);
        let mut request = self.http.get(&url).header("Accept", ACCEPT);
        if let Some(login) = login {
            request = request.basic_auth(&login.user, Some(login.password.expose()));
        }
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = self.anonymous(&response).await
        {
            let again = self.http.get(&url).header("Accept", ACCEPT).bearer_auth(token).send();
            response = again.await.map_err(|error| broken(&error))?;
        }
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| broken(&error))?;
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(PullError::Denied),
            StatusCode::NOT_FOUND => return Err(not_found(&bytes)),
            status => return Err(PullError::Broken(format!("received unexpected HTTP status: {status}"))),
        }
        let digest = digest_of(&bytes);
        match &image.digest {
            Some(asked) if *asked != digest => Err(PullError::Broken(format!("manifest verification failed for digest {asked}"))),
            _ => Ok(digest),
        }
    }

    /// True when the registry lets this login in.
    pub(super) async fn accepts(&self, host: &str, login: &Login) -> bool {
        let Ok(image) = ImageRef::parse(&format!("{host}/x")) else { return false };
        let url = manifest_url(&image);
        let base = url.split_once("/v2/").map_or(url.as_str(), |(base, _)| base);
        let request = self.http.get(format!("{base}/v2/")).basic_auth(&login.user, Some(login.password.expose()));
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    /// A token nobody has to log in for, as the answer's challenge describes it.
    async fn anonymous(&self, refused: &reqwest::Response) -> Option<String> {
        let challenge = wire::header_text(refused.headers(), "www-authenticate")?.strip_prefix("Bearer ")?;
        let part = |key: &str| {
            let found = challenge.split(',').find_map(|part| part.trim().strip_prefix(key)?.strip_prefix("=\""))?;
            found.strip_suffix('"').map(str::to_owned)
        };
        let query = [("service", part("service").unwrap_or_default()), ("scope", part("scope").unwrap_or_default())];
        let answer = self.http.get(part("realm")?).query(&query).send().await.ok()?;
        let body: serde_json::Value = answer.json().await.ok()?;
        body.get("token").or_else(|| body.get("access_token"))?.as_str().map(str::to_owned)
    }
}

fn not_found(body: &[u8]) -> PullError {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
    match text("/errors/0/code") {
        "NAME_UNKNOWN" => PullError::NoRepository(text("/errors/0/message").to_owned()),
        _ => PullError::NotFound,
    }
}

/// The innermost cause: the outer ones only repeat the URL.
fn broken(error: &reqwest::Error) -> PullError {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    PullError::Broken(inner.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_manifest_somewhere() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, url) in [
            ("redis".to_owned(), "https://registry-1.docker.io/v2/library/redis/manifests/latest".to_owned()),
            ("127.0.0.1:5000/web:v1".to_owned(), "http://127.0.0.1:5000/v2/web/manifests/v1".to_owned()),
            (format!("r.example:8443/a/b:v1@{digest}"), format!("https://r.example:8443/v2/a/b/manifests/{digest}")),
        ] {
            assert_eq!(manifest_url(&ImageRef::parse(&image).unwrap()), url);
        }
    }
}
