//! One walk over the work tree beside the index: each tracked file's state on disk against what the index remembers of it. What
//! that does not settle is handed on: files whose content has to be looked at, and what the index does not know.

use super::index::{Index, Known, Stamp};
use super::{LINK, SUBMODULE};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// The id of the empty blob.
const EMPTY: [u8; 20] =
    [0xe6, 0x9d, 0xe2, 0x9b, 0xb2, 0xd1, 0xd6, 0x43, 0x4b, 0x8b, 0x29, 0xae, 0x77, 0x5a, 0xd8, 0xc2, 0xe4, 0x8c, 0x53, 0x91];

/// Directories of fewer tracked files are not worth another thread.
const WORTH_A_THREAD: usize = 512;

/// How much of what the index remembers of a file is to be believed: git's settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust {
    /// `core.fileMode`: files are executable or not.
    pub(super) mode: bool,
    /// `core.trustctime`: the time of the last change to the inode counts.
    pub(super) changed: bool,
    /// `core.checkStat=minimal`: whole seconds and size only.
    pub(super) minimal: bool,
    /// A sparse checkout: what lies outside of it is looked at where it is there all the same.
    pub(super) sparse: bool,
}

/// What the walk found; the tracked files by their places in the index.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) deleted: Vec<usize>,
    pub(super) modified: Vec<usize>,
    /// Those that only their content tells.
    pub(super) unsure: Vec<usize>,
    /// What the index does not know, ignored or not; a directory ends in a slash and may hold nothing.
    pub(super) untracked: Vec<Vec<u8>>,
}

/// Compares the work tree at `root` with the index. `None` when something cannot be read, or is there that libgit2 has to judge.
pub(super) fn walk(index: &Index, root: &OwnedFd, trust: Trust) -> Option<Walked> {
    Walk { index, root, trust }.directory(b"", index.all())
}

struct Walk<'a> {
    index: &'a Index,
    root: &'a OwnedFd,
    trust: Trust,
}

impl Walk<'_> {
    /// Walks the directory `prefix` (empty, or with a slash at its end), whose entries are `range`.
    fn directory(&self, prefix: &[u8], range: Range<usize>) -> Option<Walked> {
        let mut walked = Walked::default();
        let mut below = Vec::new();
        self.compare(prefix, range.clone(), &mut walked, &mut below)?;
        let descend = |(end, range): &(usize, Range<usize>)| self.directory(&self.index.path(range.start)[..*end], range.clone());
        if range.len() < WORTH_A_THREAD {
            for child in &below {
                walked = walked.and(descend(child)?);
            }
            return Some(walked);
        }
        let below = below.par_iter().map(descend).try_reduce(Walked::default, |one, two| Some(one.and(two)))?;
        Some(walked.and(below))
    }

    /// Compares what is right in a directory; the directories `below` it are left for later, when this one is closed again.
    fn compare(&self, prefix: &[u8], range: Range<usize>, walked: &mut Walked, below: &mut Vec<(usize, Range<usize>)>) -> Option<()> {
        let (dir, listing) = Listing::of(self.root, prefix)?;
        let dir = dir.fd().ok()?;
        let mut listed = listing.iter().peekable();
        let mut at = range.start;
        loop {
            // The next name of the index, with a slash when it is a directory's.
            let tracked = if at < range.end { Some(&self.index.path(at)[prefix.len()..]) } else { None };
            let tracked = tracked.map(|name| name.iter().position(|byte| *byte == b'/').map_or(name, |slash| &name[..=slash]));
            let on_disk = listed.next_if(|on_disk| tracked.is_none_or(|tracked| on_disk.name <= tracked));
            match (tracked, on_disk) {
                (None, None) => return Some(()),
                (Some(tracked), on_disk) if on_disk.is_none_or(|on_disk| on_disk.name == tracked) => {
                    let first = at;
                    at += 1;
                    if tracked.ends_with(b"/") {
                        let end = prefix.len() + tracked.len();
                        at = self.index.end_of(&self.index.path(first)[..end], first..range.end);
                        match on_disk {
                            Some(_) => below.push((end, first..at)),
                            None => walked.deleted.extend((first..at).filter(|place| self.is_missed(*place))),
                        }
                    } else {
                        match on_disk {
                            Some(on_disk) => self.file(first, dir, on_disk, walked)?,
                            None if self.is_missed(first) => walked.deleted.push(first),
                            None => {}
                        }
                    }
                }
                (_, Some(on_disk)) => {
                    let path = [prefix, on_disk.name].concat();
                    let is_submodule = path.strip_suffix(b"/").is_some_and(|path| self.index.is_submodule(path));
                    if !on_disk.odd && !is_submodule {
                        walked.untracked.push(path);
                    }
                }
                (Some(_), None) => return None,
            }
        }
    }

    /// True when an entry that is not on disk is a deletion; submodules are judged apart.
    fn is_missed(&self, place: usize) -> bool {
        let entry = self.index.entry(place);
        !entry.is_skipped() && entry.mode() != SUBMODULE
    }

    /// Compares a tracked file with what its entry remembers of it.
    fn file(&self, place: usize, dir: BorrowedFd<'_>, on_disk: Listed<'_>, walked: &mut Walked) -> Option<()> {
        let entry = self.index.entry(place);
        let mode = entry.mode();
        if mode == SUBMODULE || entry.is_assumed() || (entry.is_skipped() && !self.trust.sparse) {
            return Some(());
        }
        if on_disk.odd {
            walked.modified.push(place);
            return Some(());
        }
        let stat = statat(dir, on_disk.on_disk?, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let same_kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => mode == LINK,
            FileType::RegularFile => {
                let executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR);
                mode != LINK && (!self.trust.mode || executable == (mode == 0o100_755))
            }
            _ => return None,
        };
        let (known, now) = (entry.known(), facts(&stat));
        // Git writes a size of zero for what it was not sure of.
        if !same_kind || (known.size != now.size && known.size != 0) {
            walked.modified.push(place);
        } else if !self.is_known(known, now) || (known.size == 0 && entry.id() != EMPTY) {
            walked.unsure.push(place);
        }
        Some(())
    }

    /// True when the file surely is what it was when its entry was written.
    fn is_known(&self, known: Known, now: Known) -> bool {
        let written = self.index.written();
        if self.trust.minimal {
            let modified = known.modified.seconds;
            return known.size == now.size && modified == now.modified.seconds && modified < written.seconds;
        }
        // Where only whole seconds are kept, what happened later in that second cannot be seen.
        let settled = if known.modified.nanos == 0 || written.nanos == 0 {
            known.modified.seconds < written.seconds
        } else {
            known.modified < written
        };
        let same = |known: Stamp, now: Stamp| known.seconds == now.seconds && (known.nanos == now.nanos || known.nanos == 0);
        settled
            && same(known.modified, now.modified)
            && (!self.trust.changed || same(known.changed, now.changed))
            && (known.size, known.inode, known.owner, known.group) == (now.size, now.inode, now.owner, now.group)
    }
}

impl Walked {
    fn and(mut self, mut other: Self) -> Self {
        self.deleted.append(&mut other.deleted);
        self.modified.append(&mut other.modified);
        self.unsure.append(&mut other.unsure);
        self.untracked.append(&mut other.untracked);
        self
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index keeps the lower half of each")]
fn facts(stat: &Stat) -> Known {
    Known {
        changed: Stamp { seconds: stat.st_ctime as u32, nanos: stat.st_ctime_nsec as u32 },
        modified: Stamp { seconds: stat.st_mtime as u32, nanos: stat.st_mtime_nsec as u32 },
        inode: stat.st_ino as u32,
        owner: stat.st_uid,
        group: stat.st_gid,
        size: stat.st_size as u32,
    }
}

/// What lies in a directory, in the order of an index: directories as if their names ended in a slash.
pub(super) struct Listing {
    /// The names one after the other: a directory's with a slash behind it, any other's with a zero.
    names: Vec<u8>,
    places: Vec<Place>,
}

struct Place {
    start: usize,
    end: usize,
    odd: bool,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Listed<'listing> {
    /// Its name, with a slash when it is a directory.
    pub(super) name: &'listing [u8],
    /// Its name, when it is none.
    on_disk: Option<&'listing CStr>,
    /// True for what git does not keep: pipes, sockets, devices.
    pub(super) odd: bool,
}

impl Listing {
    /// Lists the directory `path` (empty, or with a slash at its end) below `root`, but for `.git`; `None` when it cannot be read.
    /// What lies behind a link is not in it.
    pub(super) fn of(root: &OwnedFd, path: &[u8]) -> Option<(Dir, Self)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = path.strip_suffix(b"/").unwrap_or(b".");
        let mut dir = Dir::new(openat(root.as_fd(), path, flags, Mode::empty()).ok()?).ok()?;
        let mut listing = Self { names: Vec::new(), places: Vec::new() };
        while let Some(entry) = dir.read() {
            let entry = entry.ok()?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b".." | b".git") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    FileType::from_raw_mode(statat(dir.fd().ok()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode)
                }
                kind => kind,
            };
            let start = listing.names.len();
            listing.names.extend_from_slice(name);
            let is_dir = kind == FileType::Directory;
            listing.names.push(if is_dir { b'/' } else { 0 });
            let end = if is_dir { listing.names.len() } else { listing.names.len() - 1 };
            let odd = !matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink);
            listing.places.push(Place { start, end, odd });
        }
        let names = &listing.names;
        listing.places.sort_unstable_by(|one, two| names[one.start..one.end].cmp(&names[two.start..two.end]));
        Some((dir, listing))
    }

    /// What is in it, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        self.places.iter().map(|place| Listed {
            name: &self.names[place.start..place.end],
            on_disk: self.names.get(place.start..=place.end).and_then(|name| CStr::from_bytes_with_nul(name).ok()),
            odd: place.odd,
        })
    }
}
