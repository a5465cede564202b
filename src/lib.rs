//! offbuild deploys exactly the changed apps of a monorepo to Convox racks and builds their images off the cluster.
//!
//! Data flows one way: read ([`config`], [`discovery`], [`manifest`], [`changes`], [`rack`] and [`registry`] as readers)
//! → [`plan`] (pure) → act ([`deploy`] through the ports) → [`event`]s → [`journal`] and [`report`]. `run` alone names the
//! adapters. `ARCHITECTURE.md` has the map.

pub mod build;
pub mod changes;
pub mod cli;
pub mod config;
pub mod deploy;
pub mod discovery;
pub mod error;
pub mod event;
pub mod files;
pub mod hooks;
pub mod journal;
pub mod lock;
pub mod manifest;
pub mod names;
pub mod plan;
pub mod rack;
pub mod registry;
pub mod report;
pub mod retry;
pub mod run;
pub mod sandbox;
pub mod secret;
pub mod words;
pub mod yaml;
