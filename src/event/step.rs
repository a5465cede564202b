//! Where in a run something happens: a stage, of an app, on a rack.

use crate::names::{AppName, RackName, ServiceName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The stages an app or target goes through, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// `deploy/before_build.sh`.
    BeforeBuild,
    /// The image is built on the engine.
    Build,
    /// `deploy/after_build.sh`.
    AfterBuild,
    /// The image goes to its repository and its digest is read back.
    Push,
    /// An image that is in the registry already gets this commit's tag.
    Retag,
    /// A release is created on the rack without making it live.
    Stage,
    /// `deploy/before_release.sh`.
    BeforeRelease,
    /// The release is made live and awaited.
    Promote,
    /// `deploy/after_release.sh`.
    AfterRelease,
    /// `deploy/on_failure.sh`.
    OnFailure,
    /// What was live before comes back, with the group of an app that failed.
    GoBack,
    /// A copy of what is live is put on top of a release that was left behind.
    Heal,
}

impl Stage {
    /// True for the stages that run the user's own commands.
    #[must_use]
    pub fn is_hook(self) -> bool {
        matches!(self, Self::BeforeBuild | Self::AfterBuild | Self::BeforeRelease | Self::AfterRelease | Self::OnFailure)
    }

    /// The stage's name for people, as the events spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeBuild => "before_build",
            Self::Build => "build",
            Self::AfterBuild => "after_build",
            Self::Push => "push",
            Self::Retag => "retag",
            Self::Stage => "stage",
            Self::BeforeRelease => "before_release",
            Self::Promote => "promote",
            Self::AfterRelease => "after_release",
            Self::OnFailure => "on_failure",
            Self::GoBack => "go_back",
            Self::Heal => "heal",
        }
    }
}

/// Which step: a stage of an app, on a rack from [`Stage::Stage`] on, of one service for builds and pushes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The app.
    pub app: AppName,
    /// The rack, for the stages of a lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<RackName>,
    /// The service, for builds and pushes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The stage.
    pub stage: Stage,
}

impl Step {
    /// `app`, `app@rack`, `app/service`: who the step is for.
    #[must_use]
    pub fn subject(&self) -> String {
        let mut text = self.app.to_string();
        if let Some(service) = &self.service {
            text = format!("{text}/{service}");
        }
        if let Some(rack) = &self.rack {
            text = format!("{text}@{rack}");
        }
        text
    }
}
