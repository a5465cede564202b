use super::*;

/// The sources from the context, and those from elsewhere as `name:pattern`; then why everything counts, if it does.
fn summary(text: &str, args: &[(&str, &str)]) -> String {
    let args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let reads = reads(text, &args);
    let mut parts: Vec<String> = Vec::new();
    for source in &reads.sources {
        match &source.from {
            Origin::Context => parts.push(source.pattern.clone()),
            // What a stage starts from is in `base_images` already.
            Origin::Named(_) if source.pattern.is_empty() => {}
            Origin::Named(name) => parts.push(format!("{name}:{}", source.pattern)),
        }
    }
    parts.extend(reads.whole_context.map(|(line, why)| format!("all@{line}: {why}")));
    parts.join(" | ")
}

#[test]
fn sources_of_copy_and_add() {
    for (text, expected) in [
        ("FROM a\nCOPY x y/ ./z/../w /d/\n", "x | y | w"),
        ("FROM a\nCOPY /abs ../up /d/", "abs | up"),
        ("FROM a\ncopy --chown=1:2 --chmod=755 --link src/*.rs lib/[ab]?.c /d/", "src/*.rs | lib/[ab]?.c"),
        ("FROM a\nCOPY [\"a b\", \"c\", \"/d/\"]", "a b | c"),
        ("FROM a\nCOPY --chown=x [\"a b\", \"/d/\"]", "a b"),
        ("FROM a\nCOPY --parents --exclude=*.md a/./b/** /d/", "a/b/**"),
        ("FROM a\nADD https://x.y/z.tgz git@github.com:a/b.git local.tgz /d/", "local.tgz"),
        (
            "FROM a AS one\nFROM b\nCOPY --from=one /x /y\nCOPY --from=0 /x /y\nCOPY --from=r.io/i:1 /z /y\nCOPY q /",
            "one:x | 0:x | r.io/i:1:z | q",
        ),
        ("FROM a\nONBUILD COPY later /\nONBUILD ADD more /", "later | more"),
        ("FROM a AS b\nENV D=x\nONBUILD COPY $D /\nONBUILD ENV D=z\nENV D=y\nCOPY q$D /\nFROM b\nCOPY $D /", "x | qy | y | z"),
        ("FROM a\nONBUILD FROM 1\nFROM 1\nCOPY x /", "x"),
        ("FROM a\nARG S\nCOPY --from=$S x /\nCOPY -- --y /", "x | --y"),
        ("FROM a\nCOPY [\"<<EOF\", \"/\"]", "<<EOF"),
        ("FROM a\nCOPY --chown=x --from=libs sub /d", "libs:sub"),
        ("FROM a\nCOPY . /d", " | all@2: `.` is the whole context"),
        ("FROM a\nCOPY x /d\nADD ./ /d", "x |  | all@3: `./` is the whole context"),
        ("FROM a\nCOPY \"x\" 'y' /d", "x | y"),
        ("FROM a\nCOPY \"x y\" /d", "all@2: `\"x` cannot be resolved: it is not a form that is understood here"),
        ("FROM a\nCOPY onlyone", ""),
    ] {
        assert_eq!(summary(text, &[]), expected, "{text}");
    }
}

#[test]
fn lines_are_joined_as_docker_joins_them() {
    for (text, expected) in [
        ("FROM a\nCOPY x \\\n  # a comment\n\n  y \\\n  /d\nCOPY z /d", "x | y | z"),
        ("# escape=`\nFROM a\nCOPY x `\n  y /d", "x | y"),
        ("# syntax=docker/dockerfile:1\n# Escape = `\nFROM a\nCOPY x `\n y /d", "x | y"),
        ("# a comment\n# escape=`\nFROM a\nCOPY x \\\n y /d", "x | y"),
        ("FROM a\r\nCOPY x \\ \t\r\n  y /d\r\n", "x | y"),
        ("FROM a\nRUN echo \\\\\nCOPY x /d", "x"),
        ("\u{feff}FROM a\n  COPY x /d", "x"),
        ("FROM a\nRUN a \\\n  COPY y /d", ""),
    ] {
        assert_eq!(summary(text, &[]), expected, "{text}");
    }
}

#[test]
fn heredocs_are_text() {
    for (text, expected) in [
        ("FROM a\nRUN <<EOF\nCOPY no /d\nEOF\nCOPY yes /d", "yes"),
        ("FROM a\nRUN cat <<-'ONE' && cat <<\"TWO\" > x\nCOPY no /d\n\tONE\nCOPY no /d\nTWO\nCOPY yes /d", "yes"),
        ("FROM a\nCOPY <<EOF other /d/\nCOPY no /d\nEOF\nCOPY yes /d", "other | yes"),
        ("FROM a\nRUN echo $((1<<3)) \"<<EOF\"\nCOPY yes /d", "yes"),
        (
            "FROM a\nRUN cat <<EOF\nCOPY yes /d",
            "yes | all@2: a heredoc without its end: what is instruction and what is text cannot be told",
        ),
    ] {
        assert_eq!(summary(text, &[]), expected, "{text}");
    }
}

#[test]
fn bind_mounts_read_too() {
    for (text, expected) in [
        ("FROM a\nRUN --mount=type=bind,source=Gemfile,target=G --mount=type=secret,id=x make", "Gemfile"),
        ("FROM a\nRUN --mount=src=./sub,dst=/x make", "sub"),
        ("FROM a AS s\nRUN --mount=type=bind,from=s,source=/o,target=/x --mount=type=cache,target=$HOME/c make", "s:o"),
        ("FROM a\nRUN --network=none --mount=type=bind,target=/x make", " | all@2: `--mount=type=bind,target=/x` is the whole context"),
        ("FROM a\nRUN --mount=type=bind,source=a*,target=/x make", "all@2: `a*` looks like a pattern and is a path"),
        ("FROM a\nRUN --mount=type=bind,source=$NO,target=/x make", "all@2: `--mount=type=bind,source=$NO,target=/x` cannot be resolved"),
        ("FROM a\nRUN make --mount=type=bind", ""),
        ("FROM a\nRUN --mount=source=x,src=y,target=/x make", "y"),
    ] {
        assert_eq!(summary(text, &[]), expected, "{text}");
    }
}

#[test]
fn variables_are_those_of_the_stage() {
    for (text, args, expected) in [
        ("FROM a\nARG D=src\nCOPY $D/x ${D}y /d", &[][..], "src/x | srcy"),
        ("FROM a\nARG D=src\nCOPY $D /d", &[("D", "other")][..], "other"),
        ("FROM a\nARG D\nCOPY ${D:-dflt} ${D:+no}z /d", &[][..], "dflt | z"),
        ("ARG D=src\nFROM a\nARG D\nCOPY $D /d", &[][..], "src"),
        ("FROM a\nENV A=1 B=\"two 2\"\nENV OLD the rest\nARG A\nCOPY $A \"$B\"x ${OLD} /d", &[][..], "1 | two 2x | the rest"),
        ("FROM a\nENV A=1\nARG A=9\nCOPY $A /d\nENV A=2\nCOPY $A /d", &[("A", "7")][..], "7 | 2"),
        ("FROM a\nARG A=1 B=$A\nARG C=x D=${C}y\nARG C=x E=$C\nCOPY $E /d", &[][..], "x"),
        ("FROM a\nARG A=1\nARG A=2 B=$A\nCOPY $B /d", &[][..], "all@4: `$B` cannot be resolved: the value of `B` is not known here"),
        (
            "FROM a\nARG TARGETSTAGE\nCOPY x$TARGETSTAGE /d",
            &[][..],
            "all@3: `x$TARGETSTAGE` cannot be resolved: the value of `TARGETSTAGE` is not known here",
        ),
        ("FROM a AS base\nENV E=e\nFROM base\nCOPY $E /d", &[][..], "e"),
        ("FROM a\nENV E=e\nARG F=$E/f\nCOPY '$E' \\$E $F /d", &[][..], "$E | $E | e/f"),
        ("FROM a\nARG D=./\nCOPY $D /d", &[][..], " | all@3: `$D` is the whole context"),
        // Unknown: never declared (a base image may have it), the builder's own, or made of such.
        ("FROM a\nCOPY $D /d", &[("D", "x")][..], "all@2: `$D` cannot be resolved: the value of `D` is not known here"),
        ("FROM a\nCOPY ${D:-x} /d", &[][..], "all@2: `${D:-x}` cannot be resolved: the value of `D` is not known here"),
        ("ARG D=src\nFROM a\nCOPY $D /d", &[][..], "all@3: `$D` cannot be resolved: the value of `D` is not known here"),
        (
            "FROM a\nARG TARGETARCH\nCOPY bin/$TARGETARCH /d",
            &[][..],
            "all@3: `bin/$TARGETARCH` cannot be resolved: the value of `TARGETARCH` is not known here",
        ),
        ("FROM a\nENV P=x\nENV P=$PATH:y\nCOPY $P /d", &[][..], "all@4: `$P` cannot be resolved: the value of `P` is not known here"),
        ("FROM a\nARG D=x\nCOPY ${D#y} /d", &[][..], "all@3: `${D#y}` cannot be resolved: it is not a form that is understood here"),
        ("FROM a\nCOPY --from=$X a /d", &[][..], "all@2: `--from=$X` cannot be resolved: the value of `X` is not known here"),
    ] {
        assert_eq!(summary(text, args), expected, "{text}");
    }
}

#[test]
fn base_images_are_those_of_no_stage() {
    let text = "ARG V=3\nARG W\nFROM --platform=$BUILDPLATFORM ruby:$V AS Base\nFROM base\nFROM scratch\nFROM x:${W}y\nFROM z:$NO\nCOPY --from=r.io/t:1 /a /b\nRUN --mount=from=r.io/m,source=q,target=/q true\n";
    assert_eq!(reads(text, &BTreeMap::new()).base_images, ["ruby:3", "x:y", "z:$NO", "r.io/t:1", "r.io/m"]);
}

#[test]
fn a_source_knows_the_line_its_instruction_starts_at() {
    let reads = reads("FROM a\n\nCOPY \\\n  x \\\n  y /d\n", &BTreeMap::new());
    assert_eq!(reads.sources.iter().map(|source| source.line).collect::<Vec<_>>(), [1, 3, 3]);
}

proptest::proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "(FROM|COPY|ADD|RUN|ARG|ENV|ONBUILD|#)?[ -~\n\t\\\\é]{0,80}") {
        let _ = reads(&format!("FROM a\n{text}"), &BTreeMap::new());
    }
}
