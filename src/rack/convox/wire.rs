//! What a rack sends and is sent: its JSON objects, its times, an app's env, the upload of a manifest.
//!
//! Unknown fields are ignored and missing ones are empty: the two generations differ in both. A release's env is all
//! secrets, so it lives in a [`Secret`].

use crate::event::{EnvChange, ProcessSeen};
use crate::names::{BuildId, CommitId, ReleaseId};
use crate::rack::AppStatus;
use crate::secret::{Redactor, Secret};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::io::Write as _;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The answer of `GET /system`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct System {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) rack_domain: String,
}

/// An app.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) generation: String,
    pub(super) status: String,
    release: String,
}

impl App {
    /// The active release.
    pub(super) fn release(&self) -> Option<ReleaseId> {
        ReleaseId::new(self.release.as_str()).ok()
    }

    pub(super) fn status(&self) -> AppStatus {
        match self.status.as_str() {
            "running" => AppStatus::Running,
            "updating" => AppStatus::Updating,
            "rollback" => AppStatus::Rollback,
            other => AppStatus::Other(other.to_owned()),
        }
    }

    /// Its generation. Racks before generations had names for them say nothing and mean 1.
    pub(super) fn generation(&self) -> u8 {
        self.generation.parse().unwrap_or(1)
    }
}

/// A build.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Build {
    pub(super) id: String,
    pub(super) description: String,
    git_sha: String,
    pub(super) manifest: String,
    pub(super) logs: String,
    pub(super) reason: String,
    release: String,
    pub(super) status: String,
    /// Where an external build's images go; the rack's password is in it.
    #[serde(deserialize_with = "secret")]
    pub(super) repository: Option<Secret>,
}

impl Build {
    pub(super) fn id(&self) -> Option<BuildId> {
        BuildId::new(self.id.as_str()).ok()
    }

    pub(super) fn release(&self) -> Option<ReleaseId> {
        ReleaseId::new(self.release.as_str()).ok()
    }

    /// The commit it was made with.
    pub(super) fn commit(&self) -> Option<CommitId> {
        CommitId::new(self.git_sha.trim().to_ascii_lowercase()).ok()
    }
}

/// A release.
#[derive(Clone, Deserialize)]
#[serde(default)]
pub(super) struct Release {
    id: String,
    build: String,
    pub(super) description: String,
    pub(super) manifest: String,
    #[serde(deserialize_with = "moment")]
    pub(super) created: OffsetDateTime,
    /// `KEY=VALUE` lines.
    #[serde(deserialize_with = "secret")]
    env: Option<Secret>,
}

impl Default for Release {
    fn default() -> Self {
        let (id, build, description, manifest) = Default::default();
        Self { id, build, description, manifest, created: OffsetDateTime::UNIX_EPOCH, env: None }
    }
}

impl Release {
    pub(super) fn id(&self) -> Option<ReleaseId> {
        ReleaseId::new(self.id.as_str()).ok()
    }

    pub(super) fn build(&self) -> Option<BuildId> {
        BuildId::new(self.build.as_str()).ok()
    }

    /// The value of `REVISION` in its env.
    pub(super) fn revision(&self) -> Option<&str> {
        let lines = self.env.as_ref()?.expose().split('\n');
        lines.filter_map(|line| line.split_once('=')).find(|(key, _)| *key == REVISION).map(|(_, value)| value)
    }

    /// Its whole env with `REVISION` set to `value`; every other line stays as it is.
    pub(super) fn env_with_revision(&self, value: &str) -> Secret {
        let env = self.env.as_ref().map(Secret::expose).unwrap_or_default();
        let others = env.split('\n').filter(|line| line.split_once('=').is_some_and(|(key, _)| key != REVISION));
        let mut lines: Vec<String> = others.map(str::to_owned).collect();
        lines.push(format!("{REVISION}={value}"));
        lines.sort();
        Secret::new(lines.join("\n"))
    }

    /// The names of the variables that differ in `newer`; the marker every deploy sets is left out.
    pub(super) fn env_change(&self, newer: &Self) -> EnvChange {
        let (old, new) = (self.variables(), newer.variables());
        let name = |name: &&str| name[..name.floor_char_boundary(LONGEST_WORD)].to_owned();
        let (mut added, mut changed, mut removed): (Vec<&str>, Vec<&str>, Vec<&str>) = Default::default();
        added.extend(new.keys().filter(|key| !old.contains_key(*key)));
        changed.extend(new.iter().filter(|(key, value)| old.get(*key).is_some_and(|was| was != *value)).map(|(key, _)| key));
        removed.extend(old.keys().filter(|key| !new.contains_key(*key)));
        let names = |list: Vec<&str>| list.iter().take(NAMES).map(name).collect();
        EnvChange { added: names(added), changed: names(changed), removed: names(removed) }
    }

    fn variables(&self) -> BTreeMap<&str, &str> {
        let lines = self.env.iter().flat_map(|env| env.expose().split('\n'));
        lines.filter_map(|line| line.split_once('=')).filter(|(key, _)| *key != REVISION).collect()
    }

    /// Its env, to be copied.
    pub(super) fn env(&self) -> Secret {
        self.env.clone().unwrap_or_else(|| Secret::new(""))
    }
}

/// The variable that tells an app which commit it runs.
const REVISION: &str = "REVISION";
/// More names of changed variables are not listed.
const NAMES: usize = 50;
/// A name or a state is cut after so many bytes.
const LONGEST_WORD: usize = 200;

/// A process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) release: String,
    pub(super) status: String,
}

impl Process {
    /// As the evidence lists it.
    pub(super) fn seen(&self) -> ProcessSeen {
        let short = |text: &str| text[..text.floor_char_boundary(LONGEST_WORD)].to_owned();
        ProcessSeen { id: short(&self.id), service: short(&self.name), release: short(&self.release), status: short(&self.status) }
    }
}

/// The answer of the object store.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object {
    /// `object://APP/KEY`; the capital is the rack's.
    #[serde(rename = "Url")]
    pub(super) url: String,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    // These are the app's own secrets: a log or an error of the rack may repeat one.
    let redactor = Redactor::of_process();
    for (name, value) in text.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once('=')) {
        redactor.register_variable(name, value);
    }
    Ok(text.filter(|text| !text.is_empty()).map(Secret::new))
}

/// A time; what is none reads as the epoch, older than every release.
fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let moment = OffsetDateTime::parse(&text, &Rfc3339).ok().and_then(|moment| moment.checked_to_offset(time::UtcOffset::UTC));
    Ok(moment.unwrap_or(OffsetDateTime::UNIX_EPOCH))
}

/// A time as racks read it in a form: Go's `20060102.150405.000000000`, UTC.
pub(super) fn form_time(time: OffsetDateTime) -> String {
    let format = time::macros::format_description!("[year][month][day].[hour][minute][second].[subsecond digits:9]");
    time.to_offset(time::UtcOffset::UTC).format(format).unwrap_or_default()
}

/// A gzip tar that holds one manifest at `name`, and the directories above it. The same input gives the same bytes.
pub(super) fn manifest_archive(name: &str, manifest: &str) -> std::io::Result<Vec<u8>> {
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header
    };
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
    for (slash, _) in name.match_indices('/') {
        archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), &name[..=slash], std::io::empty())?;
    }
    archive.append_data(&mut header(tar::EntryType::Regular, 0o644, manifest.len()), name, manifest.as_bytes())?;
    let mut gzip = archive.into_inner()?;
    gzip.flush()?;
    gzip.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(env: &str) -> Release {
        serde_json::from_value(serde_json::json!({"id": "RA", "env": env, "created": "2026-11-22T19:37:36.867426953Z"})).unwrap()
    }

    #[test]
    fn revision_is_replaced_and_nothing_else() {
        let table = [
            ("", "REVISION=new"),
            ("A=1\nREVISION=old\nZ= a=b ", "A=1\nREVISION=new\nZ= a=b "),
            ("Z=1\nNOREVISION=x", "NOREVISION=x\nREVISION=new\nZ=1"),
        ];
        for (env, expected) in table {
            let release = release(env);
            assert_eq!(release.env_with_revision("new").expose(), expected);
        }
        assert_eq!(release("A=1\nREVISION=a=b").revision(), Some("a=b"));
        assert_eq!(release("A=1").revision(), None);
    }

    #[test]
    fn variables_that_differ_are_told_by_name() {
        let change = release("A=1\nB=secret\nC=1\nREVISION=x").env_change(&release("B=other\nC=1\nD=2\nREVISION=y"));
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(change, EnvChange { added: names(&["D"]), changed: names(&["B"]), removed: names(&["A"]) });
        assert!(release("A=1\nREVISION=x").env_change(&release("REVISION=y\nA=1")).is_empty());
    }

    #[test]
    fn times_are_read_and_written_as_racks_do() {
        let made = release("").created;
        assert_eq!(form_time(made), "20261122.193736.867426953");
        let never: Release = serde_json::from_value(serde_json::json!({"created": null})).unwrap();
        assert_eq!(never.created, OffsetDateTime::UNIX_EPOCH);
    }

    #[test]
    fn the_upload_holds_the_manifest_and_its_directories() {
        let bytes = manifest_archive("deploy/convox.yml", "services: {}\n").unwrap();
        assert_eq!(bytes, manifest_archive("deploy/convox.yml", "services: {}\n").unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            found.push((path, std::io::read_to_string(&mut entry).unwrap()));
        }
        assert_eq!(found, [("deploy/".to_owned(), String::new()), ("deploy/convox.yml".to_owned(), "services: {}\n".to_owned())]);
    }
}
