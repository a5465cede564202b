//! A stream of bytes, cut into lines as people see them.
//!
//! A carriage return starts the line over, as on a terminal, so that a progress bar is one line and not thousands. What
//! is no UTF-8 is replaced. A line that does not end is cut, at a blank where there is one near, so that no value is torn
//! apart before it can be masked.

/// The longest line, in bytes.
const LONGEST: usize = 16 << 10;
/// How far back from the end of a cut line a blank is looked for.
const NEAR: usize = 4 << 10;

/// The line that is under way.
#[derive(Default)]
pub struct Lines {
    line: Vec<u8>,
    returned: bool,
}

impl Lines {
    /// Takes more bytes and tells the lines they complete.
    pub fn push(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(String)) {
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
                self.tell(cut(&self.line), tell);
            }
        }
    }

    /// Tells the last line, when it has no end.
    pub fn finish(&mut self, tell: &mut impl FnMut(String)) {
        if !self.line.is_empty() {
            self.tell(self.line.len(), tell);
        }
    }

    fn tell(&mut self, length: usize, tell: &mut impl FnMut(String)) {
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
        let (mut lines, mut told) = (Lines::default(), Vec::new());
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

    proptest::proptest! {
        #[test]
        fn how_the_bytes_arrive_makes_no_difference(bytes in "[a-cü\n\r ]{0,200}", at in 0usize..200) {
            let bytes = bytes.as_bytes();
            let (left, right) = bytes.split_at(at.min(bytes.len()));
            proptest::prop_assert_eq!(lines(&[left, right]), lines(&[bytes]));
        }
    }
}
