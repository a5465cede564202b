//! `FileSync.DiffCopy`: sends a directory to BuildKit straight from disk.
//!
//! The protocol is fsutil's: we send a stat for each path that travels, then an empty one; BuildKit, which keeps a copy from the
//! last time, asks by number for the files that differ; we send their content in pieces, each file ended by an empty piece.
//!
//! What is in memory at any time: the names of files not asked for yet, and a bounded number of pieces. The task that reads
//! BuildKit's requests does nothing else and never waits: an HTTP/2 peer that lets tiny frames pile up has its connection
//! killed (`ENHANCE_YOUR_CALM`), so requests go to an unbounded queue of numbers that a few threads work off.

use super::follow::follow;
use super::walk::{Filter, has_content, unreadable, walk};
use crate::build::dockerignore::DockerIgnore;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::FileSync;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Bytes of a file in one message; fsutil takes any size below gRPC's limit of 4 MiB.
const PIECE: usize = 64 * 1024;
/// Messages that may wait for the connection.
const WAITING: usize = 32;
/// Threads that read files for one sync.
const READERS: usize = 4;

/// The directories a build may read, by the name BuildKit calls them, and the first thing that went wrong in sending them.
#[derive(Clone)]
pub(super) struct Directories {
    roots: Arc<BTreeMap<String, PathBuf>>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Directories {
    pub(super) fn new(roots: BTreeMap<String, PathBuf>) -> Self {
        Self { roots: Arc::new(roots), failure: Arc::default() }
    }

    /// Why a directory could not be sent, in our words; BuildKit's own error only says that the transfer broke.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after every statement, so a panic elsewhere has not broken it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Outgoing = mpsc::Sender<Result<Packet, Status>>;

/// One transfer.
struct Transfer {
    root: PathBuf,
    out: Outgoing,
    /// Files BuildKit has been told of and has not asked for, by number.
    files: Mutex<HashMap<u32, Box<str>>>,
    failure: Arc<Mutex<Option<String>>>,
}

#[async_trait::async_trait]
impl FileSync for Directories {
    type DiffCopyStream = ReceiverStream<Result<Packet, Status>>;
    type TarStreamStream = ReceiverStream<Result<Packet, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let name = values(request.metadata(), "dir-name").into_iter().next().unwrap_or_default();
        let Some(root) = self.roots.get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir \"{name}\"")));
        };
        let includes = values(request.metadata(), "include-patterns");
        let excludes = values(request.metadata(), "exclude-patterns");
        let paths = values(request.metadata(), "followpaths");
        let (out, packets) = mpsc::channel(WAITING);
        let transfer = Arc::new(Transfer { root, out, files: Mutex::default(), failure: Arc::clone(&self.failure) });

        let walker = Arc::clone(&transfer);
        tokio::task::spawn_blocking(move || {
            let sent = filter(&walker.root, includes, &excludes, &paths).and_then(|filter| walker.send_stats(&filter));
            walker.end(sent);
        });

        tokio::spawn(drain(request.into_inner(), transfer));
        Ok(Response::new(ReceiverStream::new(packets)))
    }

    async fn tar_stream(&self, _request: Request<Streaming<Packet>>) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("contexts are sent with DiffCopy"))
    }
}

/// Reads BuildKit's requests as fast as they come.
async fn drain(mut requests: Streaming<Packet>, transfer: Arc<Transfer>) {
    // Most transfers are of what BuildKit has already, so threads are only started for the first file it asks for.
    let mut readers = None;
    while let Ok(Some(packet)) = requests.message().await {
        match packet.r#type() {
            // Nobody listens when every reader has failed; the failure ends the stream.
            PacketType::PacketReq => drop(readers.get_or_insert_with(|| start_readers(&transfer)).send(packet.id)),
            PacketType::PacketFin => {
                // BuildKit has all it asked for: the answer cannot be held up by pieces, there are none left.
                let _ = transfer.out.send(Ok(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() })).await;
                return;
            }
            PacketType::PacketErr => return,
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
}

/// Starts the threads that send files; they end when the queue that is returned does.
fn start_readers(transfer: &Arc<Transfer>) -> std::sync::mpsc::Sender<u32> {
    let (ask, asked) = std::sync::mpsc::channel();
    let asked = Arc::new(Mutex::new(asked));
    for _ in 0..READERS {
        let (reader, asked) = (Arc::clone(transfer), Arc::clone(&asked));
        tokio::task::spawn_blocking(move || {
            loop {
                // One thread waits for the queue, the others for that thread.
                let next = lock(&asked).recv();
                let Ok(number) = next else { break };
                let sent = reader.send_file(number);
                let failed = sent.is_err();
                reader.end(sent);
                if failed {
                    break;
                }
            }
        });
    }
    ask
}

/// The values of a header, in order. Newer BuildKits escape what is not ASCII, and say so in a second header.
fn values(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let escaped = metadata.get(format!("{key}-encoded")).is_some_and(|value| matches!(value.as_bytes(), b"1" | b"true"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    metadata
        .get_all(key)
        .iter()
        .map(|value| {
            let value = text(value.as_encoded_bytes());
            if !escaped {
                return value;
            }
            percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned()
        })
        .collect()
}

fn filter(root: &Path, mut includes: Vec<String>, excludes: &[String], paths: &[String]) -> Result<Filter, String> {
    let mut all = includes.is_empty();
    if !paths.is_empty() {
        match follow(root, paths).map_err(|error| format!("cannot read the build context `{}`: {error}", root.display()))? {
            Some(found) => {
                all = false;
                includes.extend(found);
            }
            None => all = true,
        }
    }
    let patterns = |patterns: &[String]| DockerIgnore::from_patterns(patterns).map_err(|error| error.to_string());
    Ok(Filter { include: if all { None } else { Some(patterns(&includes)?) }, exclude: patterns(excludes)? })
}

/// The other end is gone; whoever closed it says why.
const CLOSED: &str = "";

impl Transfer {
    fn send(&self, packet: Packet) -> Result<(), String> {
        self.out.blocking_send(Ok(packet)).map_err(|_| CLOSED.to_owned())
    }

    fn send_stats(&self, filter: &Filter) -> Result<(), String> {
        let mut number = 0;
        walk(&self.root, filter, &mut |stat: Stat| {
            // Before it is sent: BuildKit may ask at once.
            if has_content(&stat) {
                lock(&self.files).insert(number, stat.path.clone().into_boxed_str());
            }
            number += 1;
            self.send(Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() })
        })?;
        self.send(Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() })
    }

    fn send_file(&self, number: u32) -> Result<(), String> {
        let Some(path) = lock(&self.files).remove(&number) else {
            return Err(format!("BuildKit asked for file {number}, which it was not told of"));
        };
        let failed = |error: std::io::Error| unreadable(Path::new(path.as_ref()), &error);
        let mut file = std::fs::File::open(self.root.join(path.as_ref())).map_err(failed)?;
        loop {
            let mut data = Vec::with_capacity(PIECE);
            (&mut file).take(PIECE as u64).read_to_end(&mut data).map_err(failed)?;
            let last = data.is_empty();
            self.send(Packet { r#type: PacketType::PacketData.into(), id: number, data, ..Packet::default() })?;
            if last {
                return Ok(());
            }
        }
    }

    /// Ends the transfer with its first failure, which is also kept for the build's own error.
    fn end(&self, sent: Result<(), String>) {
        let Err(message) = sent else { return };
        if message != CLOSED {
            lock(&self.failure).get_or_insert_with(|| message.clone());
            let _ = self.out.blocking_send(Err(Status::internal(message)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_disappears_ends_the_transfer_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("here"), vec![1; PIECE + 1]).unwrap();
        let directories = Directories::new(BTreeMap::new());
        let (out, mut packets) = mpsc::channel(WAITING);
        let names = HashMap::from([(0, "here".into()), (1, "gone".into())]);
        let failure = Arc::clone(&directories.failure);
        let transfer = Transfer { root: dir.path().to_owned(), out, files: Mutex::new(names), failure };
        transfer.send_file(0).unwrap();
        let sizes: Vec<usize> = (0..3).map(|_| packets.try_recv().unwrap().unwrap().data.len()).collect();
        assert_eq!(sizes, [PIECE, 1, 0]);
        transfer.end(transfer.send_file(1));
        assert!(packets.try_recv().unwrap().is_err());
        assert_eq!(directories.failure().unwrap(), "`gone` disappeared from the build context while it was sent");
        assert!(transfer.send_file(1).unwrap_err().contains("not told of"));
    }

    #[test]
    fn headers_are_read_in_order_and_unescaped_when_they_say_so() {
        let mut metadata = MetadataMap::new();
        metadata.append("followpaths", "b%20b".parse().unwrap());
        metadata.append("followpaths", "a+%C3%A9".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths"), ["b%20b", "a+%C3%A9"]);
        metadata.insert("followpaths-encoded", "1".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths"), ["b b", "a é"]);
    }
}
