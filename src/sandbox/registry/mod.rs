//! An image registry: the part of the OCI distribution API that engines, ECR clients and racks use.
//!
//! One [`Registry`] is one store with one rule for missing repositories; who may come in is the caller's to check, since
//! a rack of version 3 has a registry too and lets in whom its API lets in. Deleting is not served.

pub(in crate::sandbox) mod store;
mod uploads;

use super::fault::{Fault, Faults};
use super::wire::{Answer, Body, empty, header_text, typed, whole};
use crate::names::{Digest, is_tag};
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use store::Store;
use uploads::Uploads;

/// What a failed request is answered with: status, code and message of the specification's table.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    /// A refusal with a code of the specification.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The answer.
    pub(super) fn answer(&self) -> Answer {
        let body = serde_json::json!({"errors": [{"code": self.code, "message": self.message, "detail": null}]});
        typed(self.status, "application/json", format!("{body}\n"))
    }

    /// The refusal as ECR's API says it: exception and message.
    pub(super) fn for_ecr(self) -> (&'static str, String) {
        let kind = match self.code {
            "MANIFEST_BLOB_UNKNOWN" => "LayersNotFoundException",
            "UNKNOWN" => "ServerException",
            _ => "InvalidParameterException",
        };
        (kind, self.message)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", format!("the sandbox's disk failed: {error}"))
    }
}

/// A registry.
pub(super) struct Registry {
    /// Its disk.
    pub(super) store: Store,
    /// A push to a repository nobody created is refused, as ECR does.
    pub(super) must_exist: bool,
    /// The name faults know it by.
    pub(super) place: String,
    faults: Faults,
    uploads: Uploads,
}

/// A path below `/v2/`, taken apart. Repository names hold slashes, so it is read from its end.
#[derive(Debug, PartialEq, Eq)]
enum Target<'p> {
    Base,
    Catalog,
    Manifest(&'p str),
    Blob(&'p str),
    Start,
    Upload(&'p str),
    Tags,
}

fn parse(path: &str) -> Option<(&str, Target<'_>)> {
    let rest = path.strip_prefix("/v2")?;
    match rest {
        "" | "/" => return Some(("", Target::Base)),
        "/_catalog" => return Some(("", Target::Catalog)),
        _ => {}
    }
    let rest = rest.strip_prefix('/')?;
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Some((name, Target::Tags));
    }
    if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
        return Some((name, Target::Start));
    }
    let (before, last) = rest.rsplit_once('/')?;
    if let Some(name) = before.strip_suffix("/manifests") {
        return Some((name, Target::Manifest(last)));
    }
    if let Some(name) = before.strip_suffix("/blobs/uploads") {
        return Some((name, Target::Upload(last)));
    }
    before.strip_suffix("/blobs").map(|name| (name, Target::Blob(last)))
}

/// True when `name` can be a repository's: the specification's shape.
pub(super) fn is_repository(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let part =
        |part: &str| part.bytes().all(inner) && !part.is_empty() && !part.starts_with(['.', '_', '-']) && !part.ends_with(['.', '_', '-']);
    name.len() <= 255 && name.split('/').all(part)
}

impl Registry {
    /// A registry on this store.
    pub(super) fn new(store: Store, must_exist: bool, place: String, faults: Faults) -> Self {
        let uploads = Uploads::new(store.clone());
        Self { store, must_exist, place, faults, uploads }
    }

    /// The faults that may be set for it.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Answers a request that was let in.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = match self.route(request).await {
            Ok(answer) => answer,
            Err(refusal) => refusal.answer(),
        };
        answer.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
        answer
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let Some((name, target)) = parse(&path) else { return Ok(empty(StatusCode::NOT_FOUND)) };
        if !matches!(target, Target::Base | Target::Catalog) && !is_repository(name) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("invalid repository name `{name}`")));
        }
        let writes = !matches!(method, Method::GET | Method::HEAD);
        if writes && self.faults.is_set(&self.place, None, &Fault::Push500) {
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the sandbox was told to fail pushes"));
        }
        if self.must_exist && !name.is_empty() && !self.store.has_repository(name) {
            return Err(self.no_repository(name));
        }
        match (method, target) {
            (Method::GET | Method::HEAD, Target::Base) => Ok(typed(StatusCode::OK, "application/json", "{}")),
            (Method::GET, Target::Catalog) => {
                Ok(typed(StatusCode::OK, "application/json", serde_json::json!({"repositories": self.store.repositories()}).to_string()))
            }
            (Method::GET, Target::Tags) => self.list_tags(name, request.uri().query()),
            (method @ (Method::GET | Method::HEAD), Target::Manifest(reference)) => self.manifest(name, reference, method == Method::HEAD),
            (Method::PUT, Target::Manifest(reference)) => self.put_manifest(name, reference, request).await,
            (method @ (Method::GET | Method::HEAD), Target::Blob(digest)) => self.blob(name, digest, method == Method::HEAD).await,
            (Method::POST, Target::Start) => self.uploads.start(name, request).await,
            (Method::GET, Target::Upload(id)) => self.uploads.status(name, id).await,
            (Method::PATCH, Target::Upload(id)) => self.uploads.append(name, id, request).await,
            (Method::PUT, Target::Upload(id)) => self.uploads.finish(name, id, request).await,
            (Method::DELETE, Target::Upload(id)) => self.uploads.cancel(id).await,
            _ => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")),
        }
    }

    fn no_repository(&self, name: &str) -> Refusal {
        let message = if self.must_exist {
            format!("The repository with name '{name}' does not exist in the registry with id '{}'", super::ecr::ACCOUNT)
        } else {
            "repository name not known to registry".to_owned()
        };
        Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
    }

    fn list_tags(&self, name: &str, query: Option<&str>) -> Result<Answer, Refusal> {
        if !self.store.has_repository(name) {
            return Err(self.no_repository(name));
        }
        let option = |key: &str| url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).find(|(k, _)| k == key).map(|(_, v)| v);
        let mut tags = self.store.tags(name);
        if let Some(last) = option("last") {
            tags.retain(|tag| tag.as_str() > &*last);
        }
        let limit = option("n").and_then(|n| n.parse::<usize>().ok());
        let more = limit.is_some_and(|limit| tags.len() > limit);
        tags.truncate(limit.unwrap_or(usize::MAX));
        let next = tags
            .last()
            .filter(|_| more)
            .map(|last| format!("</v2/{name}/tags/list?n={}&last={last}>; rel=\"next\"", limit.unwrap_or_default()));
        let mut answer = typed(StatusCode::OK, "application/json", serde_json::json!({"name": name, "tags": tags}).to_string());
        if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
            answer.headers_mut().insert(header::LINK, next);
        }
        Ok(answer)
    }

    fn manifest(&self, name: &str, reference: &str, head: bool) -> Result<Answer, Refusal> {
        let missing = self.faults.is_set(&self.place, None, &Fault::ManifestMissing);
        let found = if missing { None } else { self.store.manifest(name, reference)? };
        let Some(manifest) = found else {
            if !missing && !self.store.has_repository(name) {
                return Err(self.no_repository(name));
            }
            return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"));
        };
        let length = manifest.bytes.len() as u64;
        let mut answer = if head { empty(StatusCode::OK) } else { typed(StatusCode::OK, "", manifest.bytes) };
        let media_type = HeaderValue::from_str(&manifest.media_type).unwrap_or(HeaderValue::from_static("application/json"));
        answer.headers_mut().insert(header::CONTENT_TYPE, media_type);
        answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        Ok(with_digest(answer, &manifest.digest))
    }

    async fn put_manifest(&self, name: &str, reference: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let declared = header_text(request.headers(), "content-type").map(str::to_owned);
        let invalid = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why.to_owned());
        let bytes = whole(request.into_body()).await.map_err(|error| invalid(&error))?;
        let digest = self.accept_manifest(name, reference, declared.as_deref(), &bytes)?;
        let mut answer = empty(StatusCode::CREATED);
        set_location(&mut answer, &format!("/v2/{name}/manifests/{digest}"));
        Ok(with_digest(answer, &digest))
    }

    /// Checks a manifest and stores it under a tag or its digest.
    pub(super) fn accept_manifest(&self, name: &str, reference: &str, declared: Option<&str>, bytes: &[u8]) -> Result<Digest, Refusal> {
        let invalid = |why: &str| Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why.to_owned());
        let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| invalid("manifest is no JSON"))?;
        let own = json.get("mediaType").and_then(serde_json::Value::as_str);
        let media_type = own.or(declared).ok_or_else(|| invalid("manifest without a media type"))?;
        let missing = self.store.missing(name, &json);
        if !missing.is_empty() {
            let message = format!("blob unknown to registry: {}", missing.join(", "));
            return Err(Refusal::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", message));
        }
        let digest = store::digest_of(bytes);
        if reference.contains(':') {
            if reference != digest.as_str() {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "provided digest did not match uploaded content"));
            }
        } else if !is_tag(reference) {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", "manifest tag did not match URI"));
        } else if self.store.settings(name).is_some_and(|settings| settings.immutable)
            && self.store.tag(name, reference).is_some_and(|present| present != digest)
        {
            let message = format!(
                "The image tag '{reference}' already exists in the '{name}' repository and cannot be overwritten because the repository is immutable."
            );
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "TAG_INVALID", message));
        }
        self.store.put_manifest(name, media_type, bytes)?;
        if !reference.contains(':') {
            self.store.set_tag(name, reference, &digest)?;
        }
        Ok(digest)
    }

    /// Answers with a blob, streamed.
    pub(super) async fn blob(&self, name: &str, digest: &str, head: bool) -> Result<Answer, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
        let digest = Digest::new(digest).map_err(|_| unknown())?;
        let size = self.store.blob_size(name, &digest).ok_or_else(unknown)?;
        let mut answer = if head { empty(StatusCode::OK) } else { Response::new(stream(&self.store, &digest).await?) };
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        answer.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        Ok(with_digest(answer, &digest))
    }
}

async fn stream(store: &Store, digest: &Digest) -> std::io::Result<Body> {
    let file = tokio::fs::File::open(store.blob_path(digest)).await?;
    let chunks = tokio_util::io::ReaderStream::with_capacity(file, 64 << 10);
    Ok(BodyExt::boxed(StreamBody::new(chunks.map_ok(Frame::data))))
}

fn with_digest(mut answer: Answer, digest: &Digest) -> Answer {
    if let Ok(value) = HeaderValue::from_str(digest.as_str()) {
        answer.headers_mut().insert("docker-content-digest", value);
    }
    answer
}

fn set_location(answer: &mut Answer, path: &str) {
    if let Ok(value) = HeaderValue::from_str(path) {
        answer.headers_mut().insert(header::LOCATION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_from_its_end() {
        let table = [
            ("/v2/", Some(("", Target::Base))),
            ("/v2/_catalog", Some(("", Target::Catalog))),
            ("/v2/web/tags/list", Some(("web", Target::Tags))),
            ("/v2/a/b/manifests/v1", Some(("a/b", Target::Manifest("v1")))),
            ("/v2/a/manifests/blobs/sha256:0", Some(("a/manifests", Target::Blob("sha256:0")))),
            ("/v2/a/blobs/uploads/", Some(("a", Target::Start))),
            ("/v2/a/blobs/uploads/77", Some(("a", Target::Upload("77")))),
            ("/v2/a/other/x", None),
            ("/v1/", None),
        ];
        for (path, target) in table {
            assert_eq!(parse(path), target, "{path}");
        }
    }

    #[test]
    fn a_repository_has_a_shape() {
        for good in ["web", "team/web-1.x", "a/b/c"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "Web", "a//b", "../a", "a/.", "-a", "a/"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
