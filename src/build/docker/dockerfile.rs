//! As much of a Dockerfile as is needed to check a build before it starts and to point at the line that failed.
//!
//! Instructions with their lines (continuations, comments, the `escape` directive and heredocs considered), the stages they
//! form, and the mounts of `RUN`. Nothing is evaluated but plain `$ARG`s; BuildKit's parser remains the judge of what is right.

use std::collections::{BTreeMap, BTreeSet};

/// A parsed Dockerfile.
#[derive(Debug, Clone, Default)]
pub(super) struct Dockerfile {
    lines: Vec<String>,
    /// The frontend image of a `# syntax=` line.
    pub(super) syntax: Option<String>,
    pub(super) instructions: Vec<Instruction>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// Its first line, from 1.
    pub(super) line: usize,
    /// Its last line.
    pub(super) end: usize,
    /// Upper case; that of the triggered instruction for `ONBUILD`.
    pub(super) keyword: String,
    /// What follows the keyword, continuation lines joined.
    pub(super) rest: String,
    /// The stage it is in, from 0; `None` before the first `FROM`.
    pub(super) stage: Option<usize>,
}

/// A secret or ssh agent that a `RUN` mounts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mount {
    pub(super) kind: MountKind,
    pub(super) id: String,
    pub(super) line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MountKind {
    Secret,
    Ssh,
}

impl Dockerfile {
    /// Parses a Dockerfile; what cannot be understood is left to BuildKit to refuse.
    pub(super) fn parse(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (syntax, escape) = directives(&lines);
        let mut found = Self { lines, syntax, instructions: Vec::new() };
        let mut stage = None;
        let mut at = 0;
        while at < found.lines.len() {
            let first = at;
            let (joined, next) = found.logical_line(at, escape);
            at = next;
            if joined.trim().is_empty() {
                continue;
            }
            let (mut keyword, mut rest) = word(&joined);
            let trigger = keyword.eq_ignore_ascii_case("ONBUILD");
            if trigger {
                (keyword, rest) = word(rest);
            }
            let keyword = keyword.to_ascii_uppercase();
            if keyword == "FROM" {
                stage = Some(stage.map_or(0, |stage: usize| stage + 1));
            }
            if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
                at = found.after_heredocs(rest, at);
            }
            let (rest, stage) = (rest.trim().to_owned(), if trigger { None } else { stage });
            found.instructions.push(Instruction { line: first + 1, end: at, keyword, rest, stage });
        }
        found
    }

    /// The line at `at` with its continuations, and the index after them. Comments and blank lines may stand between.
    fn logical_line(&self, mut at: usize, escape: char) -> (String, usize) {
        let mut joined = String::new();
        while let Some(line) = self.lines.get(at) {
            at += 1;
            let trimmed = line.trim();
            if trimmed.starts_with('#') || (trimmed.is_empty() && !joined.is_empty()) {
                if joined.is_empty() {
                    break;
                }
                continue;
            }
            match line.trim_end().strip_suffix(escape) {
                Some(begun) => joined.push_str(begun),
                None => {
                    joined.push_str(line);
                    break;
                }
            }
        }
        (joined.trim().to_owned(), at)
    }

    /// The index after the bodies of the heredocs that `rest` opens.
    fn after_heredocs(&self, rest: &str, at: usize) -> usize {
        let mut at = at;
        for word in rest.split_whitespace() {
            let Some((_, opened)) = word.split_once("<<").filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            let (tabs, name) = opened.strip_prefix('-').map_or((false, opened), |name| (true, name));
            let name = name.trim_matches(['"', '\'']);
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            let closes = |line: &String| if tabs { line.trim_start_matches('\t') == name } else { line == name };
            // One that is never closed is BuildKit's to complain about, or no heredoc at all (`$((1<<EOF))`).
            if let Some(length) = self.lines[at..].iter().position(closes) {
                at += length + 1;
            }
        }
        at
    }

    /// The secrets and agents that the stages leading to `target` mount. Where a name depends on a build argument that is not
    /// known here, it is left to the session, which refuses it when it is asked for.
    pub(super) fn mounts(&self, target: Option<&str>, args: &BTreeMap<String, String>) -> Vec<Mount> {
        let stages = self.stages_to(target);
        let mut values = args.clone();
        let mut mounts = BTreeSet::new();
        for instruction in &self.instructions {
            if instruction.keyword == "ARG" {
                for (name, value) in instruction.rest.split_whitespace().filter_map(|arg| arg.split_once('=')) {
                    values.entry(name.to_owned()).or_insert_with(|| unquote(value).to_owned());
                }
            }
            if instruction.keyword != "RUN" || instruction.stage.is_none_or(|stage| !stages.contains(&stage)) {
                continue;
            }
            for mount in flags(&instruction.rest).filter_map(|(name, value)| (name == "mount").then_some(value)) {
                if let Some((kind, id)) = mount_of(&unquote_all(mount), &values) {
                    mounts.insert(Mount { kind, id, line: instruction.line });
                }
            }
        }
        mounts.into_iter().collect()
    }

    /// The stages that are built to get to `target`: all of them when that cannot be told.
    fn stages_to(&self, target: Option<&str>) -> BTreeSet<usize> {
        let all = || self.instructions.iter().filter_map(|instruction| instruction.stage).collect::<BTreeSet<_>>();
        let names = self.stage_names();
        let index = |name: &str| names.iter().position(|stage| stage.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name)));
        let number = |name: &str| index(name).or_else(|| name.parse().ok().filter(|number| *number < names.len()));
        let Some(last) = names.len().checked_sub(1) else { return all() };
        let first = match target {
            Some(target) => match number(target) {
                Some(stage) => stage,
                None => return all(),
            },
            None => last,
        };
        let (mut seen, mut open) = (BTreeSet::new(), vec![first]);
        while let Some(stage) = open.pop() {
            if !seen.insert(stage) {
                continue;
            }
            for instruction in self.instructions.iter().filter(|instruction| instruction.stage == Some(stage)) {
                let from: Vec<String> = match instruction.keyword.as_str() {
                    "FROM" => arguments(&instruction.rest).next().map(str::to_owned).into_iter().collect(),
                    "COPY" | "ADD" => {
                        flags(&instruction.rest).filter(|(name, _)| *name == "from").map(|(_, value)| value.to_owned()).collect()
                    }
                    "RUN" => flags(&instruction.rest)
                        .filter(|(name, _)| *name == "mount")
                        .filter_map(|(_, value)| field(value, &["from"]))
                        .collect(),
                    _ => continue,
                };
                for from in from {
                    if from.contains('$') {
                        return all();
                    }
                    open.extend(number(unquote(&from)));
                }
            }
        }
        seen
    }

    /// The name of each stage, when it has one.
    pub(super) fn stage_names(&self) -> Vec<Option<String>> {
        let froms = self.instructions.iter().filter(|instruction| instruction.keyword == "FROM" && instruction.stage.is_some());
        froms
            .map(|from| {
                let words: Vec<&str> = arguments(&from.rest).collect();
                (words.len() == 3 && words[1].eq_ignore_ascii_case("AS")).then(|| words[2].to_owned())
            })
            .collect()
    }

    /// The lines of an instruction with one line before them, the way compilers show code.
    pub(super) fn excerpt(&self, line: usize, end: usize) -> String {
        let end = end.clamp(line, self.lines.len()).min(line + 9);
        let width = end.to_string().len();
        let mut text = String::new();
        for number in line.saturating_sub(1).max(1)..=end {
            let mark = if number >= line { '>' } else { ' ' };
            let content = self.lines.get(number - 1).map_or("", String::as_str);
            text.push_str(format!(" {mark} {number:width$} | {content}").trim_end());
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}

/// The `syntax` and `escape` directives: comments of the form `# key=value` before anything else.
fn directives(lines: &[String]) -> (Option<String>, char) {
    let (mut syntax, mut escape) = (None, '\\');
    for line in lines {
        let Some((key, value)) = line.trim().strip_prefix('#').and_then(|comment| comment.split_once('=')) else { break };
        match key.trim().to_ascii_lowercase().as_str() {
            "syntax" => syntax = Some(value.trim().to_owned()),
            "escape" => escape = value.trim().chars().next().unwrap_or('\\'),
            "check" => {}
            _ => break,
        }
    }
    (syntax, escape)
}

fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    text.split_once(char::is_whitespace).unwrap_or((text, ""))
}

/// The leading `--name=value` flags of an instruction.
fn flags(rest: &str) -> impl Iterator<Item = (&str, &str)> {
    rest.split_whitespace().map_while(|word| word.strip_prefix("--")).map(|flag| flag.split_once('=').unwrap_or((flag, "")))
}

/// What follows the flags.
fn arguments(rest: &str) -> impl Iterator<Item = &str> {
    rest.split_whitespace().skip_while(|word| word.starts_with("--"))
}

fn unquote(text: &str) -> &str {
    ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(text)
}

/// Without quotes anywhere: `"type=secret,id=x"`, `id="x"`.
fn unquote_all(text: &str) -> String {
    text.replace(['"', '\''], "")
}

/// The first field of a mount's comma-separated list with one of these names.
fn field(list: &str, names: &[&str]) -> Option<String> {
    list.split(',').filter_map(|pair| pair.split_once('=')).find(|(key, _)| names.contains(key)).map(|(_, value)| value.to_owned())
}

/// Which secret or agent a mount asks for; `None` for other mounts and for names that cannot be known.
fn mount_of(list: &str, values: &BTreeMap<String, String>) -> Option<(MountKind, String)> {
    match field(list, &["type"])?.as_str() {
        "secret" => {
            // Without an id, it is the file's name that counts.
            let id = field(list, &["id"]).or_else(|| {
                let target = field(list, &["target", "dst", "destination"])?;
                target.rsplit('/').next().map(str::to_owned)
            })?;
            Some((MountKind::Secret, expand(&id, values)?))
        }
        "ssh" => Some((MountKind::Ssh, expand(&field(list, &["id"]).unwrap_or_else(|| "default".to_owned()), values)?)),
        _ => None,
    }
}

/// Replaces `$NAME` and `${NAME}`; `None` when one is not known or is anything more.
fn expand(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}')?,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        out.push_str(values.get(name)?);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str, target: Option<&str>) -> Vec<String> {
        let mounts = Dockerfile::parse(text).mounts(target, &BTreeMap::from([("WHO".to_owned(), "me".to_owned())]));
        mounts
            .iter()
            .map(|mount| format!("{}:{}@{}", if mount.kind == MountKind::Secret { "secret" } else { "ssh" }, mount.id, mount.line))
            .collect()
    }

    #[test]
    fn mounts_are_found_wherever_run_has_them() {
        let table: &[(&str, &[&str])] = &[
            ("FROM a\nRUN --mount=type=secret,id=x cat /run/secrets/x", &["secret:x@2"]),
            ("FROM a\nRUN --mount=type=secret,target=/root/.npmrc true", &["secret:.npmrc@2"]),
            ("FROM a\nRUN --mount=type=ssh git clone x", &["ssh:default@2"]),
            ("FROM a\nRUN --mount=type=ssh,id=deploy,required x", &["ssh:deploy@2"]),
            ("FROM a\nRUN --network=none --mount=type=cache,target=/c \\\n  # why\n\n  --mount=type=secret,id=y x", &["secret:y@2"]),
            ("# escape=`\nFROM a\nRUN --mount=type=secret,id=x `\n --mount=type=ssh y", &["secret:x@3", "ssh:default@3"]),
            ("FROM a\nrun --mount=type=secret,id=\"q\" x", &["secret:q@2"]),
            ("FROM a\nRUN <<EOF\nRUN --mount=type=secret,id=inner x\nEOF\nRUN --mount=type=ssh x", &["ssh:default@5"]),
            ("FROM a\nRUN echo --mount=type=secret,id=x", &[]),
            ("FROM a\n# RUN --mount=type=secret,id=x y", &[]),
            ("FROM a\nRUN --mount=type=secret,id=$WHO x", &["secret:me@2"]),
            ("ARG N=npm\nFROM a\nRUN --mount=type=secret,id=${N}rc x", &["secret:npmrc@3"]),
            ("FROM a\nRUN --mount=type=secret,id=$OTHER x", &[]),
            ("FROM a\nONBUILD RUN --mount=type=secret,id=x y", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(asked(text, None), *expected, "{text}");
        }
    }

    #[test]
    fn only_stages_that_are_built_count() {
        let text = "FROM a AS one\nRUN --mount=type=secret,id=1 x\nFROM b AS two\nRUN --mount=type=secret,id=2 x\n\
                    FROM two\nCOPY --from=0 /x /x\nFROM b AS four\nRUN --mount=type=bind,from=two,target=/t x";
        assert_eq!(asked(text, Some("two")), ["secret:2@4"]);
        assert_eq!(asked(text, Some("2")), ["secret:1@2", "secret:2@4"]);
        assert_eq!(asked(text, None), ["secret:2@4"]);
        assert_eq!(asked(&text.replace("from=two", "from=$X"), None).len(), 2);
        assert_eq!(asked(text, Some("unknown")).len(), 2);
    }

    #[test]
    fn directives_count_at_the_top_only() {
        let parsed = Dockerfile::parse("# syntax=docker/dockerfile:1\n# escape=`\n\nFROM a\n");
        assert_eq!((parsed.syntax.as_deref(), parsed.instructions[0].line), (Some("docker/dockerfile:1"), 4));
        assert_eq!(Dockerfile::parse("# a comment\n# syntax=x\nFROM a").syntax, None);
    }

    #[test]
    fn an_excerpt_marks_the_instruction() {
        let parsed = Dockerfile::parse("FROM a\nRUN one \\\n  two\nRUN three");
        let run = &parsed.instructions[1];
        assert_eq!((run.line, run.end, run.rest.as_str()), (2, 3, "one   two"));
        assert_eq!(parsed.excerpt(run.line, run.end), "   1 | FROM a\n > 2 | RUN one \\\n > 3 |   two");
    }
}
