//! Command lines that are wrong, and the help that says what would be right.

use super::bench::{Bench, offbuild, told};
use crate::support::repo::Repo;

/// What it says in an empty directory.
fn says(args: &[&str]) -> String {
    let repo = Repo::new();
    told(&repo, &offbuild(&repo).env("COLUMNS", "100").run(args))
}

#[test]
fn an_unknown_command() {
    insta::assert_snapshot!(says(&["deplyo"]), @r#"
    exit 2
    error: unrecognized subcommand 'deplyo'

      tip: some similar subcommands exist: 'demo', 'deploy'

    Usage: offbuild [OPTIONS] <COMMAND>

    For more information, try '--help'.
    "#);
}

#[test]
fn a_name_that_is_nearly_right() {
    let bench = Bench::released();
    let table: [(&[&str], &str); 11] = [
        (&["deplyo"], "'deploy'"),
        (&["deploy", "wbe"], "did you mean `web`?"),
        (&["deploy", "wbe@staging"], "did you mean `web`?"),
        (&["deploy", "web@stagign"], "did you mean `staging`?"),
        (&["deploy", "--rack", "stagin"], "did you mean `staging`?"),
        (&["status", "webb"], "did you mean `web`?"),
        (&["why", "wbe"], "did you mean `web`?"),
        (&["config", "wbe@staging"], "did you mean `web`?"),
        (&["config", "web@stagng"], "did you mean `staging`?"),
        (&["rollback", "wbe@staging"], "did you mean `web`?"),
        (&["rollback", "web@stagng"], "did you mean `staging`?"),
    ];
    for (args, hint) in table {
        let said = bench.says(args);
        assert!(said.starts_with("exit 2\n") && said.contains(hint), "{args:?}: {said}");
    }
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));
}

#[test]
fn no_command() {
    assert!(says(&[]).starts_with("exit 2\n"));
}

#[test]
fn an_unknown_flag() {
    insta::assert_snapshot!(says(&["deploy", "--alll"]), @r#"
    exit 2
    error: unexpected argument '--alll' found

      tip: a similar argument exists: '--all'

    Usage: offbuild deploy --all [APP]...

    For more information, try '--help'.
    "#);
}

#[test]
fn a_value_that_is_none_of_the_choices() {
    insta::assert_snapshot!(says(&["deploy", "--gate", "none"]), @r#"
    exit 2
    error: invalid value 'none' for '--gate <GATE>'
      [possible values: all, app]

    For more information, try '--help'.
    "#);
}

#[test]
fn a_number_of_jobs_that_is_none() {
    let bench = Bench::released();
    for jobs in ["many", "0", "-1", "0%", "1.5"] {
        let said = bench.says(&["deploy", &format!("-j{jobs}")]);
        let expected = format!(
            "exit 2\nerror: `{jobs}` is no number of jobs\n  next: give a number (`-j 4`), a percentage of the cores (`-j 50%`), or `auto`\n"
        );
        assert_eq!(said, expected);
    }
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));
}

#[test]
fn a_lock_wait_that_is_no_duration() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["deploy", "--lock-wait", "soon"]), @r#"
    exit 2
    error: `--lock-wait soon` is no length of time
      next: write it as `90s`, `15m` or `1h`
    "#);
    assert_eq!((bench.calls("GET"), bench.calls("POST")), (vec![], vec![]));
}

#[test]
fn files_that_cannot_be_written() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["deploy", "--events", "no/such/dir"]), @r#"
    exit 2
    error: `--events no/such/dir` cannot be written
      because: No such file or directory (os error 2)
      next: name a file in a directory that is there and may be written
    "#);
    insta::assert_snapshot!(bench.says(&["deploy", "--html", "no/such/dir"]), @r#"
    exit 2
    error: `--html no/such/dir` cannot be written
      because: No such file or directory (os error 2)
      next: name a file in a directory that is there and may be written
    "#);
    assert_eq!(bench.calls("POST"), [""; 0]);
}

#[test]
fn a_past_run_that_is_not_there() {
    let bench = Bench::released();
    insta::assert_snapshot!(bench.says(&["show"]), @r#"
    exit 2
    error: nothing was run here yet
      next: deploy: `offbuild deploy`
    "#);
    insta::assert_snapshot!(bench.says(&["report", "2001"]), @r#"
    exit 2
    error: there is no run `2001`
      next: see the runs there are: `offbuild history`
    "#);
}

#[test]
fn the_page_of_a_past_run_is_kept_where_git_does_not_see_it() {
    let bench = Bench::released();
    bench.offbuild().run(&["deploy"]).code(0);
    let done = bench.offbuild().run(&["report"]).code(0);
    let path = std::path::Path::new(done.stdout.strip_prefix("wrote ").unwrap().trim_end());
    let journal = path.with_extension("jsonl");
    assert!(path.starts_with(bench.repo.root().join(".offbuild")) && journal.exists(), "{}", done.stdout);
    assert!(std::fs::read_to_string(path).unwrap().contains("web@staging"));
    assert_eq!(bench.repo.git(&["status", "--porcelain"]), "");
    let elsewhere = bench.repo.dir.path().join("page.html");
    let done = bench.offbuild().run(&["report", "latest", "-o", elsewhere.to_str().unwrap()]).code(0);
    assert_eq!(done.stdout, format!("wrote {}\n", elsewhere.display()));
    assert!(elsewhere.exists());
}

#[test]
fn a_configuration_is_never_written_over() {
    insta::assert_snapshot!(Bench::released().says(&["init"]), @r#"
    exit 2
    error: `REPO/apps.yaml` is there already
      because: File exists (os error 17)
      next: see what would be written: offbuild init --dry-run
    "#);
}

#[test]
fn the_sandbox_explains_its_flags() {
    insta::assert_snapshot!(says(&["sandbox", "--rack", "one=4"]), @r#"
    exit 2
    error: `--rack one=4` is no rack
      next: write it as `--rack staging=2` or `--rack staging=2:5442`
    "#);
    insta::assert_snapshot!(says(&["sandbox", "--app", "web"]), @r#"
    exit 2
    error: `--app web` is no app of a rack
      next: write it as `--app staging/web:2`
    "#);
    insta::assert_snapshot!(says(&["sandbox", "--fault", "staging:explode"]), @r#"
    exit 2
    error: `staging:explode` is not a fault; write `RACK:FAULT`, `RACK:APP:FAULT` or `registry:FAULT` with one of `rack-build-fails`, `rack-build-hangs`, `promote-rolls-back`, `app-crashes`, `app-oom`, `app-unhealthy`, `app-wrong-port`, `app-missing-env`, `app-bad-command`, `no-capacity`, `promote-hangs`, `promote-answer-lost`, `build-answer-lost`, `updating`, `down`, `401`, `push-500`, `login-refused`, `manifest-missing`, `500-once:/PATH-PREFIX`
    "#);
    insta::assert_snapshot!(says(&["sandbox", "--promote", "soon"]), @r#"
    exit 2
    error: `--promote soon` is no length of time
      next: write it as `300ms` or `2s`
    "#);
}

#[test]
fn help() {
    insta::assert_snapshot!(says(&["--help"]), @r#"
    exit 0
    stdout:
    Deploys exactly the changed apps of a monorepo to Convox racks, building their images off the
    cluster

    Usage: offbuild [OPTIONS] <COMMAND>

    Commands:
      deploy       Build, push and release the changed apps
      changed      Show which apps changed; with --base it needs no rack
      why          Tell why an app would be deployed or left alone, and what waits since the live commit
      plan         Show what a deploy would do, step by step
      build        Build and push images without releasing anything
      promote      Make live what a run with --no-promote staged
      rollback     Put the release before the live one back, or another one
      heal         Put a copy of what is live on top of releases that failed runs left behind
      lock         Let nothing be deployed until `unlock`, or for a time
      unlock       Take away what `lock` set
      doctor       Check everything a deploy needs, and say how to cure what is wrong
      validate     Check the configuration
      lint         Compare what apps declare with what their builds read
      config       Show the resolved configuration of an app on a rack, with where each value comes from
      status       Show what is live where
      init         Write an apps.yaml for the apps that are there
      schema       Print the JSON Schema of apps.yaml, of events or of the report
      history      List past runs
      show         Show a past run
      report       Write the HTML page of a past run
      sandbox      Serve racks of both versions and an image registry on loopback
      demo         Deploy the example monorepo to a sandbox, with the real Docker Engine
      completions  Print a completion script
      man          Print the manual page, or that of a command
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Options of every command:
          --config <FILE>    The configuration file [env: OFFBUILD_CONFIG=]
      -C, --directory <DIR>  Work in this directory
      -v, --verbose          Say more: whole build logs
      -q, --quiet            Say only results and errors

    Exit codes: 0 done · 1 something failed · 2 usage or configuration · 3 a needed service cannot be
    used · 4 refused by a guard · 5 lock held · 130/143 interrupted
    "#);
    insta::assert_snapshot!(says(&["deploy", "--help"]), @r#"
    exit 0
    stdout:
    Build, push and release the changed apps

    Usage: offbuild deploy [OPTIONS] [APP]...

    Arguments:
      [APP]...
              Apps: a name, a glob, a path, `tag:NAME`, or `!…` to leave out

    Options:
      -r, --rack <RACK>
              Only this rack (may be given several times)

          --all
              Every selected app, changed or not

          --base <REV>
              Compare with this revision (its merge base with HEAD) instead of what runs on the racks

          --fetch
              Deepen a shallow clone when the base is not here

          --strict-base
              Exit 3 instead of deploying when the base is not here

          --dry-run
              Show the plan and stop

          --resume [<RUN>]
              Continue the last run, or the named one: what is built, pushed, staged or promoted is
              adopted, finished release hooks do not run again. APPs come before it; without any, it is
              the run's own targets. Other options are not remembered

          --rerun-hooks
              With --resume: run a hook again that was cut short, also when `hooks.repeatable` does not
              name it

          --no-promote
              Stage the releases and stop before their `before_release` hooks; `offbuild promote` goes
              on

          --heal
              At the end, put a copy of what is live on top of releases that a failed run, this or an
              earlier one, left behind: racks build the next `env set` on their newest release, live or
              not

          --gate <GATE>
              When lanes start: when `all` images are pushed, or each `app`'s own

              Possible values:
              - all: When every selected image is pushed: a broken build releases nothing
              - app: A target starts when its own images are pushed

              [default: all]

          --on-failure <ON_FAILURE>
              What a failed target stops

              Possible values:
              - stop-rack: The rest of its rack's lane
              - continue:  Nothing but what comes `after` it
              - stop-all:  Every lane

              [default: stop-rack]

      -y, --yes
              Deploy to protected racks without asking

          --allow-dirty
              Deploy uncommitted changes; the tag gets `-dirty.HASH`

          --allow-diverged
              Deploy over a commit this one does not descend from

          --allow-older
              Deploy although the live commit is newer

          --stale <STALE>
              What to do when the live commit is newer: `refuse` (exit 4) or `ok` (exit 0)

              Possible values:
              - refuse: Exit 4
              - ok:     Exit 0: a newer commit is live, which is as good

              [default: refuse]

          --release-hold <APP>
              Deploy this app although somebody rolled it back (may be given several times)

          --lock-wait <DURATION>
              Wait this long for another run of the same rack

              [default: 0s]

      -j, --jobs <N|P%|auto>
              Builds in flight: a number, a percentage of the cores, or `auto`

          --fail-fast
              Stop all builds when one fails

          --format <FORMAT>
              `text`, or `json` for a report on standard output

              Possible values:
              - text: For people
              - json: For programs

              [default: text]

          --events <FILE>
              Write the events as JSON lines

          --html <FILE>
              Write the run's HTML page

          --summary <FILE>
              Write the summary as Markdown, as GitHub's step summary has it

          --junit <FILE>
              Write the results as JUnit XML: a suite for the images and one per rack

          --trace <FILE>
              Write where the time went as a Chrome trace, for ui.perfetto.dev

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Options of every command:
          --config <FILE>
              The configuration file

              [env: OFFBUILD_CONFIG=]

      -C, --directory <DIR>
              Work in this directory

      -v, --verbose
              Say more: whole build logs

      -q, --quiet
              Say only results and errors

    Examples:
      offbuild deploy                         the changed apps, to all their racks
      offbuild deploy api 'web-*' -r staging  some apps, to one rack
      offbuild deploy --dry-run               only show what it would do
      offbuild deploy --resume                go on with the last run
    "#);
    insta::assert_snapshot!(says(&["changed", "--help"]), @r#"
    exit 0
    stdout:
    Show which apps changed; with --base it needs no rack

    Usage: offbuild changed [OPTIONS] [APP]...

    Arguments:
      [APP]...
              Apps: a name, a glob, a path, `tag:NAME`, or `!…` to leave out

    Options:
      -r, --rack <RACK>
              Only this rack (may be given several times)

          --base <REV>
              Compare with this revision (its merge base with HEAD) instead of what runs on the racks

          --fetch
              Deepen a shallow clone when the base is not here

          --strict-base
              Exit 3 instead of deploying when the base is not here

          --committed
              Look at commits only: what is not committed is not searched for

          --head <REV>
              Look at this revision (or `OFFBUILD_HEAD`) instead of what is checked out; implies commits
              only

          --format <FORMAT>
              The form of the answer

              Possible values:
              - text:   Targets with verdict and reasons
              - names:  The names of the changed apps, a line each
              - json:   Everything, for programs
              - matrix: A matrix for GitHub's `fromJSON`

              [default: text]

          --exit-code
              Exit 1 when something changed, 0 when not, 2 on an error

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Options of every command:
          --config <FILE>
              The configuration file

              [env: OFFBUILD_CONFIG=]

      -C, --directory <DIR>
              Work in this directory

      -v, --verbose
              Say more: whole build logs

      -q, --quiet
              Say only results and errors

    Examples:
      offbuild changed                       compared with what is live
      offbuild changed --base origin/main    compared with a branch, no rack is asked
      offbuild changed --format names        a name per line, for scripts
    "#);
}
