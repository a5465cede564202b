//! One build on BuildKit: `Control.Solve` and, beside it, `Control.Status`, over the engine's `/grpc`.

use super::dial::upgrade;
use super::endpoint::Endpoint;
use super::failure::engine;
use super::session::{KEEP_ALIVE, WINDOW};
use super::status::Steps;
use crate::build::BuildError;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{ListWorkersRequest, SolveRequest, SolveResponse, StatusRequest};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tower::util::BoxCloneSyncService;

/// The largest message taken from BuildKit; one status message carries all the log of a moment.
const LARGEST: usize = 64 * 1024 * 1024;
/// How long the status stream may take to end once the build has.
const LAST_WORDS: Duration = Duration::from_secs(10);

type Transport = BoxCloneSyncService<hyper::Request<tonic::body::Body>, hyper::Response<Incoming>, hyper::Error>;

/// A connection to BuildKit's control service; dropping it closes it, which ends what was asked for over it.
pub(super) struct Control {
    client: ControlClient<Transport>,
    _connection: AbortOnDropHandle<()>,
}

/// How a build ended that did not end well.
pub(super) enum Ended {
    /// BuildKit says why.
    Failed(String),
    /// The connection broke.
    Lost(String),
}

impl Control {
    /// Connects; the error says so when the engine has no BuildKit.
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, BuildError> {
        let io = upgrade(endpoint, "/grpc", []).await?;
        let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true);
        let (sender, connection) =
            http.handshake(io).await.map_err(|error| engine(format!("the engine at {endpoint} speaks no HTTP/2: {error}")))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            // Whoever waits for an answer is told by its own call.
            let _ = connection.await;
        }));
        let transport = tower::service_fn(move |request| {
            let mut sender = sender.clone();
            async move { sender.send_request(request).await }
        });
        let origin = hyper::Uri::from_static("http://docker");
        let client = ControlClient::with_origin(BoxCloneSyncService::new(transport), origin).max_decoding_message_size(LARGEST);
        Ok(Self { client, _connection: connection })
    }

    /// Builds, and tells `steps` what happens meanwhile.
    pub(super) async fn solve(&self, request: SolveRequest, steps: &mut Steps) -> Result<SolveResponse, Ended> {
        let reference = request.r#ref.clone();
        let mut solver = self.client.clone();
        let solve = solver.solve(request);
        tokio::pin!(solve);
        let mut watcher = self.client.clone();
        // BuildKit waits a moment for a build it does not know yet, so the order of the two does not matter.
        let status = watcher.status(StatusRequest { r#ref: reference });
        tokio::pin!(status);
        // A status stream that cannot be had is no reason to stop: the build's own answer is what counts.
        let (early, stream) = tokio::select! {
            ended = &mut solve => (Some(ended), None),
            stream = &mut status => (None, stream.ok().map(tonic::Response::into_inner)),
        };
        let (ended, stream) = match (early, stream) {
            (Some(ended), _) => {
                (ended, tokio::time::timeout(LAST_WORDS, status).await.ok().and_then(Result::ok).map(tonic::Response::into_inner))
            }
            (None, None) => (solve.await, None),
            (None, Some(mut stream)) => loop {
                tokio::select! {
                    ended = &mut solve => break (ended, Some(stream)),
                    message = stream.message() => match message {
                        Ok(Some(message)) => steps.take(message),
                        Ok(None) | Err(_) => break (solve.await, None),
                    },
                }
            },
        };
        if let Some(mut stream) = stream {
            let rest = async {
                while let Ok(Some(message)) = stream.message().await {
                    steps.take(message);
                }
            };
            // What comes late is shown no more.
            let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        }
        steps.finish();
        ended.map(tonic::Response::into_inner).map_err(|status| classify(&status))
    }

    /// The address that stands for `host-gateway` in builds, when the engine tells (a worker's label since 23.0).
    pub(super) async fn host_gateway(&self) -> Option<String> {
        let workers = self.client.clone().list_workers(ListWorkersRequest::default()).await.ok()?;
        workers
            .into_inner()
            .record
            .into_iter()
            .find_map(|worker| worker.labels.get("org.mobyproject.buildkit.worker.moby.host-gateway-ip").cloned())
    }
}

/// A status BuildKit sent has no source; one that was made here from a broken connection does.
fn classify(status: &Status) -> Ended {
    match std::error::Error::source(status) {
        None => Ended::Failed(status.message().to_owned()),
        Some(source) => {
            let mut text = source.to_string();
            let mut next = source.source();
            while let Some(cause) = next {
                text.push_str(&format!(": {cause}"));
                next = cause.source();
            }
            Ended::Lost(text)
        }
    }
}
