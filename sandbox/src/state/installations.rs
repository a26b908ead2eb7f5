//! Who has the GitHub App installed.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::State;
use crate::installation::{Installation, InstallationStatus};
use crate::payload::id_of;

impl State {
    /// The App is installed for every owner, until this is changed.
    pub(crate) fn installation(&self, owner: &str) -> Installation {
        self.installations.get(&owner.to_lowercase()).copied().unwrap_or_default()
    }

    pub(crate) fn installation_id(&self, owner: &str) -> u64 {
        match self.installation(owner).removals {
            0 => id_of(&format!("installation of {owner}")),
            removals => id_of(&format!("installation of {owner} after {removals}")),
        }
    }

    /// The owner of the installation with this id.
    pub(crate) fn installation_owner(&self, id: u64) -> Option<String> {
        self.known_owners().into_iter().find(|owner| self.installation_id(owner) == id)
    }

    /// The owners that have an installation. Any owner may exist, so these are the ones named
    /// by a request, a job or the settings.
    pub(crate) fn known_owners(&self) -> BTreeSet<String> {
        let of_jobs = self.jobs.values().map(|job| job.repository.owner.to_lowercase());
        let configured = self.settings.owners.iter().map(|owner| owner.to_lowercase());
        let mut owners: BTreeSet<String> =
            self.owners.iter().cloned().chain(of_jobs).chain(configured).collect();
        owners.retain(|owner| self.installation(owner).status != InstallationStatus::Uninstalled);
        owners
    }

    pub(crate) fn add_owner(&mut self, owner: &str) {
        self.owners.insert(owner.to_lowercase());
    }

    pub(crate) fn set_installation(&mut self, owner: &str, status: InstallationStatus) {
        let id = self.installation_id(owner);
        let installation = self.installations.entry(owner.to_lowercase()).or_default();
        if status == InstallationStatus::Uninstalled
            && installation.status != InstallationStatus::Uninstalled
        {
            installation.removals += 1;
            self.installation_tokens.retain(|_, token| token.installation != id);
        }
        installation.status = status;
        installation.suspended_at = (status == InstallationStatus::Suspended).then(Timestamp::now);
    }
}
