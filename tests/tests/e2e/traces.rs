//! Traces of one delivery, from Envoy to the started container.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Options, Stack, eventually};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const ENVOY: &str = include_str!("../../../envoy/envoy.yaml");
/// The start of the parts of the configuration that are comments without traces.
const PARTS: [&str; 3] = ["# tracing:", "# - name: traceparent", "# - name: otlp_collector"];

#[derive(Clone, Debug)]
struct Exported {
    service: String,
    span: Span,
}

impl Exported {
    fn attribute(&self, key: &str) -> Option<&str> {
        text(&self.span.attributes, key)
    }

    fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|it| it.code() == StatusCode::Error)
    }
}

/// A stand-in for OpenTelemetry's collector.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Exported>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut exported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                exported.push(Exported { service: service.to_owned(), span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text),
        _ => None,
    }
}

impl Collector {
    /// Returns its port as well.
    async fn start() -> Result<(Self, u16)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok((collector, port))
    }

    /// The spans of the trace with a launch, once it has this many.
    async fn trace(&self, spans: usize) -> Result<Vec<Exported>> {
        eventually("a launch is traced", async || {
            let exported = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let names: Vec<_> = exported.iter().map(|it| (&it.service, &it.span.name)).collect();
            let launch = exported.iter().find(|it| it.span.name == "launch");
            let id = &launch.with_context(|| format!("no launch: {names:?}"))?.span.trace_id;
            let mut trace: Vec<Exported> =
                exported.iter().filter(|it| it.span.trace_id == *id).cloned().collect();
            trace.sort_by_key(|it| it.span.start_time_unix_nano);
            ensure!(trace.len() == spans, "{} of {spans} spans: {names:?}", trace.len());
            Ok(Some(trace))
        })
        .await
    }
}

/// A line for each span, below and to the right of its parent.
fn tree(trace: &[Exported], parent: &[u8], depth: usize, shown: &mut String) {
    for exported in trace.iter().filter(|it| it.span.parent_span_id == parent) {
        let Exported { service, span } = exported;
        let name = if depth == 0 { "request" } else { &span.name };
        *shown += &format!("{:width$}{service}: {name}\n", "", width = 2 * depth);
        tree(trace, &span.span_id, depth + 1, shown);
    }
}

fn with_traces(shipped: &str) -> String {
    let mut wanted = false;
    let mut text = String::new();
    for line in shipped.lines() {
        let trimmed = line.trim_start();
        wanted = trimmed.starts_with('#') && (wanted || PARTS.contains(&trimmed));
        match wanted {
            true => text += &line.replacen("# ", "", 1),
            false => text += line,
        }
        text.push('\n');
    }
    text
}

fn options(collector: u16) -> Options {
    Options::default()
        .own_envoy(with_traces(ENVOY))
        .envoy_configuration("port_value: 4317", &format!("port_value: {collector}"))
        .sidecar("TRACES_OTLP_ENDPOINT", &format!("http://127.0.0.1:{collector}"))
        // The default is 5 s.
        .sidecar("OTEL_BSP_SCHEDULE_DELAY", "100")
}

#[tokio::test]
async fn a_trace_goes_from_envoy_to_the_container() -> Result<()> {
    let (collector, port) = Collector::start().await?;
    Stack::run(options(port), async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        let trace = collector.trace(7).await?;
        let mut shown = String::new();
        tree(&trace, &[], 0, &mut shown);
        println!("{shown}");
        let expected = "\
envoy: request
  edgerunner: store
    edgerunner: launch
      edgerunner: image
      edgerunner: turn
      edgerunner: credentials
      edgerunner: container
";
        assert_eq!(shown, expected);
        let id = job.to_string();
        assert!(trace[1].attribute("job").is_some_and(|job| job.starts_with(&id)), "{trace:#?}");
        assert_eq!(trace[2].attribute("delivery"), trace[1].attribute("delivery"));
        assert!(trace.iter().all(|exported| !exported.failed()), "{trace:#?}");
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_failed_launch_is_a_failed_span() -> Result<()> {
    let (collector, port) = Collector::start().await?;
    let options = options(port).sidecar("DOCKER_RUNNER_IMAGE", "edgerunner/missing:none");
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        let trace = collector.trace(4).await?;
        let failed =
            trace.iter().filter(|exported| exported.failed()).map(|exported| &exported.span.name);
        assert_eq!(failed.collect::<Vec<_>>(), ["launch"], "{trace:#?}");
        stack.sandbox.cancel_job(job)?;
        Ok(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn the_last_spans_are_exported_before_the_end() -> Result<()> {
    let (collector, port) = Collector::start().await?;
    // Longer than the test.
    let options = options(port).sidecar("OTEL_BSP_SCHEDULE_DELAY", "600000");
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.completed(job).await?;
        stack.sidecar.terminate().await?;
        collector.trace(7).await?;
        stack.sidecar.start().await
    })
    .await;
    Ok(())
}
