//! `offbuild sandbox`: serves until it is told to stop.

use crate::cli::SandboxArgs;
use crate::config::values::Span;
use crate::error::{Error, Result};
use crate::names::RackName;
use crate::sandbox::fault::{FaultAt, help};
use crate::sandbox::{Options, Pace, RackOptions, RegistryKind, RegistryOptions, Version, serve};
use std::collections::BTreeMap;
use std::time::Duration;

/// Serves, prints what leads to it, and stops with INT or TERM.
pub(super) async fn sandbox(args: &SandboxArgs) -> Result<u8> {
    if args.faults.iter().any(|fault| fault == "help") {
        return super::print(&help());
    }
    let running = serve(options(args)?).await?;
    let mut text = format!("# the sandbox runs; these lead to it\n{}", running.exports());
    text.push_str(&format!("# control: {}/faults\n", running.control));
    for line in running.apps_yaml().lines() {
        text.push_str(&format!("# {line}\n"));
    }
    text.push_str("# ready\n");
    super::tell::print_as_it_is(&text)?;
    let mut signals = super::carry_out::signals()?;
    signals.recv().await;
    running.stop().await;
    Ok(0)
}

fn options(args: &SandboxArgs) -> Result<Options> {
    let mut racks: Vec<RackOptions> = args.racks.iter().map(|text| rack(text)).collect::<Result<_>>()?;
    for text in &args.apps {
        let wrong = || Error::config(format!("`--app {text}` is no app of a rack")).hint("write it as `--app staging/web:2`");
        let (rack, app) = text.split_once('/').ok_or_else(wrong)?;
        let (name, generation) = match app.split_once(':') {
            Some((name, generation)) => (name, generation.parse().map_err(|_| wrong())?),
            None => (app, 2),
        };
        let rack = racks.iter_mut().find(|known| known.name.as_str() == rack).ok_or_else(wrong)?;
        rack.apps.insert(name.to_owned(), generation);
    }
    let faults = args.faults.iter().map(|fault| fault.parse::<FaultAt>().map_err(|error| Error::config(error.to_string())));
    let kind = if args.plain_registry { RegistryKind::Plain { login: None } } else { RegistryKind::Ecr { api_port: 0 } };
    let pace = Pace { build: span("--build", &args.build)?, promote: span("--promote", &args.promote)? };
    Ok(Options {
        state: args.state.clone(),
        racks,
        registry: Some(RegistryOptions { port: args.registry_port, kind }),
        control_port: 0,
        faults: faults.collect::<Result<_>>()?,
        pace,
    })
}

fn span(flag: &str, text: &str) -> Result<Duration> {
    let wrong = || Error::config(format!("`{flag} {text}` is no length of time")).hint("write it as `300ms` or `2s`");
    Span(text.to_owned()).duration().ok_or_else(wrong)
}

fn rack(text: &str) -> Result<RackOptions> {
    let wrong = || Error::config(format!("`--rack {text}` is no rack")).hint("write it as `--rack staging=2` or `--rack staging=2:5442`");
    let (name, version) = text.split_once('=').ok_or_else(wrong)?;
    let (version, port) = match version.split_once(':') {
        Some((version, port)) => (version, port.parse().map_err(|_| wrong())?),
        None => (version, 0),
    };
    let version = match version {
        "2" => Version::V2,
        "3" => Version::V3,
        _ => return Err(wrong()),
    };
    let name = RackName::new(name).map_err(|_| wrong())?;
    Ok(RackOptions { name, version, port, password: None, tokens: Vec::new(), apps: BTreeMap::new() })
}
