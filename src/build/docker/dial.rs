//! Connections to the engine: one [`dial`] for every kind of endpoint, and what is laid over it.
//!
//! Ordinary calls go through bollard with [`client`] as its transport. BuildKit is spoken over connections that begin as
//! HTTP/1.1 and are upgraded to HTTP/2 ([`upgrade`]); bollard keeps its own upgrade to itself, and serves neither files nor
//! secrets.

use super::endpoint::{Address, Endpoint, TlsFiles};
use super::failure::{Unconnected, engine, may_pass, reconnected, unanswered, unreachable};
use crate::build::BuildError;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

/// A connection to the engine, whatever it runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens a connection to the engine.
pub(super) async fn dial(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp { host, port, tls } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let Some(files) = tls else { return Ok(Box::new(stream)) };
            let name = rustls::pki_types::ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(files)?));
            Ok(Box::new(connector.connect(name, stream).await?))
        }
        Address::Ssh { user, host, port, socket } => {
            let mut command = Command::new("ssh");
            // No terminal and no question: there is nobody to answer while builds run.
            command.args(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=30"]);
            if let Some(user) = user {
                command.arg("-l").arg(user);
            }
            if let Some(port) = port {
                command.arg("-p").arg(port.to_string());
            }
            command.arg("--").arg(host).arg("docker");
            if let Some(socket) = socket {
                command.arg("--host").arg(format!("unix://{socket}"));
            }
            command.args(["system", "dial-stdio"]);
            Ok(Box::new(SshStream::start(command)?))
        }
    }
}

fn tls_config(files: &TlsFiles) -> io::Result<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let named = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |error: rustls::pki_types::pem::Error| io::Error::other(format!("`{path}`: {error}"))
    };
    let certificates = |path: &std::path::Path| -> io::Result<Vec<CertificateDer<'static>>> {
        CertificateDer::pem_file_iter(path).map_err(named(path))?.collect::<Result<_, _>>().map_err(named(path))
    };
    let mut roots = rustls::RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(named(key))?;
            config.with_client_auth_cert(certificates(cert)?, key).map_err(io::Error::other)
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

/// The pipes of an `ssh` that carries a connection, and the process itself, which ends with it.
struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// What ssh said, once it has ended.
    said: Option<JoinHandle<String>>,
    answered: bool,
    _child: Child,
}

impl SshStream {
    fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let missing = || io::Error::other("ssh has no pipes");
        let stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let said = tokio::spawn(async move {
            let mut text = Vec::new();
            // A chatty ssh must not fill memory; its reason is at the beginning.
            let mut stderr = stderr.take(16 * 1024);
            let _ = stderr.read_to_end(&mut text).await;
            let _ = tokio::io::copy(stderr.get_mut(), &mut tokio::io::sink()).await;
            String::from_utf8_lossy(&text).trim().to_owned()
        });
        Ok(Self { stdin, stdout, said: Some(said), answered: false, _child: child })
    }

    /// What ssh said before it ended, as the error of the connection.
    fn poll_reason(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let said = match &mut self.said {
            Some(said) => ready!(Pin::new(said).poll(cx)).unwrap_or_default(),
            None => String::new(),
        };
        self.said = None;
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, format!("ssh ended: {said}")))
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.answered = true;
            return Poll::Ready(Ok(()));
        }
        // It ended without a byte: what ssh said is the reason.
        if self.answered { Poll::Ready(Ok(())) } else { self.poll_reason(cx).map(Err) }
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, buf)) {
            Err(_) if !self.answered => self.poll_reason(cx).map(Err),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

/// bollard over [`dial`]: each call has a connection of its own, so ssh and TLS work as a socket does.
pub(super) fn client(endpoint: &Endpoint) -> Result<bollard::Docker, BuildError> {
    let address = Arc::new(endpoint.address.clone());
    let transport = move |request: bollard::BollardRequest| {
        let address = Arc::clone(&address);
        async move {
            let stream = dial(&address).await?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            // Ends when the answer's body does, or is dropped.
            tokio::spawn(connection);
            let (mut head, body) = request.into_parts();
            if let Some(path) = head.uri.path_and_query() {
                head.uri = path.clone().into();
            }
            head.headers.insert(HOST, HeaderValue::from_static("docker"));
            Ok::<Response<Incoming>, bollard::errors::Error>(sender.send_request(Request::from_parts(head, body)).await?)
        }
    };
    bollard::Docker::connect_with_custom_transport(
        transport,
        Some("http://docker"),
        endpoint.answer.as_secs(),
        bollard::API_DEFAULT_VERSION,
    )
    .map(|client| client.with_timeout(endpoint.answer))
    .map_err(|error| engine(format!("the engine's client cannot be made: {error}")))
}

/// Asks the engine to turn a fresh connection into an HTTP/2 one at `path`.
pub(super) async fn upgrade(
    endpoint: &Endpoint,
    path: &'static str,
    headers: impl IntoIterator<Item = (&'static str, HeaderValue)>,
) -> Result<hyper::upgrade::Upgraded, BuildError> {
    let headers: Vec<_> = headers.into_iter().collect();
    reconnected(|| upgrade_once(endpoint, path, headers.clone())).await
}

/// The same, tried once.
pub(super) async fn upgrade_once(
    endpoint: &Endpoint,
    path: &'static str,
    headers: Vec<(&'static str, HeaderValue)>,
) -> Result<hyper::upgrade::Upgraded, Unconnected> {
    let late = |_| Unconnected {
        error: engine(format!("the engine at {endpoint} did not answer `POST {path}` within {}s", endpoint.answer.as_secs_f64())),
        again: true,
    };
    tokio::time::timeout(endpoint.answer, upgraded(endpoint, path, headers)).await.map_err(late)?
}

async fn upgraded(
    endpoint: &Endpoint,
    path: &'static str,
    headers: Vec<(&'static str, HeaderValue)>,
) -> Result<hyper::upgrade::Upgraded, Unconnected> {
    let stream =
        dial(&endpoint.address).await.map_err(|error| Unconnected { again: may_pass(&error), error: unreachable(endpoint, &error) })?;
    let lost = |error: hyper::Error| Unconnected { error: unanswered(endpoint, &error), again: true };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = hyper::Uri::from_static(path);
    let fixed = [(HOST, "docker"), (CONNECTION, "Upgrade"), (UPGRADE, "h2c")];
    request.headers_mut().extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), value);
    }
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let again = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let error = BuildError::Engine {
            message: format!("the engine at {endpoint} has no BuildKit: `POST {path}` was answered with {status}"),
            hint: Some(
                "use Docker Engine 18.09 or newer on Linux; other engines (Podman, Windows containers) cannot build here".to_owned(),
            ),
        };
        return Err(Unconnected { error, again });
    }
    hyper::upgrade::on(response).await.map_err(lost)
}
