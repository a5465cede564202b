//! The variables: those hooks are given, and those that are read. The tables stand here; the sources say whether they are whole.

use super::{heading, row, sources};
use std::collections::BTreeSet;

/// Name, hooks, value.
const FOR_HOOKS: &[(&str, &str, &str)] = &[
    ("APP_NAME", "all", "The app; its name on the rack in release hooks."),
    ("APP_ENV", "release; build when the app goes to one rack", "`env` of the rack."),
    ("RACK_NAME", "release; build when the app goes to one rack", "The rack."),
    ("GIT_HASH", "all", "The commit."),
    ("GIT_DESCRIPTION", "all", "What `git describe` says."),
    ("GIT_BRANCH", "all", "The branch, when on one."),
    ("DOCKER_TAG", "all", "The image reference of the first built service."),
    ("DOCKER_TAG_<SERVICE>", "all", "The image reference of each service; `-` and `.` of its name are `_`."),
    ("RELEASE_ID", "release", "The staged release."),
    ("CONVOX_HOST", "release", "The rack's host, so that `convox run` works."),
    ("CONVOX_PASSWORD", "release", "The rack's password."),
    ("OFFBUILD_APP", "all", "The app's name here."),
    ("OFFBUILD_RACK", "release", "The rack."),
    ("OFFBUILD_RACKS", "all", "All racks of the app in this run, with spaces between."),
    ("OFFBUILD_RUN", "all", "The run's id."),
    ("OFFBUILD_HOOK", "all", "The hook: `before_build`, `after_build`, `before_release`, `after_release`, `on_failure`."),
    ("OFFBUILD_REVISION", "all", "The sha of the tags."),
    ("OFFBUILD_FINGERPRINT", "all", "The digest of the app's inputs."),
    ("OFFBUILD_FAILED_STAGE", "`on_failure`", "The [stage](#stages) that failed."),
    ("OFFBUILD_FAILURE", "`on_failure`", "The [class](#failure-classes)."),
    ("OFFBUILD_ERROR", "`on_failure`", "The message."),
];

/// Names, what for.
const READ: &[(&[&str], &str)] = &[
    (&["OFFBUILD_CONFIG"], "The configuration file, as `--config`."),
    (&["OFFBUILD_BASE"], "What `changed` and offline plans compare with, when `--base` does not say."),
    (&["OFFBUILD_HEAD"], "The commit that `changed` and `why` look at instead of what is checked out, as `--head`."),
    (&["SILENT"], "When on, build and push output is shown only when something fails."),
    (&["SKIP_ECR_AUTH"], "When on, ECR is used with the login of Docker's configuration file."),
    (
        &["APP_NAME", "APP_ENV", "APP_GEN", "RACK_NAME", "DOCKER_COMPOSE"],
        "One app without an `apps.yaml`: its name on the rack, its `env`, its generation (`1`, `2`), the rack, the compose file.",
    ),
    (&["CONVOX_HOST", "CONVOX_PASSWORD", "RACK_URL"], "Host and password of a rack that does not say its own, or both as an address."),
    (&["CONVOX_CONFIG"], "Where the convox CLI keeps its logins."),
    (
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        "The region of an ECR whose host does not tell; `us-east-1` without them. AWS's other variables (`AWS_ACCESS_KEY_ID`, `AWS_PROFILE`, `AWS_ENDPOINT_URL_ECR`, …) are read by its own SDK.",
    ),
    (
        &["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"],
        "Where the engine is and Docker's configuration, as the docker CLI reads them.",
    ),
    (
        &[
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_SERVICE_NAME",
            "TRACEPARENT",
        ],
        "With the cargo feature `otlp`: where the run's spans go as OTLP/HTTP JSON, headers, the service's name (`offbuild`), the span they belong into.",
    ),
    (&["SSH_AUTH_SOCK"], "The agent for builds with `ssh`."),
    (&["HOME", "XDG_CONFIG_HOME", "PATH"], "Where configuration and logins of git, Docker and convox are; where programs are."),
    (&["OFFBUILD_COMPLETE"], "Set by the scripts of `offbuild completions` when they ask for names."),
    (&["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "COLUMNS"], "Colours, the live view and the width of tables."),
    (&["CI", "BUILDKITE", "CIRCLECI", "CODEBUILD_BUILD_ID", "JENKINS_URL", "TEAMCITY_VERSION", "TF_BUILD"], "Whether this is a CI."),
    (&["GITLAB_CI"], "GitLab: sections that fold."),
    (&["GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"], "GitHub Actions: groups and annotations, outputs, the step's summary."),
    (
        &[
            "GITHUB_EVENT_PATH",
            "GITHUB_BASE_REF",
            "CI_MERGE_REQUEST_DIFF_BASE_SHA",
            "CI_COMMIT_BEFORE_SHA",
            "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
            "CIRCLE_COMPARE_URL",
            "CHANGE_TARGET",
            "GIT_PREVIOUS_SUCCESSFUL_COMMIT",
        ],
        "What the CI compares with: the base when racks are not asked.",
    ),
    (
        &["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"],
        "Where the CI shows the run.",
    ),
    (
        &["GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILDKITE_BUILD_CREATOR", "CIRCLE_USERNAME", "USER", "LOGNAME", "HOSTNAME"],
        "Who runs it, and where, as locks, leases and journals have it.",
    ),
];

/// Capital words of the sources that name no variable a user could set.
const OTHER: &[&str] = &[
    "BUILDKIT_INLINE_CACHE",
    "CARGO_PKG_VERSION",
    // What git is run without, or with.
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NO_LAZY_FETCH",
    "GIT_OBJECT_DIRECTORY",
    "GIT_OPTIONAL_LOCKS",
    "GIT_PREFIX",
    "GIT_TERMINAL_PROMPT",
    "GIT_WORK_TREE",
    "LC_ALL",
    // Words of racks and registries.
    "IN_PROGRESS",
    "NAME_UNKNOWN",
];

pub fn write(text: &mut String) {
    text.push_str("\n## Variables\n\n### Given to hooks\n\nOver the environment offbuild runs in.\n\n");
    heading(text, &["variable", "hooks", "value"]);
    for (name, hooks, value) in FOR_HOOKS {
        row(text, &[&format!("`{name}`"), hooks, value]);
    }
    text.push_str("\n### Read\n\nVariables that `apps.yaml` names as `${NAME}` are read besides.\n\n");
    heading(text, &["variable", "what for"]);
    for (names, what) in READ {
        row(text, &[&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "), what]);
    }
}

#[test]
fn hooks_are_given_the_variables_that_are_told() {
    let sources = sources();
    let (_, source) = sources.iter().find(|(path, _)| path == "deploy/hook_env.rs").unwrap();
    let given: BTreeSet<String> = literals(source).into_iter().collect();
    // Named by each service.
    let service = source.contains("\"DOCKER_TAG_{service}\"").then(|| "DOCKER_TAG_<SERVICE>".to_owned());
    let told: BTreeSet<String> = FOR_HOOKS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(given.into_iter().chain(service).collect::<BTreeSet<_>>(), told);
}

#[test]
fn the_variables_that_are_read_are_told() {
    // The sandbox reads none, and is no part of a deploy; its faults and answers are full of capital words.
    let product = sources().into_iter().filter(|(path, _)| !path.starts_with("sandbox") && path != "deploy/hook_env.rs");
    let named: BTreeSet<String> = product.flat_map(|(_, source)| literals(&source)).collect();
    let told: BTreeSet<&str> = READ.iter().flat_map(|(names, _)| names.iter().copied()).collect();
    let untold: Vec<&String> =
        named.iter().filter(|name| name.contains('_') && !told.contains(name.as_str()) && !OTHER.contains(&name.as_str())).collect();
    assert!(untold.is_empty(), "tell in tests/it/reference/variables.rs what these are for: {untold:?}");
    let gone: Vec<&&str> = told.iter().chain(OTHER).filter(|name| !named.contains(**name)).collect();
    assert!(gone.is_empty(), "nothing names these any more: {gone:?}");
}

/// The texts of a source that are one capital word, as variables are.
fn literals(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let capital = |text: &str| {
        text.len() > 1
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    code.flat_map(|line| line.split('"').skip(1).step_by(2)).filter(|text| capital(text)).map(str::to_owned).collect()
}
