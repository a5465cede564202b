//! What a rack is and what runs there: reads only.

use super::failure::CallError;
use super::{Convox, NOTES, wire};
use crate::names::{BuildId, ReleaseId};
use crate::rack::{AppStatus, Copying, Live, LiveBuild, LiveRelease, NewerRelease, RackError, RackInfo};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;

/// The oldest version 2 release whose API is the one this client speaks.
const OLDEST_V2: &str = "20180708231844";
/// How many releases are looked through for ones newer than the active one.
const RELEASES: &str = "20";
/// Builds asked for at once.
const BUILDS_AT_ONCE: usize = 8;

/// An app as the rack lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppSummary {
    /// Its name.
    pub name: String,
    /// Its status. Version 3 lists take it from an annotation; [`crate::rack::RackRead::live`] is surer.
    pub status: AppStatus,
    /// Its generation: 1, 2 or 3.
    pub generation: u8,
    /// The active release.
    pub release: Option<ReleaseId>,
}

impl Convox {
    /// Every app of the rack, by name.
    ///
    /// # Errors
    /// As [`crate::rack::RackRead::live`].
    pub async fn apps(&self) -> Result<Vec<AppSummary>, RackError> {
        let apps: Vec<wire::App> = self.http.get(&["apps"], &[]).await.map_err(|error| self.unread("the list of apps", error))?;
        let summary =
            |app: wire::App| AppSummary { status: app.status(), generation: app.generation(), release: app.release(), name: app.name };
        let mut apps: Vec<AppSummary> = apps.into_iter().map(summary).collect();
        apps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(apps)
    }

    /// Who the rack is, asked once.
    pub(super) async fn known(&self) -> Result<&RackInfo, RackError> {
        self.info.get_or_try_init(|| self.read_info()).await
    }

    async fn read_info(&self) -> Result<RackInfo, RackError> {
        let unsupported = |message: String| RackError::Unsupported { rack: self.name.clone(), message };
        let bytes = self.http.get_bytes(&["system"], &[]).await.map_err(|error| self.unread("its version", error))?;
        let system: wire::System = super::http::parse(&bytes).map_err(|error| {
            unsupported(format!("`{}` does not answer like a rack: {}; check its host", self.login.host(), error.message()))
        })?;
        let major = match version_of(&system.version) {
            Version::Major(major) => major,
            Version::Development => match self.apps().await?.iter().map(|app| app.generation).max() {
                Some(3..) => 3,
                Some(_) => 2,
                None if !system.rack_domain.is_empty() => 3,
                None => {
                    return Err(unsupported("its version is `dev` and it has no app that would tell which generation it is".to_owned()));
                }
            },
            Version::TooOld => {
                return Err(unsupported(format!("version `{}` is older than {OLDEST_V2}; update the rack", system.version)));
            }
            Version::Strange => {
                return Err(unsupported(format!("version `{}` is neither one of version 2 nor one of version 3", system.version)));
            }
        };
        Ok(RackInfo { major, version: system.version, name: system.name })
    }

    /// An app.
    pub(super) async fn app(&self, app: &str) -> Result<wire::App, RackError> {
        self.http.get(&["apps", app], &[]).await.map_err(|error| self.unread(&format!("app `{app}`"), error))
    }

    /// A release; `None` when the rack has it no more.
    pub(super) async fn release(&self, app: &str, id: &ReleaseId) -> Result<Option<wire::Release>, RackError> {
        let answer = self.http.get(&["apps", app, "releases", id.as_str()], &[]).await;
        self.maybe(answer, &format!("release `{id}` of app `{app}`"))
    }

    /// A build; `None` when the rack has it no more.
    pub(super) async fn build(&self, app: &str, id: &BuildId) -> Result<Option<wire::Build>, RackError> {
        let answer = self.http.get(&["apps", app, "builds", id.as_str()], &[]).await;
        self.maybe(answer, &format!("build `{id}` of app `{app}`"))
    }

    /// What is kept with an app under a name.
    pub(super) async fn read_note(&self, app: &str, name: &str) -> Result<Option<Vec<u8>>, RackError> {
        let answer = self.http.get_bytes(&["apps", app, "objects", NOTES, name], &[]).await;
        self.maybe(answer, &format!("the object `{NOTES}/{name}` of app `{app}`"))
    }

    fn maybe<T>(&self, answer: Result<T, CallError>, what: &str) -> Result<Option<T>, RackError> {
        match answer {
            Ok(found) => Ok(Some(found)),
            // The app's own absence also reads as 404; it is not the object's.
            Err(error) if error.is_not_found() && !error.message().starts_with("app not found") => Ok(None),
            Err(error) => Err(self.unread(what, error)),
        }
    }

    /// The latest releases, newest first. Version 2 leaves their env out.
    pub(super) async fn releases(&self, app: &str) -> Result<Vec<wire::Release>, RackError> {
        let answer: Result<Vec<wire::Release>, _> = self.http.get(&["apps", app, "releases"], &[("limit", RELEASES)]).await;
        let mut releases = answer.map_err(|error| self.unread(&format!("the releases of app `{app}`"), error))?;
        releases.sort_by_key(|release| std::cmp::Reverse(release.created));
        Ok(releases)
    }

    /// What is live: app → release → build → commit, and what was made after it.
    pub(super) async fn read_live(&self, name: &str) -> Result<Live, RackError> {
        let app = self.app(name).await?;
        let active = app.release();
        let (release, releases) = tokio::try_join!(
            async {
                match &active {
                    Some(id) => self.release(name, id).await,
                    None => Ok(None),
                }
            },
            self.releases(name)
        )?;
        let since = match (&active, &release) {
            (None, _) => Some(OffsetDateTime::UNIX_EPOCH),
            (Some(_), Some(release)) => Some(release.created),
            // Deleted: the list may still have it; otherwise nothing is known to be newer.
            (Some(id), None) => releases.iter().find(|release| release.id().as_ref() == Some(id)).map(|release| release.created),
        };
        let newer = since.and_then(|since| {
            let newest = releases.iter().find(|release| release.id().is_some() && release.id() != active)?;
            (newest.created > since).then_some(newest)
        });
        let build = release.as_ref().and_then(wire::Release::build);
        let replaced = release.as_ref().and_then(|active| replaced(active, &releases));
        let (live_build, newer, replaced) =
            tokio::try_join!(self.maybe_build(name, build), self.with_build(name, newer), self.with_build(name, replaced))?;
        Ok(Live {
            status: app.status(),
            generation: app.generation(),
            release: active.map(|id| live_release(id, release, live_build)),
            newer,
            replaced,
        })
    }

    /// A release and its build.
    pub(super) async fn read_release(&self, app: &str, id: &ReleaseId) -> Result<Option<LiveRelease>, RackError> {
        let Some(release) = self.release(app, id).await? else { return Ok(None) };
        let build = self.maybe_build(app, release.build()).await?;
        Ok(Some(live_release(id.clone(), Some(release), build)))
    }

    /// The latest releases with their builds, each build asked for once.
    pub(super) async fn read_releases(&self, app: &str) -> Result<Vec<LiveRelease>, RackError> {
        let releases = self.releases(app).await?;
        let ids: BTreeSet<BuildId> = releases.iter().filter_map(wire::Release::build).collect();
        let read = stream::iter(ids).map(|id| async move { Ok::<_, RackError>((self.build(app, &id).await?, id)) });
        let read: Vec<(Option<wire::Build>, BuildId)> = read.buffer_unordered(BUILDS_AT_ONCE).try_collect().await?;
        let builds: BTreeMap<BuildId, wire::Build> = read.into_iter().filter_map(|(build, id)| Some((id, build?))).collect();
        let known = |release: wire::Release| {
            let build = release.build().and_then(|id| builds.get(&id).cloned());
            Some(live_release(release.id()?, Some(release), build))
        };
        Ok(releases.into_iter().filter_map(known).collect())
    }

    async fn with_build(&self, app: &str, release: Option<&wire::Release>) -> Result<Option<NewerRelease>, RackError> {
        let Some(id) = release.and_then(wire::Release::id) else { return Ok(None) };
        let of = release.and_then(wire::Release::build);
        let build = self.maybe_build(app, of.clone()).await?;
        Ok(Some(NewerRelease {
            id,
            build: of,
            commit: build.as_ref().and_then(wire::Build::commit),
            build_description: build.map(|build| build.description).unwrap_or_default(),
        }))
    }

    async fn maybe_build(&self, app: &str, id: Option<BuildId>) -> Result<Option<wire::Build>, RackError> {
        match id {
            Some(id) => self.build(app, &id).await,
            None => Ok(None),
        }
    }
}

/// The release that the active one was put on top of, when the active one's build is the older of the two: that build had a
/// release already before the other. `releases` are newest first.
///
/// A staged release is the second of its build on racks that make the first one themselves, and somebody else's may lie between
/// the two. It has the description of the first, which a rollback, whose description tells of its env, does not have.
fn replaced<'r>(active: &wire::Release, releases: &'r [wire::Release]) -> Option<&'r wire::Release> {
    let build = active.build()?;
    let before: Vec<&wire::Release> = releases.iter().filter(|release| release.created < active.created).collect();
    let at = before.iter().position(|release| release.build().is_some_and(|other| other != build))?;
    let of_build = |release: &&&wire::Release| release.build().as_ref() == Some(&build);
    let copied = before[at + 1..].iter().find(of_build)?;
    let switched = at.checked_sub(1).map_or(active, |at| before[at]);
    if Copying::is_cleanup(&switched.description) {
        // What lay between was put aside by offbuild itself, and nobody's word: it is as if it had never been made.
        return replaced(copied, releases);
    }
    let first = before[at + 1..].iter().rfind(of_build)?;
    if !first.description.is_empty() && first.description == active.description {
        return None;
    }
    // Going back twice is going back from what was there first.
    Some(replaced(before[at], releases).unwrap_or(before[at]))
}

/// The active release. One the rack has deleted keeps its id and is as old as can be.
fn live_release(id: ReleaseId, release: Option<wire::Release>, build: Option<wire::Build>) -> LiveRelease {
    let release = release.unwrap_or_default();
    LiveRelease {
        id,
        created: release.created,
        revision: release.revision().map(str::to_owned),
        build: build.and_then(|build| {
            Some(LiveBuild { id: build.id()?, commit: build.commit(), description: build.description, manifest: build.manifest })
        }),
        description: release.description,
    }
}

/// What a version text says.
#[derive(Debug, PartialEq, Eq)]
enum Version {
    Major(u8),
    Development,
    TooOld,
    Strange,
}

fn version_of(text: &str) -> Version {
    if text == "dev" {
        return Version::Development;
    }
    if text.starts_with("3.") && v3_version(text).is_some() {
        return Version::Major(3);
    }
    // Version 2 counts by date; a suffix may follow the fourteen digits.
    match text.get(..14) {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            if digits >= OLDEST_V2 {
                Version::Major(2)
            } else {
                Version::TooOld
            }
        }
        _ => Version::Strange,
    }
}

/// The three numbers of a version 3 version; what follows the digits of the last one does not count.
pub(super) fn v3_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.splitn(3, '.');
    let mut number = || {
        let part = parts.next()?;
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part[..digits].parse().ok()
    };
    Some((number()?, number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_is_known_by_its_version() {
        let table = [
            ("20260421192651", Version::Major(2)),
            ("20180708231844", Version::Major(2)),
            ("20260421192651-beta", Version::Major(2)),
            ("20180708231843", Version::TooOld),
            ("3.24.9", Version::Major(3)),
            ("3.0.0-rc1", Version::Major(3)),
            ("dev", Version::Development),
            ("4.0.0", Version::Strange),
            ("3.x", Version::Strange),
            ("", Version::Strange),
        ];
        for (text, expected) in table {
            assert_eq!(version_of(text), expected, "{text}");
        }
        assert!(v3_version("3.9.12") < v3_version("3.24.6"));
    }
}
