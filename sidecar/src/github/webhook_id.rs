//! Names of webhooks: see the scheduler, which decides what to ask GitHub about them.

pub(crate) use edgerunner_scheduler::missed::WebhookId;
