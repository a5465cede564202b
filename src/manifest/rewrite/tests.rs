use super::super::{Manifest, Problems};
use crate::names::{RepoPath, ServiceName};
use crate::yaml::Document;
use std::collections::BTreeMap;

const REF: &str = "r.io/x@sha256:0123";

fn rewrite(generation: u8, text: &str, names: &[&str]) -> Result<String, Problems> {
    let document = Document::parse("convox.yml", text).unwrap();
    let path = RepoPath::from("convox.yml");
    let manifest = Manifest { generation, path, document, services: Vec::new(), files: Vec::new(), warnings: Vec::new() };
    let images: BTreeMap<_, _> = names.iter().map(|name| (ServiceName::new(*name).unwrap(), REF.to_owned())).collect();
    manifest.rewrite(&images)
}

fn becomes(before: &str, after: &str) {
    let after = after.replace("REF", REF);
    assert_eq!(rewrite(2, before, &["web"]).unwrap_or_else(|problems| panic!("{before}\n{problems:#?}")), after);
    // And with other line breaks.
    let crlf = |text: &str| text.replace('\n', "\r\n");
    assert_eq!(rewrite(2, &crlf(before), &["web"]).unwrap(), crlf(&after), "{before}");
}

#[test]
fn a_build_becomes_an_image_in_its_place() {
    for (before, after) in [
        ("services:\n  web:\n    build: .\n    port: 3\n", "services:\n  web:\n    image: REF\n    port: 3\n"),
        ("services:\n  web:\n    port: 3\n    build: ./a # why", "services:\n  web:\n    port: 3\n    image: REF # why"),
        ("services:\n  web:\n    build:\t'a b'\t# why\n", "services:\n  web:\n    image: REF\t# why\n"),
        (
            "services:\n  web:\n    build: # how\n      # inner\n      path: . # one\n      args: [A=b]  # last\n\n    # about the port\n    port: 3\n",
            "services:\n  web:\n    image: REF # how\n\n    # about the port\n    port: 3\n",
        ),
        ("services:\n  web:\n    build:\n      path: .\n      args:\n      - A\n      - B", "services:\n  web:\n    image: REF"),
        (
            "services:\n  web:\n    build: {path: .,\n      manifest: D} # x\n    port: 3\n",
            "services:\n  web:\n    image: REF\n    port: 3\n",
        ),
        ("services:\n  web:\n    build: >-\n      ./a\n    port: 3\n", "services:\n  web:\n    image: REF\n    port: 3\n"),
        ("services:\n  web:\n    build:\n    port: 3\n", "services:\n  web:\n    image: REF\n    port: 3\n"),
        ("services: {web: {build: ., port: 3}}\n", "services: {web: {image: REF, port: 3}}\n"),
        ("services:\n  web: {port: 3, build: {path: .}} # x\n", "services:\n  web: {port: 3, image: REF} # x\n"),
        (r#"{"services": {"web": {"build": "."}}}"#, r#"{"services": {"web": {"image": "REF"}}}"#),
    ] {
        becomes(before, after);
    }
}

#[test]
fn an_image_that_is_there_is_corrected_and_the_build_goes() {
    for (before, after) in [
        ("services:\n  web:\n    image: old:TAG # i\n    build: .\n    port: 3\n", "services:\n  web:\n    image: REF # i\n    port: 3\n"),
        ("services:\n  web:\n    build: . # b\n    image: \"old\"\n", "services:\n  web:\n    image: REF\n"),
        ("services:\n  web:\n    image: old\n    build:\n      path: .", "services:\n  web:\n    image: REF"),
        ("services:\n  web:\n    image:\n    build: .\n", "services:\n  web:\n    image: REF\n"),
        ("services:\n  web:\n    image: old\n  db:\n    image: pg:TAG\n", "services:\n  web:\n    image: REF\n  db:\n    image: pg:TAG\n"),
        ("services:\n  web: {image: old, build: ., port: 3}\n", "services:\n  web: {image: REF, port: 3}\n"),
        ("services:\n  web: { build: . , image: old }\n", "services:\n  web: { image: REF }\n"),
        ("services:\n  web: {image: old,\n    build: .}\n", "services:\n  web: {image: REF}\n"),
        (r#"{"services":{"web":{"image":"old","build":"."}}}"#, r#"{"services":{"web":{"image":"REF"}}}"#),
        ("i: &i old\nservices:\n  web:\n    image: *i\n    build: .\n", "i: &i old\nservices:\n  web:\n    image: REF\n"),
    ] {
        becomes(before, after);
    }
}

#[test]
fn a_service_without_either_gets_an_image() {
    for (before, after) in [
        ("services:\n  web:\n    # first\n    port: 3\n", "services:\n  web:\n    # first\n    image: REF\n    port: 3\n"),
        ("services:\n  web:\n  db:\n    image: pg\n", "services:\n  web: {image: REF}\n  db:\n    image: pg\n"),
        ("services:\n  web: ~ # x\n", "services:\n  web: {image: REF} # x\n"),
        ("services:\n  web: {}\n", "services:\n  web: {image: REF}\n"),
        ("services:\n  web: {port: 3}\n", "services:\n  web: {image: REF, port: 3}\n"),
    ] {
        becomes(before, after);
    }
}

#[test]
fn what_comes_by_merge_is_overruled_behind_the_merge() {
    for (before, after) in [
        (
            "b: &b\n  build: .\n  image: old\nservices:\n  web:\n    <<: *b # m\n    port: 3\n",
            "b: &b\n  build: .\n  image: old\nservices:\n  web:\n    <<: *b # m\n    image: REF\n    port: 3\n",
        ),
        ("b: &b {build: .}\nservices:\n  web: {<<: *b, port: 3}\n", "b: &b {build: .}\nservices:\n  web: {<<: *b, image: REF, port: 3}\n"),
        ("b: &b {path: .}\nservices:\n  web:\n    build: *b # x\n", "b: &b {path: .}\nservices:\n  web:\n    image: REF # x\n"),
        (
            "b: &b {path: .}\nservices:\n  web:\n    build:\n      <<: *b\n    port: 3\n",
            "b: &b {path: .}\nservices:\n  web:\n    image: REF\n    port: 3\n",
        ),
    ] {
        becomes(before, after);
    }
}

#[test]
fn services_that_share_an_anchored_build_are_rewritten_together() {
    let text =
        "services:\n  web: &web\n    build: &b\n      path: .\n    port: 3\n  job:\n    <<: *web\n    build: *b\n  api:\n    <<: *web\n";
    let after =
        "services:\n  web: &web\n    image: REF\n    port: 3\n  job:\n    <<: *web\n    image: REF\n  api:\n    <<: *web\n    image: REF\n";
    assert_eq!(rewrite(2, text, &["web", "job", "api"]).unwrap(), after.replace("REF", REF));
}

#[test]
fn what_cannot_be_edited_alone_is_refused_at_its_place() {
    for (text, expected) in [
        (
            "b: &b {build: .}\nservices:\n  web: *b\n",
            "convox.yml:3:3: service `web` is an alias, so its image cannot be set without changing the others",
        ),
        (
            "b: &b {web: {build: .}}\nservices: *b\n",
            "convox.yml:2:1: service `web` is not written in `services` itself, so its image cannot be set",
        ),
        (
            "services:\n  web: &w\n    build: .\n  api:\n    <<: *w\n",
            "convox.yml:4:3: service `api` would change with the image of another one, through an anchor",
        ),
        (
            "services:\n  web:\n    build: &b .\n  api:\n    build: *b\n",
            "convox.yml:1:1: taking `build` away would take away an anchor that is used elsewhere",
        ),
        (
            "b: &b {image: old}\nservices:\n  web:\n    build: .\n    <<: *b\n",
            "convox.yml:3:3: a merge behind the `image` of service `web` has an `image` too",
        ),
    ] {
        let problems = rewrite(2, text, &["web"]).unwrap_err();
        assert_eq!(format!("{}: {}", problems[0].place, problems[0].message), expected, "{problems:#?}");
        assert!(problems[0].help.is_some());
    }
}

#[test]
fn the_first_compose_format_has_its_services_at_the_top() {
    let text = "web:\n  build: .\n  ports: ['80:80']\nredis:\n  image: redis\n";
    assert_eq!(rewrite(1, text, &["web"]).unwrap(), text.replace("build: .", &format!("image: {REF}")));
}

#[test]
fn a_reference_is_quoted_only_where_it_must_be() {
    for (image, expected) in [("r.io/x:1", "r.io/x:1"), ("1:2", "\"1:2\""), ("null", "\"null\""), ("a b", "\"a b\"")] {
        assert_eq!(super::scalar(image, false), expected);
    }
}

proptest::proptest! {
    /// Text of any shape is rewritten so that only the image differs, or refused; `compare` would have said otherwise.
    #[test]
    fn text_of_any_shape_is_rewritten_or_refused(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "\n    build: .", "\n    build:\n      path: é", "\n    build: &a x", "\n    build: !!str x", "\n    image: old", "\n    image: *x",
            "\n    image: >-\n      a\n      b\n", "\n    <<: *m", "\n    # c", "\n", "\n\t", " {build: ., image: *x}", " {\"build\":\".\" , }", "\n    ? build\n    : .",
            "\n    build:\n    - x\n    - *x", "\n    k: |\n      # no comment\n      build: x", " &w", " *m", " # c", "\n    \"build\": \"a\n      b\"",
        ]),
        0..5,
    )) {
        let text = format!("x: &x r.io/q\nm: &m {{build: ., k: 1}}\nservices:\n  web:{}\n  db:\n    image: pg\n", parts.concat());
        if Document::parse("convox.yml", &text).is_ok_and(|document| document.problems.is_empty())
            && let Ok(rewritten) = rewrite(2, &text, &["web"])
        {
            let document = Document::parse("convox.yml", &rewritten).unwrap();
            let web = document.at(&["services", "web"]).unwrap();
            proptest::prop_assert!(web.get("image").is_some_and(|image| image.as_str() == Some(REF)));
            proptest::prop_assert!(web.entries().unwrap().iter().all(|entry| entry.key != "build"), "{}", rewritten);
        }
    }

    /// Whatever the style, only the build's own lines differ.
    #[test]
    fn other_lines_are_untouched(
        before in proptest::collection::vec("    [a-h]: [a-z]{0,5}( # [a-z ]{0,8})?", 0..3),
        after in proptest::collection::vec("    [m-z]: (\\[x, y\\]|'[a-z]{0,5}'|\\{k: v\\})|      # [a-z]{0,8}|", 0..4),
        build in proptest::sample::select(vec!["    build: .", "    build: {path: a}", "    build:\n      path: a\n      args:\n        - X=1"]),
    ) {
        let head = format!("# top\nservices:\n  web:\n{}", before.iter().map(|line| format!("{line}\n")).collect::<String>());
        let tail: String = after.iter().map(|line| format!("\n{line}")).collect();
        let text = format!("{head}{build}{tail}");
        proptest::prop_assume!(Document::parse("convox.yml", &text).is_ok_and(|document| document.problems.is_empty()));
        let expected = format!("{head}    image: {REF}{tail}");
        proptest::prop_assert_eq!(rewrite(2, &text, &["web"]).unwrap(), expected);
    }
}
