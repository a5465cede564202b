//! The session of a build: what BuildKit may ask of us while it builds.
//!
//! We are the server here: on a connection of ours that the engine turned round (`POST /session`), it asks for files, secrets,
//! registry logins and the ssh agent. What a build was not given is refused with an error, never with "there is none": for
//! BuildKit a missing secret is optional by default, and a build without it would be cached and handed to the next one.

use super::dial::upgrade_once;
use super::endpoint::Endpoint;
use super::failure::reconnected;
use super::sync::Directories;
use crate::build::BuildError;
use crate::event::Progress;
use crate::registry::Registry;
use crate::secret::Secret;
use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::{Auth, AuthServer};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest, GetTokenAuthorityResponse,
    VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tower::Service as _;

/// How often, and for how long, a silent connection is asked whether it is still there.
pub(super) const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(40));
/// Bytes a peer may send before we have read them. Generous: the smaller it is, the sooner small frames count as an attack.
pub(super) const WINDOW: u32 = 16 * 1024 * 1024;
/// Bytes of header a request may have; BuildKit sends every path a build copies and every ignore pattern as one.
const HEADERS: u32 = 8 * 1024 * 1024;

const METHODS: [&str; 7] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];

/// What a build may ask for.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) directories: Directories,
    /// By id, read before the build began.
    pub(super) secrets: Arc<BTreeMap<String, Vec<u8>>>,
    /// Agents' sockets, by id.
    pub(super) agents: Arc<BTreeMap<String, PathBuf>>,
    pub(super) logins: Arc<dyn Registry>,
    pub(super) progress: Progress,
}

/// An open session; dropping it closes the connection.
pub(super) struct Session {
    pub(super) id: String,
    serving: AbortOnDropHandle<()>,
}

impl Session {
    /// Opens a session. `key` names the copies of its directories that BuildKit keeps.
    pub(super) async fn open(endpoint: &Endpoint, key: &str, offer: Offer) -> Result<Self, BuildError> {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static("offbuild"));
        // A key may be a path, with any bytes; its hash is the same name.
        let key = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(key.as_bytes()));
        let (id, io) = reconnected(|| async {
            // BuildKit takes any text that is unique among live sessions. One whose beginning was lost may be alive there for a while:
            // the next try has another name.
            let id = format!("offbuild-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
            let mut headers = vec![
                ("x-docker-expose-session-uuid", value(&id)),
                ("x-docker-expose-session-name", HeaderValue::from_static("offbuild")),
                ("x-docker-expose-session-sharedkey", value(&key)),
            ];
            headers.extend(METHODS.map(|method| ("x-docker-expose-session-grpc-method", HeaderValue::from_static(method))));
            Ok((id, upgrade_once(endpoint, "/session", headers).await?))
        })
        .await?;
        Ok(Self { id, serving: AbortOnDropHandle::new(tokio::spawn(serve(io, offer))) })
    }

    /// True when the engine closed the connection, or it broke.
    pub(super) fn is_lost(&self) -> bool {
        self.serving.is_finished()
    }
}

async fn serve(io: hyper::upgrade::Upgraded, offer: Offer) {
    let files = FileSyncServer::new(offer.directories.clone());
    let secrets = SecretsServer::new(offer.clone());
    let auth = AuthServer::new(offer.clone());
    let ssh = SshServer::new(offer);
    let health = HealthServer::new(Alive);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (mut files, mut secrets, mut auth, mut ssh, mut health) =
            (files.clone(), secrets.clone(), auth.clone(), ssh.clone(), health.clone());
        async move {
            match request.uri().path().split('/').nth(1).unwrap_or_default() {
                "moby.filesync.v1.FileSync" => files.call(request).await,
                "moby.filesync.v1.Auth" => auth.call(request).await,
                "moby.buildkit.secrets.v1.Secrets" => secrets.call(request).await,
                "moby.sshforward.v1.SSH" => ssh.call(request).await,
                // Answers "unimplemented" to all it does not know.
                _ => health.call(request).await,
            }
        }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    // However it ends, the build that needed it fails and says why.
    let _ = http.serve_connection(io, service).await;
}

struct Alive;

#[async_trait::async_trait]
impl Health for Alive {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("there is one service"))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.send(Ok(HealthCheckResponse { status: ServingStatus::Serving.into() })).await;
        // A watch stays open as long as we are well.
        tokio::spawn(async move { sender.closed().await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[async_trait::async_trait]
impl Secrets for Offer {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.secrets.get(&id) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.clone() })),
            // Not "not found": that would be taken for an optional secret.
            None => Err(Status::failed_precondition(format!("the build asks for secret `{id}`, which nobody provides"))),
        }
    }
}

#[async_trait::async_trait]
impl Auth for Offer {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        // BuildKit asks for the host it connects to, which for Docker Hub is not the one in image names.
        let host = if matches!(host.as_str(), "registry-1.docker.io" | "index.docker.io") { "docker.io" } else { &host };
        let login = match self.logins.login(host, false).await {
            Ok(login) => login,
            Err(error) => {
                // A public image needs none; a private one fails next, and then this says why.
                self.progress.notice(format!("no login for `{host}`: {error}"));
                None
            }
        };
        let (username, secret) = match login {
            Some(login) if login.user == "<token>" => (String::new(), login.password),
            Some(login) => (login.user, login.password),
            None => (String::new(), Secret::new("")),
        };
        Ok(Response::new(CredentialsResponse { username, secret: secret.expose().to_owned() }))
    }

    // BuildKit falls back to `credentials` when these are not there; they only keep passwords from a builder one does not trust.
    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("use Credentials"))
    }

    async fn get_token_authority(&self, _: Request<GetTokenAuthorityRequest>) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("use Credentials"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("use Credentials"))
    }
}

impl Offer {
    fn agent(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { "default" } else { id };
        self.agents.get(id).ok_or_else(|| Status::failed_precondition(format!("the build asks for ssh `{id}`, which nobody provides")))
    }
}

#[async_trait::async_trait]
impl Ssh for Offer {
    type ForwardAgentStream = ReceiverStream<Result<BytesMessage, Status>>;

    async fn check_agent(&self, request: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        self.agent(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = agent_id(request.metadata());
        let socket = self.agent(&id)?;
        let agent = UnixStream::connect(socket).await.map_err(|error| Status::unavailable(format!("ssh agent `{id}`: {error}")))?;
        let (mut from_agent, mut to_agent) = agent.into_split();
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = requests.message().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    break;
                }
            }
        });
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut data = vec![0; 32 * 1024];
            while let Ok(read @ 1..) = from_agent.read(&mut data).await {
                if sender.send(Ok(BytesMessage { data: data[..read].to_vec() })).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn agent_id(metadata: &MetadataMap) -> String {
    metadata.get("buildkit.ssh.id").and_then(|id| id.to_str().ok()).unwrap_or("default").to_owned()
}
