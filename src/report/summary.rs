//! The end of a run for people: a table of targets, what failed and why, what is live where, and the command to go on.

use super::critical;
use super::failures::{Failure, failures, go_on};
use super::live::Live;
use super::state::{RunState, TargetState};
use super::text::{Paint, clean, count, table, took, wrap};
use crate::event::{Stage, TargetOutcome};
use crate::names::Target;
use std::collections::BTreeMap;

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Colours.
    pub paint: Paint,
    /// Columns to keep to.
    pub width: usize,
    /// Every target and notice, however many there are.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { paint: Paint::default(), width: 80, verbose: false }
    }
}

/// More targets than this that nothing was done to, for one reason, are counted instead of listed.
const LISTED_ALIKE: usize = 8;
/// Of more lines in a part of the evidence, the last ones are shown.
const SECTION_LINES: usize = 12;
/// More notices than this are counted.
const LISTED_NOTICES: usize = 12;

/// Draws the summary; each line ends with a line feed.
#[must_use]
pub fn render(state: &RunState, options: &Options) -> String {
    let mut lines = Vec::new();
    let failed = failures(state);
    let quiet = is_quiet(state);
    let folded = folded(state, options);
    if !quiet {
        targets(state, options, &folded, &mut lines);
        images(state, &mut lines);
    }
    for failure in &failed {
        lines.push(String::new());
        explain(failure, options, &mut lines);
    }
    if !quiet
        && state.targets.values().any(|target| !matches!(target.outcome, None | Some(TargetOutcome::UpToDate)) || !target.left().is_empty())
    {
        lines.push(String::new());
        live(state, options, &folded, &mut lines);
    }
    notices(state, options, &mut lines);
    if !lines.is_empty() {
        lines.push(String::new());
    }
    lines.extend(total(state, &failed, options));
    lines.extend(image_total(state));
    lines.extend(critical_path(state, options));
    for (when, command) in go_on(state) {
        lines.push(format!("{when}: {}", options.paint.strong(&command)));
    }
    // Parts are set apart by an empty line before them; the first one needs none.
    lines.iter().skip_while(|line| line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// True when nothing happened that is worth a table.
fn is_quiet(state: &RunState) -> bool {
    let idle = |target: &TargetState| matches!(target.outcome, Some(TargetOutcome::UpToDate));
    let idle = |target: &TargetState| idle(target) && target.left().is_empty();
    state.interrupted.is_none() && state.targets.values().all(idle) && state.images.values().all(|image| image.digest.is_none())
}

fn targets(state: &RunState, options: &Options, folded: &Folded, lines: &mut Vec<String>) {
    let all = state.targets_in_order();
    let mut rows = vec![["TARGET", "OUTCOME", "RELEASE", "TOOK", "WHY"].map(str::to_owned)];
    let mut moods = vec![Mood::Heading];
    for (target, known) in all.iter().filter(|(_, known)| !is_folded(known, folded)) {
        rows.push(row(target, known));
        moods.push(mood(known));
    }
    if rows.len() == 1 && folded.is_empty() {
        return;
    }
    for (line, mood) in table(&rows, Some(options.width)).iter().zip(moods).filter(|_| rows.len() > 1) {
        lines.push(match mood {
            Mood::Heading => options.paint.strong(line),
            Mood::Good => options.paint.good(line),
            Mood::Idle => options.paint.dim(line),
            Mood::Bad => options.paint.bad(line),
            Mood::Left => options.paint.warn(line),
        });
    }
    for (alike, number) in folded {
        let and = if rows.len() > 1 { "and " } else { "" };
        let told = wrap(&format!("{and}{} {alike}", count(*number, "target")), options.width);
        lines.extend(told.iter().map(|line| options.paint.dim(line)));
    }
}

/// What a target that nothing was done to is counted under: many are so for one reason.
fn alike(target: &TargetState) -> Option<String> {
    match &target.outcome {
        _ if !target.left().is_empty() => None,
        Some(TargetOutcome::UpToDate) => Some("up to date".to_owned()),
        Some(TargetOutcome::NotAttempted { why }) => Some(format!("not attempted: {}", clean(why))),
        _ => None,
    }
}

/// What more targets than can be listed have in common, and how many they are.
type Folded = BTreeMap<String, usize>;

fn folded(state: &RunState, options: &Options) -> Folded {
    let mut numbers = BTreeMap::new();
    for alike in state.targets.values().filter_map(alike) {
        *numbers.entry(alike).or_insert(0) += 1;
    }
    numbers.retain(|_, number| *number > LISTED_ALIKE && !options.verbose);
    numbers
}

fn is_folded(target: &TargetState, folded: &Folded) -> bool {
    alike(target).is_some_and(|alike| folded.contains_key(&alike))
}

#[derive(Clone, Copy)]
enum Mood {
    Heading,
    Good,
    Idle,
    Bad,
    Left,
}

fn mood(target: &TargetState) -> Mood {
    match &target.outcome {
        Some(TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. }) => Mood::Good,
        Some(TargetOutcome::UpToDate) => Mood::Idle,
        Some(TargetOutcome::Failed { .. } | TargetOutcome::RolledBack { .. }) => Mood::Bad,
        _ => Mood::Left,
    }
}

/// The word of a target's outcome; a run that was killed left some without one.
#[must_use]
pub fn outcome_word(target: &TargetState, finished: bool) -> String {
    let open = if finished { "-" } else { "unfinished" };
    // Who blocked it is said in the column that has room for it.
    match &target.outcome {
        Some(TargetOutcome::Blocked { .. }) => "blocked".to_owned(),
        outcome => outcome.as_ref().map_or_else(|| open.to_owned(), TargetOutcome::word),
    }
}

/// The same for programs: without what stands in parentheses behind it, which has fields of its own.
#[must_use]
pub fn outcome_name(target: &TargetState, finished: bool) -> String {
    let word = outcome_word(target, finished);
    word.split('(').next().unwrap_or_default().to_owned()
}

fn row(target: &Target, known: &TargetState) -> [String; 5] {
    let release = match &known.outcome {
        Some(TargetOutcome::Deployed { release } | TargetOutcome::Staged { release }) => release.to_string(),
        Some(TargetOutcome::UpToDate) => known.live_release.as_ref().map_or_else(String::new, ToString::to_string),
        _ => String::new(),
    };
    let spent = if known.millis == 0 { String::new() } else { took(known.millis) };
    let first = why(known);
    let first = clean(first.lines().next().unwrap_or_default());
    [target.to_string(), outcome_word(known, false), release, spent, first]
}

/// Why a target ended as it did: the error, what it waited for, or the plan's reasons.
#[must_use]
pub fn why(target: &TargetState) -> String {
    let unchanged = || target.base.as_ref().filter(|_| target.outcome == Some(TargetOutcome::UpToDate));
    let reasons = || match target.reasons.as_slice() {
        [] => unchanged().map_or_else(|| target.verdict.clone(), |base| format!("no input changed since {}", base.short())),
        [one] => one.clone(),
        [first, more @ ..] => format!("{first} (and {} more)", more.len()),
    };
    match &target.outcome {
        Some(TargetOutcome::Failed { message, .. } | TargetOutcome::RolledBack { message, .. }) => message.clone(),
        Some(TargetOutcome::Blocked { by }) => match by.strip_prefix("group ") {
            Some(group) => format!("its group `{group}` went back"),
            None => format!("comes after {by}"),
        },
        Some(TargetOutcome::Held { from: Some(from) }) => format!("rolled back by hand from {}", from.short()),
        Some(TargetOutcome::Held { from: None }) => "rolled back by hand".to_owned(),
        Some(TargetOutcome::Stale { live }) => format!("{} is live and newer", live.short()),
        Some(TargetOutcome::NotAttempted { why }) => why.clone(),
        Some(TargetOutcome::Cancelled) => "interrupted while something of it ran".to_owned(),
        None | Some(TargetOutcome::Deployed { .. } | TargetOutcome::Staged { .. } | TargetOutcome::UpToDate) => reasons(),
    }
}

/// Without targets (`offbuild build`) the images are the result.
fn images(state: &RunState, lines: &mut Vec<String>) {
    if !state.targets.is_empty() {
        return;
    }
    for ((app, service), image) in state.images_in_order() {
        let digest = image.digest.as_ref().map_or_else(|| "not pushed".to_owned(), ToString::to_string);
        lines.push(format!("{app}/{service}  {}  {digest}", image.reference));
    }
}

fn explain(failure: &Failure, options: &Options, lines: &mut Vec<String>) {
    lines.push(options.paint.bad(&format!("{} {}", failure.subject(), failure.what())));
    for line in failure.message.lines() {
        lines.extend(wrap(&clean(line), options.width.saturating_sub(2)).into_iter().map(|line| format!("  {line}")));
    }
    lines.extend(failure.evidence.iter().map(|line| options.paint.dim(&format!("    {}", clean(line)))));
    for section in &failure.sections {
        lines.push(format!("  {}:", clean(&section.title)));
        let shown = if options.verbose { section.lines.len() } else { SECTION_LINES };
        let hidden = section.lines.len().saturating_sub(shown);
        if hidden > 0 {
            lines.push(options.paint.dim(&format!("    ({} before, see `offbuild report`)", count(hidden, "line"))));
        }
        lines.extend(section.lines.iter().skip(hidden).map(|line| options.paint.dim(&format!("    {}", clean(line)))));
    }
    for (index, line) in wrap(&failure.hint, options.width.saturating_sub(8)).into_iter().enumerate() {
        lines.push(format!("  {}{line}", if index == 0 { "next: " } else { "      " }));
    }
}

fn live(state: &RunState, options: &Options, folded: &Folded, lines: &mut Vec<String>) {
    let mut rows = Vec::new();
    let mut hidden = 0;
    for (target, known) in state.targets_in_order() {
        if known.outcome == Some(TargetOutcome::UpToDate) && known.left().is_empty() {
            continue;
        }
        if is_folded(known, folded) {
            hidden += 1;
            continue;
        }
        let [release, note] = live_words(target, state);
        rows.push([format!("  {target}"), release, note]);
    }
    lines.push(options.paint.strong("live now"));
    lines.extend(table(&rows, Some(options.width)));
    if hidden > 0 {
        let and = if rows.is_empty() { "" } else { "and " };
        lines.push(options.paint.dim(&format!("  {and}what was, on {} not attempted", count(hidden, "target"))));
    }
}

/// The live release of a target of the run, and a note on it.
#[must_use]
pub fn live_words(of: &Target, state: &RunState) -> [String; 2] {
    let Some(target) = state.targets.get(of) else { return Default::default() };
    let commit = state.run.as_ref().map(|run| &run.commit);
    let base = target.base.as_ref().map(|base| match commit {
        Some(commit) if commit == base => "as before, this commit".to_owned(),
        _ => format!("as before, commit {}", base.short()),
    });
    // What somebody went back to is of another commit than the one that is checked out.
    let back = state.run.as_ref().filter(|run| run.command == "rollback").and_then(|_| state.step_of(of, Stage::Stage));
    let this = back.map_or("this commit", |step| step.detail.as_str());
    // A rack forks the next `env set` from its newest release, live or not: one that was left behind must be known.
    let left = target.left();
    let copy = target.went_back().map_or_else(String::new, |copied| format!("a copy of {}, ", copied.of));
    let before = || copy + base.as_deref().unwrap_or("as before") + &left;
    match target.live() {
        Live::This(release) => [release.map_or_else(|| "-".to_owned(), |release| release.to_string()), this.to_owned() + &left],
        Live::Before(release) => [release.map_or_else(|| "-".to_owned(), |release| release.to_string()), before()],
        Live::Other(release) => [release.to_string(), "neither this run's nor the one before".to_owned() + &left],
        Live::Unknown => ["-".to_owned(), "not known: the rack could not be asked".to_owned() + &left],
        Live::Nothing => ["-".to_owned(), "nothing was ever deployed".to_owned() + &left],
        Live::Undecided => ["-".to_owned(), "not known: a promote was under way".to_owned()],
    }
}

fn notices(state: &RunState, options: &Options, lines: &mut Vec<String>) {
    if state.notices.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(options.paint.strong("worth knowing"));
    let shown = if options.verbose { state.notices.len() } else { LISTED_NOTICES };
    for notice in state.notices.iter().take(shown) {
        let of = notice.step.as_ref().map_or_else(String::new, |step| format!("{}: ", step.subject()));
        let text = wrap(&clean(&format!("{of}{}", notice.message.replace('\n', " "))), options.width.saturating_sub(4));
        lines.extend(text.into_iter().enumerate().map(|(index, line)| format!("  {}{line}", if index == 0 { "" } else { "  " })));
    }
    if state.notices.len() > shown {
        lines.push(format!("  and {} more, see `offbuild show`", state.notices.len() - shown));
    }
}

fn total(state: &RunState, failed: &[Failure], options: &Options) -> Vec<String> {
    let wall = took(state.wall_millis());
    if is_quiet(state) && failed.is_empty() {
        let text = match state.targets.len() {
            0 => "nothing to do".to_owned(),
            1 => "nothing to do: 1 target is up to date".to_owned(),
            number => format!("nothing to do: {number} targets are up to date"),
        };
        return vec![options.paint.good(&format!("{text} ({wall})"))];
    }
    let mut parts = Vec::new();
    let mut tally = |word: &str, number: usize| {
        if number > 0 {
            parts.push(format!("{number} {word}"));
        }
    };
    let number = |is: fn(&TargetOutcome) -> bool| state.targets.values().filter(|target| target.outcome.as_ref().is_some_and(is)).count();
    tally("deployed", number(|outcome| matches!(outcome, TargetOutcome::Deployed { .. })));
    tally("staged", number(|outcome| matches!(outcome, TargetOutcome::Staged { .. })));
    tally("up to date", number(|outcome| matches!(outcome, TargetOutcome::UpToDate)));
    tally("failed", number(|outcome| matches!(outcome, TargetOutcome::Failed { .. })));
    tally("rolled back", number(|outcome| matches!(outcome, TargetOutcome::RolledBack { .. })));
    tally("blocked", number(|outcome| matches!(outcome, TargetOutcome::Blocked { .. })));
    tally("held", number(|outcome| matches!(outcome, TargetOutcome::Held { .. })));
    tally("stale", number(|outcome| matches!(outcome, TargetOutcome::Stale { .. })));
    tally("cancelled", number(|outcome| matches!(outcome, TargetOutcome::Cancelled)));
    tally("not attempted", number(|outcome| matches!(outcome, TargetOutcome::NotAttempted { .. })));
    tally("unfinished", state.targets.values().filter(|target| target.outcome.is_none()).count());
    let bad = !failed.is_empty() || state.finished.is_none_or(|finish| finish.code != 0);
    if parts.is_empty() {
        // No targets (`offbuild build`).
        parts.push(if bad { "failed" } else { "done" }.to_owned());
    }
    let mut line = parts.join(", ");
    if let Some(signal) = &state.interrupted {
        line = format!("stopped by {}: {line}", signal.signal);
    } else if state.finished.is_none() {
        line = format!("not finished: {line}");
    }
    let line = format!("{line} ({wall})");
    vec![if bad { options.paint.bad(&line) } else { options.paint.good(&line) }]
}

/// What the images came to, when there were any.
fn image_total(state: &RunState) -> Option<String> {
    let counts = state.image_counts();
    if counts.built + counts.reused == 0 {
        return None;
    }
    let cached = match counts.steps {
        0 => String::new(),
        steps => format!("; {} of {} cached", counts.cached, count(steps, "build step")),
    };
    Some(format!("{} built, {} pushed, {} reused{cached}", count(counts.built, "image"), counts.pushed, counts.reused))
}

/// What the end of the run waited for, by stage, and the longest step of it; nothing when it was one step.
fn critical_path(state: &RunState, options: &Options) -> Vec<String> {
    let path = critical::path(state);
    let longest = path.iter().max_by_key(|(_, known)| known.millis).filter(|_| path.len() > 1);
    let Some((step, known)) = longest else { return Vec::new() };
    let mut stages: Vec<(&str, u64)> = Vec::new();
    for (step, known) in &path {
        let name = step.stage.name();
        match stages.iter_mut().find(|(stage, _)| *stage == name) {
            Some((_, spent)) => *spent += known.millis,
            None => stages.push((name, known.millis)),
        }
    }
    let stages: Vec<String> = stages.into_iter().map(|(stage, spent)| format!("{stage} {}", took(spent))).collect();
    let longest = format!("{} {}, {}", step.subject(), step.stage.name(), took(known.millis));
    wrap(&format!("critical path: {}; longest in it: {longest}", stages.join(", ")), options.width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn drawn(events: &[crate::event::Event]) -> String {
        let text = render(&RunState::replay(events), &Options::default());
        for line in text.lines() {
            assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
        }
        text
    }

    #[test]
    fn success() {
        insta::assert_snapshot!(drawn(&samples::success()), @r#"
        TARGET          OUTCOME     RELEASE  TOOK   WHY
        api@staging     deployed    RAPI2    40.0s  apps/api/main.rb changed (apps/api/…
        web@staging     deployed    RWEB2    40.0s  libs/auth/token.rb changed (shared …
        worker@staging  deployed    RWRK2    40.0s  never deployed
        docs@staging    up-to-date  RDOC1           no input changed since 111111111111

        live now
          api@staging     RAPI2  this commit
          web@staging     RWEB2  this commit
          worker@staging  RWRK2  this commit

        worth knowing
          worker/web: the cache `registry.example/worker:cache` could not be imported:
            not found

        3 deployed, 1 up to date (2m 25s)
        2 images built, 2 pushed, 1 reused; 2 of 6 build steps cached
        critical path: retag 0.4s, before_build 1.2s, build 18.6s, push 5.0s, stage
        24.0s, promote 1m 36s; longest in it: worker@staging promote, 32.0s
        "#);
    }

    #[test]
    fn what_is_live_is_not_known_while_a_promote_is_under_way() {
        use crate::event::EventKind;
        let mut events = samples::success();
        let promotes = |kind: &EventKind| matches!(kind, EventKind::StepStarted { step, .. } if step.stage == Stage::Promote);
        let first = events.iter().position(|event| promotes(&event.kind)).unwrap();
        events.truncate(first + 1);
        let last = events[first].clone();
        let target = samples::target("api@staging");
        let outcome = TargetOutcome::Cancelled;
        for kind in [
            EventKind::Interrupted { signal: "INT".to_owned(), now: true },
            EventKind::TargetFinished { target, millis: 0, outcome },
            EventKind::RunFinished { code: 130, millis: 1 },
        ] {
            events.push(crate::event::Event { kind, ..last.clone() });
        }
        let text = drawn(&events);
        assert!(text.contains("  api@staging     -      not known: a promote was under way\n"), "{text}");
        assert!(text.contains("to see what is live: offbuild status") && !text.contains("offbuild heal"), "{text}");
    }

    #[test]
    fn nothing_to_do() {
        insta::assert_snapshot!(drawn(&samples::nothing_to_do()), @r#"nothing to do: 2 targets are up to date (0.3s)"#);
    }

    #[test]
    fn build_broken() {
        insta::assert_snapshot!(drawn(&samples::build_broken()), @r#"
        TARGET          OUTCOME        RELEASE  TOOK  WHY
        api@staging     not-attempted                 the build of `web` failed and not…
        web@staging     failed(build)                 `RUN bundle install` ended with 5
        worker@staging  not-attempted                 the build of `web` failed and not…

        web@staging failed in build
          `RUN bundle install` ended with 5
          next: build it alone: `offbuild build web`

        live now
          api@staging     RAPI1  as before, commit 111111111111
          web@staging     RWEB1  as before, commit 111111111111
          worker@staging  -      nothing was ever deployed

        1 failed, 2 not attempted (16.2s)
        1 image built, 1 pushed, 1 reused; 1 of 3 build steps cached
        critical path: retag 0.4s, build 13.3s, push 2.5s; longest in it: worker/web
        build, 9.3s
        when it is fixed and committed: offbuild deploy
        to try this commit again: offbuild deploy --resume
        "#);
    }

    #[test]
    fn hook_failing() {
        insta::assert_snapshot!(drawn(&samples::hook_failing()), @r#"
        TARGET          OUTCOME       RELEASE  TOOK   WHY
        api@staging     deployed      RAPI2    40.0s  apps/api/main.rb changed (apps/ap…
        web@staging     failed(hook)           10.0s  `deploy/before_release.sh` ended …
        worker@staging  blocked                       comes after web@staging

        web@staging failed in before_release
          `deploy/before_release.sh` ended with 3: column `email` is missing
          next: see what the hook said; it is run again by the next try

        live now
          api@staging     RAPI2  this commit
          web@staging     RWEB1  as before, commit 111111111111; RWEB2 is staged, not l…
          worker@staging  -      nothing was ever deployed

        1 deployed, 1 failed, 1 blocked (1m 02s)
        1 image built, 1 pushed, 1 reused; 1 of 3 build steps cached
        critical path: retag 0.4s, build 9.3s, push 2.5s, stage 16.0s, promote 32.0s,
        before_release 2.0s; longest in it: api@staging promote, 32.0s
        when it is fixed and committed: offbuild deploy
        to try this commit again: offbuild deploy --resume
        so that no `env set` builds on what was left behind: offbuild heal web@staging
        "#);
    }

    #[test]
    fn rolled_back() {
        insta::assert_snapshot!(drawn(&samples::rolled_back()), @r#"
        TARGET          OUTCOME        RELEASE  TOOK    WHY
        api@staging     deployed       RAPI2    40.0s   apps/api/main.rb changed (apps/…
        web@staging     rolled-back             2m 12s  the rack went back to `RWEB1`: …
        worker@staging  not-attempted                   `web@staging` was rolled back

        web@staging rolled back
          the rack went back to `RWEB1`: web.1 failed its health check `/up` (502)
            after 0.0s: updating with RWEB1 active
            after 20.0s: updating with RWEB2 active
            after 1m 55s: rollback with RWEB2 active
            after 2m 04s: running with RWEB1 active
          looks like:
            a failing health check
            Readiness probe failed: HTTP probe failed with statuscode: 502
          processes:
            web-2 of web, release RWEB2: running
          last lines of service/web/web-2:
            GET /up 502
          what the rack said:
            Readiness probe failed: HTTP probe failed with statuscode: 502
          environment, by name:
            added: STRIPE_KEY
            removed: OLD_KEY
          manifest:
            @@ -3 +3 @@
            -    port: 3000
            +    port: 4000
          next: see what the health check was answered: convox logs -a web

        live now
          api@staging     RAPI2  this commit
          web@staging     RWEB1  as before, commit 111111111111; RWEB2 is staged, not l…
          worker@staging  -      nothing was ever deployed

        1 deployed, 1 rolled back, 1 not attempted (3m 04s)
        1 image built, 1 pushed, 1 reused; 1 of 3 build steps cached
        critical path: retag 0.4s, build 9.3s, push 2.5s, stage 16.0s, promote 2m 36s;
        longest in it: web@staging promote, 2m 04s
        when it is fixed and committed: offbuild deploy
        to try this commit again: offbuild deploy --resume
        so that no `env set` builds on what was left behind: offbuild heal web@staging
        "#);
    }

    #[test]
    fn interrupted() {
        insta::assert_snapshot!(drawn(&samples::interrupted()), @r#"
        TARGET          OUTCOME        RELEASE  TOOK  WHY
        api@staging     not-attempted                 interrupted
        web@staging     cancelled                     interrupted while something of it…
        worker@staging  not-attempted                 interrupted

        live now
          api@staging     RAPI1  as before, commit 111111111111
          web@staging     RWEB1  as before, commit 111111111111
          worker@staging  -      nothing was ever deployed

        stopped by INT: 1 cancelled, 2 not attempted (2.1s)
        0 images built, 0 pushed, 1 reused
        critical path: retag 0.4s, build 1.7s; longest in it: web/web build, 1.7s
        to go on: offbuild deploy --resume
        "#);
    }

    #[test]
    fn killed() {
        let mut events = samples::hook_failing();
        events.truncate(30);
        insta::assert_snapshot!(drawn(&events), @r#"
        TARGET          OUTCOME     RELEASE  TOOK  WHY
        api@staging     unfinished                 apps/api/main.rb changed (apps/api/*…
        web@staging     unfinished                 libs/auth/token.rb changed (shared `…
        worker@staging  unfinished                 never deployed

        not finished: 3 unfinished (51.2s)
        1 image built, 1 pushed, 1 reused; 1 of 3 build steps cached
        critical path: retag 0.4s, build 9.3s, push 2.5s, stage 8.0s, promote 0.0s;
        longest in it: web/web build, 9.3s
        to go on: offbuild deploy --resume
        to see what is live: offbuild status
        "#);
    }

    #[test]
    fn a_build_without_targets() {
        let mut events = samples::build_broken();
        events.retain(|event| {
            use crate::event::EventKind as Kind;
            !matches!(event.kind, Kind::TargetFinished { .. } | Kind::TargetPlanned { .. })
        });
        insta::assert_snapshot!(render(&RunState::replay(&events), &Options::default()), @r#"
        api/web  registry.example/api:web.ffffffffffffffffffffffffffffffffffffffff  sha256:abababababababababababababababababababababababababababababababab
        web/web  registry.example/web:web.ffffffffffffffffffffffffffffffffffffffff  not pushed
        worker/web  registry.example/worker:web.ffffffffffffffffffffffffffffffffffffffff  sha256:abababababababababababababababababababababababababababababababab

        web failed in build
          `RUN bundle install` ended with 5
          next: build it alone: `offbuild build web`

        failed (16.2s)
        1 image built, 1 pushed, 1 reused; 1 of 3 build steps cached
        critical path: retag 0.4s, build 13.3s, push 2.5s; longest in it: worker/web
        build, 9.3s
        when it is fixed and committed: offbuild deploy
        to try this commit again: offbuild deploy --resume
        "#);
    }

    #[test]
    fn many_targets_that_were_not_attempted_for_one_reason_are_counted() {
        let mut events = samples::build_broken();
        for number in 0..9 {
            let (target, last) = (samples::target(&format!("many{number}@staging")), events.last().unwrap().clone());
            let outcome = TargetOutcome::NotAttempted { why: "its turn never came".to_owned() };
            let kind = crate::event::EventKind::TargetFinished { target, millis: 0, outcome };
            events.push(crate::event::Event { kind, ..last });
        }
        let text = drawn(&events);
        assert!(text.contains("\nand 9 targets not attempted: its turn never came\n") && !text.contains("many"), "{text}");
        assert!(
            text.contains("\n  and what was, on 9 targets not attempted\n") && text.contains("worker@staging  not-attempted"),
            "{text}"
        );
        let options = Options { verbose: true, ..Options::default() };
        assert!(render(&RunState::replay(&events), &options).contains("many8@staging"));
    }

    #[test]
    fn many_targets_that_are_up_to_date_are_counted() {
        let mut events = samples::success();
        for number in 0..20 {
            let (kind, last) = (TargetOutcome::UpToDate, events.last().unwrap().clone());
            let target = samples::target(&format!("app{number}@staging"));
            let kind = crate::event::EventKind::TargetFinished { target, millis: 0, outcome: kind };
            events.push(crate::event::Event { kind, ..last });
        }
        assert!(drawn(&events).contains("and 21 targets up to date"));
    }
}
