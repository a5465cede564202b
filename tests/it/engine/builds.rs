//! What a build gets: arguments, files, secrets, the ssh agent.

use super::*;

#[tokio::test]
async fn a_build_gets_its_arguments_target_labels_secret_and_only_the_files_it_reads() {
    let bench = Bench::with(vec![("TOKEN".to_owned(), "s3cret-value".to_owned())], Logins::default());
    let dockerfile = "FROM BASE AS one\nARG WHO\nCOPY link/a*.txt /in/\n\
        RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = s3cret-value && echo hello $WHO\nFROM one\nRUN false";
    let mut plan = bench.plan(dockerfile);
    plan.target = Some("one".to_owned());
    plan.args.insert("WHO".to_owned(), "world".to_owned());
    plan.secrets.insert("token".to_owned(), SecretSource::Env("TOKEN".to_owned()));
    bench.write("sub/deep/a1.txt", "1");
    bench.write("sub/deep/a2.txt", "2");
    bench.write("sub/deep/b.txt", "3");
    std::os::unix::fs::symlink("sub/deep", bench.dir.path().join("link")).unwrap();
    // A file that cannot travel, where nobody reads.
    std::fs::create_dir(bench.dir.path().join("other")).unwrap();
    std::fs::write(bench.dir.path().join("other").join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();

    let mut told = Told::new();
    let id = bench.build(&plan, &told).await.unwrap();
    assert_eq!(bench.run(&id, "cd /in && echo *"), "a1.txt a2.txt");
    let label = "{{index .Config.Labels \"org.opencontainers.image.revision\"}}";
    assert_eq!(sh(Command::new("docker").args(["image", "inspect", "-f", label, id.as_str()])), "0123");
    assert_eq!(bench.docker.image_id(id.as_str()).await.unwrap(), Some(id.clone()));
    let lines = told.lines();
    assert!(lines.iter().any(|line| line == "log Out hello world"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("step cached=false done=true [one 3/3] RUN")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("s3cret-value") && !line.contains("RUN")), "{lines:#?}");

    let again = bench.build(&plan, &told).await.unwrap();
    assert_eq!(again, id);
    let lines = told.lines();
    assert!(lines.iter().any(|line| line.starts_with("step cached=true done=true [one 3/3] RUN")), "{lines:#?}");
}

#[tokio::test]
async fn dockerignore_has_dockers_semantics_and_the_dockerfiles_own_wins() {
    let bench = Bench::new();
    for path in ["a.log", "keep.log", "d/a.log", "d/tmp/x", "e/in/only", "e/out"] {
        bench.write(path, "");
    }
    let list = "cd /src; for f in * */* */*/*; do test -f $f && echo $f; done; true";
    bench.write(".dockerignore", "*.log\n!keep.log\n**/tmp\ne\n!e/in\n");
    let plan = bench.plan("FROM BASE\nCOPY . /src");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, list), "Dockerfile\nkeep.log\nd/a.log\ne/in/only");
    bench.write("Dockerfile.dockerignore", "*\n!d\n");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, list), "d/a.log\nd/tmp/x");
}

#[tokio::test]
async fn a_dockerfile_may_lie_outside_of_the_context() {
    let bench = Bench::new();
    bench.write("app/file", "x");
    let mut plan = bench.plan("FROM BASE\nCOPY . /src");
    plan.context = bench.dir.path().join("app");
    let id = bench.build(&plan, &Told::new()).await.unwrap();
    assert_eq!(bench.run(&id, "cd /src && echo *"), "file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_builds_at_once_of_thousands_of_files() {
    let bench = Bench::new();
    for number in 0..4000 {
        bench.write(&format!("files/d{}/f{number}", number % 40), &format!("content {number}"));
    }
    let plans: Vec<ImageBuild> = (0..8)
        .map(|number| {
            let plan = bench.plan("FROM BASE\nARG N\nCOPY files /files\nRUN set -- /files/*/*; echo $# of $N");
            ImageBuild { args: BTreeMap::from([("N".to_owned(), number.to_string())]), ..plan }
        })
        .collect();
    let mut told: Vec<Told> = plans.iter().map(|_| Told::new()).collect();
    let results = futures_util::future::join_all(plans.iter().zip(&told).map(|(plan, told)| bench.build(plan, told))).await;
    for (number, result) in results.into_iter().enumerate() {
        result.unwrap();
        let lines = told[number].lines();
        assert!(lines.iter().any(|line| *line == format!("log Out 4000 of {number}")), "{lines:#?}");
    }
}

#[tokio::test]
async fn the_ssh_agent_answers_inside_a_build() {
    let bench = Bench::new();
    let socket = bench.dir.path().join("agent.sock");
    let mut agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(std::process::Stdio::null()).spawn().unwrap();
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    // The only program at hand that speaks to an agent, with the libraries it wants.
    for file in sh(Command::new("sh").args(["-c", "ldd /usr/bin/ssh-add | grep -o '/[^ ]*'; echo /usr/bin/ssh-add"])).lines() {
        let copy = bench.dir.path().join("root").join(file.trim_start_matches('/'));
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
    let mut plan = bench.plan("FROM BASE\nCOPY root /\nRUN --mount=type=ssh ssh-add -l || true");
    plan.ssh.insert("default".to_owned(), SshSource::Socket(socket));
    let mut told = Told::new();
    let built = bench.build(&plan, &told).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let lines = told.lines();
    built.unwrap();
    assert!(lines.iter().any(|line| line == "log Out The agent has no identities."), "{lines:#?}");
}
