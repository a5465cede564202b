//! Amazon ECR: existence in one call, repositories made when they are missing, tags without a pull, tokens.
//!
//! Everything is asked of AWS's API, also for a registry that is ECR behind another host name; only labels are read the
//! way every registry has, through [`Oci`] with ECR's login. The repository must be known to exist before a push: ECR
//! makes none.

use super::host::EcrHost;
use super::oci::{MANIFEST_TYPES, Oci};
use super::shared::{Fetched, Shared};
use super::{CreateOptions, Login, RegistryError, aws};
use crate::names::{Digest, Repository};
use crate::retry;
use crate::secret::{Redactor, Secret};
use aws_config::retry::RetryConfig;
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ecr::operation::put_image::PutImageError;
use aws_sdk_ecr::types::{Image, ImageFailureCode, ImageIdentifier, ImageScanningConfiguration, ImageTagMutability};
use base64::Engine as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::OnceCell;

/// The most image ids `BatchGetImage` takes.
const BATCH: usize = 100;
/// How often a repository is asked for.
const CREATES: u32 = 4;
/// The first wait before that.
const BACKOFF: Duration = Duration::from_millis(500);
/// A token is renewed this long before it ends, so that no push outlives it.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 60);
/// A token is used at least this long, whatever end it names: a wrong clock must not cause a request per use.
const USE_AT_LEAST: Duration = Duration::from_secs(5 * 60);

/// The API of one ECR registry, and its token.
pub struct EcrApi {
    host: String,
    at: EcrHost,
    redactor: Redactor,
    answer: Duration,
    client: OnceCell<aws_sdk_ecr::Client>,
    token: Shared<Login>,
}

impl EcrApi {
    /// For the registry images call `host`, which is given `answer` for one answer. Tokens are registered with `redactor`. Asks
    /// nothing yet.
    pub fn new(host: String, at: EcrHost, redactor: Redactor, answer: Duration) -> Self {
        Self { host, at, redactor, answer, client: OnceCell::new(), token: Shared::default() }
    }

    /// What masks its logins.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The login for pushes and pulls; `fresh` asks for one that is newer than this call.
    pub async fn token(&self, fresh: bool) -> Result<Login, RegistryError> {
        self.token.get(fresh, self.fetch_token()).await
    }

    async fn fetch_token(&self) -> Result<Fetched<Login>, RegistryError> {
        let asked = Instant::now();
        let answer = self.client().await.get_authorization_token().send().await;
        let answer = answer.map_err(|error| self.failure("ecr:GetAuthorizationToken", &error))?;
        let data = answer.authorization_data().first().ok_or_else(|| self.failed("AWS answered without a token".to_owned()))?;
        let login =
            data.authorization_token().and_then(decoded).ok_or_else(|| self.failed("AWS's token is not `user:password`".to_owned()))?;
        self.redactor.register(&login.password);
        let left = data
            .expires_at()
            .and_then(|end| SystemTime::try_from(*end).ok())
            .and_then(|end| end.duration_since(SystemTime::now()).ok())
            .unwrap_or_default();
        Ok(Fetched { value: login, until: Some(asked + left.saturating_sub(RENEW_BEFORE).max(USE_AT_LEAST)) })
    }

    async fn client(&self) -> &aws_sdk_ecr::Client {
        self.client.get_or_init(|| aws::client(&self.at.region, self.at.fips, self.answer)).await
    }

    fn failure<E>(&self, action: &str, error: &SdkError<E>) -> RegistryError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        aws::failure(&self.host, action, error)
    }

    fn failed(&self, message: String) -> RegistryError {
        RegistryError::Failed { host: self.host.clone(), message }
    }
}

/// One ECR registry.
pub struct Ecr {
    api: Arc<EcrApi>,
    oci: Oci,
}

/// The images of one repository, or that there is no such repository.
enum Batch {
    Images(Vec<Image>),
    NoRepository,
}

impl Ecr {
    /// The registry behind `api`, whose images can be read through `oci`.
    pub fn new(api: Arc<EcrApi>, oci: Oci) -> Self {
        Self { api, oci }
    }

    /// The login for pushes and pulls.
    pub async fn login(&self, fresh: bool) -> Result<Login, RegistryError> {
        self.api.token(fresh).await
    }

    /// The labels of an image.
    pub async fn labels(&self, repository: &Repository, digest: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        self.oci.labels(repository, digest).await
    }

    /// Which of `tags` exist: one call for every hundred of them.
    pub async fn find(&self, repository: &Repository, tags: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        let wanted: Vec<&String> = BTreeSet::from_iter(tags).into_iter().collect();
        let mut found = BTreeMap::new();
        for tags in wanted.chunks(BATCH) {
            let ids = tags.iter().map(|tag| ImageIdentifier::builder().image_tag(*tag).build()).collect();
            let Batch::Images(images) = self.images(repository, ids).await? else { return Ok(BTreeMap::new()) };
            for image in images {
                let Some(id) = image.image_id() else { continue };
                if let (Some(tag), Some(digest)) = (id.image_tag(), id.image_digest()) {
                    found.insert(tag.to_owned(), Digest::new(digest).map_err(|error| self.api.failed(error.to_string()))?);
                }
            }
        }
        Ok(found)
    }

    /// Makes the repository when it is missing and `create` says how.
    ///
    /// Existence is asked with `BatchGetImage`, which every identity that deploys may call; `DescribeRepositories` is not
    /// among the actions AWS lists for a push.
    pub async fn ensure(&self, repository: &Repository, create: Option<&CreateOptions>) -> Result<bool, RegistryError> {
        let probe = ImageIdentifier::builder().image_tag("latest").build();
        if let Batch::Images(_) = self.images(repository, vec![probe.clone()]).await? {
            return Ok(false);
        }
        let Some(options) = create else { return Err(RegistryError::NoRepository { repository: repository.clone() }) };
        let client = self.api.client().await;
        let mutability = if options.immutable { ImageTagMutability::Immutable } else { ImageTagMutability::Mutable };
        let scanning = ImageScanningConfiguration::builder().scan_on_push(options.scan_on_push).build();
        let mut tried = 0;
        let made = loop {
            let created = client
                .create_repository()
                .set_registry_id(self.api.at.account.clone())
                .repository_name(&repository.path)
                .image_tag_mutability(mutability.clone())
                .image_scanning_configuration(scanning.clone())
                .customize()
                // Not sent again without a look.
                .config_override(aws_sdk_ecr::config::Builder::new().retry_config(RetryConfig::disabled()))
                .send()
                .await;
            let error = match created {
                Ok(_) => break true,
                Err(error) if error.as_service_error().is_some_and(|error| error.is_repository_already_exists_exception()) => break false,
                Err(error) => error,
            };
            tried += 1;
            if !aws::may_pass(&error) {
                return Err(self.api.failure("ecr:CreateRepository", &error));
            }
            if let Batch::Images(_) = self.images(repository, vec![probe.clone()]).await? {
                break true;
            }
            if tried == CREATES {
                return Err(self.api.failure("ecr:CreateRepository", &error));
            }
            tokio::time::sleep(retry::backoff(BACKOFF, tried)).await;
        };
        if !made {
            return Ok(false);
        }
        if let Some(policy) = &options.lifecycle_policy {
            let put = client
                .put_lifecycle_policy()
                .set_registry_id(self.api.at.account.clone())
                .repository_name(&repository.path)
                .lifecycle_policy_text(policy)
                .send()
                .await;
            // The next run finds the repository and leaves it as it is, so this one has to say what is missing.
            put.map_err(|error| made_without_policy(repository, self.api.failure("ecr:PutLifecyclePolicy", &error)))?;
        }
        Ok(true)
    }

    /// Puts the manifest with this digest under one more tag.
    pub async fn retag(&self, repository: &Repository, digest: &Digest, tag: &str) -> Result<(), RegistryError> {
        let id = ImageIdentifier::builder().image_digest(digest.as_str()).build();
        let Batch::Images(images) = self.images(repository, vec![id]).await? else {
            return Err(RegistryError::NoRepository { repository: repository.clone() });
        };
        let image = images.iter().find(|image| image.image_manifest().is_some());
        let image = image.ok_or_else(|| self.api.failed(format!("`{repository}@{digest}` does not exist")))?;
        let put = self
            .api
            .client()
            .await
            .put_image()
            .set_registry_id(self.api.at.account.clone())
            .repository_name(&repository.path)
            .set_image_manifest(image.image_manifest().map(str::to_owned))
            .set_image_manifest_media_type(image.image_manifest_media_type().map(str::to_owned))
            .image_digest(digest.as_str())
            .image_tag(tag)
            .send()
            .await;
        let Err(error) = put else { return Ok(()) };
        // The first says that the tag stands for this manifest already; with immutable tags either may come, so look.
        let taken = |error: &PutImageError| error.is_image_already_exists_exception() || error.is_image_tag_already_exists_exception();
        if error.as_service_error().is_some_and(taken) {
            return match self.find(repository, &[tag.to_owned()]).await?.get(tag) {
                Some(there) if there == digest => Ok(()),
                Some(there) => Err(self.api.failed(format!("tag `{repository}:{tag}` is immutable and is {there}, not {digest}"))),
                None => {
                    Err(self.api.failed(format!("tag `{repository}:{tag}` was there when {digest} was to get it, and is gone: try again")))
                }
            };
        }
        Err(self.api.failure("ecr:PutImage", &error))
    }

    async fn images(&self, repository: &Repository, ids: Vec<ImageIdentifier>) -> Result<Batch, RegistryError> {
        let answer = self
            .api
            .client()
            .await
            .batch_get_image()
            .set_registry_id(self.api.at.account.clone())
            .repository_name(&repository.path)
            .set_image_ids(Some(ids))
            .set_accepted_media_types(Some(MANIFEST_TYPES.map(str::to_owned).to_vec()))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_repository_not_found_exception()) => {
                return Ok(Batch::NoRepository);
            }
            Err(error) => return Err(self.api.failure("ecr:BatchGetImage", &error)),
        };
        if let Some(failure) = answer.failures().iter().find(|failure| failure.failure_code() != Some(&ImageFailureCode::ImageNotFound)) {
            let code = failure.failure_code().map_or("unknown failure", ImageFailureCode::as_str);
            return Err(self
                .api
                .failed(format!("cannot look into `{repository}`: {code}: {}", failure.failure_reason().unwrap_or_default())));
        }
        Ok(Batch::Images(answer.images.unwrap_or_default()))
    }
}

fn made_without_policy(repository: &Repository, mut error: RegistryError) -> RegistryError {
    if let RegistryError::Unreachable { message, .. } | RegistryError::Login { message, .. } | RegistryError::Failed { message, .. } =
        &mut error
    {
        *message = format!("`{repository}` was created, and its lifecycle policy could not be set: {message}");
    }
    error
}

/// The login in a token: base64 of `AWS:password`.
fn decoded(token: &str) -> Option<Login> {
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(token).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login { user: user.to_owned(), password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_user_and_a_password() {
        let login = decoded("QVdTOnNlOmNyZXQ=").unwrap();
        assert_eq!((login.user.as_str(), login.password.expose()), ("AWS", "se:cret"));
        assert_eq!(decoded("QVdT"), None);
        assert_eq!(decoded("?"), None);
    }
}
