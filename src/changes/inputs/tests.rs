use super::*;
use crate::build::ImageBuild;
use crate::config::{BuildConfig, HookKind, Timeouts, UsedPattern};
use crate::manifest::{Service, ServiceBuild};
use crate::yaml::Document;

fn place(line: usize) -> Place {
    Place { file: "apps.yaml".into(), line, column: 1 }
}

pub(in crate::changes) fn app() -> App {
    App {
        name: AppName::new("web").unwrap(),
        dir: "apps/web".into(),
        place: place(3),
        targets: vec![],
        uses: vec![],
        after: vec![],
        group: None,
        ignore: vec![],
        manifest: "convox.yml".into(),
        generation: 2,
        compose: None,
        tags: std::collections::BTreeSet::default(),
        repository: None,
        create: None,
        latest: true,
        build: BuildConfig {
            weight: 1,
            args: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            platform: None,
            no_cache: false,
            pull: false,
            timeouts: Timeouts::default(),
        },
        hooks: BTreeMap::new(),
        repeatable: std::collections::BTreeSet::default(),
        precision: Precision::Directory,
        digest: "d".into(),
    }
}

pub(in crate::changes) fn manifest(context: &str, dockerfile: &str, also_reads: &[&str]) -> Manifest {
    let image = ImageBuild {
        context: "/repo".into(),
        dockerfile: "/repo/Dockerfile".into(),
        target: None,
        args: BTreeMap::new(),
        platform: None,
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        contexts: BTreeMap::new(),
        cache_from: vec![],
        inline_cache: false,
        no_cache: false,
        pull: false,
        network: None,
        extra_hosts: BTreeMap::new(),
        shm_size: None,
        ulimits: BTreeMap::new(),
        context_key: String::new(),
    };
    let build = ServiceBuild {
        image,
        context: context.into(),
        dockerfile: dockerfile.into(),
        also_reads: also_reads.iter().map(|path| RepoPath::from(*path)).collect(),
        labels: BTreeMap::new(),
        place: Place { file: "apps/web/convox.yml".into(), line: 4, column: 5 },
    };
    let service = Service { name: ServiceName::new("web").unwrap(), place: place(1), image: None, build: Some(build) };
    let document = Document::parse("apps/web/convox.yml", "services: {}\n").unwrap();
    Manifest {
        generation: 2,
        path: "apps/web/convox.yml".into(),
        document,
        services: vec![service],
        files: vec!["apps/web/convox.yml".into()],
        warnings: vec![],
    }
}

fn used(glob: &str, through: &[&str]) -> UsedPattern {
    let pattern = Pattern { glob: glob.into(), negated: false, place: place(9) };
    UsedPattern { pattern, through: through.iter().map(|name| (*name).to_owned()).collect() }
}

fn shown(app: &App, manifest: Option<&Manifest>, reads: &BTreeMap<ServiceName, Vec<Read>>) -> Vec<String> {
    let inputs = inputs_of(app, &Arc::new(Shared::default()), manifest, reads, &|_| Vec::new()).unwrap();
    inputs.rules.iter().map(|rule| rule.rule.to_string()).collect()
}

#[test]
fn an_app_is_its_directory_and_what_it_uses() {
    let app = App { uses: vec![used("libs/auth/**", &[]), used("Gemfile", &["auth", "ruby"])], ..app() };
    assert_eq!(
        shown(&app, Some(&manifest("apps/web", "apps/web/Dockerfile", &["apps/web/secret"])), &BTreeMap::new()),
        ["directory apps/web, apps.yaml:3:1", "uses libs/auth/**, apps.yaml:9:1", "uses Gemfile, apps.yaml:9:1, through auth → ruby",]
    );
}

#[test]
fn a_context_outside_is_an_input_until_its_dockerfile_is_read() {
    let manifest = manifest("", "docker/web.Dockerfile", &["libs/shared"]);
    let common = [
        "directory apps/web, apps.yaml:3:1",
        "dockerfile docker/web.Dockerfile, apps/web/convox.yml:4:5",
        "dockerignore docker/web.Dockerfile.dockerignore, apps/web/convox.yml:4:5",
        "dockerignore .dockerignore, apps/web/convox.yml:4:5",
        "build libs/shared, apps/web/convox.yml:4:5",
    ];
    assert_eq!(shown(&app(), Some(&manifest), &BTreeMap::new()), [&common[..], &["context ., apps/web/convox.yml:4:5"]].concat());
    let read = |path: &str| Read {
        reach: Reach::of(path).unwrap(),
        text: format!("COPY {path}"),
        place: Place { file: "docker/web.Dockerfile".into(), line: 2, column: 1 },
        unseen: None,
        is_required: false,
    };
    let reads = BTreeMap::from([(ServiceName::new("web").unwrap(), vec![read("libs/a"), read("apps/web/src"), read("libs/a")])]);
    assert_eq!(shown(&app(), Some(&manifest), &reads), [&common[..], &["dockerfile COPY libs/a, docker/web.Dockerfile:2:1"]].concat());
}

#[test]
fn precision_context_is_what_is_read_and_what_steers() {
    let hooks = BTreeMap::from([
        (HookKind::BeforeBuild, HookConfig::File { path: "deploy/before_build.sh".into(), named: false }),
        (HookKind::AfterRelease, HookConfig::File { path: "after.sh".into(), named: true }),
    ]);
    let app = App { precision: Precision::Context, hooks, compose: Some("docker-compose.yml".into()), ..app() };
    let reads = BTreeMap::from([(ServiceName::new("web").unwrap(), vec![])]);
    assert_eq!(
        shown(&app, Some(&manifest("apps/web", "apps/web/Dockerfile", &[])), &reads),
        [
            "manifest apps/web/convox.yml, apps.yaml:3:1",
            "manifest apps/web/docker-compose.yml, apps.yaml:3:1",
            "manifest apps/web/.env, apps.yaml:3:1",
            "hook apps/web/deploy/after_build.sh, apps.yaml:3:1",
            "hook apps/web/deploy/before_release.sh, apps.yaml:3:1",
            "hook apps/web/deploy/on_failure.sh, apps.yaml:3:1",
            "hook apps/web/deploy, apps.yaml:3:1",
            "hook apps/web/after.sh, apps.yaml:3:1",
            "dockerfile apps/web/Dockerfile, apps/web/convox.yml:4:5",
            "dockerignore apps/web/Dockerfile.dockerignore, apps/web/convox.yml:4:5",
            "dockerignore apps/web/.dockerignore, apps/web/convox.yml:4:5",
        ]
    );
}

#[test]
fn hooks_outside_the_directory_are_inputs() {
    let command = |words: &[&str]| HookConfig::Command(words.iter().map(|word| (*word).to_owned()).collect());
    let hooks = BTreeMap::from([
        (HookKind::BeforeBuild, HookConfig::File { path: "../../scripts/prepare.sh".into(), named: true }),
        (HookKind::AfterBuild, command(&["bash", "../../scripts/check.sh", "--url=https://x/y", "bin/local", "/usr/bin/true"])),
        (HookKind::AfterRelease, command(&["sh", "-c", "../../scripts/one.sh && exec \"../../scripts/two.sh\" now"])),
        (HookKind::OnFailure, command(&["../../../outside.sh"])),
    ]);
    assert_eq!(
        shown(&App { hooks, ..app() }, None, &BTreeMap::new()),
        [
            "directory apps/web, apps.yaml:3:1",
            "hook scripts/prepare.sh, apps.yaml:3:1",
            "hook scripts/check.sh, apps.yaml:3:1",
            "hook scripts/one.sh, apps.yaml:3:1",
            "hook scripts/two.sh, apps.yaml:3:1"
        ]
    );
}

#[test]
fn a_pattern_that_cannot_be_used_is_named_with_its_place() {
    let broken = [("libs/{a", "pattern `libs/{a` cannot be used"), ("../x", "pattern `../x` cannot be used")];
    for (glob, message) in broken {
        let app = App { uses: vec![used(glob, &[])], ..app() };
        let error = inputs_of(&app, &Arc::new(Shared::default()), None, &BTreeMap::new(), &|_| Vec::new()).unwrap_err();
        assert_eq!(error.message, format!("apps.yaml:9:1: {message}"));
    }
    let mut negated = used("x", &[]);
    negated.pattern.negated = true;
    let error = inputs_of(&App { uses: vec![negated], ..app() }, &Arc::new(Shared::default()), None, &BTreeMap::new(), &|_| Vec::new())
        .unwrap_err();
    assert_eq!(error.message, "apps.yaml:9:1: `!x`: `!` has a meaning in `ignore` only");
}

#[test]
fn patterns_are_cleaned_before_they_match() {
    for (glob, path, expected) in [
        ("./libs/x", "libs/x/y", true),
        ("libs/x/", "libs/x", true),
        (".", "anything/at/all", true),
        ("./libs/*.rb", "libs/a.rb", true),
        ("libs/*/", "libs/a/b", true),
        ("libs/x", "libs/xy", false),
    ] {
        assert_eq!(Reach::of(glob).unwrap().contains(&path.into()), expected, "{glob} {path}");
    }
}
