//! Two sidecars that share a Postgres database, without Envoy and runners.

use anyhow::Result;
use edgerunner_testkit::postgres::Postgres;
use edgerunner_testkit::{Programs, Sidecar, eventually, ports};
use tempfile::TempDir;

use crate::options::TOKEN;

pub struct Pair {
    pub sidecars: [Sidecar; 2],
    pub postgres: Postgres,
    pub database: String,
    _directories: [TempDir; 2],
}

impl Pair {
    /// Starts both with these variables, and the second one with `others` as well. The first one
    /// plans.
    pub async fn start(variables: &[(&str, &str)], others: &[(&str, &str)]) -> Result<Self> {
        let postgres = Postgres::start()?;
        let database = postgres.database()?;
        let programs = Programs::from_environment()?;
        let directories = [TempDir::new()?, TempDir::new()?];
        let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let store = postgres.url(&database);
        let common = [
            // Nothing listens there.
            ("GITHUB_API_URL", "http://127.0.0.1:9"),
            ("GITHUB_TOKEN", TOKEN),
            ("SCHEDULER_INSTANCE", &*instance),
            ("MISSED_WEBHOOKS_ENABLED", "false"),
            ("STORE_URL", &*store),
            ("LOG_FORMAT", "json"),
        ];
        let environment = |more: &[(&str, &str)]| {
            let variables = common.iter().chain(variables).chain(more);
            variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let sidecar = |directory: &TempDir, more: Vec<(String, String)>| {
            let addresses = (ports::free()?, ports::free()?);
            anyhow::Ok(Sidecar::new(&programs, directory.path(), addresses, more))
        };
        let [first, second] = &directories;
        let sidecars = [sidecar(first, environment(&[]))?, sidecar(second, environment(others))?];
        let mut this = Self { sidecars, postgres, database, _directories: directories };
        this.sidecars[0].start().await?;
        this.planner().await?;
        this.sidecars[1].start().await?;
        Ok(this)
    }

    /// Waits until one of them plans, and returns its index.
    pub async fn planner(&self) -> Result<usize> {
        eventually("one plans", async || {
            for (index, sidecar) in self.sidecars.iter().enumerate() {
                if sidecar.is_running() && Self::does_plan(sidecar).await? {
                    return Ok(Some(index));
                }
            }
            Ok(None)
        })
        .await
    }

    async fn does_plan(sidecar: &Sidecar) -> Result<bool> {
        let metrics = sidecar.metrics().await?;
        Ok(metrics.lines().any(|line| line == "edgerunner_planning 1"))
    }

    /// Gives the lease to a sidecar that does not exist, so that none plans.
    pub fn take_lease_away(&self) -> Result<()> {
        self.lease("holder = 'nobody', term = term + 1, until = now() + interval '1 h'")
    }

    /// Lets a sidecar plan again.
    pub fn free_lease(&self) -> Result<()> {
        self.lease("until = now()")
    }

    fn lease(&self, set: &str) -> Result<()> {
        self.postgres.sql(&self.database, &format!("UPDATE edgerunner.lease SET {set}")).map(drop)
    }
}
