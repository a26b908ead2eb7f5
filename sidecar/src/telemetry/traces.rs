//! OpenTelemetry: the way of a webhook from its delivery to the started container, as spans
//! for a collector. Off unless `traces.otlp_endpoint` is set; then no span is made.

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

use edgerunner_scheduler::model::{Job, JobState};

/// Of spans that are exported. Those below `info` are there for that alone.
pub(crate) const TARGET: &str = "edgerunner::traces";
const SERVICE: &str = "edgerunner";
/// Field of the gRPC metadata, and W3C's name for the header.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Deliveries that a launch may yet follow from; older ones that still wait get a trace of
/// their own.
const DELIVERIES_MAX: usize = 10_000;
/// For what is not yet exported at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// In the runtime that it exports on. The collector need not be there.
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

    /// Exports what is left. Blocks, while the runtime must go on.
    pub(crate) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_LIMIT) {
            warn!(%error, "the last spans are lost");
        }
    }
}

/// The traces of deliveries that a launch may follow from. The planner knows nothing of
/// them: it tells the delivery that prompted a launch.
pub(crate) struct Deliveries(Cache<String, Context>);

impl Deliveries {
    pub(crate) fn new() -> Self {
        Self(Cache::new(DELIVERIES_MAX))
    }

    /// A span for as long as the delivery is being stored, and part of the trace that
    /// `traceparent` names, if any.
    pub(crate) fn store(&self, job: &Job, state: JobState, traceparent: &str) -> Span {
        let span = trace_span!(
            target: TARGET,
            parent: None,
            "store",
            delivery = job.delivery,
            job = %job.key,
            repository = job.repository,
            state = state.as_str(),
        );
        if !span.is_disabled() {
            let header = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
            // It fails where logs alone are on at this level.
            let _ = span.set_parent(TraceContextPropagator::new().extract(&header));
            self.0.insert(job.delivery.clone(), span.context());
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
