//! From BuildKit's words for a failed build to an error that points at the Dockerfile's line.

use super::dockerfile::{Dockerfile, Instruction};
use super::failure::{engine, is_full};
use super::status::FailedStep;
use crate::build::BuildError;
use regex::Regex;

/// How many of the last lines of a failed command say why it failed.
const LAST_WORDS: usize = 5;

/// The error of a build that BuildKit ended with `message`. `shown` is how the Dockerfile is called.
pub(super) fn explain(message: &str, step: Option<FailedStep>, dockerfile: &Dockerfile, shown: &str) -> BuildError {
    let mut text = clean(message).to_owned();
    // BuildKit only tells the exit code of a command that found the disk full; the command itself said it in its last lines.
    let said = step.as_ref().map(|step| step.log.as_slice()).unwrap_or_default();
    let full = said.iter().rev().take(LAST_WORDS).find(|line| is_full(line));
    if is_full(&text) {
        return engine(format!("the build failed: {text}"));
    }
    if let Some(line) = full {
        return engine(format!("the build failed: {text}: {}", line.trim()));
    }
    let place = match parse_error_line(&text) {
        Some(line) => Some((line, line)),
        None => step.as_ref().and_then(|step| instruction(dockerfile, &step.name)).map(|found| (found.line, found.end)),
    };
    match (place, &step) {
        (Some((line, end)), _) => text.push_str(&format!("\n --> {shown}:{line}\n{}", dockerfile.excerpt(line, end))),
        (None, Some(step)) if !step.name.is_empty() => text.push_str(&format!("\n --> {shown}, step `{}`", step.name)),
        (None, _) => text.push_str(&format!("\n --> {shown}")),
    }
    // Once a step of the Dockerfile runs, its frontend is there.
    let frontend = dockerfile.syntax.as_ref().filter(|image| place.is_none() && (message.contains("gateway.v0") || names(message, image)));
    if let Some(image) = frontend {
        text.push_str(&format!(
            "\nthe `# syntax={image}` line makes the engine fetch that image first: drop the line, or name a mirror the engine can reach"
        ));
    }
    BuildError::Failed { message: text, log: step.map(|step| step.log).unwrap_or_default() }
}

/// True when the text speaks of this image: of its name without tag, at the end of the path a registry has it under.
fn names(text: &str, image: &str) -> bool {
    let name = image.split(['@', ' ']).next().unwrap_or_default();
    let name = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name);
    !name.is_empty() && text.contains(name)
}

/// Without the layers of wrapping, which say nothing: `failed to solve with frontend dockerfile.v0: failed to build LLB: …`.
fn clean(message: &str) -> &str {
    let wrappings = [
        "rpc error: code = Unknown desc = ",
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve with frontend gateway.v0: ",
        "failed to solve: ",
        "failed to build LLB: ",
        "failed to create LLB definition: ",
    ];
    let mut text = message.trim();
    while let Some(inner) = wrappings.iter().find_map(|wrapping| text.strip_prefix(wrapping)) {
        text = inner;
    }
    text
}

fn parse_error_line(message: &str) -> Option<usize> {
    let expression = Regex::new(r"(?:[Dd]ockerfile parse error (?:on )?line |dockerfile:)(\d+)").ok()?;
    expression.captures(message)?.get(1)?.as_str().parse().ok()
}

/// The instruction a vertex came from. Its name is `[stage 3/5] RUN …`, with variables filled in, so the text decides where
/// it can and the position where it cannot.
fn instruction<'a>(dockerfile: &'a Dockerfile, vertex: &str) -> Option<&'a Instruction> {
    let expression = Regex::new(r"(?s)^\[(?:(.*) )?(\d+)/(\d+)\] ([A-Za-z]+)\s*(.*)$").ok()?;
    let parts = expression.captures(vertex)?;
    let part = |at| parts.get(at).map_or("", |part| part.as_str());
    let keyword = part(4).to_ascii_uppercase();
    let names = dockerfile.stage_names();
    // A platform may stand before the stage's name.
    let stage = match part(1).rsplit(' ').next().unwrap_or_default() {
        "" => (names.len() == 1).then_some(0),
        name => names
            .iter()
            .position(|stage| stage.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name)))
            .or_else(|| name.strip_prefix("stage-")?.parse().ok()),
    };
    let in_stage = |instruction: &&Instruction| stage.is_none() || instruction.stage == stage;
    let mut same = dockerfile
        .instructions
        .iter()
        .filter(in_stage)
        .filter(|instruction| instruction.keyword == keyword && instruction.rest.split_whitespace().eq(part(5).split_whitespace()));
    if let (Some(only), None) = (same.next(), same.next()) {
        return Some(only);
    }
    let (at, total): (usize, usize) = (part(2).parse().ok()?, part(3).parse().ok()?);
    let stage = stage?;
    let counted = |instruction: &&Instruction| matches!(instruction.keyword.as_str(), "RUN" | "COPY" | "ADD" | "WORKDIR");
    let steps: Vec<_> = dockerfile.instructions.iter().filter(|found| found.stage == Some(stage)).filter(counted).collect();
    // A stage `FROM` an image counts that as its first step. Anything else that is counted came with the image (`ONBUILD`).
    let before = total.checked_sub(steps.len()).filter(|before| *before <= 1)?;
    let found = steps.get(at.checked_sub(1 + before)?)?;
    (found.keyword == keyword).then_some(*found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, vertex: &str) -> Option<usize> {
        instruction(&Dockerfile::parse(text), vertex).map(|instruction| instruction.line)
    }

    #[test]
    fn a_vertex_is_found_by_text_or_by_position() {
        let one = "FROM a\nENV X=1\nRUN first\nCOPY $X /x\nRUN twice\nRUN twice\nWORKDIR /w";
        for (vertex, expected) in [
            ("[2/6] RUN first", Some(3)),
            ("[3/6] COPY 1 /x", Some(4)),
            ("[4/6] RUN twice", Some(5)),
            ("[5/6] RUN twice", Some(6)),
            ("[linux/amd64 6/6] WORKDIR /w", Some(7)),
            ("[9/9] RUN gone", None),
            ("[internal] load build context", None),
            ("exporting to image", None),
        ] {
            assert_eq!(line(one, vertex), expected, "{vertex}");
        }
        let two = "FROM a AS build\nRUN make\nFROM build\nRUN make";
        assert_eq!(line(two, "[build 2/2] RUN make"), Some(2));
        assert_eq!(line(two, "[stage-1 1/1] RUN make"), Some(4));
    }

    #[test]
    fn the_message_is_buildkits_core_and_the_place() {
        let dockerfile = Dockerfile::parse("FROM a\nRUN exit 7");
        let step = FailedStep { name: "[2/2] RUN exit 7".into(), error: "x".into(), log: vec!["last".into()] };
        let said =
            "failed to solve with frontend dockerfile.v0: failed to build LLB: executor failed running [/bin/sh -c exit 7]: exit code: 7";
        let BuildError::Failed { message, log } = explain(said, Some(step), &dockerfile, "web/Dockerfile") else { panic!() };
        insta::assert_snapshot!(message, @r"
        executor failed running [/bin/sh -c exit 7]: exit code: 7
         --> web/Dockerfile:2
           1 | FROM a
         > 2 | RUN exit 7
        ");
        assert_eq!(log, ["last"]);
    }

    #[test]
    fn a_parse_error_has_its_line_and_a_syntax_line_its_advice() {
        let parsed = Dockerfile::parse("# syntax=docker/dockerfile:1\nFROM a\nRUNN x");
        let BuildError::Failed { message, .. } = explain("dockerfile parse error line 3: unknown instruction: RUNN", None, &parsed, "D")
        else {
            panic!()
        };
        assert!(message.contains(" --> D:3\n") && message.contains(" > 3 | RUNN x") && !message.contains("syntax"), "{message}");
        let said = "failed to solve with frontend gateway.v0: Head \"https://registry-1.docker.io/v2/docker/dockerfile/manifests/1\": no such host";
        assert!(explain(said, None, &parsed, "D").to_string().contains("drop the line"));
        assert!(matches!(explain("write /x: no space left on device", None, &parsed, "D"), BuildError::Engine { hint: Some(_), .. }));
        let log = vec!["cp: write error: No space left on device".into(), "make: *** [all] Error 1".into()];
        let step = FailedStep { name: "[2/2] RUN make".into(), error: "x".into(), log };
        let told = explain("executor failed running [/bin/sh -c make]: exit code: 2", Some(step), &parsed, "D");
        assert!(matches!(&told, BuildError::Engine { message, .. } if message.ends_with("cp: write error: No space left on device")));
    }
}
