//! Bad files and everything that is said about them.

use super::Repository;

/// The whole message about a configuration in a repository with the apps `api`, `web` and `worker`.
fn says(text: &str) -> String {
    Repository::with(text).error()
}

#[test]
fn all_problems_come_in_one_pass() {
    insta::assert_snapshot!(says(
        "version: 2\nrack: {}\nracks:\n  prod: {host: h, protectd: true, deliver: pull, protected: yes}\njobs: many\nunowned: [x]\n\
         global: libs/**\napps:\n  apii: {}\n  web:\n    after: [wrker]\n    racks: [production]\n    timeouts: {build: 30, push: 1 day}\n\
         \u{20}   build: {weight: 0, wait: 3}\n    uses: [auht]\nshared: {auth: [libs/auth]}\n"
    ), @r##"
    apps.yaml:1:10: `2` is not known here
     1 | version: 2
       |          ^
       help: write `1`

    apps.yaml:2:1: unknown key `rack`
     2 | rack: {}
       | ^
       help: did you mean `racks`?

    apps.yaml:4:19: unknown key `protectd` in `prod`
     4 |   prod: {host: h, protectd: true, deliver: pull, protected: yes}
       |                   ^
       help: did you mean `protected`?

    apps.yaml:4:44: `pull` is none of `auto`, `build`, `import`, `external`
     4 |   prod: {host: h, protectd: true, deliver: pull, protected: yes}
       |                                            ^

    apps.yaml:4:61: expected `true` or `false`, found `yes`
     4 |   prod: {host: h, protectd: true, deliver: pull, protected: yes}
       |                                                             ^
       help: write `true`

    apps.yaml:5:7: `many` is no number of jobs
     5 | jobs: many
       |       ^
       help: write a number (`4`), a percentage of the processors (`50%`), or `auto`

    apps.yaml:6:10: expected one of `report`, `all`, `error`, found a list
     6 | unowned: [x]
       |          ^

    apps.yaml:7:9: expected a list, found `libs/**`
     7 | global: libs/**
       |         ^
       help: write it as a list: `[libs/**]`

    apps.yaml:9:3: no app `apii` was found
     9 |   apii: {}
       |   ^
       help: did you mean `api`?

    apps.yaml:11:13: app `web` comes after the unknown app `wrker`
     11 |     after: [wrker]
        |             ^
       help: did you mean `worker`?

    apps.yaml:12:13: unknown rack `production`
     12 |     racks: [production]
        |             ^
       help: there are: `prod`

    apps.yaml:13:23: `30` is no length of time
     13 |     timeouts: {build: 30, push: 1 day}
        |                       ^
       help: write hours, minutes and seconds, like `90s`, `30m` or `1h30m`

    apps.yaml:13:33: `1 day` is no length of time
     13 |     timeouts: {build: 30, push: 1 day}
        |                                 ^
       help: write hours, minutes and seconds, like `90s`, `30m` or `1h30m`

    apps.yaml:14:21: `0` is too small
     14 |     build: {weight: 0, wait: 3}
        |                     ^
       help: it is 1 or more

    apps.yaml:14:24: unknown key `wait` in `build`
     14 |     build: {weight: 0, wait: 3}
        |                        ^
       help: known here: `weight`, `args`, `secrets`, `ssh`, `platform`, `no_cache`, `pull`

    apps.yaml:15:12: `auht` is neither a set nor a path that exists
     15 |     uses: [auht]
        |            ^
       help: did you mean `auth`?

    16 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn cycles_are_printed() {
    insta::assert_snapshot!(says(
        "racks:\n  a: {after: [b]}\n  b: {after: [a]}\ndefaults: {racks: [a]}\nshared:\n  x: [y]\n  y: {uses: [x]}\n\
         apps:\n  api: {after: [web], uses: [x]}\n  web: {after: [worker]}\n  worker: {after: [api]}\n"
    ), @r##"
    apps.yaml:2:14: racks come after each other: `a` → `b` → `a`
     2 |   a: {after: [b]}
       |              ^
       help: take one `after` away

    apps.yaml:6:3: sets use each other: `x` → `y` → `x`
     6 |   x: [y]
       |   ^
       help: take one of them out of the other

    apps.yaml:9:16: apps come after each other: `api` → `web` → `worker` → `api`
     9 |   api: {after: [web], uses: [x]}
       |                ^
       help: take one `after` away

    3 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn names_and_places_of_apps_are_checked() {
    let repository = Repository::with(
        "racks: {one: {}}\ndefaults: {racks: [one]}\napps:\n  api: {name: web}\n  gone: {path: apps/gone}\n  bare: {path: apps/bare}\n\
         \u{20} out: {path: ../x}\n  again: {path: apps/api}\n  worker: {manifest: convox.prod.yml, name: {two: w}, hooks: {on_failure: bin/x, after_build: []}}\n",
    );
    repository.write("apps/bare/readme", "");
    repository.write("services/web/convox.yml", "");
    repository.write("apps/_tmp/convox.yml", "");
    insta::assert_snapshot!(repository.error(), @r##"
    apps.yaml:5:16: the directory `apps/gone` of app `gone` does not exist
     5 |   gone: {path: apps/gone}
       |                ^
       help: correct it, or take the app away

    apps.yaml:6:16: the directory `apps/bare` of app `bare` has no manifest
     6 |   bare: {path: apps/bare}
       |                ^
       help: add a `convox.yml` or a `docker-compose.yml` with an image, or name the manifest with `manifest`

    apps.yaml:7:15: `../x` leaves the repository
     7 |   out: {path: ../x}
       |               ^
       help: an app is a directory of this repository

    apps.yaml:8:3: the directory `apps/api` is the app `api` already (line 4)
     8 |   again: {path: apps/api}
       |   ^
       help: keep one of the two entries

    apps.yaml:9:22: the file `apps/worker/convox.prod.yml` that app `worker` names does not exist
     9 |   worker: {manifest: convox.prod.yml, name: {two: w}, hooks: {on_failure: bin/x, after_build: []}}
       |                      ^
       help: it is looked for in the app's directory; correct the name, or add the file

    apps.yaml:9:46: app `worker` has a name on rack `two`, but does not go there
     9 |   worker: {manifest: convox.prod.yml, name: {two: w}, hooks: {on_failure: bin/x, after_build: []}}
       |                                              ^
       help: there are: `one`

    apps.yaml:9:75: the file `apps/worker/bin/x` that app `worker` names does not exist
     9 |   worker: {manifest: convox.prod.yml, name: {two: w}, hooks: {on_failure: bin/x, after_build: []}}
       |                                                                           ^
       help: it is looked for in the app's directory; correct the name, or add the file

    apps.yaml:9:95: the hook `after_build` of app `worker` has no program
     9 |   worker: {manifest: convox.prod.yml, name: {two: w}, hooks: {on_failure: bin/x, after_build: []}}
       |                                                                                               ^
       help: write a program and its arguments, like `[bin/rake, assets:precompile]`

    apps/_tmp/convox.yml:1:1: the directory `apps/_tmp` cannot name an app: `_tmp` is not an app name: letters, digits, `-`, `_` and `.`, starting with a letter or digit
       help: leave it out with `discover.exclude`, or name it: `apps: {NAME: {path: apps/_tmp}}`

    apps/web/convox.yml:1:1: apps `api` (apps.yaml:4:3) and `web` are both called `web` on rack `one`
       help: give one of them another `name` there

    services/web/convox.yml:1:1: two apps are called `web`: `apps/web` and `services/web`
       help: give one of them a name of its own: `apps: {NAME: {path: services/web}}`

    11 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn patterns_and_repositories_are_checked() {
    insta::assert_snapshot!(says(
        "discover: {include: [apps/*, ../other/*, 'x{'], exclude: [/tmp]}\nregistry: {type: ecr, create: {lifecycle_policy: nope.json}}\n\
         registries: {example.com/path: {}}\nglobal: ['!x', '../y', 'a[']\nshared: {s/t: []}\n\
         defaults:\n  repository: '{app}.example.com/x'\n  build: {platform: linux, secrets: {npm: {}, both: {env: A, file: b}}}\n"
    ), @r##"
    apps.yaml:1:30: `../other/*` leaves the directory of this file
     1 | discover: {include: [apps/*, ../other/*, 'x{'], exclude: [/tmp]}
       |                              ^
       help: directories are looked for below the one of this file, and named from there

    apps.yaml:1:42: `x{` is no glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
     1 | discover: {include: [apps/*, ../other/*, 'x{'], exclude: [/tmp]}
       |                                          ^
       help: write a path, with `*` within and `**` across directories

    apps.yaml:1:59: `/tmp` leaves the directory of this file
     1 | discover: {include: [apps/*, ../other/*, 'x{'], exclude: [/tmp]}
       |                                                           ^
       help: directories are looked for below the one of this file, and named from there

    apps.yaml:2:11: this says nothing without a `repository`
     2 | registry: {type: ecr, create: {lifecycle_policy: nope.json}}
       |           ^
       help: set `registry.repository`, or say it of a host under `registries`

    apps.yaml:2:50: `nope.json` cannot be used: No such file or directory (os error 2)
     2 | registry: {type: ecr, create: {lifecycle_policy: nope.json}}
       |                                                  ^
       help: name a file with the policy's JSON

    apps.yaml:3:14: `example.com/path` is no registry's host
     3 | registries: {example.com/path: {}}
       |              ^
       help: a registry is named by its host, with its port if it has one: `registry.example.com:5000`

    apps.yaml:4:10: `!x` takes a path away, but this list only adds
     4 | global: ['!x', '../y', 'a[']
       |          ^
       help: put it into `ignore` without the `!`

    apps.yaml:4:16: `../y` leaves the repository
     4 | global: ['!x', '../y', 'a[']
       |                ^
       help: inputs are files of this repository

    apps.yaml:4:24: `a[` is no glob: unclosed character class; missing ']'
     4 | global: ['!x', '../y', 'a[']
       |                        ^
       help: write a path, with `*` within and `**` across directories

    apps.yaml:5:10: `s/t` is no name for a set
     5 | shared: {s/t: []}
       |          ^
       help: leave out `/`, `*` and `.`: those make a path

    apps.yaml:7:15: `{app}.example.com/x` has a placeholder in its host
     7 |   repository: '{app}.example.com/x'
       |               ^
       help: write the registry's host out

    apps.yaml:8:21: `linux` is no platform
     8 |   build: {platform: linux, secrets: {npm: {}, both: {env: A, file: b}}}
       |                     ^
       help: write an operating system and an architecture, like `linux/amd64` or `linux/arm/v7`

    apps.yaml:8:38: the secret `npm` needs one of `file` and `env`
     8 |   build: {platform: linux, secrets: {npm: {}, both: {env: A, file: b}}}
       |                                      ^
       help: write `npm: {env: NAME}` or `npm: {file: PATH}`

    apps.yaml:8:47: the secret `both` needs one of `file` and `env`
     8 |   build: {platform: linux, secrets: {npm: {}, both: {env: A, file: b}}}
       |                                               ^
       help: write `both: {env: NAME}` or `both: {file: PATH}`

    14 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn variables_and_lists_are_checked() {
    insta::assert_snapshot!(says(
        "racks: {one: {host: '${HOST}', password: \"${PASSWORD}\", env: 'x ${ENV}'}, one: {}}\nglobal: [a, ~, b]\n\
         jobs: ${JOBS:-2}\ndefaults: {hold: '${HOLD:-no}', build: {args: {A: \"é ${A}\"}}}\n"
    ), @r##"
    apps.yaml:1:65: the variable `ENV` is not set
     1 | racks: {one: {host: '${HOST}', password: "${PASSWORD}", env: 'x ${ENV}'}, one: {}}
       |                                                                 ^
       help: set it, or give it a default: `${ENV:-…}`

    apps.yaml:1:75: `one` is here twice
     1 | racks: {one: {host: '${HOST}', password: "${PASSWORD}", env: 'x ${ENV}'}, one: {}}
       |                                                                           ^
       help: the first one is at line 1; keep one of them

    apps.yaml:2:13: expected a string, found nothing
     2 | global: [a, ~, b]
       |             ^
       help: fill it in, or take the `-` away

    apps.yaml:4:18: expected `true` or `false`, found a string
     4 | defaults: {hold: '${HOLD:-no}', build: {args: {A: "é ${A}"}}}
       |                  ^

    apps.yaml:4:54: the variable `A` is not set
     4 | defaults: {hold: '${HOLD:-no}', build: {args: {A: "é ${A}"}}}
       |                                                      ^
       help: set it, or give it a default: `${A:-…}`

    5 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn apps_that_go_nowhere_are_listed() {
    insta::assert_snapshot!(says("racks: {one: {}, two: {}}\napps:\n  web: {racks: []}\n  api: {racks: [one, one]}\n"), @r##"
    apps.yaml:1:1: 1 app does not say where to go: `worker`
     1 | racks: {one: {}, two: {}}
       | ^
       help: set `defaults.racks`, or `racks` of the app (`[]` for no rack)

    apps.yaml:4:22: rack `one` is here twice
     4 |   api: {racks: [one, one]}
       |                      ^
       help: name it once

    2 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn a_wrong_value_does_not_make_more_problems() {
    insta::assert_snapshot!(says("racks: [one]\nshared: none\ndefaults: {racks: [one]}\napps: {web: {uses: [auth], racks: [two]}}\n"), @r##"
    apps.yaml:1:8: expected a mapping, found a list
     1 | racks: [one]
       |        ^

    apps.yaml:2:9: expected a mapping, found `none`
     2 | shared: none
       |         ^

    2 problems in the configuration `apps.yaml`
    "##);
}

#[test]
fn a_directory_that_two_names_fit_is_asked_about() {
    let repository = Repository::with("apps: {api: {}}\n");
    repository.write("services/api/convox.yml", "");
    insta::assert_snapshot!(repository.error(), @r##"
    apps.yaml:1:8: `api` is the name of 2 directories: `apps/api` and `services/api`
     1 | apps: {api: {}}
       |        ^
       help: say which with `path`, and leave the others out or name them, too

    1 problem in the configuration `apps.yaml`
    "##);
}

#[test]
fn broken_yaml_is_one_problem() {
    insta::assert_snapshot!(says("apps:\n  web: [\n"), @r##"
    apps.yaml:3:1: not valid YAML: while parsing a node, did not find expected node content

    1 problem in the configuration `apps.yaml`
    "##);
    insta::assert_snapshot!(says("racks: {one: {host: ${HOST}}}\n"), @r##"
    apps.yaml:1:22: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'
     1 | racks: {one: {host: ${HOST}}}
       |                      ^
       help: between `{` and `}` or `[` and `]`, put quotes around a value with a variable: `"${NAME}"`

    1 problem in the configuration `apps.yaml`
    "##);
    insta::assert_snapshot!(says("- a\n- b\n"), @r##"
    apps.yaml:1:1: expected a mapping, found a list
     1 | - a
       | ^

    1 problem in the configuration `apps.yaml`
    "##);
}
