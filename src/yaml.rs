//! YAML with places: a tree in which every key and value knows where it was written.
//!
//! serde_yaml makes typed values but forgets where they stood and keeps the last of two equal keys; this tree finds
//! duplicate keys, gives every message its `line:column`, and tells the byte range of a value, so that one scalar can be
//! replaced in place. Aliases are followed, `<<` merges are applied as reading asks for them ([`Node::get`]); it does
//! not interpret scalars beyond plain `null`, booleans and numbers.

use saphyr_parser::{Event, Parser, ScalarStyle, Span as RawSpan};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// More nodes than any honest file has, aliases counted as often as they are used: an alias bomb ends here.
const MOST_NODES: usize = 200_000;

/// A place in a file: line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Place {
    /// The file, as the user would name it.
    pub file: String,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Something wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in lower case.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// A parsed file: its text and its tree.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file's name in messages.
    pub file: String,
    /// The text.
    pub text: String,
    /// The tree; a null for an empty file.
    pub root: Arc<Node>,
    /// Two equal keys in one mapping, found on the way.
    pub problems: Vec<Problem>,
    /// Byte offset of each line, so that a place costs a search and not a walk through the file.
    lines: Vec<usize>,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// The bytes of the value in the text (an alias: those of the anchored value).
    pub span: Range<usize>,
    /// The value.
    pub value: Value,
    /// True when it was written elsewhere and is used here through an alias.
    pub aliased: bool,
    /// True when other places use it through an alias.
    pub anchored: bool,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// Its text, quoting and folding undone.
        text: String,
        /// True when it was written without quotes, so that `true`, `3` and `~` mean themselves.
        plain: bool,
    },
    /// A sequence.
    Sequence(Vec<Arc<Node>>),
    /// A mapping, in the order of the file.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// The bytes of the key.
    pub key_span: Range<usize>,
    /// The value.
    pub value: Arc<Node>,
}

impl Document {
    /// Parses `text`. The error is the parser's, at its place; duplicate keys are in [`Document::problems`].
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let mut reader = Reader::new(file, text);
        let root = reader.document()?;
        let problems = std::mem::take(&mut reader.problems);
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Ok(Self { file: file.to_owned(), text: text.to_owned(), root, problems, lines })
    }

    /// The place of a byte offset.
    #[must_use]
    pub fn place(&self, offset: usize) -> Place {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        Place { file: self.file.clone(), line, column: self.text[start..offset].chars().count() + 1 }
    }

    /// The node at a path of keys and indices, following merges.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<Arc<Node>> {
        let mut node = Arc::clone(&self.root);
        for key in path {
            node = match &node.value {
                Value::Sequence(items) => Arc::clone(items.get(key.parse::<usize>().ok()?)?),
                _ => node.get(key)?,
            };
        }
        Some(node)
    }

    /// The place of the node at a path, or of its nearest parent that exists.
    #[must_use]
    pub fn place_of(&self, path: &[&str]) -> Place {
        for length in (0..=path.len()).rev() {
            if let Some(node) = self.at(&path[..length]) {
                return self.place(node.span.start);
            }
        }
        self.place(0)
    }
}

impl Node {
    /// The scalar's text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// True for `null`, `~` and nothing at all.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The items of a sequence.
    #[must_use]
    pub fn items(&self) -> Option<&[Arc<Node>]> {
        match &self.value {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping as written, `<<` among them.
    #[must_use]
    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The entries of a mapping with its `<<` merges applied: own keys first, then those that only come from a merge.
    #[must_use]
    pub fn merged(&self) -> Vec<Entry> {
        let mut merged: Vec<Entry> = Vec::new();
        let Some(entries) = self.entries() else { return merged };
        merged.extend(entries.iter().filter(|entry| entry.key != "<<").cloned());
        for merge in entries.iter().filter(|entry| entry.key == "<<") {
            let sources = merge.value.items().map_or_else(|| vec![Arc::clone(&merge.value)], <[Arc<Node>]>::to_vec);
            for entry in sources.iter().flat_map(|source| source.merged()) {
                if !merged.iter().any(|known| known.key == entry.key) {
                    merged.push(entry);
                }
            }
        }
        merged
    }

    /// The value of a key, through merges.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Arc<Node>> {
        self.entry(key).map(|entry| entry.value)
    }

    /// The entry of a key, through merges.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<Entry> {
        let entries = self.entries()?;
        let own = entries.iter().find(|entry| entry.key == key && key != "<<").cloned();
        let merges = || entries.iter().filter(|entry| entry.key == "<<");
        own.or_else(|| {
            merges().find_map(|merge| match merge.value.items() {
                Some(sources) => sources.iter().find_map(|source| source.entry(key)),
                None => merge.value.entry(key),
            })
        })
    }

    /// What kind of value it is, with its article, for messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "false") => "a boolean",
            Value::Scalar { text, plain: true } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { .. } => "a string",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// The tree as a serde_yaml value, merges applied; `scalar` may change each string (interpolation).
    pub fn to_value(&self, scalar: &mut dyn FnMut(&Node, &str) -> String) -> serde_yaml::Value {
        match &self.value {
            Value::Scalar { text, plain } => {
                let text = scalar(self, text);
                // What a plain scalar means is serde_yaml's to say; anything it cannot read alone is a string.
                match plain.then(|| serde_yaml::from_str::<serde_yaml::Value>(&text)) {
                    Some(Ok(value)) if !value.is_mapping() && !value.is_sequence() => value,
                    _ => serde_yaml::Value::String(text),
                }
            }
            Value::Sequence(items) => serde_yaml::Value::Sequence(items.iter().map(|item| item.to_value(scalar)).collect()),
            Value::Mapping(_) => {
                let entries = self.merged().into_iter();
                serde_yaml::Value::Mapping(entries.map(|e| (serde_yaml::Value::String(e.key), e.value.to_value(scalar))).collect())
            }
        }
    }
}

/// The place of a byte offset in `text`.
#[must_use]
pub fn place(file: &str, text: &str, offset: usize) -> Place {
    let before = &text[..text.floor_char_boundary(offset)];
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    Place { file: file.to_owned(), line: before.matches('\n').count() + 1, column: before[start..].chars().count() + 1 }
}

/// The problem as people read it: place and message, the line with a caret under it, and what would be right.
#[must_use]
pub fn excerpt(problem: &Problem, text: &str) -> String {
    let place = &problem.place;
    let mut out = format!("{place}: {}", problem.message);
    if let Some(line) = text.lines().nth(place.line.saturating_sub(1)) {
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let (shown, before) = around(line.trim_end(), place.column.saturating_sub(1));
        let caret = " ".repeat(before);
        out.push_str(&format!("\n {number} | {shown}\n {margin} | {caret}^"));
    }
    if let Some(help) = &problem.help {
        out.push_str(&format!("\n   help: {help}"));
    }
    out
}

/// What of a line is shown, and how many of its characters stand before the one at `column`, from 0: all, unless it is very long.
fn around(line: &str, column: usize) -> (String, usize) {
    /// Characters on either side.
    const NEAR: usize = 150;
    let from = column.saturating_sub(NEAR);
    let mut shown: String = line.chars().skip(from).take(2 * NEAR).collect();
    if line.chars().nth(from + 2 * NEAR).is_some() {
        shown.push('…');
    }
    if from > 0 { (format!("…{shown}"), NEAR + 1) } else { (shown, column) }
}

struct Reader<'t> {
    file: &'t str,
    text: &'t str,
    /// Byte offset of each character: the parser counts characters.
    offsets: Vec<usize>,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: BTreeMap<usize, Arc<Node>>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl<'t> Reader<'t> {
    fn new(file: &'t str, text: &'t str) -> Self {
        let mut offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        offsets.push(text.len());
        Self { file, text, offsets, parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, problems: Vec::new() }
    }

    fn problem(&self, offset: usize, message: impl Into<String>) -> Problem {
        Problem { place: place(self.file, self.text, offset), message: message.into(), help: None }
    }

    fn bytes(&self, span: RawSpan) -> Range<usize> {
        let at = |index: usize| self.offsets.get(index).copied().unwrap_or(self.text.len());
        at(span.start.index())..at(span.end.index())
    }

    fn next(&mut self) -> Result<(Event<'t>, Range<usize>), Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.bytes(span))),
            Some(Err(error)) => {
                let at = self.offsets.get(error.marker().index()).copied().unwrap_or(self.text.len());
                Err(self.problem(at, format!("not valid YAML: {}", error.info())))
            }
            None => Err(self.problem(self.text.len(), "unexpected end of the file")),
        }
    }

    fn document(&mut self) -> Result<Arc<Node>, Problem> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => return Err(self.problem(span.start, "a second document: one file holds one")),
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                _ => {}
            }
        }
        let empty =
            || Arc::new(Node { span: 0..0, value: Value::Scalar { text: String::new(), plain: true }, aliased: false, anchored: false });
        Ok(root.unwrap_or_else(empty))
    }

    /// Where a scalar really ends: the parser's end runs over the blanks and the comment behind it.
    fn scalar_end(&self, span: &Range<usize>, style: ScalarStyle) -> usize {
        let text = &self.text[span.clone()];
        match style {
            ScalarStyle::DoubleQuoted => {
                let mut escaped = false;
                let close = text.char_indices().skip(1).find(|(_, c)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                });
                close.map_or(span.end, |(at, _)| span.start + at + 1)
            }
            ScalarStyle::SingleQuoted => {
                let bytes = text.as_bytes();
                let mut at = 1;
                while at < bytes.len() {
                    match (bytes[at], bytes.get(at + 1)) {
                        (b'\'', Some(b'\'')) => at += 2,
                        (b'\'', _) => return span.start + at + 1,
                        _ => at += 1,
                    }
                }
                span.end
            }
            ScalarStyle::Plain => span.start + text.trim_end().len(),
            ScalarStyle::Literal | ScalarStyle::Folded => span.end,
        }
    }

    fn node(&mut self, event: Event<'t>, span: Range<usize>, depth: usize) -> Result<Arc<Node>, Problem> {
        self.nodes += 1;
        if self.nodes > MOST_NODES || depth > 100 {
            return Err(self.problem(span.start, "too many or too deeply nested values"));
        }
        let (value, anchor, span) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(self.problem(span.start, "an alias to something that contains it"));
                };
                self.nodes += count(&node);
                return Ok(Arc::new(Node { aliased: true, ..(*node).clone() }));
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let span = span.start..self.scalar_end(&span, style);
                (value, anchor, span)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break span.start + 1;
                    }
                    items.push(self.node(event, span, depth + 1)?);
                };
                // A block collection's end event stands at the next token: its last value ends it.
                let flow = self.text[span.start..].starts_with('[');
                let end = items.last().filter(|_| !flow).map_or(end, |item| item.span.end.max(span.start));
                (Value::Sequence(items), anchor, span.start..end)
            }
            Event::MappingStart(anchor, _) => {
                let mut entries: Vec<Entry> = Vec::new();
                let mut seen: BTreeMap<String, usize> = BTreeMap::new();
                let end = loop {
                    let (event, key_span) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        break key_span.start + 1;
                    }
                    let key_node = self.node(event, key_span.clone(), depth + 1)?;
                    let Some(key) = key_node.as_str().map(str::to_owned) else {
                        return Err(self.problem(key_span.start, "a key must be a string"));
                    };
                    let (event, span) = self.next()?;
                    let value = self.node(event, span, depth + 1)?;
                    if let Some(first) = seen.get(&key).filter(|_| key != "<<") {
                        let first = place(self.file, self.text, *first);
                        let mut problem = self.problem(key_span.start, format!("`{key}` is here twice"));
                        problem.help = Some(format!("the first one is at line {}; keep one of them", first.line));
                        self.problems.push(problem);
                    }
                    seen.entry(key.clone()).or_insert(key_span.start);
                    entries.push(Entry { key, key_span, value });
                };
                let flow = self.text[span.start..].starts_with('{');
                let end = entries.last().filter(|_| !flow).map_or(end, |e| e.value.span.end.max(e.key_span.end));
                (Value::Mapping(entries), anchor, span.start..end)
            }
            _ => return Err(self.problem(span.start, "a value is missing")),
        };
        let node = Arc::new(Node { span, value, aliased: false, anchored: anchor != 0 });
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        Ok(node)
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::Sequence(items) => items.iter().map(|item| count(item)).sum(),
        Value::Mapping(entries) => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_bytes_and_its_place() {
        let text = "é: 1\nservices:\n  web:\n    image: \"a:b\" # why\n";
        let document = Document::parse("x.yml", text).unwrap();
        let image = document.at(&["services", "web", "image"]).unwrap();
        assert_eq!(&text[image.span.clone()], "\"a:b\"");
        assert_eq!(document.place(image.span.start).to_string(), "x.yml:4:12");
    }

    #[test]
    fn comments_and_blanks_belong_to_no_value() {
        let text = "a: 'it''s'  # one\nb: plain words   # two\nc: {d: \"e\\\"f\" , g: 1 } # three\nh:\n  i: 1\n\nj: 2\n";
        let document = Document::parse("x.yml", text).unwrap();
        let written = |path: &[&str]| &text[document.at(path).unwrap().span.clone()];
        assert_eq!(written(&["a"]), "'it''s'");
        assert_eq!(written(&["b"]), "plain words");
        assert_eq!(written(&["c", "d"]), "\"e\\\"f\"");
        assert_eq!(written(&["c"]), "{d: \"e\\\"f\" , g: 1 }");
        assert_eq!(written(&["h"]), "i: 1");
    }

    #[test]
    fn two_equal_keys_are_a_problem_with_both_places() {
        let document = Document::parse("x.yml", "apps:\n  web: 1\n  web: 2\n").unwrap();
        assert_eq!(
            excerpt(&document.problems[0], &document.text),
            "x.yml:3:3: `web` is here twice\n 3 |   web: 2\n   |   ^\n   help: the first one is at line 2; keep one of them"
        );
    }

    #[test]
    fn merges_and_aliases_are_followed() {
        let document = Document::parse("x.yml", "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: *a\n").unwrap();
        assert_eq!(document.at(&["b", "x"]).unwrap().as_str(), Some("1"));
        assert_eq!(document.at(&["b", "y"]).unwrap().as_str(), Some("3"));
        assert!(document.at(&["c"]).unwrap().aliased);
    }

    #[test]
    fn of_a_very_long_line_the_part_around_the_place_is_shown() {
        let text = format!("a: {}!{}", "x".repeat(1000), "y".repeat(1000));
        let place = place("f.yml", &text, 1003);
        let shown = excerpt(&Problem { place, message: "m".to_owned(), help: None }, &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "f.yml:1:1004: m");
        assert_eq!(lines[1], format!(" 1 | …{}!{}…", "x".repeat(150), "y".repeat(149)));
        assert_eq!(lines[2].chars().count() - 1, lines[1].chars().position(|c| c == '!').unwrap());
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(Document::parse("x.yml", &text).unwrap_err().message.contains("too many"));
    }

    #[test]
    fn broken_yaml_has_its_place() {
        let problem = Document::parse("x.yml", "a: [1, 2\nb: 3\n").unwrap_err();
        assert!(problem.place.line >= 1, "{problem:?}");
    }
}
