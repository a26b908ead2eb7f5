//! Ids of runner groups that are known by name: GitHub's calls take no names.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt as _;
use serde::Deserialize;

use super::{
    actions_path,
    client::Client,
    error::{Cause, Error},
};
use crate::singleflight::Flights;
use edgerunner_scheduler::model::Target;

/// Of those there are, as many are told as fit on a line.
const TOLD_MAX: usize = 10;

type Key = (Target, String);

pub(super) struct Groups {
    kept: Mutex<HashMap<Key, u64>>,
    look_ups: Flights<Key, Result<u64, Error>>,
}

#[derive(Deserialize)]
struct Page {
    runner_groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    id: u64,
    name: String,
}

impl Groups {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), look_ups: Flights::new() }
    }

    /// The kept one, or else the one that GitHub lists.
    pub(super) async fn id(
        self: &Arc<Self>,
        client: &Client,
        target: &Target,
        name: &str,
    ) -> Result<u64, Error> {
        let key = (target.clone(), name.to_owned());
        if let Some(id) = self.kept().get(&key) {
            return Ok(*id);
        }
        let start = || {
            let (this, client, key) = (Arc::clone(self), client.clone(), key.clone());
            let look_up = async move {
                let id = look_up(&client, &key.0, &key.1).await?;
                this.kept().insert(key, id);
                Ok(id)
            };
            look_up.boxed()
        };
        self.look_ups.join(key.clone(), start).await
    }

    /// GitHub refuses it: it may be gone, and another may bear its name.
    pub(super) fn forget(&self, target: &Target, name: &str) {
        self.kept().remove(&(target.clone(), name.to_owned()));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(client: &Client, target: &Target, name: &str) -> Result<u64, Error> {
    let call = format!("runner group {name} of {target}");
    let path = format!("{}/runner-groups?per_page=100", actions_path(target));
    let pages: Vec<Page> = client.pages(&call, path, target).await?;
    let groups: Vec<Group> = pages.into_iter().flat_map(|page| page.runner_groups).collect();
    if let Some(group) = groups.iter().find(|group| group.name == name) {
        return Ok(group.id);
    }
    let told: Vec<&str> = groups.iter().take(TOLD_MAX).map(|group| group.name.as_str()).collect();
    let what = format!(
        "there is no group of this name: create it, or write one that is there: {}",
        told.join(", ")
    );
    Err(Error::new(Cause::NotFound, &call, what))
}
