//! OpenTelemetry spans of a webhook, from its delivery to the started container. Without
//! `traces.otlp_endpoint` no span is created.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result};
use opentelemetry::{
    Context,
    propagation::TextMapPropagator as _,
    trace::{Status, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, Tracer},
};
use quick_cache::sync::Cache;
use tracing::{Span, Subscriber, level_filters::LevelFilter, trace_span, warn};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use edgerunner_scheduler::model::{JobKey, JobState};

/// Target of the spans that are exported; those below `info` exist only for that.
pub(crate) const TARGET: &str = "edgerunner::traces";
const SERVICE: &str = "edgerunner";
/// The name of W3C's header.
const TRACEPARENT: &str = "traceparent";

/// Deliveries that may still lead to a launch. A launch for an older one starts a new trace.
const DELIVERIES_MAX: usize = 10_000;
/// For the last export at shutdown.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Exports on the current runtime. The collector may be unavailable.
    pub(crate) fn start(endpoint: &str) -> Result<Self> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("traces.otlp_endpoint: {endpoint}"))?;
        let resource = Resource::builder().with_service_name(SERVICE).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        Ok(Self(provider.build()))
    }

    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        OpenTelemetryLayer::<S, Tracer>::new(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }

    /// Exports the remaining spans. Blocks, and the runtime must keep running.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_LIMIT) {
            warn!(%error, "the last spans are lost");
        }
    }
}

/// Trace contexts of recent deliveries, by delivery id. The planner only names the delivery
/// that prompted a launch.
pub(crate) struct DeliveryTraces(Cache<String, Context>);

impl DeliveryTraces {
    pub(crate) fn new() -> Self {
        Self(Cache::new(DELIVERIES_MAX))
    }

    /// A span for storing a delivery, within the trace that `traceparent` names, if any.
    pub(crate) fn store(
        &self,
        delivery: &str,
        job: JobKey,
        repository: &str,
        state: JobState,
        traceparent: &str,
    ) -> Span {
        let span = trace_span!(
            target: TARGET,
            parent: None,
            "store",
            delivery,
            %job,
            host = %job.host,
            repository,
            state = state.as_str(),
        );
        if !span.is_disabled() {
            let header = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
            // Fails if only logs are enabled at this level.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&header));
            self.0.insert(delivery.to_owned(), span.context());
        }
        span
    }

    /// Makes a launch part of the trace of the delivery that prompted it.
    pub(crate) fn join(&self, launch: &Span, prompted_by: Option<&str>) {
        if let Some((_, context)) = prompted_by.and_then(|delivery| self.0.remove(delivery)) {
            let _ = launch.set_parent(context);
        }
    }
}

pub(crate) fn failed(message: &str) {
    Span::current().set_status(Status::error(message.to_owned()));
}
