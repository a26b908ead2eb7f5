//! Repositories that were renamed, transferred, archived, hidden, blocked or deleted.

use jiff::Timestamp;

use super::State;
use crate::job::{Conclusion, JobStatus};
use crate::repository::{Access, NameTaken, Repository, Visibility};
use crate::scope::{RepositoryName, Scope};

impl State {
    /// The repository that has this name. Every name exists.
    pub(crate) fn repository(&self, name: &RepositoryName) -> Repository {
        let known = self.repositories.iter().find(|repository| repository.name == *name);
        known.cloned().unwrap_or_else(|| Repository::new(name.clone()))
    }

    /// The repository that had this name before it was renamed or transferred.
    pub(crate) fn moved_repository(&self, name: &RepositoryName) -> Option<&Repository> {
        if self.repositories.iter().any(|repository| repository.name == *name) {
            return None;
        }
        self.repositories.iter().rev().find(|repository| repository.former_names.contains(name))
    }

    /// The present name of the repository that has or had this name.
    pub(crate) fn current_name(&self, name: &RepositoryName) -> RepositoryName {
        self.moved_repository(name).map_or_else(|| name.clone(), |moved| moved.name.clone())
    }

    /// The name of the repository with this id, if a request or a job has named it.
    pub(crate) fn repository_name(&self, id: u64) -> Option<RepositoryName> {
        if let Some(known) = self.repositories.iter().find(|repository| repository.id == id) {
            return Some(known.name.clone());
        }
        let of_jobs = self.jobs.values().map(|job| &job.repository);
        let of_runners = self.runners.values().filter_map(|runner| match &runner.scope {
            Scope::Repository(name) => Some(name),
            Scope::Organization(_) | Scope::Enterprise(_) => None,
        });
        of_jobs.chain(of_runners).find(|name| self.repository(name).id == id).cloned()
    }

    /// Renames or transfers the repository. Its runners and jobs keep their ids.
    pub(crate) fn rename_repository(
        &mut self,
        name: &RepositoryName,
        new: RepositoryName,
    ) -> Result<(), NameTaken> {
        let old = self.current_name(name);
        let taken = old != new
            && (self.repositories.iter().any(|repository| repository.name == new)
                || self.jobs.values().any(|job| job.repository == new));
        if taken {
            return Err(NameTaken(new));
        }
        let repository = self.repository_mut(&old);
        repository.former_names.retain(|former| *former != new);
        repository.former_names.push(old.clone());
        repository.name = new.clone();
        for job in self.jobs.values_mut().filter(|job| job.repository == old) {
            job.repository = new.clone();
        }
        let old_scope = Scope::Repository(old.clone());
        let of_runners = self.runners.values_mut().map(|runner| &mut runner.scope);
        let of_tokens = self.registration_tokens.iter_mut().map(|token| &mut token.scope);
        for scope in of_runners.chain(of_tokens).filter(|scope| **scope == old_scope) {
            *scope = Scope::Repository(new.clone());
        }
        for delivery in self.deliveries.iter_mut().filter(|delivery| delivery.repository == old) {
            delivery.repository = new.clone();
        }
        Ok(())
    }

    pub(crate) fn set_access(&mut self, name: &RepositoryName, access: Access) {
        let name = self.current_name(name);
        self.repository_mut(&name).access = access;
        if access == Access::Deleted {
            let scope = Scope::Repository(name.clone());
            self.runners.retain(|_, runner| runner.scope != scope);
            let unfinished = self
                .jobs
                .values_mut()
                .filter(|job| job.repository == name && job.status != JobStatus::Completed);
            for job in unfinished {
                job.status = JobStatus::Completed;
                job.conclusion = Some(Conclusion::Cancelled);
                job.completed_at = Some(Timestamp::now());
            }
        }
    }

    pub(crate) fn set_visibility(&mut self, name: &RepositoryName, visibility: Visibility) {
        let name = self.current_name(name);
        self.repository_mut(&name).visibility = visibility;
    }

    fn repository_mut(&mut self, name: &RepositoryName) -> &mut Repository {
        let known = self.repositories.iter().position(|repository| repository.name == *name);
        let index = known.unwrap_or_else(|| {
            self.repositories.push(Repository::new(name.clone()));
            self.repositories.len() - 1
        });
        &mut self.repositories[index]
    }
}
