//! Text with its escapes undone, for values that were escaped in one of the many ways there are.
//!
//! Whether a writer escapes a `/` or a blank is its own choice, and escapes nest. So percent-encoding is undone, whatever was encoded; and
//! from backslashes, quotes and control sequences nothing is kept, neither of the text nor of the value ([`bare_text`]): then it
//! does not matter how many there were.

use super::search::Set;
use crate::words::is_invisible;

/// Where a byte of decoded text came from: start and end in the original.
type Origin = (usize, usize);

/// Looks for `set`'s values in the decoded text and tells where they are in the original.
pub(super) fn search(text: &str, set: &Set, mut tell: impl FnMut(Origin)) {
    let percent = text.contains('%').then(|| percent(text)).flatten();
    let bare = text.bytes().any(|byte| ESCAPES[usize::from(byte)]).then(|| undone(text));
    for (needles, decoded) in [(&set.plain, percent), (&set.bare, bare)] {
        if let Some((bytes, origins)) = decoded {
            needles.search(&bytes, |(start, end)| {
                if start < end {
                    tell((origins[start].0, origins[end - 1].1));
                }
            });
        }
    }
}

/// The value as it is in a text whose escapes were undone.
pub(super) fn bare_text(value: &str) -> String {
    value.chars().filter(|c| is_kept(*c)).collect()
}

/// Bytes without which [`undone`] changes nothing that matters. The last three begin control characters beyond ASCII, and characters
/// that are not seen.
const ESCAPES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = matches!(byte as u8, b'\\' | b'\'' | 0x00..=0x08 | 0x0b..=0x1f | 0x7f | 0xc2 | 0xe2 | 0xef);
        byte += 1;
    }
    table
};

fn is_kept(c: char) -> bool {
    // The dollar begins a quoted part, as in `$'…'`.
    !(matches!(c, '\\' | '\'' | '"' | '$') || c.is_control() || is_invisible(c))
}

/// The text with `%41` as `A`; `None` when there is none of it.
fn percent(text: &str) -> Option<(Vec<u8>, Vec<Origin>)> {
    let bytes = text.as_bytes();
    bytes.windows(3).find(|three| three[0] == b'%' && number(&three[1..], 16).is_some())?;
    let (mut out, mut origins) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|digits| number(digits, 16));
        let (byte, length) = digits.map_or((bytes[at], 1), |byte| (byte as u8, 3));
        out.push(byte);
        origins.push((at, at + length));
        at += length;
    }
    Some((out, origins))
}

/// The text without backslashes, quotes, control characters and sequences, and with what `\n`, `\x41`, `\101` and `\u0041` stand for.
fn undone(text: &str) -> (Vec<u8>, Vec<Origin>) {
    let bytes = text.as_bytes();
    let (mut out, mut origins) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(bytes.len()));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        // Most bytes are themselves.
        if byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'\'' | b'"' | b'$') || *byte == b' ' {
            out.push(*byte);
            origins.push((at, at + 1));
            at += 1;
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        let start = at;
        at += c.len_utf8();
        let unit = match c {
            '\\' => {
                at += bytes[at..].iter().take_while(|byte| **byte == b'\\').count();
                // An even number is that many halves of backslashes and escapes nothing.
                let escaped = if (at - start) % 2 == 1 { escape(&bytes[at..]) } else { None };
                let Some((unit, length)) = escaped else { continue };
                at += length;
                unit
            }
            '\u{1b}' => {
                at += sequence(&bytes[at..]);
                // The sequence may have ended in the middle of a character that is no part of it.
                at = text.ceil_char_boundary(at.min(text.len()));
                continue;
            }
            c => Unit::Char(c),
        };
        let mut buffer = [0; 4];
        let kept: &[u8] = match unit {
            Unit::Byte(byte) => &[byte],
            Unit::Char(c) if is_kept(c) => c.encode_utf8(&mut buffer).as_bytes(),
            Unit::Char(_) => continue,
        };
        out.extend_from_slice(kept);
        origins.extend(kept.iter().enumerate().map(|(index, _)| match unit {
            // A character that is itself has its bytes where they are.
            Unit::Char(_) if kept.len() == at - start => (start + index, start + index + 1),
            _ => (start, at),
        }));
    }
    (out, origins)
}

enum Unit {
    Char(char),
    Byte(u8),
}

/// What the bytes behind a backslash stand for, and how many they are; `None` when they are themselves.
fn escape(rest: &[u8]) -> Option<(Unit, usize)> {
    match rest.first()? {
        b'n' | b'r' | b't' | b'b' | b'f' | b'v' | b'a' | b'e' | b'E' => Some((Unit::Char('\n'), 1)),
        b'x' => Some((byte(number(rest.get(1..3)?, 16)?), 3)),
        b'0'..=b'7' => {
            let digits = rest.iter().take(3).take_while(|digit| (b'0'..=b'7').contains(*digit)).count();
            Some((byte(number(&rest[..digits], 8)?), digits))
        }
        b'u' if rest.get(1) == Some(&b'{') => {
            let digits = rest[2..].iter().take(7).position(|byte| *byte == b'}')?;
            Some((Unit::Char(char::from_u32(number(&rest[2..2 + digits], 16)?)?), digits + 3))
        }
        b'u' => {
            let high = number(rest.get(1..5)?, 16)?;
            let low = rest.get(5..7).filter(|next| *next == b"\\u").and_then(|_| number(rest.get(7..11)?, 16));
            let pair = low.and_then(|low| char::decode_utf16([u16::try_from(high).ok()?, u16::try_from(low).ok()?]).next()?.ok());
            match (char::from_u32(high), pair) {
                (Some(c), _) => Some((Unit::Char(c), 5)),
                (None, Some(c)) => Some((Unit::Char(c), 11)),
                (None, None) => None,
            }
        }
        _ => None,
    }
}

/// A byte of ASCII is a character, another is a part of one.
fn byte(value: u32) -> Unit {
    match u8::try_from(value) {
        Ok(byte @ 0..=0x7f) => Unit::Char(char::from(byte)),
        Ok(byte) => Unit::Byte(byte),
        Err(_) => Unit::Char('\0'),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(text, radix).ok()
}

/// How long the control sequence behind an ESC is: CSI up to a byte of 0x40 to 0x7e, OSC up to BEL or ESC \.
fn sequence(rest: &[u8]) -> usize {
    match rest.first() {
        Some(b'[') => 1 + rest[1..].iter().position(|byte| (0x40..=0x7e).contains(byte)).map_or(rest.len() - 1, |at| at + 1),
        Some(b']') => {
            let end = rest.iter().position(|byte| matches!(byte, 0x07 | 0x1b)).unwrap_or(rest.len());
            let closing = if rest.get(end..end + 2) == Some(b"\x1b\\") { 2 } else { 1 };
            (end + closing).min(rest.len())
        }
        Some(_) => 1,
        None => 0,
    }
}
