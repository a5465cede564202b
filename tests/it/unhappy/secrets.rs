//! What a run knows and must not tell: in its outputs and files, on the command lines of what it starts, in what it makes.

use super::bench::Bench;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;
use std::process::Command;

/// In the environment under a name that says what it is; hooks have all of it.
const TOKEN: &str = "npm_it's/a \"T0ken\" of%41 48bytes+and more";
/// The rack's; the bench's own.
const RACK: &str = "rack-pass-0815";
/// An image's build is given it.
const BUILD: &str = "build-5ecret-9f2c";

/// Asserts that none of the values is in the text.
#[track_caller]
fn holds_none(name: &str, text: &str) {
    for value in [TOKEN, RACK, BUILD] {
        let json = serde_json::to_string(value).unwrap();
        let percent: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        for trace in
            [value, &json[1..json.len() - 1], &percent, &STANDARD.encode(value)[..20], &hex::encode(value), &value[..value.len() - 2]]
        {
            assert!(!text.contains(trace), "`{trace}` is in {name}:\n{text}");
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn nothing_that_a_run_leaves_holds_a_secret() {
    for github in [false, true] {
        let mut bench = Bench::released();
        bench.set("NPM_TOKEN", TOKEN);
        bench.set("RUST_BACKTRACE", "1");
        let hook = "#!/bin/sh\n\
            env\n\
            printf 'password: %s\\n' \"$CONVOX_PASSWORD\"\n\
            for value in \"$CONVOX_PASSWORD\" \"$NPM_TOKEN\"; do\n\
              printf %s \"$value\" | base64 -w 10\n\
              printf 'x%s' \"$value\" | base64\n\
              printf 'xy%s' \"$value\" | base64 -w 0; echo\n\
              printf %s \"$value\" | od -An -tx1 | tr -d ' \\n'; echo\n\
              head -c 16380 /dev/zero | tr '\\0' z; printf '%s\\n' \"$value\"\n\
              printf %s \"$value\" | fold -w 9; echo\n\
              printf '\\033[1m%s\\033[0m%s\\n' \"${value%?????}\" \"${value#\"${value%?????}\"}\"\n\
            done\n\
            echo '::add-mask::from-the-hook-1'; echo 'it is from-the-hook-1'\n\
            printf 'no line end: %s' \"$NPM_TOKEN\"\n\
            exit 3\n";
        bench.repo.write("apps/web/deploy/before_release.sh", hook).commit("Hook");
        let (events, page) = (bench.repo.path("../events.jsonl"), bench.repo.path("../page.html"));
        let (summary, outputs) = (bench.repo.path("../summary.md"), bench.repo.path("../outputs"));
        let mut offbuild = bench.offbuild();
        if github {
            offbuild = offbuild.env("GITHUB_ACTIONS", "true");
            offbuild = offbuild.env("GITHUB_STEP_SUMMARY", summary.to_str().unwrap()).env("GITHUB_OUTPUT", outputs.to_str().unwrap());
        }
        let args = ["deploy", "--format", "json", "--verbose", "--events", events.to_str().unwrap(), "--html", page.to_str().unwrap()];
        let done = offbuild.run(&args).code(1);
        assert!(done.stderr.contains("password: ***"), "{}", done.stderr);
        let journal = std::fs::read_dir(bench.repo.path(".offbuild/runs")).unwrap().next().unwrap().unwrap().path();
        let shown = bench.offbuild().run(&["show", "latest"]);
        let mut files = vec![events, page, journal];
        if github {
            files.extend([summary, outputs]);
        }
        let texts = files.iter().map(|file| (file.display().to_string(), read(file)));
        let said = [("stdout", &done.stdout), ("stderr", &done.stderr), ("show", &shown.stdout)];
        for (name, text) in texts.chain(said.map(|(name, text)| (name.to_owned(), text.clone()))) {
            holds_none(&name, &text);
            // The runner has to be told; nobody else.
            let text = if github && name == "stderr" { text.replacen("::add-mask::from-the-hook-1", "", 1) } else { text };
            assert!(!text.contains("from-the-hook-1"), "{name}:\n{text}");
        }
    }
}

#[test]
fn words_on_the_command_line_are_masked_when_they_are_repeated() {
    let mut bench = Bench::released();
    bench.set("NPM_TOKEN", TOKEN);
    for args in [&["deploy", "--no-such", TOKEN][..], &[TOKEN], &["deploy", TOKEN], &["changed", "--base", TOKEN], &["show", TOKEN]] {
        let done = bench.offbuild().run(args);
        holds_none(&args.join(" "), &(done.stderr + &done.stdout));
    }
    let done = bench.offbuild().run(&["status", "--config", "https://ann:s3cret-x@h/apps.yaml"]);
    assert!(!done.stderr.contains("s3cret-x"), "{}", done.stderr);
}

#[test]
fn no_secret_is_on_a_command_line_in_a_label_or_in_a_tag() {
    let mut bench = Bench::built();
    let spied = bench.repo.path("../spied");
    let spy = |name: &str, then: &str| {
        let path = bench.repo.path(&format!("../bin/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (spied, bin) = (spied.display(), path.parent().unwrap().display());
        // Of all that runs at that moment and has this run's environment, this program and the one that started it among them.
        let tell = format!("if grep -qs '{bin}' $each/environ; then tr '\\0' ' ' < $each/cmdline; echo; fi");
        let all = format!("for each in /proc/[0-9]*; do {tell}; done >> {spied} 2>/dev/null");
        std::fs::write(&path, format!("#!/bin/sh\necho 'spy {name}' >> {spied}\n{all}\n{then}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    spy("docker-credential-spy", &format!("echo '{{\"Username\":\"ann\",\"Secret\":\"{RACK}-registry\"}}'"));
    spy("git", "PATH=${PATH#*:} exec git \"$@\"");
    let config = bench.repo.path("../home/.docker/config.json");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, format!("{{\"credHelpers\":{{\"{}\":\"spy\"}}}}", bench.registry())).unwrap();
    let hook = format!("#!/bin/sh\nexec {}\n", bench.repo.path("../bin/hook").display());
    spy("hook", "");
    bench.set("NPM_TOKEN", TOKEN);
    bench.set("BUILD_SECRET", BUILD);
    bench.set("PATH", format!("{}:{}:/usr/sbin:/sbin", bench.repo.path("../bin").display(), std::env::var("PATH").unwrap()));
    bench.set("DOCKER_CONFIG", config.parent().unwrap().to_str().unwrap());
    bench.repo.write("apps/web/deploy/before_build.sh", &hook).write("apps/web/deploy/before_release.sh", &hook);
    bench.configure("apps: {web: {build: {secrets: {token: {env: BUILD_SECRET}}}}}");
    let done = bench.offbuild().run(&["deploy"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    // Where libgit2 cannot read, git is asked.
    let other = bench.repo.path("../sha256");
    crate::support::sh(Command::new("git").args(["init", "-q", "--object-format=sha256"]).arg(&other));
    let git = |args: &[&str]| {
        crate::support::sh(Command::new("git").arg("-C").arg(&other).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(args))
    };
    std::fs::write(other.join("apps.yaml"), read(&bench.repo.path("apps.yaml"))).unwrap();
    std::fs::create_dir_all(other.join("apps/web")).unwrap();
    std::fs::write(other.join("apps/web/convox.yml"), "services:\n  web:\n    build: .\n").unwrap();
    std::fs::write(other.join("apps/web/Dockerfile"), "FROM scratch\nCOPY x /\n").unwrap();
    git(&["add", "-A"]);
    git(&["commit", "-qm", "x"]);
    let _ = bench.offbuild().directory(&other).run(&["changed", "--base", "HEAD"]);
    let spied = read(&spied);
    for name in ["docker-credential-spy", "git", "hook"] {
        assert!(spied.contains(&format!("spy {name}\n")), "`{name}` was never started: {spied}");
    }
    assert!(spied.contains("offbuild deploy"), "{spied}");
    holds_none("the command lines", &spied);
    let mut list = Command::new("docker");
    list.args(["image", "ls", "--format", "{{.ID}}", "--filter"]).arg(format!("reference={}/*", bench.registry()));
    let list = crate::support::sh(&mut list);
    assert!(!list.is_empty());
    for image in list.lines() {
        let inspected = crate::support::sh(Command::new("docker").args(["image", "inspect", image]));
        assert!(inspected.contains("dev.offbuild.fingerprint"), "{inspected}");
        holds_none("the image", &inspected);
        holds_none("the image's history", &crate::support::sh(Command::new("docker").args(["history", "--no-trunc", image])));
    }
}
