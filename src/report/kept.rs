//! The log of a step that is shown when the step ends: all of it, or its start and its end when it is larger than memory
//! should be.

use super::text::count;
use std::collections::VecDeque;

/// What is kept of a log until its step ends, bytes at its start and at its end.
const KEPT_HEAD: usize = 1 << 20;
const KEPT_TAIL: usize = 3 << 20;

/// The start and the end of a log.
#[derive(Debug, Default)]
pub(super) struct Kept {
    head: Vec<String>,
    head_bytes: usize,
    tail: VecDeque<String>,
    tail_bytes: usize,
    left_out: usize,
}

impl Kept {
    /// Takes one more line in.
    pub(super) fn push(&mut self, line: String) {
        if self.tail.is_empty() && self.head_bytes + line.len() <= KEPT_HEAD {
            self.head_bytes += line.len();
            self.head.push(line);
            return;
        }
        self.tail_bytes += line.len();
        self.tail.push_back(line);
        while self.tail_bytes > KEPT_TAIL && self.tail.len() > 1 {
            if let Some(gone) = self.tail.pop_front() {
                self.tail_bytes -= gone.len();
                self.left_out += 1;
            }
        }
    }

    /// What is kept, with a line in the middle that says how many are not.
    pub(super) fn lines(self) -> impl Iterator<Item = String> {
        let left_out = (self.left_out > 0).then(|| format!("… {} left out here; `offbuild report` has them", count(self.left_out, "line")));
        self.head.into_iter().chain(left_out).chain(self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_end_keeps_its_start_and_its_end() {
        let mut kept = Kept::default();
        (0..100_000).for_each(|number| kept.push(format!("{number:0100}")));
        assert!(kept.head_bytes <= KEPT_HEAD && kept.tail_bytes <= KEPT_TAIL);
        let lines: Vec<String> = kept.lines().collect();
        assert!(lines.iter().any(|line| line.ends_with("left out here; `offbuild report` has them")));
        assert!(lines[0].ends_with("00") && lines.last().unwrap().ends_with("99999"));
    }
}
