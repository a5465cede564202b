//! Where a service's image goes: repository and tags, as the seed script wrote them.
//!
//! | written | commit | moving |
//! |---|---|---|
//! | `REPO:web` | `REPO:web.<sha>` | `REPO:web.latest` |
//! | `REPO` | `REPO:<service>.<sha>` | `REPO:<service>.latest` |
//! | `REPO:web.TAG` | `REPO:web.<sha>` | `REPO:web.latest` |
//! | nothing | as `REPO`, from `registry.repository` | |

use super::ServiceBuild;
use crate::build::{ImageBuild, NamedContext};
use crate::error::{Error, Result};
use crate::names::{AppName, Fingerprint, ImageRef, Repository, ServiceName, is_tag};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlace {
    /// The repository.
    pub repository: Repository,
    /// The tag of this commit.
    pub commit_tag: String,
    /// The tag that moves after a good push and is never deployed.
    pub latest_tag: String,
    /// What a tag by content starts with: see [`ImagePlace::fingerprint_tag`].
    pub fingerprint_prefix: String,
}

impl ImagePlace {
    /// The tag that says what went into the image, so that it is found again whatever the commit.
    #[must_use]
    pub fn fingerprint_tag(&self, fingerprint: &Fingerprint) -> String {
        format!("{}{fingerprint}", self.fingerprint_prefix)
    }
}

/// The fingerprint of an image: its app's, and all of its build that a variable of the environment may decide. So two environments
/// that give one commit other arguments do not take each other's image.
///
/// What does not become part of an image is not part of it: secrets, caches, where the work tree lies.
#[must_use]
pub fn image_fingerprint(app: &Fingerprint, build: &ServiceBuild) -> Fingerprint {
    // Field by field, so that one that is added has to be thought of.
    let ImageBuild {
        context: _,
        dockerfile: _,
        target,
        args,
        platform,
        secrets: _,
        ssh: _,
        contexts,
        cache_from: _,
        inline_cache: _,
        no_cache: _,
        pull: _,
        network,
        extra_hosts,
        shm_size,
        ulimits,
        context_key: _,
    } = &build.image;
    // Directories are told from the repository's root.
    let contexts = contexts.iter().map(|(name, context)| match context {
        NamedContext::Image(image) => (name, Some(image)),
        NamedContext::Directory(_) => (name, None),
    });
    let paths = [&build.context, &build.dockerfile].into_iter().chain(&build.also_reads).map(ToString::to_string);
    let json = json!([
        app,
        paths.collect::<Vec<_>>(),
        contexts.collect::<Vec<_>>(),
        json!([target, args, platform, network, extra_hosts, shm_size, ulimits]),
        build.labels,
    ]);
    Fingerprint::from_sha256(&Sha256::digest(json.to_string()))
}

/// Repository and tags of a built service.
///
/// `written` is the service's `image:`, `template` the configured repository with `{app}` and `{service}` in it, `commit` the
/// commit's id, with `-dirty.<hash>` for a dirty tree. An error when there is no repository to push to, or a tag would be too
/// long.
pub fn image_tags(
    service: &ServiceName,
    written: Option<&ImageRef>,
    template: Option<&str>,
    app: &AppName,
    commit: &str,
) -> Result<ImagePlace> {
    let repository = match (written, template) {
        (Some(ImageRef { digest: Some(digest), .. }), _) => {
            let message = format!("service `{service}` of app `{app}` is built, but its `image:` is pinned to `{digest}`");
            return Err(Error::config(message).hint("write `image: REPOSITORY:TAG`, or remove `build:`"));
        }
        (Some(image), _) => image.repository.clone(),
        (None, Some(template)) => {
            let filled = template.replace("{app}", app.as_str()).replace("{service}", service.as_str());
            Repository::parse(&filled).map_err(|error| {
                Error::config(format!("service `{service}` of app `{app}` has no usable image repository"))
                    .because(error)
                    .hint("correct `registry.repository` in apps.yaml: it may hold `{app}` and `{service}`, and no tag")
            })?
        }
        (None, None) => {
            let message = format!("service `{service}` of app `{app}` is built, but no repository is named for its image");
            return Err(Error::config(message)
                .hint("write `image: REPOSITORY` beside its `build:`, or set `registry: {repository: HOST/{app}}` in apps.yaml"));
        }
    };
    let tag = written.and_then(|image| image.tag.as_deref());
    let with = |last: &str| match tag {
        Some(tag) if tag.contains("TAG") => tag.replace("TAG", last),
        Some(tag) => format!("{tag}.{last}"),
        None => format!("{service}.{last}"),
    };
    let place =
        ImagePlace { repository, commit_tag: with(commit), latest_tag: with("latest"), fingerprint_prefix: format!("{service}.in-") };
    // A fingerprint has 24 digits.
    for (tag, length) in [(&place.commit_tag, 0), (&place.latest_tag, 0), (&place.fingerprint_prefix, 24)] {
        if tag.len() + length > 128 || !is_tag(tag) {
            let message = format!("the image of service `{service}` of app `{app}` would get the tag `{tag}`, which is no tag");
            return Err(Error::config(message).hint("a tag has at most 128 letters, digits, `_`, `.` and `-`; shorten what is written"));
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn tags(written: Option<&str>, template: Option<&str>, commit: &str) -> Result<(String, String, String)> {
        let written = written.map(|text| ImageRef::parse(text).unwrap());
        let (service, app) = (ServiceName::new("web").unwrap(), AppName::new("shop").unwrap());
        let place = image_tags(&service, written.as_ref(), template, &app, commit)?;
        let fingerprint = Fingerprint::from_sha256(&[0xab; 32]);
        assert_eq!(place.fingerprint_tag(&fingerprint), format!("web.in-{}", "ab".repeat(12)));
        Ok((place.repository.to_string(), place.commit_tag, place.latest_tag))
    }

    #[test]
    fn tags_are_as_the_seed_script_wrote_them() {
        let dirty = format!("{SHA}-dirty.9f");
        for (written, template, commit, repository, tag, latest) in [
            (Some("r.io/x:front"), None, SHA, "r.io/x", format!("front.{SHA}"), "front.latest"),
            (Some("r.io/x"), None, SHA, "r.io/x", format!("web.{SHA}"), "web.latest"),
            (Some("r.io/x:web.TAG"), Some("r.io/y"), SHA, "r.io/x", format!("web.{SHA}"), "web.latest"),
            (Some("r.io/x:TAG-arm"), None, SHA, "r.io/x", format!("{SHA}-arm"), "latest-arm"),
            (Some("localhost:5000/x:a"), None, &dirty, "localhost:5000/x", format!("a.{dirty}"), "a.latest"),
            (None, Some("r.io/{app}/{service}"), SHA, "r.io/shop/web", format!("web.{SHA}"), "web.latest"),
        ] {
            let expected = (repository.to_owned(), tag, latest.to_owned());
            assert_eq!(tags(written, template, commit).unwrap(), expected, "{written:?}");
        }
    }

    #[test]
    fn what_cannot_be_pushed_is_refused() {
        let pinned = format!("r.io/x@sha256:{}", "a".repeat(64));
        let long = format!("r.io/x:{}", "a".repeat(100));
        for (written, template, expected) in [
            (None, None, "no repository is named"),
            (None, Some("r.io/{app}:x"), "no usable image repository"),
            (Some(pinned.as_str()), None, "is pinned to"),
            (Some(long.as_str()), None, "which is no tag"),
        ] {
            let error = tags(written, template, SHA).unwrap_err();
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
