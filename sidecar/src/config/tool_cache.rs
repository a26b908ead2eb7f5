//! The tool cache: where actions such as `setup-node` keep what they install, from job to job.

use serde::{Deserialize, Serialize};

use schemars::JsonSchema;

use super::{
    Container, Runner,
    document::{Document, child},
};
use edgerunner_scheduler::plan::Scope;

/// The variables in which GitHub's runner looks for the directory.
const VARIABLES: [&str; 3] = [TOOL_CACHE_VARIABLE, "RUNNER_TOOLSDIRECTORY", "AGENT_TOOLSDIRECTORY"];
pub(crate) const TOOL_CACHE_VARIABLE: &str = "RUNNER_TOOL_CACHE";

/// Whose jobs use a tool cache one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ToolCache {
    None,
    Repository,
    Pool,
}

impl Document {
    pub(super) fn check_tool_cache(&mut self, pool: &str, runner: &Runner, container: &Container) {
        if container.tool_cache == ToolCache::None {
            return;
        }
        if container.tool_cache == ToolCache::Repository && runner.scope != Scope::Repository {
            let problem = "the repository of such a runner is not known when it is launched: write \
                           scope = \"repository\"; or \"pool\", if all repositories of this pool \
                           may share what jobs install; or \"none\"";
            self.error(&format!("{pool}/tool_cache"), problem);
        }
        for name in VARIABLES.into_iter().filter(|name| container.env.contains_key(*name)) {
            let problem = "tool_cache sets this directory as well: remove one of the two";
            self.error(&child(&format!("{pool}/env"), name), problem);
        }
    }
}
