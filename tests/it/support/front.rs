//! A front before a service: hands requests on, and answers those it is told to as a network or a service that is ill would.
//!
//! It knows requests by method, path and who sends them, and nothing of what they mean, so one front serves racks, registries,
//! ECR's API and the engine. Every request has a connection of its own: what it is told to do to one touches no other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What stands behind a front.
#[derive(Clone)]
pub enum Behind {
    /// `HOST:PORT`.
    Tcp(String),
    /// A socket.
    Unix(PathBuf),
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// The service gets it and does it, and no answer comes.
    Timeout,
    /// The connection is closed before the service gets it.
    Dropped,
    /// The service gets it and does it, and the connection breaks in the middle of the answer.
    Reset,
    /// An answer with this status, before the service gets it.
    Status(u16),
    /// A good answer that is not what was asked for, before the service gets it.
    Garbage,
    /// A good answer that begins and never ends, a byte at a time, before the service gets it.
    Endless,
}

/// A request as a front sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Who sends it.
    pub agent: String,
    /// Its `Authorization`.
    pub login: String,
    /// The operation of an AWS call, without its service.
    pub operation: String,
    /// True when the service got it.
    pub passed: bool,
    /// True when something was done to it.
    pub faulted: bool,
}

/// Picks requests, given those before them.
pub type To = Box<dyn Fn(&Head, &[Head]) -> bool + Send>;

/// What a front is told to do.
pub struct Rule {
    /// To which requests, given those before them.
    pub to: To,
    /// What.
    pub fault: Fault,
    /// How often; then it is over.
    pub times: usize,
    /// The body of an answer with a status, and its type.
    pub body: fn(u16) -> (u16, String, &'static str),
    /// How long such an answer asks to be left alone, as its header says it.
    pub retry_after: Option<&'static str>,
}

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    /// With the first such request the port closes.
    last: Option<To>,
    seen: Vec<Head>,
    /// Wakes those who are kept waiting for an answer: an engine may wait for ever, and its next push with it.
    over: Arc<Notify>,
}

/// A front that ends with the test.
pub struct Front {
    /// `127.0.0.1:PORT`.
    pub host: String,
    behind: Behind,
    state: Arc<Mutex<State>>,
    runtime: Runtime,
    listening: Listening,
}

/// The task that accepts connections; none when nobody listens.
type Listening = Arc<Mutex<Option<JoinHandle<()>>>>;

impl Front {
    /// Opens one.
    pub fn before(behind: Behind) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let front = Self { host, behind, state: Arc::default(), runtime, listening: Arc::default() };
        front.listen(listener);
        front
    }

    /// Does this from now on, and remembers nothing of before.
    pub fn rule(&self, rule: Rule) {
        self.reset();
        self.state.lock().unwrap().rule = Some(rule);
    }

    /// Nobody listens any more when the first such request has come, or at once.
    pub fn refuse_after(&self, last: Option<To>) {
        self.reset();
        match last {
            Some(last) => self.state.lock().unwrap().last = Some(last),
            None => self.runtime.block_on(close(&self.listening)),
        }
    }

    /// Hands everything on again, and remembers nothing of before.
    pub fn reset(&self) {
        let before = std::mem::take(&mut *self.state.lock().unwrap());
        before.over.notify_waiters();
        if self.listening.lock().unwrap().is_none() {
            self.listen(self.runtime.block_on(TcpListener::bind(&self.host)).unwrap());
        }
    }

    /// Every request since.
    pub fn seen(&self) -> Vec<Head> {
        self.state.lock().unwrap().seen.clone()
    }

    /// How many requests were not handed on as they came.
    pub fn faulted(&self) -> usize {
        self.seen().iter().filter(|head| head.faulted).count()
    }

    fn listen(&self, listener: TcpListener) {
        let (state, behind, listening) = (Arc::clone(&self.state), self.behind.clone(), Arc::clone(&self.listening));
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, behind, listening) = (Arc::clone(&state), behind.clone(), Arc::clone(&listening));
                // What breaks is the one connection.
                tokio::spawn(async move { serve(stream, &behind, &state, &listening).await });
            }
        };
        *self.listening.lock().unwrap() = Some(self.runtime.spawn(accept));
    }
}

/// Closes the port; nobody listens when it returns.
async fn close(listening: &Listening) {
    let task = listening.lock().unwrap().take();
    if let Some(task) = task {
        task.abort();
        // Ended by being aborted, which is no failure.
        let _ = task.await;
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(behind: &Behind) -> std::io::Result<Box<dyn Stream>> {
    Ok(match behind {
        Behind::Tcp(host) => Box::new(TcpStream::connect(host).await?),
        Behind::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

async fn serve(mut client: TcpStream, behind: &Behind, state: &Mutex<State>, listening: &Listening) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    let end = loop {
        // The engine tries TLS first. A server without it says that it wants HTTP, and reads what was sent, so that the answer arrives.
        if bytes.first() == Some(&0x16) {
            client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await?;
            client.shutdown().await?;
            return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
        }
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut rest = bytes.split_off(end);
    let header = |name: &str| {
        let named = |line: &str| {
            line.split_once(':').filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        text.lines().skip(1).find_map(named).unwrap_or_default()
    };
    let mut words = text.split(' ');
    let mut head = Head {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        agent: header("user-agent"),
        login: header("authorization"),
        operation: header("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned(),
        passed: true,
        faulted: false,
    };
    let upgrade = !header("upgrade").is_empty();
    let (fault, body, retry_after, over, last) = {
        let mut state = state.lock().unwrap();
        let seen = std::mem::take(&mut state.seen);
        let mut found = (None, None, None);
        if let Some(rule) = state.rule.as_mut().filter(|rule| rule.times > 0 && (rule.to)(&head, &seen)) {
            rule.times -= 1;
            found = (Some(rule.fault), Some(rule.body), rule.retry_after);
        }
        state.seen = seen;
        head.faulted = found.0.is_some();
        head.passed = matches!(found.0, None | Some(Fault::Reset)) || (found.0 == Some(Fault::Timeout) && !upgrade);
        let last = state.last.as_ref().is_some_and(|last| last(&head, &state.seen));
        state.seen.push(head);
        (found.0, found.1, found.2, Arc::clone(&state.over), last)
    };
    if last {
        // Before this answer, so that whoever waits for it finds nobody.
        close(listening).await;
    }
    match fault {
        Some(Fault::Refused | Fault::Dropped) => client.set_zero_linger(),
        Some(Fault::Timeout) if upgrade => hold(&mut client, &over).await,
        Some(Fault::Timeout) => {
            read_body(&mut client, &header, &mut rest).await?;
            exchange(behind, &text, &rest).await?;
            hold(&mut client, &over).await
        }
        Some(Fault::Reset) if upgrade => {
            let mut service = connect(behind).await?;
            service.write_all(text.as_bytes()).await?;
            let mut answer = [0; 64];
            let read = service.read(&mut answer).await?;
            client.write_all(&answer[..read]).await?;
            client.set_zero_linger()
        }
        Some(Fault::Reset) => {
            read_body(&mut client, &header, &mut rest).await?;
            let answer = exchange(behind, &text, &rest).await?;
            let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
            let half = if answer.len() > head { head + (answer.len() - head) / 2 } else { head / 2 };
            client.write_all(&answer[..half]).await?;
            client.flush().await?;
            // The half is to arrive before the end does.
            tokio::time::sleep(Duration::from_millis(5)).await;
            client.set_zero_linger()
        }
        Some(Fault::Status(_) | Fault::Garbage) => {
            read_body(&mut client, &header, &mut rest).await?;
            let (status, text, kind) = match (fault, body) {
                (Some(Fault::Status(status)), Some(body)) => body(status),
                _ => (200, "<!doctype html><p>Welcome to the hotel's network".to_owned(), "text/html"),
            };
            let length = text.len();
            let text = if client_asks_head(&bytes) { String::new() } else { text };
            let later = retry_after.map_or_else(String::new, |value| format!("retry-after: {value}\r\n"));
            let answer = format!(
                "HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{later}connection: close\r\n\r\n{text}"
            );
            client.write_all(answer.as_bytes()).await?;
            client.shutdown().await
        }
        Some(Fault::Endless) => {
            read_body(&mut client, &header, &mut rest).await?;
            client.write_all(b"HTTP/1.1 200 Said\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n").await?;
            loop {
                tokio::select! {
                    () = over.notified() => return Ok(()),
                    () = tokio::time::sleep(Duration::from_millis(10)) => client.write_all(b" ").await?,
                }
            }
        }
        None => {
            let mut service = connect(behind).await?;
            service.write_all((if upgrade { text.clone() } else { closing(&text) }).as_bytes()).await?;
            service.write_all(&rest).await?;
            let (mut from_client, mut to_client) = client.split();
            let (mut from_service, mut to_service) = tokio::io::split(service);
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_service) => {}
                _ = tokio::io::copy(&mut from_service, &mut to_client) => {}
            }
            Ok(())
        }
    }
}

fn client_asks_head(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HEAD ")
}

/// Answers nothing until the other side gives up, or the fault is taken away.
async fn hold(client: &mut TcpStream, over: &Notify) -> std::io::Result<()> {
    let mut nothing = [0; 1024];
    loop {
        tokio::select! {
            () = over.notified() => return Ok(()),
            read = client.read(&mut nothing) => if read? == 0 { return Ok(()) },
        }
    }
}

/// Reads what is left of a request.
async fn read_body(client: &mut TcpStream, header: &impl Fn(&str) -> String, body: &mut Vec<u8>) -> std::io::Result<()> {
    let length: usize = header("content-length").parse().unwrap_or_default();
    let chunked = header("transfer-encoding").contains("chunked");
    while body.len() < length || (chunked && !body.ends_with(b"0\r\n\r\n")) {
        if client.read_buf(body).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Sends a whole request and returns the whole answer.
async fn exchange(behind: &Behind, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut service = connect(behind).await?;
    service.write_all(closing(head).as_bytes()).await?;
    service.write_all(body).await?;
    let mut answer = Vec::new();
    // The service may break off, too: what came is the answer.
    let _ = service.read_to_end(&mut answer).await;
    Ok(answer)
}

/// The head, asking for the connection to be closed after the answer.
fn closing(head: &str) -> String {
    let kept: Vec<&str> = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
}
