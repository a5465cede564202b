//! `--fetch`: gets the commits that a shallow clone lacks.

use super::read::Judgement;
use super::world::World;
use crate::changes::verdict::Reason;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Runs the fetch commands that would bring missing bases; true when there was one.
pub(super) fn fetch(world: &World, judgement: &Judgement) -> Result<bool> {
    let mut commands = BTreeSet::new();
    for reason in judgement.targets.iter().flat_map(|judged| &judged.decision.reasons) {
        if let Reason::BaseUnreachable { fetch: Some(fetch), .. } = reason {
            commands.insert(fetch.clone());
        }
    }
    for command in &commands {
        let Some((program, args)) = command.0.split_first() else { continue };
        super::tell(format!("$ {command}"));
        let unusable = |error: std::io::Error| Error::unusable(format!("`{command}` cannot be run")).because(error);
        let mut child = Command::new(program)
            .args(args)
            .current_dir(world.history.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(unusable)?;
        // What git says may hold the login of a remote's URL.
        for line in child.stderr.take().into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n')).map_while(|line| line.ok()) {
            super::tell(String::from_utf8_lossy(&line));
        }
        let status = child.wait().map_err(unusable)?;
        if !status.success() {
            return Err(Error::unusable(format!("`{command}` failed ({status})")).hint("run it by hand to see why, then deploy again"));
        }
    }
    Ok(!commands.is_empty())
}
