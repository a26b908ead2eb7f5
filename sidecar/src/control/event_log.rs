//! What happened, as the log shows it at the level `debug`.

use tracing::{debug, enabled, field::display};

use edgerunner_scheduler::{
    model::{Job, JobKey, ServerTarget},
    plan::{Adopted, Event, State},
};

/// The name of an event and what it is about.
#[derive(Default)]
struct Subject<'a> {
    event: &'static str,
    job: Option<JobKey>,
    delivery: Option<&'a str>,
    runner: Option<&'a str>,
    pool: Option<&'a str>,
    target: Option<&'a ServerTarget>,
    error: Option<&'a str>,
}

/// Before the planner gets it. Ticks, quotas, machines and surveys are left out: they come all
/// the time.
pub(super) fn log(event: &Event, state: &State) {
    let frequent = matches!(
        event,
        Event::Tick | Event::Quotas(_) | Event::Machine { .. } | Event::Survey { .. }
    );
    if frequent || !enabled!(tracing::Level::DEBUG) {
        return;
    }
    let Subject { event, job, delivery, runner, pool, target, error } = subject(event, state);
    let host = job.map(|job| display(job.host)).or(target.map(|target| display(target.host)));
    let (job, target) = (job.map(display), target.map(display));
    debug!(event, job, host, delivery, runner, pool, target, error, "planning");
}

fn subject<'a>(event: &'a Event, state: &'a State) -> Subject<'a> {
    let of_job = |event, job: &'a Job| Subject {
        event,
        job: Some(job.key),
        delivery: Some(&job.delivery),
        ..Subject::default()
    };
    let of_runner = |event, runner: &'a str| {
        let pool = state.runner(runner).map(|runner| runner.pool.as_str());
        let runner = Some(runner).filter(|runner| !runner.is_empty());
        Subject { event, runner, pool, ..Subject::default() }
    };
    let of_pool = |event, pool: Option<&usize>| {
        let pools = &state.settings().pools;
        let pool = pool.and_then(|index| pools.get(*index)).map(|pool| pool.name.as_str());
        Subject { event, pool, ..Subject::default() }
    };
    let of_adopted = |event, Adopted { runner, pool, target, .. }: &'a Adopted| Subject {
        pool: Some(pool),
        target: Some(target),
        ..of_runner(event, runner)
    };
    match event {
        Event::JobQueued(job) => of_job("job_queued", job),
        Event::JobStarted { job, runner } => {
            Subject { runner: Some(runner), ..of_job("job_started", job) }
        }
        Event::JobCompleted { job, runner } => {
            Subject { runner: Some(runner), ..of_job("job_completed", job) }
        }
        Event::JobFound { job, runner, .. } => {
            let delivery = state.delivery(*job);
            // Those that are over are not known any more.
            let job = delivery.map(|_| *job);
            Subject { job, delivery, ..of_runner("job_found", runner) }
        }
        Event::Progress { runner, .. } => of_runner("progress", runner),
        Event::NoRoom { runner, message, .. } => {
            Subject { error: Some(message), ..of_runner("no_room", runner) }
        }
        Event::Registered { runner, .. } => of_runner("registered", runner),
        Event::Launched { runner } => of_runner("launched", runner),
        Event::Parked { runner, .. } => of_runner("parked", runner),
        Event::WakeFailed { runner, message, .. } => {
            Subject { error: Some(message), ..of_runner("wake_failed", runner) }
        }
        Event::LaunchFailed { runner, message, .. } => {
            Subject { error: Some(message), ..of_runner("launch_failed", runner) }
        }
        Event::ContainerExited { runner, .. } => of_runner("container_exited", runner),
        Event::Registrations { target, .. } => {
            Subject { event: "registrations", target: Some(target), ..Subject::default() }
        }
        Event::Removed { runner } => of_runner("removed", runner),
        Event::RemovalRefused { runner } => of_runner("removal_refused", runner),
        Event::RemovalFailed { runner, failure } => {
            Subject { error: Some(&failure.message), ..of_runner("removal_failed", runner) }
        }
        Event::Deregistered { runner, target } => {
            Subject { target: Some(target), ..of_runner("deregistered", runner) }
        }
        Event::LookUpFailed { target, message, .. } => Subject {
            event: "look_up_failed",
            target: Some(target),
            error: Some(message),
            ..Subject::default()
        },
        Event::JobLookUpFailed { job, .. } => {
            let delivery = state.delivery(*job);
            let job = delivery.map(|_| *job);
            Subject { event: "job_look_up_failed", job, delivery, ..Subject::default() }
        }
        Event::RunFound { .. } => of_pool("run_found", None),
        Event::RunLookUpFailed { .. } => of_pool("run_look_up_failed", None),
        Event::Adopted(adopted) => of_adopted("adopted", adopted),
        Event::OnRecordAsGone(adopted) => of_adopted("on_record_as_gone", adopted),
        Event::Survey { .. } => of_pool("survey", None),
        Event::Recovered { .. } => of_pool("recovered", None),
        Event::Pause => of_pool("pause", None),
        Event::MinIdle { pool, .. } => of_pool("min_idle", Some(pool)),
        Event::Tick => of_pool("tick", None),
        Event::Quotas(_) => of_pool("quotas", None),
        Event::Machine { .. } => of_pool("machine", None),
        Event::Pools(_) => of_pool("pools", None),
        Event::RemoveRunner { runner, .. } => of_runner("remove_runner", runner),
        Event::Drain { pool, .. } => of_pool("drain", pool.as_ref()),
        Event::Retry => of_pool("retry", None),
    }
}
