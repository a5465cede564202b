//! A stream of bytes, cut into lines as people see them.
//!
//! A carriage return starts the line over, as on a terminal, so that a progress bar is one line and not thousands. What
//! is no UTF-8 is replaced. A line that does not end is cut, at a blank where there is one near, and never within what may be a
//! value that is masked.

use crate::secret::Redactor;

/// The longest line, in bytes.
const LONGEST: usize = 16 << 10;
/// How far back from the end of a cut line a blank is looked for.
const NEAR: usize = 4 << 10;

/// The line that is under way.
pub struct Lines {
    line: Vec<u8>,
    returned: bool,
    redactor: Redactor,
}

impl Lines {
    /// No line yet. `redactor` says where a line may be cut.
    #[must_use]
    pub fn new(redactor: Redactor) -> Self {
        Self { line: Vec::new(), returned: false, redactor }
    }

    /// Takes more bytes and tells the lines they complete.
    pub fn push(&mut self, mut bytes: &[u8], tell: &mut (impl FnMut(String) + ?Sized)) {
        while let Some(&first) = bytes.first() {
            match first {
                b'\n' => {
                    self.tell(self.line.len(), tell);
                    self.returned = false;
                    bytes = &bytes[1..];
                    continue;
                }
                b'\r' => {
                    self.returned = true;
                    bytes = &bytes[1..];
                    continue;
                }
                _ if self.returned => {
                    self.line.clear();
                    self.returned = false;
                }
                _ => {}
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len());
            let taken = end.min(LONGEST - self.line.len());
            self.line.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.line.len() == LONGEST && bytes.first().is_some_and(|b| !matches!(b, b'\n' | b'\r')) {
                self.tell(self.cut(), tell);
            }
        }
    }

    /// Tells the last line, when it has no end.
    pub fn finish(&mut self, tell: &mut (impl FnMut(String) + ?Sized)) {
        if !self.line.is_empty() {
            self.tell(self.line.len(), tell);
        }
    }

    /// Where the line is cut: before the beginning of a value, however far back, unless all of it may be one.
    fn cut(&self) -> usize {
        let end = cut(&self.line);
        match self.redactor.cut(&self.line[..end]) {
            0 => end,
            before => before,
        }
    }

    fn tell(&mut self, length: usize, tell: &mut (impl FnMut(String) + ?Sized)) {
        tell(String::from_utf8_lossy(&self.line[..length]).into_owned());
        self.line.drain(..length);
    }
}

/// Where a line that is too long is cut: behind the last blank near its end, else between two characters.
fn cut(line: &[u8]) -> usize {
    let near = line.len() - NEAR;
    if let Some(blank) = line[near..].iter().rposition(u8::is_ascii_whitespace) {
        return near + blank + 1;
    }
    // At most three bytes of a character can stand before its last one.
    let start = line.iter().rposition(|b| b & 0b1100_0000 != 0b1000_0000).unwrap_or(0);
    let whole = std::str::from_utf8(&line[start..]).is_ok();
    if whole || line.len() - start > 3 { line.len() } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::new(Redactor::default()), Vec::new());
        for chunk in chunks {
            lines.push(chunk, &mut |line| told.push(line));
        }
        lines.finish(&mut |line| told.push(line));
        told
    }

    #[test]
    fn lines_are_told_as_a_terminal_shows_them() {
        let table: [(&[&[u8]], &[&str]); 9] = [
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a\n\nb"], &["a", "", "b"]),
            (&[b"a\r\nb\r\n"], &["a", "b"]),
            (&[b"10%\r20%\r100%\n"], &["100%"]),
            (&[b"10%\r", b"\n", b"x\r", b"y"], &["10%", "y"]),
            (&[b"100%\r"], &["100%"]),
            (&[b"a\r\r\nb"], &["a", "b"]),
            (&["ü".as_bytes().split_at(1).0, "ü".as_bytes().split_at(1).1, b"\xff\n"], &["ü\u{fffd}"]),
            (&[b""], &[]),
        ];
        for (chunks, expected) in table {
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_cut_between_words_or_characters() {
        let words = "0123456 ".repeat(5000);
        let told = lines(&[words.as_bytes()]);
        assert_eq!(told.concat(), words);
        assert!(told.iter().all(|line| line.len() <= LONGEST && line.starts_with('0')));
        let wide = format!("a{}", "€".repeat(20_000));
        let told = lines(&[wide.as_bytes()]);
        assert_eq!(told.concat(), wide);
        assert!(told.len() >= 3);
        assert_eq!(lines(&[&[0x80; 40_000]]).concat().chars().count(), 40_000);
        assert_eq!(lines(&["x".repeat(LONGEST).as_bytes(), b"\n"]).len(), 1);
    }

    #[test]
    fn no_line_is_cut_within_a_value() {
        let value = "correct horse battery staple";
        for before in LONGEST - 40..LONGEST + 10 {
            let redactor = Redactor::default();
            redactor.register(&crate::secret::Secret::new(value));
            let (mut lines, mut told) = (Lines::new(redactor), Vec::new());
            lines.push(format!("{}{value}{}", "x".repeat(before), "y".repeat(100)).as_bytes(), &mut |line| told.push(line));
            lines.finish(&mut |line| told.push(line));
            assert_eq!(told.iter().filter(|line| line.contains(value)).count(), 1, "behind {before}");
        }
    }

    proptest::proptest! {
        #[test]
        fn how_the_bytes_arrive_makes_no_difference(bytes in "[a-cü\n\r ]{0,200}", at in 0usize..200) {
            let bytes = bytes.as_bytes();
            let (left, right) = bytes.split_at(at.min(bytes.len()));
            proptest::prop_assert_eq!(lines(&[left, right]), lines(&[bytes]));
        }
    }
}
