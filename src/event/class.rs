//! Why something failed, as reports and scripts tell failures apart.

use serde::{Deserialize, Serialize};

/// Why a step or target failed: a closed list, so that reports and scripts can tell failures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// A hook ended with a code that is not 0.
    Hook,
    /// A hook ran out of time.
    HookTimeout,
    /// The image build failed.
    Build,
    /// The image build ran out of time.
    BuildTimeout,
    /// The push failed.
    Push,
    /// The push ran out of time.
    PushTimeout,
    /// The tag exists with other content.
    TagConflict,
    /// The registry could not be used.
    Registry,
    /// The engine could not be used.
    Engine,
    /// The rack refused the login.
    RackLogin,
    /// The rack could not be reached.
    RackUnreachable,
    /// The rack refused or failed a call.
    Rack,
    /// The rack's own build failed.
    RackBuild,
    /// The rack's own build ran out of time.
    RackBuildTimeout,
    /// The promote was refused.
    Promote,
    /// The promote ran out of time; what is live was read and is said.
    PromoteTimeout,
    /// Another release overtook this one.
    Overtaken,
    /// A guard refused right before the promote.
    Guard,
    /// The whole run ran out of time.
    RunTimeout,
}

impl FailureClass {
    /// The class as events spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::HookTimeout => "hook-timeout",
            Self::Build => "build",
            Self::BuildTimeout => "build-timeout",
            Self::Push => "push",
            Self::PushTimeout => "push-timeout",
            Self::TagConflict => "tag-conflict",
            Self::Registry => "registry",
            Self::Engine => "engine",
            Self::RackLogin => "rack-login",
            Self::RackUnreachable => "rack-unreachable",
            Self::Rack => "rack",
            Self::RackBuild => "rack-build",
            Self::RackBuildTimeout => "rack-build-timeout",
            Self::Promote => "promote",
            Self::PromoteTimeout => "promote-timeout",
            Self::Overtaken => "overtaken",
            Self::Guard => "guard",
            Self::RunTimeout => "run-timeout",
        }
    }
}
