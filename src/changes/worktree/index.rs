//! Git's index as it lies on disk: the file is read once and stays one buffer, entries are views into it.
//!
//! Versions 2, 3 and 4 and the cached tree. An index that means more than its entries say (a split one, a sparse one, one in the
//! middle of a merge, one with paths that are only intended) is refused: libgit2 or git know what to make of it.
//!
//! Its checksum is not looked at, as git does not either; order and bounds are.

use super::{ASSUME_VALID, INTENT_TO_ADD, SKIP_WORKTREE, STAGE, SUBMODULE};
use git2::Oid;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of an entry before its flags.
const FIXED: usize = 60;

/// Bytes of an object id, which also is the checksum at the end.
const ID: usize = 20;

const EXTENDED: u16 = 1 << 14;
const NAME_LENGTH: u16 = 0xfff;

/// The index.
pub(super) struct Index {
    bytes: Vec<u8>,
    /// The paths of version 4, where each is stored as what differs from the one before.
    unpacked: Option<Vec<u8>>,
    slots: Vec<Slot>,
    /// The paths of submodules.
    submodules: Vec<usize>,
    /// The cached tree, where there is one.
    cached: Range<usize>,
    /// When it was written.
    written: Stamp,
}

/// Where an entry lies: 12 bytes for each of half a million.
struct Slot {
    at: u32,
    path: u32,
    length: u32,
}

/// Seconds and nanoseconds, as an index keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) seconds: u32,
    pub(super) nanos: u32,
}

/// What a file was like when it was last found to be what the index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) changed: Stamp,
    pub(super) modified: Stamp,
    pub(super) inode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) size: u32,
}

/// An entry.
#[derive(Clone, Copy)]
pub(super) struct Entry<'index> {
    fixed: &'index [u8],
}

/// A directory of the cached tree.
pub(super) struct Cached<'index> {
    pub(super) name: &'index [u8],
    /// The tree it would be committed as, with the number of entries in it; `None` where that is not known.
    pub(super) tree: Option<(Oid, usize)>,
    pub(super) children: Vec<Cached<'index>>,
}

impl Index {
    /// Reads the index at `file`; `None` when there is none or when it is better left to others.
    pub(super) fn read(file: &Path) -> Option<Self> {
        // The time first: should git write it meanwhile, more entries are looked at closely, not fewer.
        let metadata = file.metadata().ok()?;
        let bytes = std::fs::read(file).ok()?;
        let written = Stamp { seconds: u32::try_from(metadata.mtime()).ok()?, nanos: u32::try_from(metadata.mtime_nsec()).ok()? };
        Self::parse(bytes, written)
    }

    fn parse(bytes: Vec<u8>, written: Stamp) -> Option<Self> {
        let end = u32::try_from(bytes.len()).ok()? as usize;
        let end = end.checked_sub(ID)?;
        let count = number(&bytes, 8)? as usize;
        let version = number(&bytes, 4)?;
        if bytes.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let mut index = Self {
            // No entry is shorter, so a wrong count asks for no more than the file is long.
            slots: Vec::with_capacity(count.min(bytes.len() / (FIXED + 2))),
            unpacked: (version == 4).then(Vec::new),
            bytes,
            submodules: Vec::new(),
            cached: 0..0,
            written,
        };
        let mut at = 12;
        for _ in 0..count {
            at = index.enter(at, end)?;
        }
        index.extensions(at, end)?;
        Some(index)
    }

    /// Takes in the entry at `at` and tells where the next one begins.
    fn enter(&mut self, at: usize, end: usize) -> Option<usize> {
        let bytes = self.bytes.get(..end)?;
        let flags = short(bytes, at + FIXED)?;
        let mut start = at + FIXED + 2;
        if flags & STAGE != 0 {
            return None;
        }
        if flags & EXTENDED != 0 {
            if short(bytes, start)? & INTENT_TO_ADD != 0 {
                return None;
            }
            start += 2;
        }
        let (slot, next) = match &mut self.unpacked {
            None => {
                let length = match flags & NAME_LENGTH {
                    NAME_LENGTH => bytes.get(start..)?.iter().position(|byte| *byte == 0)?,
                    length => usize::from(length),
                };
                (bytes.get(start + length) == Some(&0)).then_some(())?;
                // Padded with one to eight zeros.
                let next = at + ((start + length - at) / 8 + 1) * 8;
                (Slot { at: narrow(at)?, path: narrow(start)?, length: narrow(length)? }, next)
            }
            Some(paths) => {
                let (dropped, start) = varint(bytes, start)?;
                let length = bytes.get(start..)?.iter().position(|byte| *byte == 0)?;
                let before = self.slots.last().map_or(0..0, |slot| slot.path as usize..(slot.path + slot.length) as usize);
                let kept = before.len().checked_sub(dropped)?;
                let path = paths.len();
                paths.extend_from_within(before.start..before.start + kept);
                paths.extend_from_slice(&bytes[start..start + length]);
                (Slot { at: narrow(at)?, path: narrow(path)?, length: narrow(kept + length)? }, start + length + 1)
            }
        };
        let ordered = self.slots.last().map_or(slot.length > 0, |last| self.name(last) < self.name(&slot));
        if number(bytes, at + 24)? == SUBMODULE {
            self.submodules.push(self.slots.len());
        }
        self.slots.push(slot);
        ordered.then_some(next)
    }

    /// Finds the cached tree; `None` at an extension one has to know to read the index.
    fn extensions(&mut self, mut at: usize, end: usize) -> Option<()> {
        while at < end {
            let name = self.bytes.get(at..at + 4)?;
            let body = at + 8..at.checked_add(8)?.checked_add(number(&self.bytes, at + 4)? as usize)?;
            if body.end > end || !name[0].is_ascii_uppercase() {
                return None;
            }
            if name == b"TREE" {
                self.cached = body.clone();
            }
            at = body.end;
        }
        Some(())
    }

    fn name(&self, slot: &Slot) -> &[u8] {
        let paths = self.unpacked.as_ref().unwrap_or(&self.bytes);
        &paths[slot.path as usize..(slot.path + slot.length) as usize]
    }

    /// Every entry's place.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.slots.len()
    }

    /// The path of an entry.
    pub(super) fn path(&self, place: usize) -> &[u8] {
        self.name(&self.slots[place])
    }

    /// An entry.
    pub(super) fn entry(&self, place: usize) -> Entry<'_> {
        let at = self.slots[place].at as usize;
        Entry { fixed: &self.bytes[at..at + FIXED + 4] }
    }

    /// Where within `range` the entries end that begin with `prefix`, as its first one does.
    pub(super) fn end_of(&self, prefix: &[u8], range: Range<usize>) -> usize {
        range.start + self.slots[range].partition_point(|slot| self.name(slot).starts_with(prefix))
    }

    /// True when there is an entry of that very path.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.slots.binary_search_by(|slot| self.name(slot).cmp(path)).is_ok()
    }

    /// The blob of a file that a sparse checkout left out.
    pub(super) fn left_out(&self, path: &[u8]) -> Option<Oid> {
        let place = self.slots.binary_search_by(|slot| self.name(slot).cmp(path)).ok()?;
        Some(self.entry(place)).filter(|entry| entry.is_skipped()).and_then(|entry| Oid::from_bytes(entry.id()).ok())
    }

    /// The places of the submodules, ascending.
    pub(super) fn submodules(&self) -> &[usize] {
        &self.submodules
    }

    /// True when `path` is a submodule.
    pub(super) fn is_submodule(&self, path: &[u8]) -> bool {
        self.submodules.binary_search_by(|place| self.path(*place).cmp(path)).is_ok()
    }

    /// When it was written.
    pub(super) fn written(&self) -> Stamp {
        self.written
    }

    /// The tree the whole index would be committed as, where that is known.
    pub(super) fn tree(&self) -> Option<Oid> {
        let mut rest = &self.bytes[self.cached.clone()];
        let (root, _) = cached_node(&mut rest)?;
        root.tree.filter(|(_, count)| *count == self.slots.len()).map(|(id, _)| id)
    }

    /// The cached tree with all its directories.
    pub(super) fn cached(&self) -> Option<Cached<'_>> {
        cached_tree(&mut &self.bytes[self.cached.clone()], 0)
    }
}

impl<'index> Entry<'index> {
    /// Git's mode.
    pub(super) fn mode(self) -> u32 {
        self.number(24)
    }

    /// The object id.
    pub(super) fn id(self) -> &'index [u8] {
        &self.fixed[40..FIXED]
    }

    /// True when it was said to be as the index has it, whatever is on disk.
    pub(super) fn is_assumed(self) -> bool {
        self.flags() & ASSUME_VALID != 0
    }

    /// True when it is outside a sparse checkout.
    pub(super) fn is_skipped(self) -> bool {
        self.flags() & EXTENDED != 0 && short(self.fixed, FIXED + 2).unwrap_or_default() & SKIP_WORKTREE != 0
    }

    /// True unless it is as the index has it, whatever is on disk.
    pub(super) fn is_looked_at(self) -> bool {
        !self.is_assumed() && !self.is_skipped()
    }

    /// What the file was like.
    pub(super) fn known(self) -> Known {
        let stamp = |at| Stamp { seconds: self.number(at), nanos: self.number(at + 4) };
        Known {
            changed: stamp(0),
            modified: stamp(8),
            inode: self.number(20),
            owner: self.number(28),
            group: self.number(32),
            size: self.number(36),
        }
    }

    fn flags(self) -> u16 {
        short(self.fixed, FIXED).unwrap_or_default()
    }

    fn number(self, at: usize) -> u32 {
        number(self.fixed, at).unwrap_or_default()
    }
}

impl<'index> Cached<'index> {
    /// The directory `name` in this one.
    pub(super) fn child(&self, name: &[u8]) -> Option<&Cached<'index>> {
        self.children.binary_search_by(|child| child.name.cmp(name)).ok().map(|at| &self.children[at])
    }
}

/// How deep directories may lie.
const DEEPEST: usize = 2048;

/// A directory and all below it, off the front of `rest`.
fn cached_tree<'index>(rest: &mut &'index [u8], depth: usize) -> Option<Cached<'index>> {
    // No path is that deep, and the stack is not either.
    if depth > DEEPEST {
        return None;
    }
    let (mut node, children) = cached_node(rest)?;
    for _ in 0..children {
        node.children.push(cached_tree(rest, depth + 1)?);
    }
    node.children.sort_by(|one, two| one.name.cmp(two.name));
    Some(node)
}

/// A directory off the front of `rest`, with the number of those in it: `name NUL entries SPACE directories LF [id]`.
fn cached_node<'index>(rest: &mut &'index [u8]) -> Option<(Cached<'index>, usize)> {
    let mut until = |end: u8| {
        let at = rest.iter().position(|byte| *byte == end)?;
        let part = &rest[..at];
        *rest = &rest[at + 1..];
        Some(part)
    };
    let name = until(0)?;
    let entries: i64 = std::str::from_utf8(until(b' ')?).ok()?.parse().ok()?;
    let children = std::str::from_utf8(until(b'\n')?).ok()?.parse().ok()?;
    let tree = match usize::try_from(entries) {
        Ok(entries) => {
            let (id, after) = rest.split_at_checked(ID)?;
            *rest = after;
            Some((Oid::from_bytes(id).ok()?, entries))
        }
        Err(_) => None,
    };
    Some((Cached { name, tree, children: Vec::new() }, children))
}

/// Git's number of variable length, and where it ends.
fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut byte = *bytes.get(at)?;
    let mut value = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        at += 1;
        byte = *bytes.get(at)?;
        value = value.checked_add(1)?.checked_mul(128)? + usize::from(byte & 0x7f);
    }
    Some((value, at + 1))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn narrow(number: usize) -> Option<u32> {
    u32::try_from(number).ok()
}
