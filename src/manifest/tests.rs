use super::*;
use crate::build::{NamedContext, SecretSource, SshSource};

fn read_files(generation: u8, files: &[(&str, &str)], build: &BuildConfig) -> Result<Manifest, Problems> {
    let app = AppName::new("shop").unwrap();
    let dir = RepoPath::from("apps/shop");
    let read = |path: &RepoPath| Ok(files.iter().find(|(name, _)| *path == dir.join(name).unwrap()).map(|(_, text)| (*text).to_owned()));
    let env = |name: &str| match name {
        "TOKEN" => Some("t0".to_owned()),
        "HOME" => Some("/home/u".to_owned()),
        _ => None,
    };
    super::read(&Reading {
        root: Path::new("/repo"),
        app: &app,
        dir: &dir,
        manifest: if generation == 1 { "docker-compose.yml" } else { "convox.yml" },
        generation,
        compose: (generation == 2 && files.iter().any(|(name, _)| *name == "docker-compose.yml")).then_some("docker-compose.yml"),
        read: &read,
        env: &env,
        build,
    })
}

fn convox(text: &str) -> Result<Manifest, Problems> {
    read_files(2, &[("convox.yml", text)], &BuildConfig::default())
}

fn compose(text: &str) -> Result<Manifest, Problems> {
    read_files(1, &[("docker-compose.yml", text)], &BuildConfig::default())
}

fn one_build(manifest: Result<Manifest, Problems>) -> ServiceBuild {
    manifest.unwrap_or_else(|problems| panic!("{problems:#?}")).services.remove(0).build.expect("a build")
}

/// One line per service: name, image, context and Dockerfile.
fn lines(manifest: &Manifest) -> Vec<String> {
    let line = |service: &Service| {
        let image = service.image.as_ref().map_or("-".to_owned(), ToString::to_string);
        let build = service.build.as_ref().map_or("-".to_owned(), |build| format!("{} {}", build.context, build.dockerfile));
        format!("{} {image} {build}", service.name)
    };
    manifest.services.iter().map(line).collect()
}

fn messages(problems: &Problems) -> Vec<String> {
    problems.iter().map(|p| format!("{}:{}: {}", p.place.line, p.place.column, p.message)).collect()
}

#[test]
fn convox_services_in_the_order_of_the_file() {
    let text = "
services:
  web: {build: ., image: r.io/shop:web}
  api:
    build: {path: ../../libs/api, manifest: docker/Dockerfile.api, args: [A=b, TOKEN, NONE]}
  job: {port: 3}
  none:
  db: {image: \"postgres:16\"}
  odd: {image: \"${DB}/x\"}
";
    let manifest = convox(text).unwrap();
    assert_eq!(
        lines(&manifest),
        [
            "web r.io/shop:web apps/shop apps/shop/Dockerfile",
            "api - libs/api libs/api/docker/Dockerfile.api",
            "job - apps/shop apps/shop/Dockerfile",
            "none - apps/shop apps/shop/Dockerfile",
            "db docker.io/library/postgres:16 -",
            "odd - -",
        ]
    );
    let api = manifest.services[1].build.as_ref().unwrap();
    assert_eq!(api.image.args, BTreeMap::from([("A".to_owned(), "b".to_owned()), ("TOKEN".to_owned(), "t0".to_owned())]));
    assert_eq!(api.image.context, Path::new("/repo/libs/api"));
    assert_eq!(api.image.context_key, "shop:libs/api");
    assert_eq!(api.place.to_string(), "apps/shop/convox.yml:5:5");
}

#[test]
fn all_problems_of_a_convox_manifest_come_at_once() {
    let text = "
services:
  a: {build: {path: ., dockerfile: x, mainfest: y}}
  b: {build: ../../..}
  -c: {build: .}
  d: {image: 'r.io/X:y'}
  e: [1]
  f: {build: [1]}
  g: {build: \"${NO:?why}\"}
  a: {}
";
    assert_eq!(
        messages(&convox(text).unwrap_err()),
        [
            "3:24: `dockerfile` is not a key of `build`",
            "3:39: `mainfest` is not a key of `build`",
            "4:7: build context outside the repository: `../../..`",
            "5:3: `-c` is not a service name: letters, digits, `-`, `_` and `.`, starting with a letter or digit",
            "6:7: `r.io/X:y` is not an image reference: `repository[:tag][@sha256:…]`",
            "7:3: service `e` must be a mapping, not a list",
            "8:7: `build` must be a string, not a list",
            "9:7: variable `NO` is required: why",
            "10:3: `a` is here twice",
        ]
    );
    let help = |text: &str| convox(text).unwrap_err()[0].help.clone().unwrap();
    assert_eq!(help("services: {a: {build: {mainfest: y}}}"), "did you mean `manifest`?");
}

#[test]
fn a_file_that_is_no_manifest_says_so() {
    for (text, expected) in [
        ("", "1:1: a manifest is a mapping, not nothing"),
        ("- a\n", "1:1: a manifest is a mapping, not a list"),
        ("resources: {}\n", "1:1: there is no `services`, so nothing to deploy"),
        ("services: {}\n", "1:1: `services` is empty, so there is nothing to deploy"),
        ("services:\n", "1:1: `services` must be a mapping, not nothing"),
    ] {
        assert_eq!(messages(&convox(text).unwrap_err()), [expected], "{text}");
    }
    assert!(convox("services: [").unwrap_err()[0].message.starts_with("not valid YAML"));
    assert_eq!(messages(&read_files(2, &[], &BuildConfig::default()).unwrap_err()), ["1:1: app `shop` has no `convox.yml`"]);
}

#[test]
fn every_compose_build_key_is_honoured() {
    let text = "
services:
  web:
    image: r.io/shop:web
    platform: linux/arm64
    build:
      context: src
      dockerfile: ../docker/Dockerfile
      target: prod
      args: {A: 1, B: \"${TOKEN}\", C: \"${D:-d}\", TOKEN: , NONE: }
      secrets: [npm, {source: aws, target: cloud}]
      ssh: [default, deploy=~/agent.sock]
      platforms: [linux/amd64]
      cache_from: [r.io/shop:cache, 'type=registry,ref=r.io/shop:more']
      cache_to: [type=inline]
      labels: [a=b, c]
      additional_contexts: {libs: ../../libs, base: 'docker-image://r.io/base:1'}
      network: host
      extra_hosts: ['one:10.0.0.1', 'two=[::1]']
      shm_size: 64m
      ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}
      no_cache: true
      pull: yes
      privileged: false
      x-ours: {any: thing}
secrets:
  npm: {file: ./.npmrc}
  aws: {environment: AWS_TOKEN}
";
    let build = one_build(compose(text));
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
    let image = &build.image;
    assert_eq!(image.context, Path::new("/repo/apps/shop/src"));
    assert_eq!(image.dockerfile, Path::new("/repo/apps/shop/docker/Dockerfile"));
    assert_eq!(image.target.as_deref(), Some("prod"));
    assert_eq!(image.args, owned(&[("A", "1"), ("B", "t0"), ("C", "d"), ("TOKEN", "t0")]));
    assert_eq!(image.secrets["npm"], SecretSource::File("/repo/apps/shop/.npmrc".into()));
    assert_eq!(image.secrets["cloud"], SecretSource::Env("AWS_TOKEN".to_owned()));
    assert_eq!(image.ssh["default"], SshSource::Agent);
    assert_eq!(image.ssh["deploy"], SshSource::Socket("/home/u/agent.sock".into()));
    assert_eq!(image.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(image.cache_from.iter().map(ToString::to_string).collect::<Vec<_>>(), ["r.io/shop:cache", "r.io/shop:more"]);
    assert_eq!(build.labels, owned(&[("a", "b"), ("c", "")]));
    assert_eq!(image.contexts["libs"], NamedContext::Directory("/repo/libs".into()));
    assert_eq!(image.contexts["base"], NamedContext::Image("r.io/base:1".to_owned()));
    assert_eq!(image.network.as_deref(), Some("host"));
    assert_eq!(image.extra_hosts, owned(&[("one", "10.0.0.1"), ("two", "::1")]));
    assert_eq!(image.shm_size, Some(64 << 20));
    assert_eq!(image.ulimits, owned(&[("nofile", "1:2"), ("nproc", "5:5")]));
    assert!(image.no_cache && image.pull && image.inline_cache);
    assert_eq!(build.also_reads, [RepoPath::from("apps/shop/.npmrc"), RepoPath::from("libs")]);
}

#[test]
fn what_a_compose_build_cannot_be_is_refused_by_name() {
    for (build, expected) in [
        ("{dockerfile_inline: FROM x}", "`build.dockerfile_inline` is not supported"),
        ("{tags: [a]}", "`build.tags` is not supported"),
        ("{isolation: hyperv}", "`build.isolation` is not supported"),
        ("{privileged: true}", "`build.privileged` is not supported"),
        ("{entitlements: [x]}", "`build.entitlements` is not supported"),
        ("{provenance: true}", "`build.provenance` is not supported"),
        ("{sbom: true}", "`build.sbom` is not supported"),
        ("{cache_to: [type=local]}", "`build.cache_to: type=local` is not supported"),
        ("{cache_from: [type=gha]}", "the cache `type=gha` is not supported"),
        ("{platforms: [a/b, c/d]}", "`platforms` must name one platform, not 2"),
        ("{additional_contexts: {a: 'service:b'}}", "the context `a` is `service:b`, which is not supported"),
        ("{additional_contexts: [a=https://x.y]}", "the context `a` is `https://x.y`, which is not supported"),
        ("{secrets: [none]}", "the secret `none` is not defined"),
        ("{secrets: [ext]}", "the secret `ext` is external"),
        ("{network: web}", "`network: web` is not possible"),
        ("{shm_size: big}", "`big` is not a size: bytes, or a number with `b`, `k`, `m` or `g`"),
        ("{ulimits: {nofile: {soft: 1}}}", "the limit `nofile` must be a number or `soft` and `hard`"),
        ("{no_cache: maybe}", "`no_cache` must be true or false, not `maybe`"),
        ("{contxt: .}", "`contxt` is not a key of `build`"),
        ("https://github.com/a/b.git", "the build context `https://github.com/a/b.git` is remote"),
        ("{context: /etc}", "build context outside the repository: `/etc`"),
        ("{dockerfile: ../../../Dockerfile}", "Dockerfile outside the repository: `../../../Dockerfile`"),
    ] {
        let text = format!("services: {{web: {{build: {build}}}}}\nsecrets: {{ext: {{external: true}}}}\n");
        let problems = compose(&text).unwrap_err();
        assert_eq!(problems.iter().map(|p| p.message.as_str()).collect::<Vec<_>>(), [expected], "{build}");
    }
}

#[test]
fn the_first_compose_format_is_understood() {
    let manifest = compose("web:\n  build: .\n  dockerfile: D\nredis:\n  image: redis\n").unwrap();
    assert_eq!(lines(&manifest), ["web - apps/shop apps/shop/D", "redis docker.io/library/redis -"]);
    let problems = compose("version: '3'\nservices: {a: {ports: []}, b: {extends: {service: a}, image: x}}\n").unwrap_err();
    assert_eq!(
        messages(&problems),
        ["2:12: service `a` has neither `build` nor `image`", "2:32: `extends` is not supported in service `b`"]
    );
}

#[test]
fn a_compose_file_lends_builds_and_images_to_convox_services() {
    let files = [
        ("convox.yml", "services: {web: {image: 'r.io/old:TAG'}, job: {build: job}, db: {image: pg}}"),
        (
            "docker-compose.yml",
            "services:\n  web: {image: '$REPO/shop:web', build: {context: src}}\n  job: {image: 'r.io/shop:job'}\n  db: {image: other}\n  dev: {build: dev}\n  cache: {image: 5 5}\n",
        ),
        (".env", "REPO=r.io\n"),
    ];
    let manifest = read_files(2, &files, &BuildConfig::default()).unwrap();
    assert_eq!(
        lines(&manifest),
        [
            "web r.io/shop:web apps/shop/src apps/shop/src/Dockerfile",
            "job r.io/shop:job apps/shop/job apps/shop/job/Dockerfile",
            "db docker.io/library/pg -",
        ]
    );
    assert_eq!(
        messages(&manifest.warnings),
        ["5:3: service `dev` has a build, but the app's manifest has no such service: it is not built"]
    );
    let names: Vec<_> = manifest.files.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["apps/shop/convox.yml", "apps/shop/docker-compose.yml", "apps/shop/.env"]);
}

#[test]
fn an_unset_variable_is_empty_and_seen() {
    let manifest = compose("services: {web: {build: {args: {A: \"x$GONE\"}}}}\n").unwrap();
    assert_eq!(messages(&manifest.warnings), ["1:33: variable `GONE` is not set, so it is empty here"]);
    assert_eq!(one_build(Ok(manifest)).image.args["A"], "x");
}

#[test]
fn the_settings_of_the_app_win() {
    let build = BuildConfig {
        args: BTreeMap::from([("A".to_owned(), "ours".to_owned()), ("BUILDKIT_INLINE_CACHE".to_owned(), "1".to_owned())]),
        secrets: BTreeMap::from([("none".to_owned(), SecretSource::Env("S".to_owned()))]),
        platform: Some("linux/arm64".to_owned()),
        pull: true,
        ..BuildConfig::default()
    };
    let text = "services: {web: {build: {args: {A: 1, B: 2}, platforms: [linux/amd64], secrets: [none]}}}\n";
    let image = one_build(read_files(1, &[("docker-compose.yml", text)], &build)).image;
    assert_eq!((image.args["A"].as_str(), image.args["B"].as_str()), ("ours", "2"));
    assert_eq!((image.platform.as_deref(), image.pull, image.inline_cache), (Some("linux/arm64"), true, true));
    assert_eq!(image.secrets["none"], SecretSource::Env("S".to_owned()));
}

#[test]
fn two_builds_for_one_tag_are_a_problem() {
    let text = "services: {a: {build: a, image: 'r.io/x:TAG'}, b: {build: b, image: 'r.io/x:TAG'}, c: {build: a, image: 'r.io/x:TAG'}}";
    assert_eq!(messages(&convox(text).unwrap_err()), ["1:48: services `a` and `b` are built differently but both are `r.io/x:TAG`"]);
    assert!(convox("services: {a: {build: a, image: r.io/x}, b: {build: b, image: r.io/x}}").is_ok());
}
