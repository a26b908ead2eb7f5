//! Ids of runner groups: users name groups, GitHub's API takes ids.

use serde::Deserialize;

use super::{Error, ErrorKind, GitHub, path};
use edgerunner_scheduler::model::Target;

/// Existing groups that an error lists, so that it fits on a line.
const LISTED_MAX: usize = 10;

impl GitHub {
    /// Cached until GitHub refuses it.
    pub(crate) async fn group_id(&self, target: &Target, name: &str) -> Result<u64, Error> {
        let key = (target.clone(), name.to_owned());
        let call = Box::pin(self.look_up_group(target, name));
        self.group_ids.get(&key, |_| true, call).await
    }

    /// Called after GitHub refused its id: the group may be gone, and another may have its name.
    pub(super) fn forget_group(&self, target: &Target, name: &str) {
        self.group_ids.remove_if(|(at, group), _| at == target && group == name);
    }

    async fn look_up_group(&self, target: &Target, name: &str) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Reply {
            runner_groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Group {
            id: u64,
            name: String,
        }
        let call = format!("looking up runner group {name} of {target}");
        let path = format!("{}/runner-groups?per_page=100", path::actions(target));
        let pages: Vec<Reply> = self.pages(&call, path, target).await?;
        let groups: Vec<Group> = pages.into_iter().flat_map(|page| page.runner_groups).collect();
        if let Some(group) = groups.iter().find(|group| group.name == name) {
            return Ok(group.id);
        }
        let listed: Vec<&str> =
            groups.iter().take(LISTED_MAX).map(|group| group.name.as_str()).collect();
        let problem =
            format!("no such group: create it, or use one of these: {}", listed.join(", "));
        // Not `NotFound`: the target is there.
        Err(Error::new(ErrorKind::Invalid, &call, problem))
    }
}
