//! Builds that fail, are refused, or have something to tell.

use super::*;

#[tokio::test]
async fn a_file_that_cannot_travel_is_named() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\nCOPY . /src");
    std::fs::write(bench.dir.path().join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Failed { message, .. } if message.contains("is no UTF-8")), "{error:?}");
}

#[tokio::test]
async fn a_failing_step_has_its_line_and_its_log() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\n\nRUN echo first >&2 && \\\n  echo oops >&2 && exit 7\nRUN true");
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    let BuildError::Failed { message, log } = error else { panic!("{error:?}") };
    assert!(message.contains("exit code: 7") && message.contains("\n --> Dockerfile:3\n"), "{message}");
    assert!(message.contains("\n > 4 |   echo oops >&2 && exit 7"), "{message}");
    assert_eq!(log, ["first", "oops"]);
}

#[tokio::test]
async fn a_failing_script_has_its_lines() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\nRUN true\nRUN <<A\necho first >&2\nexit 7\nA\nRUN true");
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    let BuildError::Failed { message, log } = error else { panic!("{error:?}") };
    if bench.major().await < 23 {
        // Its frontend takes the script's lines for instructions.
        assert!(message.contains("unknown instruction: ECHO"), "{message}");
        return;
    }
    assert!(message.contains("exit code: 7") && message.contains("\n --> Dockerfile:3\n"), "{message}");
    assert!(message.contains("\n > 5 | exit 7") && log == ["first"], "{message} {log:?}");
}

#[tokio::test]
async fn a_syntax_error_has_its_line() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE\nRUNN true");
    let error = bench.build(&plan, &Told::new()).await.unwrap_err().to_string();
    assert!(error.contains("unknown instruction: RUNN") && error.contains(" > 2 | RUNN true"), "{error}");
}

#[tokio::test]
async fn a_secret_nobody_provides_stops_the_build_before_it_starts() {
    let bench = Bench::new();
    let mut told = Told::new();
    let plan = bench.plan("FROM BASE\nRUN --mount=type=secret,id=token true");
    let error = bench.build(&plan, &told).await.unwrap_err();
    assert!(matches!(&error, BuildError::Missing { message, .. } if message.contains("secret `token`")), "{error:?}");
    assert!(told.lines().is_empty());
}

#[tokio::test]
async fn what_buildkit_keeps_to_itself_is_told() {
    let bench = Bench::new();
    let mut plan = bench.plan("FROM BASE\nRUN head -c 4000000 /dev/zero | od -v");
    let nobody = Port::hold();
    plan.cache_from.push(ImageRef::parse(&format!("{}/cache:x", nobody.host())).unwrap());
    plan.inline_cache = true;
    plan.no_cache = true;
    let mut told = Told::new();
    bench.build(&plan, &told).await.unwrap();
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.starts_with("notice the build goes on without the cache at `127.0.0.1:")), "no cache notice");
    assert!(lines.iter().any(|line| line.starts_with("notice BuildKit clipped the log of")), "no clip notice");
}

#[tokio::test]
async fn keys_the_engine_does_not_know_are_refused_and_others_work() {
    let bench = Bench::new();
    bench.write("extra/file", "x");
    let context = NamedContext::Directory(bench.dir.path().join("extra"));
    let named = ImageBuild {
        contexts: BTreeMap::from([("extra".to_owned(), context)]),
        ..bench.plan("FROM BASE\nCOPY --from=extra file /file\nRUN --mount=type=bind,from=extra,target=/m cat /m/file")
    };
    let shm = ImageBuild { shm_size: Some(8 << 20), ..bench.plan("FROM BASE") };
    let new = bench.major().await >= 23;
    for (key, plan) in [("additional_contexts", named), ("shm_size", shm)] {
        let text = std::fs::read_to_string(&plan.dockerfile).unwrap();
        let built = bench.build(&plan, &Told::new()).await;
        match built {
            Ok(_) => assert!(new, "{key} was ignored with {text}"),
            Err(error) => assert!(!new && error.to_string().starts_with(&format!("`build: {key}:` cannot be honoured")), "{error}"),
        }
    }
    let hosts = BTreeMap::from([("db.example".to_owned(), "10.1.2.3".to_owned())]);
    let plan = bench.plan("FROM BASE\nRUN --network=none true\nRUN cat /etc/hosts");
    let plan = ImageBuild { extra_hosts: hosts, network: Some("none".to_owned()), ..plan };
    std::fs::write(&plan.dockerfile, format!("FROM {}\nRUN cat /etc/hosts", bench.base.name)).unwrap();
    let mut told = Told::new();
    bench.build(&plan, &told).await.unwrap();
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.contains("10.1.2.3") && line.contains("db.example")), "{lines:#?}");
}

#[tokio::test]
async fn a_missing_directory_is_found_before_the_build() {
    let bench = Bench::new();
    let plan = ImageBuild { context: Path::new("/nowhere/at/all").to_owned(), ..bench.plan("FROM BASE") };
    let error = bench.build(&plan, &Told::new()).await.unwrap_err();
    assert!(matches!(&error, BuildError::Missing { message, .. } if message.contains("the build context")), "{error:?}");
}

#[tokio::test]
async fn what_buildkit_warns_of_is_told_with_its_line() {
    let bench = Bench::new();
    let plan = bench.plan("FROM BASE as one\nENV DIR /x\nARG API_TOKEN\nFROM one\nRUN true\nCMD true");
    // Of a build from the cache too.
    for _ in 0..2 {
        let mut told = Told::new();
        bench.build(&plan, &told).await.unwrap();
        let lines = told.lines();
        for (line, rule) in [(1, "FromAsCasing"), (2, "LegacyKeyValueFormat"), (3, "SecretsUsedInArgOrEnv"), (6, "JSONArgsRecommended")] {
            let start = format!("notice Dockerfile:{line}: BuildKit warns: {rule}: ");
            let said = lines.iter().filter(|line| line.starts_with(&start) && line.contains("; see https://")).count();
            assert_eq!(said, usize::from(bench.major().await >= 28), "{rule}: {lines:#?}");
        }
    }
}
