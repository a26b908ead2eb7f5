//! Requests that are held open.

use std::sync::Arc;
use std::time::Instant;

use crate::app::App;
use crate::registration::Session;
use crate::state::State;

/// Keeps a session from expiring while one of its requests is held open. When the runner dies, its
/// connection breaks and the request is dropped; then the session's time starts to run.
pub(super) struct HeldRequest {
    app: Arc<App>,
    runner: u64,
    session: String,
}

impl HeldRequest {
    /// `busy`: whether the runner has a job.
    pub(super) fn new(app: &Arc<App>, runner: u64, session: &str, busy: bool) -> Option<Self> {
        app.update(|state| {
            let own = session_of(state, runner, session)?;
            own.held += 1;
            own.last_seen = Instant::now();
            own.polls_while_busy |= busy;
            Some(())
        })?;
        Some(Self { app: Arc::clone(app), runner, session: session.to_owned() })
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.app.update(|state| {
            if let Some(own) = session_of(state, self.runner, &self.session) {
                own.held = own.held.saturating_sub(1);
                own.last_seen = Instant::now();
            }
        });
    }
}

fn session_of<'a>(state: &'a mut State, runner: u64, session: &str) -> Option<&'a mut Session> {
    let own = state.runners.get_mut(&runner)?.session.as_mut()?;
    own.id.eq_ignore_ascii_case(session).then_some(own)
}
