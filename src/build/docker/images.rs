//! Images on the engine: names, pushes, pulls.

use super::Docker;
use super::failure::{Unconnected, call, engine, may_pass, refuses, registry, repeated, stumbled, tried_again};
use crate::build::BuildError;
use crate::event::Progress;
use crate::names::{Digest, ImageId, Repository};
use crate::registry::Login;
use bollard::auth::DockerCredentials;
use bollard::errors::Error;
use bollard::query_parameters::{CreateImageOptions, PushImageOptions, RemoveImageOptions, TagImageOptions};
use futures_util::StreamExt as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first wait before a push or a pull is tried again.
const BACKOFF: Duration = Duration::from_secs(1);

impl Docker {
    pub(super) async fn add_tag(&self, image: &str, repository: &Repository, tag: &str) -> Result<(), BuildError> {
        let options = TagImageOptions { repo: Some(repository.to_string()), tag: Some(tag.to_owned()) };
        repeated(self.endpoint.answer, || self.client.tag_image(image, Some(options.clone()))).await.map_err(|error| match error {
            Error::DockerResponseServerError { status_code: 404, message } => BuildError::Missing {
                message: format!("image `{image}` is not on the engine: {message}"),
                hint: Some("build it again".to_owned()),
            },
            error => call(&self.endpoint, &format!("`{image}` cannot be tagged `{repository}:{tag}`"), error),
        })
    }

    pub(super) async fn find_id(&self, reference: &str) -> Result<Option<ImageId>, BuildError> {
        let found = match repeated(self.endpoint.answer, || self.client.inspect_image(reference)).await {
            Ok(found) => found,
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
            Err(error) => return Err(call(&self.endpoint, &format!("`{reference}` cannot be inspected"), error)),
        };
        let id = found.id.unwrap_or_default();
        ImageId::new(id).map(Some).map_err(|error| engine(format!("the engine's answer for `{reference}`: {error}")))
    }

    pub(super) async fn layer_ids(&self, image: &str) -> Result<Vec<String>, BuildError> {
        let found = repeated(self.endpoint.answer, || self.client.inspect_image(image)).await;
        let found = found.map_err(|error| call(&self.endpoint, &format!("`{image}` cannot be inspected"), error))?;
        Ok(found.root_fs.and_then(|files| files.layers).unwrap_or_default())
    }

    pub(super) async fn remove_tag(&self, reference: &str) -> Result<(), BuildError> {
        // Not tried again: a name that stays does no harm, and nobody should wait for it.
        let removed = tokio::time::timeout(self.endpoint.answer, self.client.remove_image(reference, None::<RemoveImageOptions>, None));
        match removed.await.unwrap_or(Err(Error::RequestTimeoutError)) {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(call(&self.endpoint, &format!("`{reference}` cannot be removed"), error)),
        }
    }

    /// Makes an image of a root file system, an uncompressed tar: a base for builds where nothing can be pulled.
    ///
    /// # Errors
    /// When the engine cannot be reached or refuses the archive.
    pub async fn import(&self, root: Vec<u8>, name: &str) -> Result<(), BuildError> {
        let options = CreateImageOptions { from_src: Some("-".to_owned()), repo: Some(name.to_owned()), ..CreateImageOptions::default() };
        let mut answers = Box::pin(self.client.create_image(Some(options), Some(bollard::body_full(root.into())), None));
        while let Some(answer) = answers.next().await {
            answer.map_err(|error| call(&self.endpoint, &format!("`{name}` cannot be imported"), error))?;
        }
        Ok(())
    }

    /// Pushes, again when the registry or the connection stumbled: what is there already is not sent twice.
    pub(super) async fn send(
        &self,
        repository: &Repository,
        tag: &str,
        login: Option<&Login>,
        progress: &Progress,
    ) -> Result<Digest, BuildError> {
        let again = |why: &BuildError| progress.notice(format!("the push is tried again: {why}"));
        tried_again(BACKOFF, again, || self.send_once(repository, tag, login, progress)).await
    }

    async fn send_once(
        &self,
        repository: &Repository,
        tag: &str,
        login: Option<&Login>,
        progress: &Progress,
    ) -> Result<Digest, Unconnected> {
        let reference = format!("{repository}:{tag}");
        let options = PushImageOptions { tag: Some(tag.to_owned()), platform: None };
        let mut answers = Box::pin(self.client.push_image(&repository.to_string(), Some(options), Some(credentials(repository, login))));
        let (mut digest, mut sums, mut retried) = (None, Sums::default(), false);
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(|error| Unconnected { again: passes(&error), error: self.refusal(&reference, error) })?;
            let status = answer.status.unwrap_or_default();
            // The engine counts down, a line per second and layer; that it tries again is told once.
            if status.starts_with("Retrying in ") && !retried {
                progress.notice(format!("`{reference}`: the registry did not take a layer; the engine tries again"));
                retried = true;
            }
            digest = digest.or_else(|| pushed(&status));
            if let Some((current, total)) = answer.progress_detail.and_then(|detail| sums.add(detail.current, detail.total)) {
                progress.transfer(current, Some(total));
            }
        }
        match digest {
            Some(digest) => Ok(digest),
            None => self.inspected(repository, &reference).await.map_err(|error| Unconnected { error, again: false }),
        }
    }

    /// The digest the engine remembers from the push, for engines that do not say it at its end.
    async fn inspected(&self, repository: &Repository, reference: &str) -> Result<Digest, BuildError> {
        let asked = format!("the digest of `{reference}` cannot be read");
        let found = repeated(self.endpoint.answer, || self.client.inspect_image(reference))
            .await
            .map_err(|error| call(&self.endpoint, &asked, error))?;
        let digests = found.repo_digests.unwrap_or_default();
        let ours =
            digests.iter().filter_map(|text| text.split_once('@')).find(|(name, _)| Repository::parse(name).as_ref() == Ok(repository));
        let digest = ours.and_then(|(_, digest)| Digest::new(digest).ok());
        digest.ok_or_else(|| engine(format!("`{reference}` was pushed, but the engine does not tell its digest")))
    }

    /// Pulls, again when the registry or the connection stumbled: what is there already does not come twice.
    pub(super) async fn fetch(&self, repository: &Repository, digest: &Digest, login: Option<&Login>) -> Result<(), BuildError> {
        tried_again(BACKOFF, |_| {}, || self.fetch_once(repository, digest, login)).await
    }

    async fn fetch_once(&self, repository: &Repository, digest: &Digest, login: Option<&Login>) -> Result<(), Unconnected> {
        let options =
            CreateImageOptions { from_image: Some(repository.to_string()), tag: Some(digest.to_string()), ..CreateImageOptions::default() };
        let mut answers = Box::pin(self.client.create_image(Some(options), None, Some(credentials(repository, login))));
        while let Some(answer) = answers.next().await {
            let failed = |error| Unconnected { again: passes(&error), error: self.refusal(&format!("{repository}@{digest}"), error) };
            answer.map_err(failed)?;
        }
        Ok(())
    }

    /// A push's or pull's error: the registry's words come through the engine, before the stream or in it.
    fn refusal(&self, reference: &str, error: Error) -> BuildError {
        match error {
            Error::DockerStreamError { error } => registry(reference, &error),
            Error::DockerResponseServerError { message, .. } => registry(reference, &message),
            error => call(&self.endpoint, &format!("`{reference}`"), error),
        }
    }
}

/// True when a push or pull that ended like this may go through at the next try.
fn passes(error: &Error) -> bool {
    match error {
        Error::DockerStreamError { error } => stumbled(error),
        // The engine says 500 for most of what a registry refuses, and for what went wrong with itself. A push may be sent twice, so only
        // a refusal that reads like one is taken for the last word.
        Error::DockerResponseServerError { status_code: 500, message } => stumbled(message) || !refuses(message),
        Error::DockerResponseServerError { status_code, message } => matches!(status_code, 429 | 502..=504) || stumbled(message),
        Error::IOError { err } => may_pass(err),
        Error::HyperResponseError { .. } | Error::RequestTimeoutError => true,
        _ => false,
    }
}

fn credentials(repository: &Repository, login: Option<&Login>) -> DockerCredentials {
    // Docker Hub's logins go by the address of its old index.
    let host = if repository.host == "docker.io" { "https://index.docker.io/v1/" } else { &repository.host };
    let mut credentials = DockerCredentials { serveraddress: Some(host.to_owned()), ..DockerCredentials::default() };
    match login {
        Some(login) if login.user == "<token>" => credentials.identitytoken = Some(login.password.expose().to_owned()),
        Some(login) => {
            credentials.username = Some(login.user.clone());
            credentials.password = Some(login.password.expose().to_owned());
        }
        None => {}
    }
    credentials
}

/// The digest in a push's last line: `v1: digest: sha256:… size: 942`.
fn pushed(status: &str) -> Option<Digest> {
    let (_, rest) = status.split_once(": digest: ")?;
    Digest::new(rest.split(' ').next()?).ok()
}

/// The bytes of all layers of a push. bollard's answers do not say which layer they are about, but each layer has its own
/// size, so the size names it; two layers of the very same size count as one.
#[derive(Default)]
struct Sums {
    layers: BTreeMap<u64, u64>,
    told: u64,
}

impl Sums {
    /// The sums, when they have grown enough to be told.
    fn add(&mut self, current: Option<i64>, total: Option<i64>) -> Option<(u64, u64)> {
        let total = u64::try_from(total?).ok().filter(|total| *total > 0)?;
        // The engine counts the bytes of the archive it makes, which are more than those of the files.
        let current = u64::try_from(current?).ok()?.min(total);
        let layer = self.layers.entry(total).or_default();
        *layer = current.max(*layer);
        let (sent, all) = (self.layers.values().sum::<u64>(), self.layers.keys().sum::<u64>());
        let step = (all / 100).max(1);
        (sent >= self.told + step || sent == all && sent > self.told).then(|| {
            self.told = sent;
            (sent, all)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn the_digest_is_in_the_last_line() {
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(pushed(&format!("v1: digest: {digest} size: 942")).unwrap().as_str(), digest);
        assert_eq!(pushed("Pushed"), None);
    }

    #[test]
    fn sums_grow_and_stay_below_the_total() {
        let mut sums = Sums::default();
        assert_eq!(sums.add(Some(10), Some(100)), Some((10, 100)));
        assert_eq!(sums.add(Some(5), Some(100)), None);
        assert_eq!(sums.add(Some(50), Some(200)), Some((60, 300)));
        assert_eq!(sums.add(Some(120), Some(100)), Some((150, 300)));
        assert_eq!(sums.add(None, None), None);
        assert_eq!(sums.add(Some(200), Some(200)), Some((300, 300)));
    }

    #[test]
    fn a_token_is_no_password_and_docker_hub_has_its_own_address() {
        let hub = Repository::parse("redis").unwrap();
        let login = |user: &str| Login { user: user.to_owned(), password: Secret::new("p") };
        let token = credentials(&hub, Some(&login("<token>")));
        assert_eq!((token.username, token.identitytoken.as_deref()), (None, Some("p")));
        assert_eq!(token.serveraddress.as_deref(), Some("https://index.docker.io/v1/"));
        let other = credentials(&Repository::parse("r.example/x").unwrap(), Some(&login("me")));
        assert_eq!((other.username.as_deref(), other.serveraddress.as_deref()), (Some("me"), Some("r.example")));
    }
}
