//! Tests of the handle. They name no database, so that each of them runs against every
//! backend.

mod cluster;
mod copy;
mod jobs;
mod lost;
mod report;
mod runners;

use tempfile::TempDir;

use super::*;
use crate::config;
use edgerunner_scheduler::model::Visibility;

/// An empty database that a test can open, close and open again.
pub(super) trait Database {
    fn new() -> Self;
    async fn open(&self) -> (Store, Closed);
}

/// A file in a directory that is deleted after the test.
struct Sqlite(TempDir);

impl Database for Sqlite {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> (Store, Closed) {
        Store::open(&self.0.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap()
    }
}

/// A database on the server that all tests share.
pub(super) struct Postgres(config::Database);

impl Database for Postgres {
    fn new() -> Self {
        let server = edgerunner_testkit::Postgres::shared();
        Self::at(&server.url(&server.database().unwrap()))
    }

    async fn open(&self) -> (Store, Closed) {
        Store::connect(&self.0, |_| {}).await.unwrap()
    }
}

impl Postgres {
    pub(super) fn at(url: &str) -> Self {
        let url = url.parse().unwrap();
        Self(config::Database { url, password_file: None, ca: Vec::new() })
    }
}

/// Makes a test of each function, with a new database.
macro_rules! tests {
    ($database:ty; $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[tokio::test]
            async fn $test() {
                $module::$test(&<$database>::new()).await;
            }
        )+)+
    };
}

/// Runs all tests of the handle against a backend.
macro_rules! run_against {
    ($backend:ident, $database:ident) => {
        mod $backend {
            use super::*;

            tests! {
                $database;
                jobs:
                    a_delivery_is_stored_once_and_survives_reopening,
                    a_jobs_state_only_moves_forward_and_known_facts_stay,
                    a_job_whose_repository_was_renamed_is_shown_with_the_new_name,
                    a_job_has_a_start_only_if_a_runner_had_it,
                    jobs_of_the_same_id_on_two_servers_are_two_jobs,
                    an_update_moves_a_job_forward_and_never_back,
                    where_the_code_of_a_job_comes_from_is_kept,
                    a_write_is_carried_out_even_if_its_caller_is_gone,
                    the_reason_why_a_job_waits_is_kept_until_it_moves_forward,
                    stored_deliveries_and_jobs_show_where_to_look_for_more,
                    jobs_are_found_with_what_their_runners_did,
                    jobs_are_filtered_by_state_repository_pool_and_label,
                    the_latest_deliveries_show_whether_they_were_stale;
                lost:
                    a_job_is_lost_once_with_its_runner_in_the_first_attempt;
                report:
                    a_report_groups_what_completed_jobs_used,
                    a_median_and_a_percentile_are_times_that_jobs_waited,
                    jobs_without_times_or_runners_of_ours_are_left_out_and_counted;
                runners:
                    a_later_record_of_a_runner_keeps_what_it_leaves_out,
                    the_peak_of_a_runner_never_falls,
                    changes_are_listed_newest_first_and_pruned_after_400_days,
                    failed_runners_are_kept_for_investigation,
                    the_log_of_an_unknown_runner_is_not_stored,
                    the_times_of_a_webhook_only_move_forward,
                    pruning_deletes_what_is_old_and_over_and_nothing_else,
                    draining_is_kept_until_the_pool_is_resumed,
                    images_are_kept_until_they_are_gone;
            }
        }
    };
}

run_against!(sqlite, Sqlite);
run_against!(postgres, Postgres);

pub(super) fn delivery(id: &str, job: u64, state: JobState) -> Delivery {
    Delivery {
        hook: String::new(),
        hook_id: 1,
        hook_target_type: "repository".into(),
        hook_target_id: 2,
        received_at: 1_000,
        state,
        job: Job {
            key: JobKey::new(job, 1),
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 9,
            from_fork: None,
            labels: match state {
                JobState::Completed => Vec::new(),
                _ => vec!["self-hosted".into()],
            },
            queued_at: 1_000,
            delivery: id.into(),
        },
        details: JobDetails {
            name: "build".into(),
            workflow_name: "CI".into(),
            head_branch: "main".into(),
            html_url: String::new(),
            created_at: None,
        },
        conclusion: String::new(),
        runner_name: String::new(),
    }
}

/// What a delivery of a queued job is stored as.
pub(super) fn queued(delivery: Delivery) -> JobRecord {
    JobRecord {
        job: delivery.job,
        state: JobState::Queued,
        details: delivery.details,
        conclusion: delivery.conclusion,
        runner_name: delivery.runner_name,
        started_at: None,
        completed_at: None,
        waiting: None,
        waiting_message: None,
    }
}

pub(super) async fn deliver(store: &Store, delivery: Delivery) -> Result<StoreOutcome, Error> {
    store.deliver([delivery].into()).await.map(|outcomes| outcomes[0])
}

pub(crate) fn runner(name: &str) -> RunnerRecord {
    RunnerRecord {
        name: name.into(),
        pool: "default".into(),
        provider: String::new(),
        node: None,
        host: Host::default(),
        target: "repo:acme/app".into(),
        phase: "provisioning".into(),
        created_at: 5,
        started_at: None,
        online_at: None,
        credential: None,
        registration_id: None,
        job: None,
        why: None,
        end: None,
        failed: false,
        gone_at: None,
        peak: Peak::default(),
    }
}

pub(super) fn webhook(path: &str, seen_at: UnixMs, settled_until: UnixMs) -> WebhookRecord {
    WebhookRecord { host: Host::default(), path: path.into(), app_id: 0, seen_at, settled_until }
}
