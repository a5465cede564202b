//! Blob uploads: in one request, in chunks, or by mounting what another repository has.
//!
//! A chunk goes from the socket to the disk and through the hash as it comes; nothing is held. Uploads under way are
//! forgotten when the sandbox stops, and a client starts them again.

use super::store::{Store, finish};
use super::{Refusal, set_location, with_digest};
use crate::names::Digest;
use crate::sandbox::wire::{Answer, empty};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RANGE};
use hyper::{Request, StatusCode};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::AsyncWriteExt as _;

struct Upload {
    file: tokio::fs::File,
    path: PathBuf,
    hash: Sha256,
    size: u64,
}

/// The uploads under way.
pub(super) struct Uploads {
    store: Store,
    open: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Upload>>>>,
}

fn query<T>(request: &Request<T>, key: &str) -> Option<String> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).find(|(k, _)| k == key).map(|(_, value)| value.into_owned())
}

fn digest_of<T>(request: &Request<T>) -> Result<Option<Digest>, Refusal> {
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "only sha256 digests are known here");
    query(request, "digest").map(|text| Digest::new(text).map_err(invalid)).transpose()
}

impl Uploads {
    pub(super) fn new(store: Store) -> Self {
        Self { store, open: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<Upload>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Arc<tokio::sync::Mutex<Upload>>, Refusal> {
        let unknown = || Refusal::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        self.lock().get(id).cloned().ok_or_else(unknown)
    }

    /// `POST …/uploads/`: a mount when one is asked for and possible, else a new upload; with a digest the whole blob.
    pub(super) async fn start(&self, name: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        if let (Some(mount), Some(from)) = (query(&request, "mount"), query(&request, "from"))
            && let Ok(digest) = Digest::new(mount)
            && self.store.mount(name, &digest, &from)?
        {
            return Ok(created(name, &digest));
        }
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let path = self.store.upload_path(&id);
        let mut upload = Upload { file: tokio::fs::File::create(&path).await?, path, hash: Sha256::new(), size: 0 };
        if let Some(digest) = digest_of(&request)? {
            write(&mut upload, request.into_body()).await?;
            return self.complete(name, upload, &digest).await;
        }
        self.lock().insert(id.clone(), Arc::new(tokio::sync::Mutex::new(upload)));
        Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
    }

    /// `GET …/uploads/ID`: how much has come.
    pub(super) async fn status(&self, name: &str, id: &str) -> Result<Answer, Refusal> {
        let size = self.find(id)?.lock().await.size;
        Ok(progress(StatusCode::NO_CONTENT, name, id, size))
    }

    /// `PATCH …/uploads/ID`: the next chunk.
    pub(super) async fn append(&self, name: &str, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let upload = self.find(id)?;
        let mut upload = upload.lock().await;
        let range = request.headers().get("content-range").and_then(|range| range.to_str().ok());
        let start = range.and_then(|range| range.split('-').next()?.trim_start_matches("bytes ").parse::<u64>().ok());
        if start.is_some_and(|start| start != upload.size) {
            return Ok(progress(StatusCode::RANGE_NOT_SATISFIABLE, name, id, upload.size));
        }
        write(&mut upload, request.into_body()).await?;
        Ok(progress(StatusCode::ACCEPTED, name, id, upload.size))
    }

    /// `PUT …/uploads/ID?digest=`: the last chunk, if any, and the check of the whole.
    pub(super) async fn finish(&self, name: &str, id: &str, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let upload = self.find(id)?;
        let missing = || Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "the upload ends without a digest");
        let digest = digest_of(&request)?.ok_or_else(missing)?;
        write(&mut *upload.lock().await, request.into_body()).await?;
        self.lock().remove(id);
        let busy = |_| Refusal::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", "another request still writes to the upload");
        let upload = Arc::try_unwrap(upload).map_err(busy)?.into_inner();
        self.complete(name, upload, &digest).await
    }

    /// `DELETE …/uploads/ID`.
    pub(super) async fn cancel(&self, id: &str) -> Result<Answer, Refusal> {
        let upload = self.find(id)?;
        self.lock().remove(id);
        let _ = tokio::fs::remove_file(&upload.lock().await.path).await;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn complete(&self, name: &str, mut upload: Upload, digest: &Digest) -> Result<Answer, Refusal> {
        upload.file.flush().await?;
        if finish(upload.hash) != *digest {
            let _ = tokio::fs::remove_file(&upload.path).await;
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "provided digest did not match uploaded content"));
        }
        self.store.adopt(name, &upload.path, digest)?;
        Ok(created(name, digest))
    }
}

async fn write(upload: &mut Upload, mut body: Incoming) -> Result<(), Refusal> {
    while let Some(frame) = body.frame().await {
        let broken = |error: hyper::Error| Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", error.to_string());
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            upload.hash.update(&data);
            upload.size += data.len() as u64;
            upload.file.write_all(&data).await?;
        }
    }
    Ok(upload.file.flush().await?)
}

fn created(name: &str, digest: &Digest) -> Answer {
    let mut answer = empty(StatusCode::CREATED);
    set_location(&mut answer, &format!("/v2/{name}/blobs/{digest}"));
    with_digest(answer, digest)
}

fn progress(status: StatusCode, name: &str, id: &str, size: u64) -> Answer {
    let mut answer = empty(status);
    set_location(&mut answer, &format!("/v2/{name}/blobs/uploads/{id}"));
    // An empty upload is `0-0` too: that is how the reference registry says it.
    if let Ok(range) = HeaderValue::from_str(&format!("0-{}", size.saturating_sub(1))) {
        answer.headers_mut().insert(RANGE, range);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        answer.headers_mut().insert("docker-upload-uuid", id);
    }
    answer
}
