//! What every server of the sandbox has in common: the accept loop, bodies, plain answers, Basic credentials.
//!
//! An answer can be [`Lost`]: the work is done and the connection closes without a word, as when a balancer dies.

use super::fault::{Fault, Faults};
use super::state::RequestLog;
use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The body of an answer: in memory, or streamed from a file.
pub(super) type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;
/// An answer.
pub(super) type Answer = Response<Body>;
/// What serves a request.
pub(super) type Handler = Arc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Result<Answer, Lost>> + Send>> + Send + Sync>;

/// More than any form or API message is long, in bytes.
const LONGEST_MESSAGE: usize = 64 << 20;
/// How long an answer under way may still take when the sandbox stops.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The answer is not sent; the connection closes.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox was told to lose this answer")]
pub(super) struct Lost;

/// What all servers of one sandbox share.
#[derive(Clone)]
pub(super) struct Shared {
    /// The faults that are set.
    pub(super) faults: Faults,
    /// Where each request is noted.
    pub(super) log: Arc<RequestLog>,
    /// Fires when the sandbox stops.
    pub(super) stop: CancellationToken,
    /// Every task of the sandbox.
    pub(super) tasks: TaskTracker,
}

/// Accepts connections until the sandbox stops. `place` is the name faults and the request log know the server by.
pub(super) fn listen(listener: TcpListener, place: String, shared: Shared, handler: Handler) {
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shared.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if shared.faults.is_set(&place, None, &Fault::Down) => drop(stream),
                Ok((stream, _)) => {
                    shared.tasks.spawn(connection(stream, place.clone(), shared.clone(), Arc::clone(&handler)));
                }
                // Out of file handles, mostly: wait for some to come free instead of spinning.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
}

async fn connection(stream: TcpStream, place: String, shared: Shared, handler: Handler) {
    // Small answers that wait for an acknowledgement are what makes loopback slow.
    let _ = stream.set_nodelay(true);
    let stop = shared.stop.clone();
    let service = hyper::service::service_fn(move |request| serve(request, place.clone(), shared.clone(), Arc::clone(&handler)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    // A failed connection is the client's to notice; the request log has what was answered.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(LAST_ANSWERS, connection).await;
        }
    }
}

async fn serve(request: Request<Incoming>, place: String, shared: Shared, handler: Handler) -> Result<Answer, Lost> {
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let operation = request.headers().get("x-amz-target").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let answer = if shared.faults.is_set(&place, None, &Fault::Down) {
        Err(Lost)
    } else if shared.faults.take_500(&place, request.uri().path()) {
        Ok(text(StatusCode::INTERNAL_SERVER_ERROR, "the sandbox was told to fail this request\n"))
    } else {
        handler(request).await
    };
    shared.log.note(&place, &method, &path, operation.as_deref(), answer.as_ref().ok().map(Response::status));
    answer
}

/// A body in memory.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer with a body of this type.
pub(super) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    typed(status, "text/plain; charset=utf-8", body)
}

/// A header's value as text.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// User and password of the Basic credentials a request carries.
pub(super) fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, value) = header_text(headers, "authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim()).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The whole body of a request; the error is for the client.
pub(super) async fn whole(body: Incoming) -> Result<Bytes, String> {
    let limited = http_body_util::Limited::new(body, LONGEST_MESSAGE);
    Ok(limited.collect().await.map_err(|error| error.to_string())?.to_bytes())
}
