//! Websockets: build logs, app logs, exec.
//!
//! As on a real rack the upgrade comes before the login is checked, output goes out as text messages cut wherever a read
//! ended, an empty binary message is the end, and then nothing: no close frame, no pong, and the connection stays open
//! until the client closes it.

use super::model::LogLine;
use super::params::Params;
use super::routes::Call;
use super::{Rack, Refusal, Version, processes, unauthorized};
use crate::sandbox::wire::{Answer, empty, header_text};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// The most one message holds, in bytes: characters at its end may be cut.
const LONGEST_MESSAGE: usize = 4 << 10;
/// How often a log is looked at again.
const LOOK: Duration = Duration::from_millis(25);
/// What a rack writes before an exit code.
const EXIT_MARKER: &str = "F1E49A85-0AD7-4AEF-A618-C249C6E6568D:";

/// Upgrades a request and serves its stream.
pub(super) fn open(rack: Arc<Rack>, request: Request<Incoming>, call: Call, args: Vec<String>) -> Answer {
    let headers = request.headers();
    if let Some(origin) = header_text(headers, "origin") {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        if Some(host) != header_text(headers, "host") {
            return empty(StatusCode::FORBIDDEN);
        }
    }
    let key = header_text(headers, "sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else { return empty(StatusCode::BAD_REQUEST) };
    let headers = headers.clone();
    let tasks = rack.shared.tasks.clone();
    tasks.spawn(async move {
        let stop = rack.shared.stop.clone();
        let serve = async {
            let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
            serve(&rack, upgraded, &headers, call, &args).await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serve => {}
        }
    });
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert("sec-websocket-accept", accept);
    answer
}

/// Writes the stream until its end or until the client is gone, whichever comes first, and then waits for the client to go.
async fn serve(rack: &Arc<Rack>, upgraded: Upgraded, headers: &HeaderMap, call: Call, args: &[String]) {
    let (mut from_client, to_client) = tokio::io::split(TokioIo::new(upgraded));
    let mut socket = Socket(to_client);
    let stream = async {
        if let Err(refusal) = rack.stream(&mut socket, headers, call, args).await {
            socket.text(format!("ERROR: {}\n", refusal.message).as_bytes()).await;
        }
        socket.message(Data::Binary, &[]).await;
        std::future::pending::<()>().await;
    };
    // What the client says is never looked at, pings included; only that it leaves.
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        () = stream => {}
        _ = tokio::io::copy(&mut from_client, &mut nowhere) => {}
    }
}

/// The sending half of a websocket. A client that left is noticed by the receiving half.
struct Socket(WriteHalf<TokioIo<Upgraded>>);

impl Socket {
    async fn message(&mut self, kind: Data, bytes: &[u8]) {
        // Frames are made by hand because a message may end inside a character, which a careful library would not send.
        let mut frame = Vec::with_capacity(bytes.len() + 10);
        if Frame::message(Bytes::copy_from_slice(bytes), OpCode::Data(kind), true).format(&mut frame).is_ok() {
            let _ = self.0.write_all(&frame).await;
            let _ = self.0.flush().await;
        }
    }

    async fn text(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(LONGEST_MESSAGE) {
            self.message(Data::Text, chunk).await;
        }
    }
}

impl Rack {
    async fn stream(&self, socket: &mut Socket, headers: &HeaderMap, call: Call, args: &[String]) -> Result<(), Refusal> {
        let role = self.role(headers)?;
        let params = Params::new(&[], None, headers.clone());
        let arg = |index: usize| args.get(index).map_or("", String::as_str);
        match call {
            Call::BuildLogs => self.build_logs(socket, arg(0), arg(1)).await,
            Call::AppLogs => self.app_logs(socket, arg(0), &params).await,
            _ if role == super::Role::Read && self.version == Version::V3 => Err(unauthorized()),
            _ => self.exec(socket, arg(0), arg(1), &params).await,
        }
    }

    async fn build_logs(&self, socket: &mut Socket, app: &str, id: &str) -> Result<(), Refusal> {
        let unreadable = || Refusal::server(format!("unable to read logs for build: {id}"));
        let mut sent = 0;
        loop {
            let build = self.read(app, |app| app.build(id).cloned().ok_or_else(|| self.no_build(id)))?;
            match build.status.as_str() {
                "created" if self.version == Version::V2 => return Ok(()),
                "created" => return Err(unreadable()),
                "running" => {
                    let output = build.output.as_bytes();
                    socket.text(output.get(sent..).unwrap_or_default()).await;
                    sent = output.len();
                    tokio::time::sleep(LOOK).await;
                }
                _ => {
                    let stored = build.logs.strip_prefix("object://").and_then(|path| path.split_once('/'));
                    let log = stored.and_then(|(app, key)| std::fs::read(self.object_path(app, key)).ok());
                    let log = log.ok_or_else(unreadable)?;
                    socket.text(log.get(sent..).unwrap_or_default()).await;
                    return Ok(());
                }
            }
        }
    }

    async fn app_logs(&self, socket: &mut Socket, app: &str, params: &Params) -> Result<(), Refusal> {
        let since = params.duration("since")?.unwrap_or(Duration::from_secs(120));
        let oldest = OffsetDateTime::now_utc() - since;
        let (prefix, filter) = (params.header("prefix") == Some("true"), params.header("filter").unwrap_or_default());
        let follow = params.header("follow") != Some("false");
        let mut next = 0;
        loop {
            let (lines, after) = self.read(app, |app| Ok(app.log.since(next)))?;
            next = after;
            let wanted = lines.iter().filter(|line| line.time >= oldest && line.text.contains(filter));
            let text: String = wanted.map(|line| log_line(line, prefix)).collect();
            socket.text(text.as_bytes()).await;
            if !follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn exec(&self, socket: &mut Socket, app: &str, id: &str, params: &Params) -> Result<(), Refusal> {
        if !self.has_process(app, id)? {
            // Version 3 says how it ended before it says that it never began.
            if self.version == Version::V3 {
                socket.text(format!("{EXIT_MARKER}0\n").as_bytes()).await;
            }
            return Err(self.no_process(id));
        }
        let command = params.header("command").unwrap_or_default();
        socket.text(format!("sandbox: {command}\n").as_bytes()).await;
        socket.text(format!("{EXIT_MARKER}{}\n", processes::exit_code(command)).as_bytes()).await;
        Ok(())
    }
}

fn log_line(line: &LogLine, prefix: bool) -> String {
    if prefix {
        let time = line.time.replace_nanosecond(0).unwrap_or(line.time).format(&Rfc3339).unwrap_or_default();
        format!("{time} {} {}\n", line.source, line.text)
    } else {
        format!("{}\n", line.text)
    }
}
