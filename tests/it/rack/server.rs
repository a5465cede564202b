//! A scripted rack: each route has a queue of replies, the last of which repeats; every request is recorded.
//!
//! It knows nothing about racks, on purpose: the scripts say what a rack answers, and so does nothing else.

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a route answers once.
#[derive(Clone)]
pub enum Reply {
    Json(u16, Value),
    Text(u16, &'static str),
    /// 401 with this `WWW-Authenticate`.
    Demand(&'static str),
    /// The connection is closed once the request was read.
    Cut,
    /// A websocket that sends these messages.
    Socket(Vec<Message>),
}

/// What a websocket sends.
#[derive(Clone)]
pub enum Message {
    /// A text message; the bytes may be cut inside a character.
    Text(&'static [u8]),
    /// The end as racks send it: an empty binary message, and the connection stays open.
    End,
    /// Nothing more, and the connection stays open.
    Silence,
    /// A close frame.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub route: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn form(&self) -> BTreeMap<String, String> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }
}

#[derive(Default)]
struct State {
    routes: BTreeMap<String, VecDeque<Reply>>,
    changes: BTreeMap<String, Vec<(String, Vec<Reply>)>>,
    seen: Vec<Seen>,
}

/// The script, before it runs.
#[derive(Default)]
pub struct Script(State);

impl Script {
    /// `route` (`GET /apps/web`, websockets as `WS /…`) answers these, the last one for ever.
    pub fn on(mut self, route: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        self.0.routes.insert(route.to_owned(), replies.into_iter().collect());
        self
    }

    /// From the first request to `change` on, `route` answers these.
    pub fn after(mut self, change: &str, route: &str, replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = replies.into_iter().collect();
        self.0.changes.entry(change.to_owned()).or_default().push((route.to_owned(), replies));
        self
    }

    /// Runs the script on a port of its own.
    pub async fn serve(self) -> Server {
        self.start(None).await
    }

    /// The same behind TLS.
    pub async fn serve_tls(self, config: rustls::ServerConfig) -> Server {
        self.start(Some(tokio_rustls::TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(self, tls: Option<tokio_rustls::TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(self.0));
        let stop = CancellationToken::new();
        let server = Server { host, state: Arc::clone(&state), _stop: stop.clone().drop_guard() };
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&state), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, state).await;
                            }
                        }
                        None => connection(stream, state).await,
                    }
                });
            }
        }));
        server
    }
}

/// A running script; it ends with its value.
pub struct Server {
    pub host: String,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

impl Server {
    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The routes of the requests that change something, in order.
    pub fn changes(&self) -> Vec<String> {
        let changes = |seen: &Seen| !seen.route.starts_with("GET ") && !seen.route.starts_with("WS ");
        self.seen().iter().filter(|seen| changes(seen)).map(|seen| seen.route.clone()).collect()
    }

    /// The only request of a route.
    pub fn only(&self, route: &str) -> Seen {
        let mut found: Vec<Seen> = self.seen().into_iter().filter(|seen| seen.route == route).collect();
        assert_eq!(found.len(), 1, "{route}");
        found.remove(0)
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<Mutex<State>>) {
    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&state)));
    // A client that goes away, and a cut connection, are what some scripts are about.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(mut request: Request<Incoming>, state: Arc<Mutex<State>>) -> io::Result<Response<Full<Bytes>>> {
    let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let method = if upgrade.is_some() { "WS" } else { request.method().as_str() };
    let route = format!("{method} {}", request.uri().path());
    let headers: BTreeMap<String, String> =
        request.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned())).collect();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    let key = headers.get("sec-websocket-key").cloned().unwrap_or_default();
    let reply = {
        let mut state = state.lock().unwrap();
        // The manifest's upload has a random name.
        let route = match route.split_once("/objects/tmp/") {
            Some((before, _)) => format!("{before}/objects/tmp/*"),
            None => route,
        };
        let replies = state.routes.get_mut(&route);
        let reply = replies.and_then(|replies| if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() });
        for (changed, replies) in state.changes.remove(&route).unwrap_or_default() {
            state.routes.insert(changed, replies.into());
        }
        state.seen.push(Seen { route, query, headers, body });
        reply
    };
    let plain = |status: u16, kind: &str, body: String| {
        Response::builder().status(status).header("content-type", kind).body(Full::new(Bytes::from(body))).map_err(io::Error::other)
    };
    match (reply, upgrade) {
        (Some(Reply::Json(status, value)), _) => plain(status, "application/json", format!("{value:#}\n")),
        (Some(Reply::Text(status, text)), _) => plain(status, "text/plain", text.to_owned()),
        (Some(Reply::Demand(demand)), _) => {
            Response::builder().status(401).header("www-authenticate", demand).body(Full::default()).map_err(io::Error::other)
        }
        (Some(Reply::Cut), _) => Err(io::Error::other("cut")),
        (Some(Reply::Socket(messages)), Some(upgrade)) => {
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    socket(TokioIo::new(upgraded), messages).await;
                }
            });
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept)
                .body(Full::default())
                .map_err(io::Error::other)
        }
        (Some(Reply::Socket(_)), None) | (None, _) => plain(404, "text/plain", String::new()),
    }
}

/// Sends the messages as frames made by hand, then reads until the client goes.
async fn socket(mut io: impl AsyncRead + AsyncWrite + Unpin, messages: Vec<Message>) {
    for message in messages {
        let frame = match message {
            // The longest of the three ways to write a length, which fits them all.
            Message::Text(bytes) => [&[0x81, 127], bytes.len().to_be_bytes().as_slice(), bytes].concat(),
            Message::End => vec![0x82, 0],
            Message::Close => vec![0x88, 0],
            Message::Silence => break,
        };
        if io.write_all(&frame).await.is_err() || io.flush().await.is_err() {
            return;
        }
    }
    let mut ignored = [0; 256];
    while matches!(io.read(&mut ignored).await, Ok(1..)) {}
}
