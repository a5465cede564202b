//! The configuration as a whole: files on a disk, what they come to, and every message about a bad one.

mod bad;
mod schema;

use super::*;
use crate::names::Target;
use std::path::Path;

/// A repository in a temporary directory.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new(files: &[(&str, &str)]) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            repository.write(path, text);
        }
        repository
    }

    /// Apps `api`, `web` and `worker` in `apps/`, and this configuration.
    fn with(text: &str) -> Self {
        let repository = Self::new(&[("apps/api/convox.yml", ""), ("apps/web/convox.yml", ""), ("apps/worker/convox.yml", "")]);
        repository.write("apps.yaml", text);
        repository
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn load(&self, env: &[(&str, &str)]) -> crate::error::Result<Config> {
        self.load_in("", env)
    }

    fn load_in(&self, here: &str, env: &[(&str, &str)]) -> crate::error::Result<Config> {
        let read = load(&self.0.path().join(here), self.0.path(), None, &lookup(env));
        // Whatever a test reads, the schema is asked, too.
        if let Ok(text) = std::fs::read_to_string(self.0.path().join(FILE_NAME)) {
            schema::compare(&text, &read);
        }
        read
    }

    fn error(&self) -> String {
        let error = self.load(&[]).unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::Config);
        error.to_string()
    }
}

fn lookup<'e>(env: &'e [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'e {
    |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn app<'c>(config: &'c Config, name: &str) -> &'c App {
    config.apps.iter().find(|app| app.name.as_str() == name).unwrap()
}

fn names(config: &Config) -> Vec<&str> {
    config.apps.iter().map(|app| app.name.as_str()).collect()
}

/// What the example wants to find on the disk.
fn example() -> Repository {
    let repository = Repository::new(&[
        ("apps/worker/convox.yml", ""),
        ("apps/_template/convox.yml", ""),
        ("services/api/convox.yml", ""),
        ("services/api/docker-compose.yml", ""),
        ("services/api/deploy/smoke.sh", ""),
        ("services/api/deploy/migrate.sh", ""),
        ("Gemfile", ""),
        ("Gemfile.lock", ""),
    ]);
    repository.write("apps.yaml", EXAMPLE);
    repository
}

#[test]
fn the_example_loads() {
    let config = example().load(&[("STAGING_HOST", "staging.example.com")]).unwrap();
    assert_eq!(names(&config), ["api", "worker"]);
    let api = app(&config, "api");
    let targets: Vec<String> = api.targets.iter().map(|on| format!("{}@{} {:?} {}", on.name, on.rack, on.deliver, on.env)).collect();
    assert_eq!(targets, ["api-stg@staging Auto staging", "api@production Import live"]);
    assert_eq!(api.targets[1].timeouts.promote, Duration::from_secs(3600));
    assert_eq!((api.build.weight, api.build.secrets.len(), api.build.timeouts.build), (2, 2, Duration::from_secs(45 * 60)));
    let uses: Vec<String> = api.uses.iter().map(|used| format!("{} {:?}", used.pattern.glob, used.through)).collect();
    assert_eq!(uses, ["libs/auth/** [\"auth\"]", "Gemfile [\"auth\", \"ruby\"]", "Gemfile.lock [\"auth\", \"ruby\"]", "proto/** []"]);
    for used in &api.uses {
        let line = EXAMPLE.lines().nth(used.pattern.place.line - 1).unwrap();
        assert!(line[used.pattern.place.column - 1..].trim_start_matches('"').starts_with(&used.pattern.glob), "{used:?}: {line}");
    }
    assert_eq!(api.ignore[0].glob, "services/api/docs/**");
    let production = &config.racks[&RackName::new("production").unwrap()];
    assert!(
        production.host.as_ref().unwrap().value.as_ref().unwrap_err().starts_with("the variable `PRODUCTION_HOST` is not set (apps.yaml:")
    );
    assert!(production.protected && production.registry_cache);
}

#[test]
fn the_example_explains_every_key_of_the_schema() {
    fn properties(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
        match schema {
            serde_json::Value::Object(map) => {
                found.extend(map.get("properties").and_then(|p| p.as_object()).into_iter().flat_map(|p| p.keys().cloned()));
                map.values().for_each(|value| properties(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| properties(item, found)),
            _ => {}
        }
    }
    let mut keys = BTreeSet::new();
    properties(shape(), &mut keys);
    assert!(keys.len() > 50, "{keys:?}");
    // As a key, not as the end of another one.
    let explained = |key: &String| EXAMPLE.match_indices(&format!("{key}:")).any(|(at, _)| EXAMPLE[..at].ends_with([' ', '\n', '{']));
    let missing: Vec<&String> = keys.iter().filter(|key| !explained(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_schema_describes_every_property() {
    let schema = shape();
    for (path, text) in [
        ("/properties/racks/additionalProperties/$ref", "#/$defs/Rack"),
        ("/$defs/Rack/additionalProperties", ""),
        ("/$defs/App/properties/uses/description", "More inputs: names of shared sets, and paths relative to this file."),
    ] {
        let found = schema.pointer(path).unwrap_or_else(|| panic!("{path} is missing: {schema:#}"));
        assert!(text.is_empty() && found == &serde_json::Value::Bool(false) || found == text, "{path}: {found}");
    }
}

#[test]
fn an_empty_file_finds_apps_by_the_usual_globs() {
    for text in ["", "apps: {}\n", "version: 1\nx-mine: &a [1]\nglobal:\n"] {
        let config = Repository::with(text).load(&[]).unwrap();
        assert_eq!(names(&config), ["api", "web", "worker"], "{text}");
        assert!(config.apps.iter().all(|app| app.targets.is_empty()));
        assert_eq!(app(&config, "api").place.to_string(), "apps/api/convox.yml:1:1");
    }
}

#[test]
fn what_is_more_particular_wins() {
    let config = Repository::with(
        "racks: {one: {deliver: external, env: first}, two: {}}\n\
         defaults: {racks: [one, two], deliver: build, hold: false, latest: false, build: {args: {A: 1.10, B: x}}, timeouts: {hook: 1m, promote: 2m}}\n\
         apps:\n  api:\n    racks: {two: {deliver: import, timeouts: {promote: 3m}, name: other}, one: }\n    hold: true\n    \
         latest: true\n    build: {args: {B: y}}\n    timeouts: {hook: 5s}\n  web: {name: site}\n",
    )
    .load(&[])
    .unwrap();
    let api = app(&config, "api");
    let on: Vec<String> = api
        .targets
        .iter()
        .map(|t| format!("{} {} {:?} {} hold={} {:?} {:?}", t.rack, t.name, t.deliver, t.env, t.hold, t.timeouts.hook, t.timeouts.promote))
        .collect();
    assert_eq!(on, ["two other Import two hold=true 5s 180s", "one api External first hold=true 5s 120s"]);
    assert_eq!(api.build.args, BTreeMap::from([("A".into(), "1.10".into()), ("B".into(), "y".into())]));
    assert!(api.latest && !app(&config, "web").latest);
    let web: Vec<String> = app(&config, "web").targets.iter().map(|t| format!("{} {} {:?}", t.rack, t.name, t.deliver)).collect();
    assert_eq!(web, ["one site External", "two site Build"]);
}

#[test]
fn apps_are_named_by_directory_path_or_at_will() {
    let repository = Repository::with(
        "apps:\n  worker: {tags: [a]}\n  apps/web: {tags: [b]}\n  other: {path: apps/api}\n  old: {path: legacy/x, manifest: prod.yml}\n",
    );
    repository.write("legacy/x/prod.yml", "");
    repository.write("legacy/y/convox.yml", "");
    let config = repository.load(&[]).unwrap();
    let apps: Vec<String> = config.apps.iter().map(|app| format!("{} {} {}", app.name, app.dir, app.manifest)).collect();
    assert_eq!(apps, ["worker apps/worker convox.yml", "web apps/web convox.yml", "other apps/api convox.yml", "old legacy/x prod.yml"]);
}

#[test]
fn a_file_below_the_root_has_its_own_paths() {
    let repository = Repository::new(&[("team/apps/api/convox.yml", ""), ("team/x/y", "")]);
    repository.write("team/apps.yaml", "global: [x, /x, ../shared/**]\napps: {api: {ignore: [docs, '!/z'], uses: ['x/**']}}\n");
    let config = repository.load_in("team/apps/api", &[]).unwrap();
    assert_eq!((config.prefix.to_string(), config.file.as_ref().unwrap().to_string()), ("team".into(), "team/apps.yaml".into()));
    let globs: Vec<&str> = config.global.iter().map(|pattern| pattern.glob.as_str()).collect();
    assert_eq!(globs, ["team/x", "team/x", "shared/**"]);
    let api = app(&config, "api");
    assert_eq!(api.dir.to_string(), "team/apps/api");
    let ignore: Vec<String> = api.ignore.iter().map(|pattern| format!("{} {}", pattern.negated, pattern.glob)).collect();
    assert_eq!(ignore, ["false team/apps/api/docs", "true team/z"]);
    assert_eq!(api.uses[0].pattern.glob, "team/x/**");
}

#[test]
fn hooks_are_named_or_found() {
    let repository =
        Repository::with("defaults: {hooks: {after_release: [notify, '${X:-y}']}}\napps: {api: {hooks: {before_build: bin/x}}}\n");
    for file in ["apps/api/bin/x", "apps/api/deploy/before_build.sh", "apps/api/deploy/before_release.sh", "apps/web/deploy/readme"] {
        repository.write(file, "");
    }
    let config = repository.load(&[]).unwrap();
    let command = HookConfig::Command(vec!["notify".into(), "y".into()]);
    let file = |path: &str, named| HookConfig::File { path: path.into(), named };
    assert_eq!(
        app(&config, "api").hooks,
        BTreeMap::from([
            (HookKind::BeforeBuild, file("bin/x", true)),
            (HookKind::BeforeRelease, file("deploy/before_release.sh", false)),
            (HookKind::AfterRelease, command.clone())
        ])
    );
    assert_eq!(app(&config, "web").hooks, BTreeMap::from([(HookKind::AfterRelease, command)]));
}

#[test]
fn a_compose_file_names_the_repository_when_nothing_else_does() {
    let repository = Repository::with("apps: {}\n");
    repository.write("apps/api/docker-compose.yml", "");
    assert_eq!(app(&repository.load(&[]).unwrap(), "api").compose.as_deref(), Some("docker-compose.yml"));
    repository.write("apps.yaml", "registry: {repository: 'r.example.com/{app}', insecure: true, create: {immutable: true}}\n");
    let config = repository.load(&[]).unwrap();
    let api = app(&config, "api");
    assert_eq!((api.compose.as_deref(), api.repository.as_deref(), api.latest), (None, Some("r.example.com/{app}"), false));
    assert!(config.registries["r.example.com"].insecure);
}

#[test]
fn one_app_needs_no_file() {
    let repository = Repository::new(&[("shop/convox.yml", ""), ("shop/docker-compose.yml", "web: {image: r}")]);
    let config = repository.load_in("shop", &[]).unwrap();
    let shop = &config.apps[0];
    assert_eq!((shop.name.as_str(), shop.dir.to_string().as_str(), shop.generation), ("shop", "shop", 2));
    assert_eq!((shop.compose.as_deref(), shop.targets[0].rack.as_str()), (Some("docker-compose.yml"), "default"));
    assert_eq!((config.file, config.seed.region.as_str(), config.seed.silent), (None, "us-east-1", false));

    let env = [
        ("APP_NAME", "store"),
        ("RACK_NAME", "acme/prod"),
        ("CONVOX_HOST", "rack.example.com"),
        ("CONVOX_PASSWORD", "p$a${s}s"),
        ("APP_ENV", "live"),
        ("APP_GEN", "1"),
        ("DOCKER_COMPOSE", "docker-compose.yml"),
        ("SKIP_ECR_AUTH", "true"),
        ("SILENT", "0"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
    ];
    let config = repository.load_in("shop", &env).unwrap();
    let store = &config.apps[0];
    assert_eq!((store.generation, store.manifest.as_str(), &store.compose), (1, "docker-compose.yml", &None));
    assert_eq!((store.targets[0].name.as_str(), store.targets[0].env.as_str()), ("store", "live"));
    let rack = &config.racks[&RackName::new("acme/prod").unwrap()];
    assert_eq!(rack.host.as_ref().unwrap().value.as_deref(), Ok("rack.example.com"));
    assert_eq!(rack.password.as_ref().unwrap().value.as_ref().unwrap().expose(), "p$a${s}s");
    assert_eq!(config.seed, Seed { skip_ecr_auth: true, silent: false, region: "eu-west-1".into() });
}

#[test]
fn no_file_and_no_manifest_is_an_error() {
    let repository = Repository::new(&[("src/x", "")]);
    let error = repository.load_in("src", &[]).unwrap_err().to_string();
    assert!(error.starts_with("there is no `apps.yaml` in `"), "{error}");
    assert!(error.ends_with("next: run `offbuild init` at the repository's root, or change to an app's directory"), "{error}");
}

#[test]
fn a_digest_changes_with_what_decides() {
    let base = "racks: {one: {}, two: {}}\ndefaults: {racks: [one]}\nshared: {s: [x/]}\napps:\n  api: {uses: [s], build: {args: {N: '${N:-1}'}}}\n";
    let config = Repository::with(base).load(&[("N", "2")]).unwrap();
    let target = |app: &App| Target { app: app.name.clone(), rack: app.targets[0].rack.clone() };
    let now: BTreeMap<Target, String> = config.apps.iter().map(|app| (target(app), app.digest.clone())).collect();
    assert_eq!(digests(&config, base).unwrap(), now, "the same text gives the same digests, whatever the variables");
    let changed = |from: &str, to: &str| {
        assert!(base.contains(from));
        let then = digests(&config, &base.replace(from, to)).unwrap();
        now.iter()
            .filter(|(target, digest)| then.get(*target) != Some(*digest))
            .map(|(target, _)| target.app.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(changed("x/", "y/"), ["api"]);
    assert_eq!(changed("N:-1", "N:-3"), ["api"]);
    assert_eq!(changed("uses: [s]", "uses: [s], name: other"), ["api"]);
    assert_eq!(changed("racks: [one]", "racks: [one], build: {pull: true}"), ["api", "web", "worker"]);
    assert_eq!(changed("uses: [s]", "uses: [s], timeouts: {build: 1h}, tags: [x], after: [web], hold: false"), Vec::<String>::new());
    assert_eq!(changed("racks: [one]", "racks: [one, two]"), Vec::<String>::new());
    assert_eq!(changed("defaults: {racks: [one]}", "defaults: {racks: [two]}"), ["api", "web", "worker"]);
    assert_eq!(changed("defaults:", "discover: {include: [apps/api]}\ndefaults:"), ["web", "worker"]);
    assert_eq!(changed("defaults:", "discover: {exclude: ['**/web']}\ndefaults:"), ["web"]);
    assert_eq!(changed("  api: {", "  backend: {path: apps/api, "), ["api"]);
    assert_eq!(changed("  api: {", "  web: {path: apps/api}\n  api: {path: apps/web, "), ["api", "web"]);
    assert_eq!(changed("defaults:", "notify: [{url: x, racks: [one]}]\ndefaults:"), Vec::<String>::new());
    assert_eq!(changed("defaults:", "global: [z]\nignore: [q]\njobs: 3\ndefaults:"), Vec::<String>::new());
    assert!(digests(&config, "apps: [").is_err());
    assert!(digests(&config, "nonsense: 1").is_err());
}

#[test]
fn webhooks_are_read_and_their_addresses_never_shown() {
    let text = "racks: {one: {}, two: {}}\nnotify:\n- url: ${HOOK}\n- {url: '${UNSET}', format: slack, on: [failure, start], racks: [two]}\n\
                - {url: '${WRONG}'}\ndefaults: {racks: [one]}\n";
    let env = [("HOOK", "https://hooks.example/T0/secret"), ("WRONG", "ftp://secret")];
    let config = Repository::with(text).load(&env).unwrap();
    let [plain, slack, wrong] = config.notify.as_slice() else { panic!("{:?}", config.notify) };
    assert_eq!(plain.url.value.as_ref().unwrap().expose(), "https://hooks.example/T0/secret");
    assert_eq!((plain.format, plain.on.iter().copied().collect::<Vec<_>>()), (file::NotifyFormat::Json, vec![file::NotifyOn::End]));
    let two = RackName::new("two").unwrap();
    assert!(plain.concerns(&two) && slack.concerns(&two) && !slack.concerns(&RackName::new("one").unwrap()));
    assert_eq!(slack.url.value.as_ref().unwrap_err(), "the variable `UNSET` is not set (apps.yaml:4:9)");
    assert_eq!(wrong.url.value.as_ref().unwrap_err(), "it is no `https://` address");
    let target = Target { app: AppName::new("api").unwrap(), rack: RackName::new("one").unwrap() };
    let rows = explain(&config, &target, &lookup(&env)).unwrap();
    let shown: Vec<String> = rows.iter().filter(|row| row.key == "notify").map(|row| format!("{} # {}", row.value, row.source)).collect();
    assert_eq!(shown, ["json on [end] # apps.yaml:3:3 (notify)", "json on [end] # apps.yaml:5:3 (notify)"]);
    assert!(!format!("{config:?}").contains("T0/secret"));
    let bad = "racks: {one: {}}\nnotify: [{format: json}, {url: x, racks: [on]}, {url: x, on: [never]}]\ndefaults: {racks: [one]}\n";
    let error = Repository::with(bad).load(&[]).unwrap_err().to_string();
    for says in ["this has no `url`", "`notify` names the unknown rack `on`", "`never` is none of"] {
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn each_value_is_explained() {
    let text = "registry: {repository: 'r.example.com/{app}'}\nracks:\n  one: {host: h.example.com, password: '${PASSWORD}'}\n\
                defaults: {timeouts: {hook: 1m}, build: {args: {T: '${TOKEN}'}}}\napps:\n  api:\n    racks: {one: {env: live}}\n    tags: [x]\n";
    let env = [("PASSWORD", "hunter22"), ("TOKEN", "secret")];
    let config = Repository::with(text).load(&env).unwrap();
    let target = Target { app: AppName::new("api").unwrap(), rack: RackName::new("one").unwrap() };
    let rows = explain(&config, &target, &lookup(&env)).unwrap();
    let shown: Vec<String> = rows.iter().map(|row| format!("{} = {}  # {}", row.key, row.value, row.source)).collect();
    insta::assert_snapshot!(shown.join("\n"), @r##"
    path = apps/api  # found in the app's directory
    manifest = convox.yml  # found in the app's directory
    repository = r.example.com/{app}  # apps.yaml:1:24 (registry)
    uses = []  # built-in
    ignore = []  # built-in
    after = []  # built-in
    tags = [x]  # apps.yaml:8:11 (app)
    precision = directory  # built-in
    latest = true  # built-in
    name = api  # built-in
    env = live  # apps.yaml:7:24 (overlay)
    deliver = auto  # built-in
    revision = true  # built-in
    hold = true  # built-in
    timeouts.build = 30m  # built-in
    timeouts.push = 30m  # built-in
    timeouts.hook = 1m  # apps.yaml:4:29 (defaults)
    timeouts.rack_build = 1h  # built-in
    timeouts.promote = 35m  # built-in
    timeouts.run = none  # built-in
    timeouts.answer = 1m  # built-in
    build.weight = 1  # built-in
    build.args.T = ${TOKEN}  # apps.yaml:4:52 (defaults)
    build.no_cache = false  # built-in
    build.pull = false  # built-in
    rack.host = h.example.com  # apps.yaml:3:15 (rack)
    rack.password = ***  # apps.yaml:3:40 (rack)
    rack.after = []  # built-in
    rack.protected = false  # built-in
    rack.cache.registry = false  # built-in
    rack.poll = 5s  # built-in
    "##);
    let other = Target { app: AppName::new("nope").unwrap(), rack: target.rack };
    assert!(explain(&config, &other, &lookup(&[])).is_err());
}

fn selected(config: &Config, selectors: &[&str], racks: &[&str], here: &str) -> String {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match select(config, &owned(selectors), &owned(racks), &RepoPath::from(here)) {
        Ok(selected) => {
            let targets = selected.iter().map(|one| {
                let app = &config.apps[one.app];
                let racks: Vec<&str> = one.targets.iter().map(|target| app.targets[*target].rack.as_str()).collect();
                format!("{}@{}", app.name, racks.join("+"))
            });
            targets.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn selectors_select() {
    let config = Repository::with(
        "racks: {stg: {}, prod: {}}\ndefaults: {racks: [stg, prod]}\napps: {worker: {racks: [stg], tags: [bg]}, api: {tags: [ruby]}, web: {racks: []}}\n",
    )
    .load(&[])
    .unwrap();
    for (selectors, racks, here, expected) in [
        (&[][..], &[][..], "", "worker@stg api@stg+prod web@"),
        (&["api"], &[], "", "api@stg+prod"),
        (&["w*"], &[], "", "worker@stg web@"),
        (&["apps/api/", "worker"], &[], "", "worker@stg api@stg+prod"),
        (&["apps/w*"], &[], "", "worker@stg web@"),
        (&["./"], &[], "apps/api", "api@stg+prod"),
        (&["../web"], &[], "apps/api", "web@"),
        (&["apps/"], &[], "", "worker@stg api@stg+prod web@"),
        (&["tag:ruby"], &[], "", "api@stg+prod"),
        (&["!api"], &[], "", "worker@stg web@"),
        (&["!api@prod"], &[], "", "worker@stg api@stg web@"),
        (&["*", "!tag:bg"], &[], "", "api@stg+prod web@"),
        (&[], &["prod"], "", "api@prod"),
        (&[], &["p*"], "", "api@prod"),
        (&["api@prod"], &[], "", "api@prod"),
        (&["wroker"], &[], "", "`wroker` selects nothing: no app has this name\n  next: did you mean `worker`?"),
        (&["z*"], &[], "", "`z*` selects nothing: no app's name matches\n  next: there are: `worker`, `api`, `web`"),
        (&["tag:go"], &[], "", "`tag:go` selects nothing: no app has this tag\n  next: there are: `bg`, `ruby`"),
        (&["apps/apii"], &[], "", "`apps/apii` selects nothing: no app lies there\n  next: did you mean `apps/api`?"),
        (&["../x"], &[], "", "`../x` leaves the repository\n  next: name an app, or a directory of this repository"),
        (&[], &["prd"], "", "there is no rack `prd`\n  next: did you mean `prod`?"),
        (
            &["worker@prod"],
            &[],
            "",
            "`worker@prod` selects nothing: no such app goes to that rack\n  next: `offbuild config` lists the targets",
        ),
    ] {
        assert_eq!(selected(&config, selectors, racks, here), expected, "{selectors:?} {racks:?} in {here:?}");
    }
}

#[test]
fn loading_does_not_depend_on_the_order_of_reading() {
    let repository = example();
    let first = format!("{:?}", repository.load(&[]).unwrap());
    for _ in 0..10 {
        assert_eq!(format!("{:?}", repository.load(&[]).unwrap()), first);
    }
}

#[test]
fn a_configuration_outside_the_repository_is_refused() {
    let repository = Repository::with("");
    let outside = tempfile::NamedTempFile::new().unwrap();
    let error = load(repository.0.path(), repository.0.path(), Some(outside.path()), &|_| None).unwrap_err();
    assert!(error.message.contains("is outside the repository"), "{error}");
    let error = load(repository.0.path(), repository.0.path(), Some(Path::new("nope.yaml")), &|_| None).unwrap_err();
    assert!(error.message.contains("nope.yaml"), "{error}");
}
