//! The real engine. A test's images carry a name of its own and are removed with it.

use super::{sh, unique};
use std::path::PathBuf;
use std::process::Command;

/// A base image on the engine, and everything the test named after it.
pub struct Base {
    /// Its name: what a Dockerfile says after `FROM`.
    pub name: String,
    /// Registries whose images are the test's.
    hosts: Vec<String>,
}

impl Base {
    /// Imports a static busybox as a base image.
    pub fn import() -> Self {
        let name = format!("offbuild-{}", unique());
        let tree = tempfile::tempdir().unwrap();
        let bin = tree.path().join("bin");
        std::fs::create_dir_all(tree.path().join("tmp")).unwrap();
        std::fs::create_dir_all(&bin).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| std::path::Path::new(path).exists());
        std::fs::copy(busybox.expect("busybox-static is installed (tests/run.sh does it)"), bin.join("busybox")).unwrap();
        for applet in ["sh", "cat", "echo", "ls", "sleep", "cp", "mkdir", "touch", "true", "false", "head", "od", "dd", "test", "sha256sum"]
        {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
        }
        let mut tar = Command::new("sh");
        tar.arg("-c").arg(format!("tar -C '{}' -c . | docker import -c 'CMD [\"/bin/sh\"]' - {name}:latest", tree.path().display()));
        sh(&mut tar);
        Self { name, hosts: Vec::new() }
    }

    /// Counts a registry's images as the test's.
    pub fn and_images_of(mut self, host: &str) -> Self {
        self.hosts.push(host.to_owned());
        self
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        for host in &self.hosts {
            remove(&format!("{host}/*"));
            remove(&format!("{host}/*/*"));
        }
        remove(&self.name);
    }
}

/// Removes the images of a reference pattern. What is left by a failed removal is only space.
pub fn remove(pattern: &str) {
    let list = Command::new("docker")
        .args(["image", "ls", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", "--filter"])
        .arg(format!("reference={pattern}"))
        .output();
    let Ok(list) = list else { return };
    for image in String::from_utf8_lossy(&list.stdout).lines() {
        let name = match image.split(' ').collect::<Vec<_>>()[..] {
            // What was pulled by its digest has no other name.
            [repository, "<none>", digest] => format!("{repository}@{digest}"),
            [repository, tag, _] => format!("{repository}:{tag}"),
            _ => continue,
        };
        let _ = Command::new("docker").args(["image", "rm", "-f", &name]).output();
    }
}

/// How many images the engine has of a reference pattern.
pub fn images(pattern: &str) -> usize {
    sh(Command::new("docker").args(["image", "ls", "-q", "--filter"]).arg(format!("reference={pattern}"))).lines().count()
}

/// The socket of the engine that the tests use.
pub fn socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    host.strip_prefix("unix://").expect("the tests' engine listens on a socket").into()
}
