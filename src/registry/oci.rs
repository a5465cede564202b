//! The distribution API every registry has (<https://distribution.github.io/distribution/spec/api/>): which tags exist,
//! one more tag for a manifest, an image's labels. Layers are not its business.

use super::auth::{Auth, Logins};
use super::http::{Answer, Http, Request, is_loopback};
use super::{Login, RegistryError};
use crate::names::{Digest, Repository};
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The manifests offbuild accepts. Without them a registry converts to an old format, which has another digest.
pub const MANIFEST_TYPES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];
const ACCEPT_MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json";
const DIGEST_HEADER: &str = "docker-content-digest";
/// Tags asked for at the same time.
const IN_FLIGHT: usize = 8;

/// One registry.
pub struct Oci {
    base: Url,
    auth: Auth,
    http: Arc<Http>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

impl Oci {
    /// The registry at `host`; over plain HTTP when `insecure` or on loopback. Asks nothing yet.
    pub fn new(host: &str, insecure: bool, http: Arc<Http>, logins: Logins) -> Result<Self, RegistryError> {
        let scheme = if insecure || is_loopback(host) { "http" } else { "https" };
        // Docker Hub's API does not answer under the name its images have.
        let api = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let base = Url::parse(&format!("{scheme}://{api}/"))
            .map_err(|error| RegistryError::Failed { host: host.to_owned(), message: format!("its host name is wrong: {error}") })?;
        Ok(Self { auth: Auth::new(host.to_owned(), base.clone(), Arc::clone(&http), logins), base, http })
    }

    /// Which of `tags` exist: one HEAD each, some at a time.
    pub async fn find(&self, repository: &Repository, tags: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        let look_up = async |tag: &String| Ok(self.digest(repository, tag).await?.map(|digest| (tag.clone(), digest)));
        let lookups: Vec<_> = tags.iter().map(look_up).collect();
        let found = futures_util::stream::iter(lookups).buffer_unordered(IN_FLIGHT);
        found.try_filter_map(|found| async { Ok(found) }).try_collect().await
    }

    /// Puts the manifest with this digest under one more tag.
    pub async fn retag(&self, repository: &Repository, digest: &Digest, tag: &str) -> Result<(), RegistryError> {
        let (body, kind) = self.manifest(repository, digest).await?;
        let request = self.request(Method::PUT, repository, &format!("manifests/{tag}"))?;
        let answer = self.send(repository, Access::Write, Request { body: Some((body, kind)), ..request }).await?;
        if !answer.status.is_success() {
            return Err(self.auth.failed(format!("cannot tag `{repository}@{digest}` as `{tag}`: {}", answer.problem())));
        }
        let now = match answer.header(DIGEST_HEADER) {
            Some(now) => Some(now.to_owned()),
            // The header is optional, and a proxy's page has none either.
            None => self.digest(repository, tag).await?.map(|now| now.to_string()),
        };
        match now {
            Some(now) if now == digest.as_str() => Ok(()),
            now => {
                let now = now.unwrap_or_else(|| "nothing".to_owned());
                Err(self.auth.failed(format!("`{repository}:{tag}` was to be {digest}, and the registry says it is {now}")))
            }
        }
    }

    /// The labels of an image; of an index, those of its first image.
    pub async fn labels(&self, repository: &Repository, digest: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        #[derive(Deserialize)]
        struct Config {
            config: Option<Container>,
        }
        #[derive(Deserialize)]
        struct Container {
            #[serde(rename = "Labels")]
            labels: Option<BTreeMap<String, String>>,
        }
        let mut manifest: Manifest = self.parse(&self.manifest(repository, digest).await?.0, "manifest")?;
        if let Some(image) = manifest.manifests.iter().find(|image| image.is_real()) {
            manifest = self.parse(&self.manifest(repository, &image.digest).await?.0, "manifest")?;
        }
        let Some(config) = manifest.config else { return Ok(BTreeMap::new()) };
        let request = self.request(Method::GET, repository, &format!("blobs/{}", config.digest))?;
        let answer = self.send(repository, Access::Read, request).await?;
        let blob = self.checked(repository, &config.digest, answer)?;
        let config: Config = self.parse(&blob.body, "image configuration")?;
        Ok(config.config.and_then(|config| config.labels).unwrap_or_default())
    }

    /// The registry's login.
    pub async fn login(&self, fresh: bool) -> Result<Option<Login>, RegistryError> {
        self.auth.login(fresh).await
    }

    async fn digest(&self, repository: &Repository, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let mut request = self.request(Method::HEAD, repository, &format!("manifests/{tag}"))?;
        request.accept = Some(ACCEPT_MANIFESTS);
        let answer = self.send(repository, Access::Read, request.clone()).await?;
        match answer.status {
            StatusCode::NOT_FOUND => return Ok(None),
            status if status.is_success() => {}
            _ => return Err(self.auth.failed(format!("cannot look up `{repository}:{tag}`: {}", answer.problem()))),
        }
        if let Some(digest) = answer.header(DIGEST_HEADER).and_then(|text| Digest::new(text).ok()) {
            return Ok(Some(digest));
        }
        // The header is optional; a manifest's digest is the one of its bytes.
        request.method = Method::GET;
        let answer = self.send(repository, Access::Read, request).await?;
        if !answer.status.is_success() {
            return Err(self.auth.failed(format!("cannot read `{repository}:{tag}`: {}", answer.problem())));
        }
        Digest::new(sha256(&answer.body)).map(Some).map_err(|error| self.auth.failed(error))
    }

    /// The bytes and media type of a manifest.
    async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<(Vec<u8>, String), RegistryError> {
        let mut request = self.request(Method::GET, repository, &format!("manifests/{digest}"))?;
        request.accept = Some(ACCEPT_MANIFESTS);
        let answer = self.send(repository, Access::Read, request).await?;
        let answer = self.checked(repository, digest, answer)?;
        let kind = answer.header("content-type").unwrap_or(MANIFEST_TYPES[0]).to_owned();
        Ok((answer.body, kind))
    }

    /// The answer, when it holds what the digest says.
    fn checked(&self, repository: &Repository, digest: &Digest, answer: Answer) -> Result<Answer, RegistryError> {
        if answer.status == StatusCode::NOT_FOUND && answer.has_code("NAME_UNKNOWN") {
            return Err(RegistryError::NoRepository { repository: repository.clone() });
        }
        if !answer.status.is_success() {
            return Err(self.auth.failed(format!("cannot read `{repository}@{digest}`: {}", answer.problem())));
        }
        let actual = sha256(&answer.body);
        if actual != digest.as_str() {
            return Err(self.auth.failed(format!("`{repository}@{digest}` came with other content, {actual}")));
        }
        Ok(answer)
    }

    fn request(&self, method: Method, repository: &Repository, rest: &str) -> Result<Request, RegistryError> {
        let url = self.base.join(&format!("/v2/{}/{rest}", repository.path)).map_err(|error| self.auth.failed(error))?;
        Ok(Request::new(method, url))
    }

    /// Sends a request with the login it needs, and once more with a new one after a 401.
    async fn send(&self, repository: &Repository, access: Access, mut request: Request) -> Result<Answer, RegistryError> {
        let actions = if access == Access::Write { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", repository.path);
        request.authorization = self.auth.header(&scope, None).await?;
        let mut answer = self.http.send(&request).await.map_err(|message| self.auth.unreachable(message))?;
        if answer.status == StatusCode::UNAUTHORIZED {
            request.authorization = self.auth.header(&scope, Some(&answer)).await?;
            answer = self.http.send(&request).await.map_err(|message| self.auth.unreachable(message))?;
        }
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.auth.refusal(&answer).await);
        }
        Ok(answer)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, body: &[u8], what: &str) -> Result<T, RegistryError> {
        serde_json::from_slice(body).map_err(|error| self.auth.failed(format!("its {what} cannot be read: {error}")))
    }
}

/// An image's manifest, or an index of several.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
}

impl Descriptor {
    /// False for BuildKit's attestations, which are stored as images for the platform `unknown/unknown`.
    fn is_real(&self) -> bool {
        self.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
