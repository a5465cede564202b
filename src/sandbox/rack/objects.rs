//! The object store of an app: uploaded sources and stored logs, files on disk.

use super::{Ask, Rack, Refusal, Reply, Version};
use crate::sandbox::state;
use crate::sandbox::wire::typed;
use http_body_util::BodyExt as _;
use hyper::StatusCode;
use serde_json::json;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt as _;

impl Rack {
    /// Where an object is.
    pub(super) fn object_path(&self, app: &str, key: &str) -> PathBuf {
        self.directory.join("objects").join(state::file_name(app)).join(state::file_name(key))
    }

    /// Stores an object the rack makes itself.
    pub(super) fn object_write(&self, app: &str, key: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.object_path(app, key);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        state::replace(&path, bytes)
    }

    pub(super) async fn object_store(&self, ask: &mut Ask) -> Result<Reply, Refusal> {
        let (app, key) = (ask.arg(0).to_owned(), ask.arg(1).to_owned());
        // Version 3 does not ask whether the app exists.
        if self.version == Version::V2 && !self.lock().apps.contains_key(&app) {
            return Err(Refusal::server(format!("stack not found: {}-{app}", self.name)));
        }
        let path = self.object_path(&app, &key);
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        let aside = path.with_added_extension(format!("{:08x}", fastrand::u32(..)));
        let mut file = tokio::fs::File::create(&aside).await?;
        if let Some(mut body) = ask.body.take() {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Refusal::server(error.to_string()))?;
                if let Ok(data) = frame.into_data() {
                    file.write_all(&data).await?;
                }
            }
        }
        file.flush().await?;
        tokio::fs::rename(&aside, &path).await?;
        Ok(Reply::Json(json!({"Url": format!("object://{app}/{key}")})))
    }

    pub(super) fn object_fetch(&self, ask: &Ask) -> Result<Reply, Refusal> {
        let (app, key) = (ask.arg(0), ask.arg(1));
        if let Ok(bytes) = std::fs::read(self.object_path(app, key)) {
            return Ok(Reply::Other(typed(StatusCode::OK, "application/octet-stream", bytes)));
        }
        Err(Refusal::not_found(match self.version {
            Version::V2 => format!("key not found: {key}"),
            Version::V3 => format!("object not found: {key}"),
        }))
    }
}
