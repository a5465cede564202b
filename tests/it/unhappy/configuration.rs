//! `apps.yaml`, manifests and selections that are wrong: exit 2, all problems in one pass, nothing asked of anybody.

use super::bench::{Bench, offbuild, told};
use crate::support::repo::Repo;

/// Apps with a manifest that is right, and this `apps.yaml`.
fn with(apps: &[&str], yaml: &str) -> Repo {
    let repo = Repo::new();
    repo.write("apps.yaml", yaml);
    for app in apps {
        repo.write(&format!("apps/{app}/convox.yml"), "services: {web: {image: redis}}\n");
    }
    repo.commit("Start");
    repo
}

/// One app, `web`, with this manifest.
fn manifest(text: &str) -> Repo {
    let repo = with(
        &["web"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks: {staging: {host: h, password: p}}\ndefaults: {racks: [staging]}\n\
                              registry: {repository: 'registry.example/{app}'}\n",
    );
    repo.write("apps/web/convox.yml", text).commit("Change");
    repo
}

fn says(repo: &Repo, args: &[&str]) -> String {
    told(repo, &offbuild(repo).run(args))
}

#[test]
fn invalid_yaml() {
    insta::assert_snapshot!(says(&with(&[], "apps:\n  web: [\n"), &["validate"]), @r#"
    exit 2
    error: apps.yaml:3:1: not valid YAML: while parsing a node, did not find expected node content

    1 problem in the configuration `apps.yaml`
    "#);
}

#[test]
fn unknown_keys_and_values_in_one_pass() {
    let repo = with(
        &["web", "api"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks: {staging: {host: h, passwrd: p}}\ndefaults: {racks: [stagin]}\n\
         apps:\n  web: {afer: [api]}\n  appi: {}\njobs: lots\n",
    );
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps.yaml:3:28: unknown key `passwrd` in `staging`
     3 | racks: {staging: {host: h, passwrd: p}}
       |                            ^
       help: did you mean `password`?

    apps.yaml:4:20: unknown rack `stagin`
     4 | defaults: {racks: [stagin]}
       |                    ^
       help: did you mean `staging`?

    apps.yaml:6:9: unknown key `afer` in `web`
     6 |   web: {afer: [api]}
       |         ^
       help: did you mean `after`?

    apps.yaml:7:3: no app `appi` was found
     7 |   appi: {}
       |   ^
       help: did you mean `api`?

    apps.yaml:8:7: `lots` is no number of jobs
     8 | jobs: lots
       |       ^
       help: write a number (`4`), a percentage of the processors (`50%`), or `auto`

    5 problems in the configuration `apps.yaml`
    "#);
}

#[test]
fn cycles() {
    let repo = with(
        &["web", "api"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks: {one: {host: h, after: [two]}, two: {host: h, after: [one]}}\ndefaults: {racks: [one]}\n\
         shared:\n  a: {uses: [b]}\n  b: {uses: [a]}\napps:\n  web: {after: [api], uses: [a]}\n  api: {after: [web]}\n",
    );
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps.yaml:3:31: racks come after each other: `one` → `two` → `one`
     3 | racks: {one: {host: h, after: [two]}, two: {host: h, after: [one]}}
       |                               ^
       help: take one `after` away

    apps.yaml:6:3: sets use each other: `a` → `b` → `a`
     6 |   a: {uses: [b]}
       |   ^
       help: take one of them out of the other

    apps.yaml:10:16: apps come after each other: `api` → `web` → `api`
     10 |   api: {after: [web]}
        |                ^
       help: take one `after` away

    3 problems in the configuration `apps.yaml`
    "#);
}

#[test]
fn two_apps_with_one_name_on_a_rack() {
    let repo = with(
        &["web", "api"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks: {one: {host: h}}\ndefaults: {racks: [one]}\napps:\n  web: {name: site}\n  api: {name: site}\n",
    );
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps.yaml:7:3: apps `web` (apps.yaml:6:3) and `api` are both called `site` on rack `one`
     7 |   api: {name: site}
       |   ^
       help: give one of them another `name` there

    1 problem in the configuration `apps.yaml`
    "#);
}

#[test]
fn an_app_without_a_manifest() {
    let repo = with(&["web"], "version: 1\nracks: {one: {host: h}}\ndefaults: {racks: [one]}\napps:\n  docs: {path: docs}\n");
    repo.write("docs/readme", "x").commit("Docs");
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps.yaml:5:16: the directory `docs` of app `docs` has no manifest
     5 |   docs: {path: docs}
       |                ^
       help: add a `convox.yml` or a `docker-compose.yml` with an image, or name the manifest with `manifest`

    1 problem in the configuration `apps.yaml`
    "#);
}

#[test]
fn an_unknown_rack() {
    let repo = with(&["web"], "version: 1\ndiscover: {include: [apps/*]}\nracks: {staging: {host: h}}\napps: {web: {racks: [stagign]}}\n");
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps.yaml:4:22: unknown rack `stagign`
     4 | apps: {web: {racks: [stagign]}}
       |                      ^
       help: did you mean `staging`?

    1 problem in the configuration `apps.yaml`
    "#);
}

#[test]
fn an_unknown_rack_on_the_command_line() {
    insta::assert_snapshot!(Bench::released().says(&["deploy", "--rack", "stagign"]), @r#"
    exit 2
    error: there is no rack `stagign`
      next: did you mean `staging`?
    "#);
}

#[test]
fn a_selector_that_matches_nothing() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["deploy", "wbe"]), @r#"
    exit 2
    error: `wbe` selects nothing: no app has this name
      next: did you mean `web`?
    "#);
    insta::assert_snapshot!(bench.says(&["deploy", "tag:ruby"]), @r#"
    exit 2
    error: `tag:ruby` selects nothing: no app has this tag
      next: no app has tags
    "#);
    insta::assert_snapshot!(bench.says(&["deploy", "x*"]), @r#"
    exit 2
    error: `x*` selects nothing: no app's name matches
      next: there are: `web`
    "#);
    insta::assert_snapshot!(bench.says(&["config", "wbe@staging"]), @r#"
    exit 2
    error: `wbe@staging` selects nothing: no app has this name
      next: did you mean `web`?
    "#);
    insta::assert_snapshot!(bench.says(&["config", "web@stagign"]), @r#"
    exit 2
    error: there is no rack `stagign`
      next: did you mean `staging`?
    "#);
}

#[test]
fn a_configuration_that_is_not_there() {
    insta::assert_snapshot!(Bench::released().says(&["--config", "ci/apps.yaml", "validate"]), @r#"
    exit 2
    error: `REPO/ci/apps.yaml` cannot be used
      because: No such file or directory (os error 2)
      next: name a file that is there with `--config` or `OFFBUILD_CONFIG`
    "#);
}

#[test]
fn no_apps_at_all() {
    let repo = with(&[], "version: 1\ndiscover: {include: [apps/*]}\nracks: {one: {host: h}}\n");
    insta::assert_snapshot!(says(&repo, &["deploy"]), @r#"
    exit 2
    error: there is no app: no directory that `discover.include` of `apps.yaml` names has a manifest
      next: an app is a directory with a `convox.yml` or a `docker-compose.yml`; correct `discover`, or name it under `apps`
    "#);
}

#[test]
fn neither_a_configuration_nor_an_app() {
    let repo = Repo::new();
    repo.write("readme", "x").commit("Start");
    insta::assert_snapshot!(says(&repo, &["deploy"]), @r#"
    exit 2
    error: there is no `apps.yaml` in `REPO` or above, and no manifest either
      next: run `offbuild init` at the repository's root, or change to an app's directory
    "#);
}

#[test]
fn a_variable_of_the_configuration_that_is_not_set() {
    let repo = with(
        &["web"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks:\n  staging:\n    host: rack.example\n    password: ${STAGING_PASSWORD}\ndefaults: {racks: [staging]}\n",
    );
    insta::assert_snapshot!(says(&repo, &["deploy"]), @r#"
    exit 2
    error: rack `staging`: its `password` cannot be read: the variable `STAGING_PASSWORD` is not set (apps.yaml:6:15)
      next: set the variable, in CI as a secret of the job; what asks no rack (validate, changed --base) does without
    "#);
    // What asks no rack needs no password.
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 0
    stdout:
    1 app, 1 target, no problems
    "#);
}

#[test]
fn a_rack_without_host_and_one_without_password() {
    let yaml = "version: 1\ndiscover: {include: [apps/*]}\nracks:\n  staging: {}\n  production: {host: rack.example}\ndefaults: {racks: [staging]}\n";
    insta::assert_snapshot!(says(&with(&["web"], yaml), &["deploy"]), @r#"
    exit 2
    error: rack `staging`: no host is known; looked at
      `racks.staging.host` in apps.yaml: not set
      `RACK_URL`: not set
      `CONVOX_HOST`: not set
      ABOVE/home/.config/convox2/racks/staging: not there
      ABOVE/home/.config/convox/racks/staging: not there
      ABOVE/home/.convox/racks/staging: not there
      ABOVE/home/.config/convox2/console: not there
      ABOVE/home/.config/convox2/host: not there
      ABOVE/home/.config/convox/console: not there
      ABOVE/home/.config/convox/host: not there
      ABOVE/home/.convox/console: not there
      ABOVE/home/.convox/host: not there
      next: set `host` and `password` of `racks.staging` in apps.yaml, or `CONVOX_HOST` and `CONVOX_PASSWORD`, or run `convox login HOST`
    "#);
    let yaml = yaml.replace("racks: [staging]", "racks: [production]");
    insta::assert_snapshot!(says(&with(&["web"], &yaml), &["deploy"]), @r#"
    exit 2
    error: rack `production`: no password is known for `rack.example` (from `racks.production.host` in apps.yaml); looked at
      `CONVOX_PASSWORD`: not set
      ABOVE/home/.config/convox2/auth: not there
      ABOVE/home/.config/convox/auth: not there
      ABOVE/home/.convox/auth: not there
      next: set `password: ${CONVOX_PASSWORD}` of `racks.production` in apps.yaml and the variable with it, or run `convox login rack.example`
    "#);
}

#[test]
fn a_manifest_that_is_no_yaml() {
    insta::assert_snapshot!(says(&manifest("services: [\n"), &["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:2:1: not valid YAML: while parsing a node, did not find expected node content
    1 problem
    "#);
}

#[test]
fn a_manifest_without_a_service() {
    insta::assert_snapshot!(says(&manifest("environment: [A=1]\n"), &["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:1:1: there is no `services`, so nothing to deploy
     1 | environment: [A=1]
       | ^
    1 problem
    "#);
    insta::assert_snapshot!(says(&manifest(""), &["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:1:1: a manifest is a mapping, not nothing
       help: it starts with `services:`
    1 problem
    "#);
}

#[test]
fn an_image_reference_that_cannot_be_parsed() {
    let text = "services:\n  web:\n    image: 'Registry.example/Web:latest:1'\n  db:\n    image: 'redis:@'\n";
    insta::assert_snapshot!(says(&manifest(text), &["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:3:5: `Registry.example/Web:latest:1` is not an image reference: `repository[:tag][@sha256:…]`
     3 |     image: 'Registry.example/Web:latest:1'
       |     ^
    apps/web/convox.yml:5:5: `redis:@` is not an image reference: `repository[:tag][@sha256:…]`
     5 |     image: 'redis:@'
       |     ^
    2 problems
    "#);
}

#[test]
fn a_context_outside_the_repository() {
    insta::assert_snapshot!(says(&manifest("services:\n  web:\n    build: ../../..\n"), &["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:3:5: build context outside the repository: `../../..`
     3 |     build: ../../..
       |     ^
       help: everything a build reads must be in the repository, or its changes could not be seen
    1 problem
    "#);
}

#[test]
fn manifests_of_several_apps_in_one_pass() {
    let repo = with(
        &["web", "api"],
        "version: 1\ndiscover: {include: [apps/*]}\nracks: {staging: {host: h, password: p}}\ndefaults: {racks: [staging]}\n",
    );
    repo.write("apps/api/convox.yml", "services:\n  web: {build: ../../../x}\n")
        .write("apps/web/convox.yml", "services: none\n")
        .commit("Break");
    insta::assert_snapshot!(says(&repo, &["validate"]), @r#"
    exit 2
    error: apps/api/convox.yml:2:9: build context outside the repository: `../../../x`
     2 |   web: {build: ../../../x}
       |         ^
       help: everything a build reads must be in the repository, or its changes could not be seen
    apps/web/convox.yml:1:1: `services` must be a mapping, not a string
     1 | services: none
       | ^
    2 problems
    "#);
}

#[test]
fn an_app_that_builds_without_a_place_for_its_images() {
    let bench = Bench::released();
    bench.repo.write("apps/web/convox.yml", "services:\n  web: {build: .}\n");
    bench.configure("registry: {}");
    insta::assert_snapshot!(bench.says(&["deploy"]), @r#"
    exit 2
    error: apps/web/convox.yml:2:3: service `web` of app `web` is built, but no repository is named for its image
     2 |   web: {build: .}
       |   ^
       help: write `image: REPOSITORY` beside its `build:`, or set `registry: {repository: HOST/{app}}` in apps.yaml
    1 problem
    "#);
    insta::assert_snapshot!(bench.says(&["validate"]), @r#"
    exit 2
    error: apps/web/convox.yml:2:3: service `web` of app `web` is built, but no repository is named for its image
     2 |   web: {build: .}
       |   ^
       help: write `image: REPOSITORY` beside its `build:`, or set `registry: {repository: HOST/{app}}` in apps.yaml
    1 problem
    "#);
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));
}
