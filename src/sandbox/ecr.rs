//! ECR's API over the sandbox's registry: AWS JSON 1.1, the operations a deploy client needs, the SDK's own error names.
//!
//! Signatures are not checked: a client reaches it with `AWS_ENDPOINT_URL_ECR` and any keys. The registry keeps its own
//! address, so images are `127.0.0.1:PORT/NAME`.

use super::fault::Fault;
use super::registry::store::{Settings, digest_of};
use super::registry::{Refusal as RegistryRefusal, Registry, is_repository};
use super::wire::{Answer, header_text, typed, whole};
use crate::names::Digest;
use crate::secret::Secret;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use time::OffsetDateTime;

/// The account every sandbox registry belongs to.
pub(super) const ACCOUNT: &str = "123456789012";
/// The region it is in.
pub(super) const REGION: &str = "us-east-1";
/// The user of an ECR login.
pub(super) const USER: &str = "AWS";
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";
/// As many image ids as one call may hold.
const MOST_IDS: usize = 100;

/// The API.
pub(super) struct Ecr {
    pub(super) registry: Arc<Registry>,
    pub(super) password: Secret,
    /// Host and port of the registry.
    pub(super) host: String,
    /// Host and port of this API.
    pub(super) address: String,
    /// A random part of layer URLs, in place of AWS's signature.
    pub(super) layer_key: String,
}

/// An error as the SDK knows it.
struct Refusal {
    kind: &'static str,
    message: String,
}

fn refuse<T>(kind: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { kind, message: message.into() })
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self { kind: "ServerException", message: format!("the sandbox's disk failed: {error}") }
    }
}

impl From<RegistryRefusal> for Refusal {
    fn from(refusal: RegistryRefusal) -> Self {
        let (kind, message) = refusal.for_ecr();
        Self { kind, message }
    }
}

fn words<'v>(input: &'v Value, key: &str) -> Option<&'v str> {
    input.get(key).and_then(Value::as_str)
}

fn seconds(time: OffsetDateTime) -> f64 {
    time.unix_timestamp() as f64
}

impl Ecr {
    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.method() == Method::GET {
            return self.layer(request.uri().path()).await;
        }
        let operation = header_text(request.headers(), "x-amz-target").and_then(|target| target.strip_prefix(TARGET)).map(str::to_owned);
        let input = whole(request.into_body()).await.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let answer = match (operation, input) {
            (Some(operation), Some(input)) => self.call(&operation, &input),
            _ => refuse("SerializationException", "the request is no AWS JSON call"),
        };
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err(Refusal { kind, message }) => {
                let status = if kind == "ServerException" { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::BAD_REQUEST };
                (status, json!({"__type": kind, "message": message}))
            }
        };
        typed(status, "application/x-amz-json-1.1", body.to_string())
    }

    fn call(&self, operation: &str, input: &Value) -> Result<Value, Refusal> {
        if self.registry.faults().is_set(&self.registry.place, None, &Fault::LoginRefused) {
            return refuse("AccessDeniedException", "the sandbox was told to refuse logins");
        }
        match operation {
            "GetAuthorizationToken" => Ok(self.token()),
            "DescribeRepositories" => self.describe(input),
            "CreateRepository" => self.create(input),
            "PutLifecyclePolicy" => self.put_lifecycle_policy(input),
            "BatchGetImage" => self.batch_get_image(input),
            "PutImage" => self.put_image(input),
            "BatchCheckLayerAvailability" => self.check_layers(input),
            "GetDownloadUrlForLayer" => self.layer_url(input),
            other => refuse("UnknownOperationException", format!("the sandbox does not serve `{other}`")),
        }
    }

    fn token(&self) -> Value {
        let token = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{}", self.password.expose()));
        let expires = seconds(OffsetDateTime::now_utc() + time::Duration::hours(12));
        json!({"authorizationData": [
            {"authorizationToken": token, "expiresAt": expires, "proxyEndpoint": format!("http://{}", self.host)}
        ]})
    }

    /// The repository a call names; an error when it is not there.
    fn repository<'i>(&self, input: &'i Value) -> Result<(&'i str, Settings), Refusal> {
        let Some(name) = words(input, "repositoryName") else { return refuse("InvalidParameterException", "no `repositoryName`") };
        match self.registry.store.settings(name) {
            Some(settings) => Ok((name, settings)),
            None => {
                let message = format!("The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'");
                refuse("RepositoryNotFoundException", message)
            }
        }
    }

    fn shown(&self, name: &str, settings: &Settings) -> Value {
        json!({
            "repositoryArn": format!("arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}"),
            "registryId": ACCOUNT,
            "repositoryName": name,
            "repositoryUri": format!("{}/{name}", self.host),
            "createdAt": seconds(settings.created),
            "imageTagMutability": if settings.immutable { "IMMUTABLE" } else { "MUTABLE" },
            "imageScanningConfiguration": {"scanOnPush": settings.scan_on_push},
            "encryptionConfiguration": {"encryptionType": "AES256"},
        })
    }

    fn describe(&self, input: &Value) -> Result<Value, Refusal> {
        let asked = input.get("repositoryNames").and_then(Value::as_array);
        let names: Vec<String> = match asked {
            Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => self.registry.store.repositories(),
        };
        let mut shown = Vec::new();
        for name in names {
            match self.repository(&json!({"repositoryName": name})) {
                Ok((_, settings)) => shown.push(self.shown(&name, &settings)),
                // Only a name that was asked for has to exist.
                Err(refusal) if asked.is_some() => return Err(refusal),
                Err(_) => {}
            }
        }
        Ok(json!({"repositories": shown}))
    }

    fn create(&self, input: &Value) -> Result<Value, Refusal> {
        let name = words(input, "repositoryName").unwrap_or_default();
        if !is_repository(name) || name.len() < 2 {
            let message = "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression \
                           '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*''";
            return refuse("InvalidParameterException", message);
        }
        if self.registry.store.settings(name).is_some() {
            let message = format!("The repository with name '{name}' already exists in the registry with id '{ACCOUNT}'");
            return refuse("RepositoryAlreadyExistsException", message);
        }
        let settings = Settings {
            created: OffsetDateTime::now_utc(),
            immutable: words(input, "imageTagMutability") == Some("IMMUTABLE"),
            scan_on_push: input.pointer("/imageScanningConfiguration/scanOnPush").and_then(Value::as_bool).unwrap_or_default(),
            lifecycle_policy: None,
        };
        self.registry.store.set_settings(name, &settings)?;
        Ok(json!({"repository": self.shown(name, &settings)}))
    }

    fn put_lifecycle_policy(&self, input: &Value) -> Result<Value, Refusal> {
        let (name, mut settings) = self.repository(input)?;
        let policy = words(input, "lifecyclePolicyText").unwrap_or_default();
        let rules = serde_json::from_str::<Value>(policy).ok().and_then(|policy| policy.get("rules").cloned());
        if !rules.is_some_and(|rules| rules.is_array()) {
            return refuse(
                "InvalidParameterException",
                "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure'",
            );
        }
        settings.lifecycle_policy = Some(policy.to_owned());
        self.registry.store.set_settings(name, &settings)?;
        Ok(json!({"registryId": ACCOUNT, "repositoryName": name, "lifecyclePolicyText": policy}))
    }

    fn batch_get_image(&self, input: &Value) -> Result<Value, Refusal> {
        let (name, _) = self.repository(input)?;
        let ids = input.get("imageIds").and_then(Value::as_array).cloned().unwrap_or_default();
        if ids.is_empty() || ids.len() > MOST_IDS {
            let message =
                format!("Invalid parameter at 'imageIds' failed to satisfy constraint: 'Member must have length between 1 and {MOST_IDS}'");
            return refuse("InvalidParameterException", message);
        }
        let missing = self.registry.faults().is_set(&self.registry.place, None, &Fault::ManifestMissing);
        let (mut images, mut failures) = (Vec::new(), Vec::new());
        for id in ids {
            let (tag, digest) = (words(&id, "imageTag"), words(&id, "imageDigest"));
            let Some(reference) = digest.or(tag) else {
                failures.push(json!({"imageId": id, "failureCode": "MissingDigestAndTag", "failureReason": "Missing digest and tag"}));
                continue;
            };
            match self.registry.store.manifest(name, reference)?.filter(|_| !missing) {
                Some(manifest)
                    if tag.is_some()
                        && digest.is_some()
                        && self.registry.store.tag(name, tag.unwrap_or_default()).as_ref() != Some(&manifest.digest) =>
                {
                    failures.push(json!({"imageId": id, "failureCode": "ImageTagDoesNotMatchDigest", "failureReason": "Image tag does not match the digest"}));
                }
                Some(manifest) => {
                    let mut shown = json!({"imageDigest": manifest.digest.as_str()});
                    if let Some(tag) = tag {
                        shown["imageTag"] = json!(tag);
                    }
                    images.push(json!({
                        "registryId": ACCOUNT,
                        "repositoryName": name,
                        "imageId": shown,
                        "imageManifest": String::from_utf8_lossy(&manifest.bytes),
                        "imageManifestMediaType": manifest.media_type,
                    }));
                }
                None => failures.push(json!({"imageId": id, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"})),
            }
        }
        Ok(json!({"images": images, "failures": failures}))
    }

    fn put_image(&self, input: &Value) -> Result<Value, Refusal> {
        let (name, settings) = self.repository(input)?;
        let Some(manifest) = words(input, "imageManifest") else { return refuse("InvalidParameterException", "no `imageManifest`") };
        let digest = digest_of(manifest.as_bytes());
        if words(input, "imageDigest").is_some_and(|asked| asked != digest.as_str()) {
            let message = format!("The digest of the image manifest is '{digest}', which does not match the digest that was given");
            return refuse("ImageDigestDoesNotMatchException", message);
        }
        let tag = words(input, "imageTag");
        let present = match tag {
            Some(tag) => self.registry.store.tag(name, tag),
            None => self.registry.store.manifest(name, digest.as_str())?.map(|manifest| manifest.digest),
        };
        match (present, tag) {
            (Some(present), tag) if present == digest => {
                let tag = tag.map_or_else(String::new, |tag| format!(" and tag '{tag}'"));
                let message = format!(
                    "Image with digest '{digest}'{tag} already exists in the repository with name '{name}' in registry with id '{ACCOUNT}'"
                );
                return refuse("ImageAlreadyExistsException", message);
            }
            (Some(_), Some(tag)) if settings.immutable => {
                let message = format!(
                    "The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten because the repository is immutable."
                );
                return refuse("ImageTagAlreadyExistsException", message);
            }
            _ => {}
        }
        let reference = tag.unwrap_or(digest.as_str());
        self.registry.accept_manifest(name, reference, words(input, "imageManifestMediaType"), manifest.as_bytes())?;
        let mut id = json!({"imageDigest": digest.as_str()});
        if let Some(tag) = tag {
            id["imageTag"] = json!(tag);
        }
        Ok(json!({"image": {"registryId": ACCOUNT, "repositoryName": name, "imageId": id, "imageManifest": manifest}}))
    }

    fn check_layers(&self, input: &Value) -> Result<Value, Refusal> {
        let (name, _) = self.repository(input)?;
        let asked = input.get("layerDigests").and_then(Value::as_array).cloned().unwrap_or_default();
        let (mut layers, mut failures) = (Vec::new(), Vec::new());
        for text in asked.iter().filter_map(Value::as_str) {
            match Digest::new(text) {
                Ok(digest) => layers.push(match self.registry.store.blob_size(name, &digest) {
                    Some(size) => json!({"layerDigest": text, "layerAvailability": "AVAILABLE", "layerSize": size}),
                    None => json!({"layerDigest": text, "layerAvailability": "UNAVAILABLE"}),
                }),
                Err(_) => failures.push(json!({
                    "layerDigest": text, "failureCode": "InvalidLayerDigest", "failureReason": "Invalid layer digest"
                })),
            }
        }
        Ok(json!({"layers": layers, "failures": failures}))
    }

    fn layer_url(&self, input: &Value) -> Result<Value, Refusal> {
        let (name, _) = self.repository(input)?;
        let digest = words(input, "layerDigest").unwrap_or_default();
        if !Digest::new(digest).is_ok_and(|digest| self.registry.store.has_blob(name, &digest)) {
            let message = format!("The layer with digest '{digest}' does not exist in the repository with name '{name}'");
            return refuse("LayersNotFoundException", message);
        }
        let url = format!("http://{}/layers/{}/{name}/{digest}", self.address, self.layer_key);
        Ok(json!({"downloadUrl": url, "layerDigest": digest}))
    }

    /// Answers a layer's URL, which like AWS's needs no login.
    async fn layer(&self, path: &str) -> Answer {
        let rest = path.strip_prefix("/layers/").and_then(|rest| rest.strip_prefix(&self.layer_key)?.strip_prefix('/'));
        let Some((name, digest)) = rest.and_then(|rest| rest.rsplit_once('/')) else {
            return RegistryRefusal::new(StatusCode::FORBIDDEN, "DENIED", "this is no URL the API gave").answer();
        };
        self.registry.blob(name, digest, false).await.unwrap_or_else(|refusal| refusal.answer())
    }
}
