//! The planner over facts made by hand.

use super::planner::{AppFacts, Existing, FINGERPRINT_LABEL, Facts, RackFacts, TargetFacts, plan};
use super::*;
use crate::changes::CommitInfo;
use crate::config::{App, BuildConfig, Precision};
use crate::manifest::{Service, ServiceBuild, image_fingerprint};
use crate::names::RepoPath;
use crate::rack::Deliver;
use crate::yaml::{Document, Place};
use std::sync::Arc;
use time::OffsetDateTime;

fn name(name: &str) -> AppName {
    AppName::new(name).unwrap()
}

fn digest(digit: &str) -> Digest {
    Digest::new(format!("sha256:{}", digit.repeat(64))).unwrap()
}

fn fingerprint(app: &str) -> Fingerprint {
    Fingerprint::from_sha256(format!("{app:x<24}").as_bytes())
}

/// An app with one service `web` built from `context`, and the apps it comes after.
/// The fingerprint of the image of an app that is built from `context`.
fn own(name: &str, context: &str) -> Fingerprint {
    let app = app(name, context, &[]);
    image_fingerprint(&fingerprint(name), app.manifest.services[0].build.as_ref().unwrap())
}

fn app(app: &str, context: &str, after: &[&str]) -> AppFacts {
    let build = ServiceBuild {
        image: ImageBuild {
            context: context.into(),
            dockerfile: format!("{context}/Dockerfile").into(),
            context_key: format!("{app}:{context}"),
            ..ImageBuild::default()
        },
        context: RepoPath::from(context),
        dockerfile: RepoPath::from(context),
        also_reads: vec![],
        labels: BTreeMap::new(),
        place: Place::default(),
    };
    let service = Service { name: ServiceName::new("web").unwrap(), place: Place::default(), image: None, build: Some(build) };
    AppFacts {
        app: App {
            name: name(app),
            dir: RepoPath::from(app),
            place: Place::default(),
            targets: vec![],
            uses: vec![],
            after: after.iter().map(|app| name(app)).collect(),
            group: None,
            ignore: vec![],
            manifest: "convox.yml".into(),
            generation: 2,
            compose: None,
            tags: Default::default(),
            repository: Some("r.example/{app}".into()),
            create: None,
            latest: true,
            build: BuildConfig::default(),
            hooks: BTreeMap::new(),
            repeatable: BTreeSet::new(),
            precision: Precision::Directory,
            digest: String::new(),
        },
        dir: format!("/repo/{app}").into(),
        manifest: Arc::new(Manifest {
            generation: 2,
            path: RepoPath::from("convox.yml"),
            document: Document::parse("convox.yml", "services: {web: {build: .}}").unwrap(),
            services: vec![service],
            files: vec![],
            warnings: vec![],
        }),
        fingerprint: Some(fingerprint(app)),
        revision: "1".repeat(40),
        hooks: BTreeMap::new(),
    }
}

fn facts(apps: Vec<AppFacts>) -> Facts {
    let rack = RackName::new("east").unwrap();
    let targets = apps.iter().map(|app| TargetFacts {
        target: Target { app: app.app.name.clone(), rack: rack.clone() },
        config: TargetConfig {
            rack: rack.clone(),
            name: app.app.name.to_string(),
            env: "production".into(),
            deliver: Deliver::Auto,
            timeouts: Timeouts::default(),
            revision: true,
            hold: true,
        },
        decision: Decision::Release,
        reasons: vec!["never deployed".into()],
        base: None,
        base_source: "rack".into(),
        live: None,
        description: String::new(),
        staged: None,
        trap: None,
        before: None,
    });
    let commit = CommitInfo {
        id: CommitId::new("1".repeat(40)).unwrap(),
        subject: "s".into(),
        author: "a".into(),
        time: OffsetDateTime::UNIX_EPOCH,
    };
    Facts {
        run: RunId::new("run").unwrap(),
        head: Head { commit, branch: Some("main".into()), describe: "1111111".into(), source: Some("https://git.example/x".into()) },
        targets: targets.collect(),
        apps,
        racks: vec![RackFacts { rack, after: vec![RackName::new("not-in-this-run").unwrap()], registry_cache: false }],
        existing: Existing::default(),
        removed: vec![],
        notes: vec![],
        ci_url: None,
    }
}

fn options() -> Options {
    Options {
        gate: Gate::All,
        on_failure: OnFailure::StopRack,
        fail_fast: false,
        jobs: 2,
        until: Until::Promote,
        heal: false,
        allow_older: false,
        allow_diverged: false,
    }
}

#[test]
fn a_plan_reads_well() {
    let mut facts = facts(vec![app("web", "web", &["worker"]), app("worker", "worker", &[]), app("docs", "docs", &[])]);
    facts.targets[2].decision = Decision::UpToDate;
    facts.targets[2].reasons = vec!["nothing of it changed".into()];
    let gone = |name: &str, racks: &[&str]| Gone {
        app: Removed {
            name: AppName::new(name).unwrap(),
            dir: format!("apps/{name}").as_str().into(),
            racks: racks.iter().map(|rack| RackName::new(*rack).unwrap()).collect(),
        },
        base: CommitId::new("2".repeat(40)).unwrap(),
    };
    facts.removed = vec![gone("old", &["east", "west"]), gone("older", &[])];
    insta::assert_snapshot!(show::text(&plan(facts, options()).unwrap(), false), @r"
    commit 111111111111 (main) s

    rack east
      worker  deploy
                never deployed
      web     deploy
                never deployed
      docs    up-to-date
                nothing of it changed

    removed, nothing is done to the racks
      old@east since 222222222222
      old@west since 222222222222
      older since 222222222222

    images, 2 at a time
      web/web build r.example/web:web.1111111111111111111111111111111111111111
      worker/web build r.example/worker:web.1111111111111111111111111111111111111111
    ");
}

#[test]
fn the_same_facts_make_the_same_plan() {
    let facts = facts(vec![app("b", "x", &[]), app("a", "x", &[]), app("c", "c", &["a"])]);
    let first = show::json(&plan(facts.clone(), options()).unwrap()).to_string();
    for _ in 0..10 {
        assert_eq!(show::json(&plan(facts.clone(), options()).unwrap()).to_string(), first);
    }
}

#[test]
fn equal_builds_are_one_and_carry_every_apps_fingerprint() {
    let plan = plan(facts(vec![app("a", "shared", &[]), app("b", "shared", &[]), app("c", "c", &[])]), options()).unwrap();
    assert_eq!(plan.builds.len(), 2);
    assert_eq!(plan.builds[0].used_by.len(), 2);
    let labels = format!("{} {} {} {}", fingerprint("a"), own("a", "shared"), fingerprint("b"), own("b", "shared"));
    assert_eq!(plan.builds[0].labels[FINGERPRINT_LABEL], labels);
}

#[test]
fn an_app_whose_hook_may_change_the_context_shares_its_build_with_nobody() {
    let mut hooked = app("a", "shared", &[]);
    hooked.hooks.insert(HookKind::BeforeBuild, HookConfig::Command(vec!["make".into()]));
    assert_eq!(plan(facts(vec![hooked, app("b", "shared", &[])]), options()).unwrap().builds.len(), 2);
}

#[test]
fn what_the_registry_has_decides_what_is_done() {
    let repository = Repository::parse("r.example/a").unwrap();
    let commit_tag = format!("web.{}", "1".repeat(40));
    let fingerprint_tag = format!("web.in-{}", own("a", "a"));
    let (mine, inputs) = (own("a", "a").to_string(), fingerprint("a").to_string());
    let cases: &[(&[(&str, &str)], Option<&str>, &str)] = &[
        (&[], None, "build"),
        (&[(&fingerprint_tag, "2")], None, "reuse"),
        (&[(&fingerprint_tag, "2"), (&commit_tag, "2")], None, "present"),
        (&[(&fingerprint_tag, "2"), (&commit_tag, "3")], None, "conflict"),
        (&[(&commit_tag, "3")], None, "conflict"),
        (&[(&commit_tag, "3")], Some("ffff"), "conflict"),
        (&[(&commit_tag, "3")], Some(&mine), "present"),
        // The same inputs with other arguments.
        (&[(&commit_tag, "3")], Some(&inputs), "build"),
        (&[(&fingerprint_tag, "2"), (&commit_tag, "3")], Some(&inputs), "present"),
    ];
    for (tags, says, expected) in cases {
        let mut facts = facts(vec![app("a", "a", &[])]);
        for (tag, digit) in *tags {
            facts.existing.tags.insert((repository.clone(), (*tag).to_owned()), digest(digit));
        }
        if let Some(says) = says {
            facts.existing.fingerprints.insert((repository.clone(), digest("3")), [(*says).to_owned()].into());
        }
        let plan = plan(facts, options()).unwrap();
        assert_eq!(plan.apps[&name("a")].images[0].action.word(), *expected, "{tags:?} {says:?}");
        assert_eq!(plan.builds.len(), usize::from(*expected == "build"), "{tags:?}");
        let beside = says.is_some_and(|says| says == inputs);
        assert_eq!(plan.apps[&name("a")].images[0].tag, if beside { &fingerprint_tag } else { &commit_tag }.as_str(), "{tags:?}");
    }
}

#[test]
fn an_order_that_cannot_be_kept_is_a_configuration_error() {
    let error = plan(facts(vec![app("a", "a", &["b"]), app("b", "b", &["a"])]), options()).unwrap_err();
    assert_eq!((error.kind.exit_code(), error.message.as_str()), (2, "the apps `a`, `b` come `after` each other in a circle"));
}

#[test]
fn a_registry_cache_is_read_from_the_moving_tag_and_written_inline() {
    let mut facts = facts(vec![app("a", "a", &[])]);
    facts.racks[0].registry_cache = true;
    let plan = plan(facts, options()).unwrap();
    assert!(plan.builds[0].build.inline_cache);
    assert_eq!(plan.builds[0].build.cache_from[0].to_string(), "r.example/a:web.latest");
}

/// A target whose images are in the registry, with the manifest this run would stage.
fn staged() -> (Facts, adopt::Candidate) {
    let mut facts = facts(vec![app("a", "a", &[])]);
    let repository = Repository::parse("r.example/a").unwrap();
    for tag in [format!("web.{}", "1".repeat(40)), format!("web.in-{}", own("a", "a"))] {
        facts.existing.tags.insert((repository.clone(), tag), digest("2"));
    }
    let image = format!("{repository}@{}", digest("2"));
    let manifest = facts.apps[0].manifest.rewrite(&BTreeMap::from([(ServiceName::new("web").unwrap(), image)])).unwrap();
    let found = adopt::Found {
        build: BuildId::new("BABC").unwrap(),
        commit: Some(CommitId::new("1".repeat(40)).unwrap()),
        fingerprint: Some(fingerprint("a")),
        manifest,
    };
    let candidate = adopt::Candidate {
        from: RunId::new("r0").unwrap(),
        build: found.build.clone(),
        release: ReleaseId::new("RNEW").unwrap(),
        before: None,
        found: Some(found),
        newest: true,
        outdated: false,
        done: BTreeSet::from([Stage::BeforeRelease]),
        cut_short: BTreeSet::new(),
        stuck: BTreeSet::new(),
        required: false,
    };
    (facts, candidate)
}

/// What is live, by its release.
fn live(release: &str) -> Option<PlannedLive> {
    let release = ReleaseId::new(release).unwrap();
    Some(PlannedLive { release, commit: None, fingerprint: None, manifest: String::new(), running: true })
}

#[test]
fn a_release_is_taken_over_when_it_is_exactly_what_would_be_staged() {
    type Change = fn(&mut Facts, &mut adopt::Candidate);
    let cases: &[(&str, Change, Option<&str>)] = &[
        ("nothing changed", |_, _| {}, None),
        ("it is live already", |facts, _| facts.targets[0].live = live("RNEW"), None),
        ("its image has to be tagged only", |facts, _| facts.existing.tags.retain(|(_, tag), _| tag.starts_with("web.in-")), None),
        ("the rack lost it", |_, candidate| candidate.found = None, Some("does not have it any more")),
        ("another commit", |_, candidate| candidate.found.as_mut().unwrap().commit = None, Some("of another commit")),
        ("other inputs", |_, candidate| candidate.found.as_mut().unwrap().fingerprint = Some(fingerprint("b")), Some("other inputs")),
        ("another manifest", |_, candidate| candidate.found.as_mut().unwrap().manifest.push('\n'), Some("another manifest")),
        ("its image is gone", |facts, _| facts.existing.tags.clear(), Some("not in the registry any more")),
        ("somebody released", |facts, _| facts.targets[0].live = live("ROTHER"), Some("ROTHER is active now")),
        ("somebody made a release", |_, candidate| candidate.newest = false, Some("a release was made after it")),
        ("its run went over what was made after it", |_, candidate| (candidate.newest, candidate.outdated) = (false, true), None),
    ];
    for (case, change, why) in cases {
        for required in [false, true] {
            let (mut facts, mut candidate) = staged();
            candidate.required = required;
            change(&mut facts, &mut candidate);
            facts.targets[0].staged = Some(candidate);
            let plan = plan(facts, options()).unwrap();
            let target = plan.targets().next().unwrap();
            let told = target.reasons.join("\n");
            match why {
                None => {
                    assert!(matches!(&target.origin, Origin::Adopt(adopted) if adopted.done.len() == 1), "{case}: {told}");
                    assert!(told.contains("release RNEW of run r0 is taken over, not staged again"), "{case}: {told}");
                }
                Some(why) => {
                    assert_eq!(target.origin, Origin::Stage, "{case}");
                    assert!(told.contains(why), "{case}: {told}");
                    let refused = matches!(&target.decision, Decision::Failed { message, .. } if message.contains(why));
                    assert_eq!(refused, required, "{case}");
                    assert_eq!(plan.apps.is_empty(), required, "{case}: what is not released needs no images");
                }
            }
        }
    }
}
