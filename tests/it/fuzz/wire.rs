//! What a rack sends: the bytes are its answer to every read, or the frames of a build's log.

use offbuild::config::RackConfig;
use offbuild::event::{Event, EventKind, Events, Stage, Step};
use offbuild::names::{AppName, CommitId, RackName, ReleaseId, Repository};
use offbuild::rack::convox::Convox;
use offbuild::rack::login::RackLogin;
use offbuild::rack::{Deliver, ImageMover, Rack as _, RackRead as _, StageRequest, StagedImage};
use offbuild::registry::Login;
use offbuild::secret::{Redactor, Secret};
use offbuild::yaml::Place;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A rack that answers everything with the same bytes.
pub struct Rack {
    runtime: tokio::runtime::Runtime,
    body: Arc<Mutex<Body>>,
    client: Convox,
}

impl Rack {
    /// Listens on loopback.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let body = Arc::new(Mutex::new(Body::Json(Vec::new())));
        let answers = Arc::clone(&body);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answers = Arc::clone(&answers);
                std::thread::spawn(move || drop(serve(&stream, &answers)));
            }
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let poll = Duration::from_millis(1);
        let config = RackConfig {
            name: RackName::new("staging").unwrap(),
            place: Place { file: "apps.yaml".to_owned(), line: 1, column: 1 },
            host: None,
            password: None,
            after: Vec::new(),
            protected: false,
            registry_cache: false,
            deliver: Deliver::Auto,
            env: "staging".to_owned(),
            ca_file: None,
            poll,
            answer: Duration::from_secs(5),
        };
        let login = RackLogin {
            url: format!("http://{address}").parse().unwrap(),
            user: "convox".to_owned(),
            password: Secret::new("password"),
            relayed: None,
            source: "test".to_owned(),
        };
        let client = Convox::new(&config, login, poll).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, body, client }
    }

    /// The bytes as what every read gives; whether any of them was taken.
    pub fn json(&self, data: &[u8]) -> bool {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Body::Json(data.to_vec());
        let release = ReleaseId::new("RABCDEFGHIJ").unwrap();
        self.runtime.block_on(async {
            let rack = self.client.info().await.is_ok();
            let live = self.client.live("web").await.is_ok();
            let one = self.client.release("web", &release).await.is_ok();
            let all = self.client.releases("web").await.is_ok();
            rack || live || one || all
        })
    }

    /// The bytes as what a build's log stream sends; whether there was a line of a log in them.
    pub fn frames(&self, data: &[u8]) -> bool {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Body::Frames(data.to_vec());
        let request = StageRequest {
            app: "web".to_owned(),
            manifest_name: "convox.yml".to_owned(),
            manifest: "services: {}\n".to_owned(),
            images: Vec::new(),
            commit: CommitId::new("a".repeat(40)).unwrap(),
            description: "deploy [tok-1]".to_owned(),
            token: "tok-1".to_owned(),
            revision: None,
            deliver: Deliver::Build,
            login: None,
            timeout: Duration::from_secs(5),
        };
        let (events, mut received) = Events::new(Redactor::default());
        let app = AppName::new("web").unwrap();
        let progress = events.progress(Step { app, rack: Some(RackName::new("staging").unwrap()), service: None, stage: Stage::Stage });
        let staged = self.runtime.block_on(self.client.stage(&request, &NoMover, &progress, &CancellationToken::new()));
        // Whatever the log holds, the build's own record says how it ended.
        assert_eq!(staged.unwrap().release.as_str(), "RABCDEFGHIJ");
        let is_line = |event: &Event| matches!(event.kind, EventKind::Log { .. });
        std::iter::from_fn(|| received.try_recv()).filter(is_line).count() > 0
    }
}

/// What the bytes are.
#[derive(Clone)]
enum Body {
    /// The answer to everything.
    Json(Vec<u8>),
    /// The log of a build; other answers are in order.
    Frames(Vec<u8>),
}

struct NoMover;

#[async_trait::async_trait]
impl ImageMover for NoMover {
    async fn push_to(&self, _: &StagedImage, _: &Repository, _: &str, _: &Login) -> Result<(), String> {
        Err("nothing is pushed here".to_owned())
    }
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, body: &Mutex<Body>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let header = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0_u64);
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        let data = body.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut out = stream;
        if let Some(key) = header("sec-websocket-key") {
            let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
            write!(out, "HTTP/1.1 101 S\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n")?;
            let (Body::Json(data) | Body::Frames(data)) = data;
            return out.write_all(&data);
        }
        let answer = match data {
            Body::Json(data) => data,
            Body::Frames(_) => in_order(head.lines().next().unwrap_or_default()),
        };
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len())?;
        out.write_all(&answer)?;
    }
}

/// What a rack says of a build that went well, and of everything else.
fn in_order(line: &str) -> Vec<u8> {
    let one = r#"{"id": "BABCDEFGHIJ", "status": "complete", "release": "RABCDEFGHIJ", "url": "object://web/tmp/x.tgz", "logs": "",
        "name": "web", "version": "20260421192651", "provider": "aws", "generation": "2", "build": "BABCDEFGHIJ", "created": "2026-11-22T19:37:36Z"}"#;
    let path = line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let list = line.starts_with("GET ") && (path.ends_with("/builds") || path.ends_with("/releases"));
    if list { format!("[{one}]").into_bytes() } else { one.as_bytes().to_vec() }
}
