//! All registries behind one face: a client per host, made when the host is first asked for.

use super::auth::Logins;
use super::credentials::DockerLogins;
use super::ecr::{Ecr, EcrApi};
use super::host::EcrHost;
use super::http::Http;
use super::oci::Oci;
use super::{CreateOptions, Login, Registry, RegistryError};
use crate::config::{Limits, RegistrySettings};
use crate::names::{Digest, Repository, is_tag};
use crate::secret::Redactor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Looks up an environment variable.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Every registry the configuration or a manifest may name.
pub struct Registries {
    settings: BTreeMap<String, RegistrySettings>,
    env: Env,
    redactor: Redactor,
    http: Arc<Http>,
    clients: Mutex<BTreeMap<String, Arc<Client>>>,
    answer: Duration,
}

enum Client {
    Ecr(Ecr),
    Oci(Oci),
}

impl Registries {
    /// Registries with their settings by host. `env` tells `DOCKER_CONFIG`, `HOME`, `PATH`, `SKIP_ECR_AUTH` (ECR is then
    /// used like any other registry, with Docker's login), `AWS_REGION` and `AWS_DEFAULT_REGION`; the rest of AWS's variables and files the SDK reads itself. Every password and token that comes
    /// up is registered with `redactor`. Asks nobody anything.
    #[must_use]
    pub fn new(settings: BTreeMap<String, RegistrySettings>, env: Env, redactor: Redactor) -> Self {
        let answer = Limits::default().answer;
        Self { settings, env, redactor, http: Arc::new(Http::new(answer)), clients: Mutex::default(), answer }
    }

    /// Waits so long for one answer, each time it asks.
    #[must_use]
    pub fn answering_within(self, answer: Duration) -> Self {
        Self { http: Arc::new(Http::new(answer)), answer, ..self }
    }

    fn client(&self, host: &str) -> Result<Arc<Client>, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(host) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.make(host)?);
        clients.insert(host.to_owned(), Arc::clone(&client));
        Ok(client)
    }

    fn make(&self, host: &str) -> Result<Client, RegistryError> {
        let settings = self.settings.get(host).cloned().unwrap_or_default();
        let named = EcrHost::parse(host);
        // The seed script's switch: whoever runs this has logged in to ECR with Docker, maybe without AWS credentials here.
        let docker_login = (self.env)("SKIP_ECR_AUTH").is_some_and(|value| !value.is_empty());
        if docker_login || (!settings.ecr && named.is_none()) {
            let logins = Logins::Docker(DockerLogins::new(host.to_owned(), Arc::clone(&self.env), self.redactor.clone()));
            return Ok(Client::Oci(Oci::new(host, settings.insecure, Arc::clone(&self.http), logins)?));
        }
        let mut at = named.unwrap_or_else(|| EcrHost { account: None, region: self.region(), fips: false });
        if let Some(region) = settings.region {
            at.region = region;
        }
        let api = Arc::new(EcrApi::new(host.to_owned(), at, self.redactor.clone(), self.answer));
        let oci = Oci::new(host, settings.insecure, Arc::clone(&self.http), Logins::Ecr(Arc::clone(&api)))?;
        Ok(Client::Ecr(Ecr::new(api, oci)))
    }

    /// The region for a registry whose name does not tell it.
    fn region(&self) -> String {
        let set = |name| (self.env)(name).filter(|value| !value.is_empty());
        set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned())
    }
}

/// A text that cannot be a tag would be part of a URL's path.
fn check(repository: &Repository, tag: &str) -> Result<(), RegistryError> {
    if is_tag(tag) {
        return Ok(());
    }
    Err(RegistryError::Failed { host: repository.host.clone(), message: format!("`{tag}` cannot be a tag of `{repository}`") })
}

#[async_trait::async_trait]
impl Registry for Registries {
    async fn find(&self, repository: &Repository, tags: &[String]) -> Result<BTreeMap<String, Digest>, RegistryError> {
        for tag in tags {
            check(repository, tag)?;
        }
        match &*self.client(&repository.host)? {
            Client::Ecr(ecr) => ecr.find(repository, tags).await,
            Client::Oci(oci) => oci.find(repository, tags).await,
        }
    }

    async fn ensure(&self, repository: &Repository, create: Option<&CreateOptions>) -> Result<bool, RegistryError> {
        match &*self.client(&repository.host)? {
            Client::Ecr(ecr) => ecr.ensure(repository, create).await,
            // Everywhere else a push makes the repository.
            Client::Oci(_) => Ok(false),
        }
    }

    async fn retag(&self, repository: &Repository, digest: &Digest, tag: &str) -> Result<(), RegistryError> {
        check(repository, tag)?;
        match &*self.client(&repository.host)? {
            Client::Ecr(ecr) => ecr.retag(repository, digest, tag).await,
            Client::Oci(oci) => oci.retag(repository, digest, tag).await,
        }
    }

    async fn labels(&self, repository: &Repository, digest: &Digest) -> Result<BTreeMap<String, String>, RegistryError> {
        match &*self.client(&repository.host)? {
            Client::Ecr(ecr) => ecr.labels(repository, digest).await,
            Client::Oci(oci) => oci.labels(repository, digest).await,
        }
    }

    async fn login(&self, host: &str, fresh: bool) -> Result<Option<Login>, RegistryError> {
        match &*self.client(host)? {
            Client::Ecr(ecr) => ecr.login(fresh).await.map(Some),
            Client::Oci(oci) => oci.login(fresh).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Vars = &'static [(&'static str, &'static str)];

    fn client(host: &str, settings: RegistrySettings, env: Vars) -> (&'static str, String) {
        let env: Env = Arc::new(|name| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
        let registries = Registries::new([(host.to_owned(), settings)].into(), env, Redactor::default());
        match registries.make(host).unwrap() {
            Client::Ecr(_) => ("ecr", registries.region()),
            Client::Oci(_) => ("oci", registries.region()),
        }
    }

    #[test]
    fn a_registry_is_ecr_by_its_name_or_by_its_settings() {
        let named = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let ecr = || RegistrySettings { ecr: true, ..RegistrySettings::default() };
        let table: [(&str, RegistrySettings, Vars, (&str, &str)); 6] = [
            (named, RegistrySettings::default(), &[], ("ecr", "us-east-1")),
            (named, RegistrySettings::default(), &[("SKIP_ECR_AUTH", "1")], ("oci", "us-east-1")),
            (named, RegistrySettings::default(), &[("SKIP_ECR_AUTH", "")], ("ecr", "us-east-1")),
            ("proxy.example.com", ecr(), &[("AWS_DEFAULT_REGION", "a"), ("AWS_REGION", "b")], ("ecr", "b")),
            ("proxy.example.com", ecr(), &[("AWS_DEFAULT_REGION", "a"), ("AWS_REGION", "")], ("ecr", "a")),
            ("registry.example.com", RegistrySettings::default(), &[], ("oci", "us-east-1")),
        ];
        for (host, settings, env, (kind, region)) in table {
            assert_eq!(client(host, settings, env), (kind, region.to_owned()), "{host} with {env:?}");
        }
    }
}
