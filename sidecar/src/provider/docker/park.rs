//! Parks runners and wakes them: their containers run a shell that becomes the runner's command once
//! it reads a line. So all that Docker does for a start is done before.
//!
//! A line is not lost as a signal would be that is sent before the shell can handle it, and it begins
//! the command once: a container that Docker starts again waits again.

use std::time::Duration;

use bollard::{
    container::{AttachContainerResults, LogOutput},
    errors::Error as Bollard,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status},
    query_parameters::{AttachContainerOptions, ContainerArchiveInfoOptions},
};
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{
    DIND_SUFFIX, Docker, body, error, from_bollard,
    launch::{Created, labels_of},
    no_answer,
    remove::has_dind,
    within,
};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::{Labels, Parked, ParkedContainer},
    order::{JobEngine, Order},
};

const SHELL: &str = "/bin/sh";
/// Written by the shell before it becomes the command.
const WOKEN: &str = "edgerunner: woken";
/// Ends if its input does, because Docker has lost it: it would never be woken. Without the trap the
/// first process of a container ignores the signal.
const WAIT: &str = "trap 'exit 143' TERM INT; read -r line || exit 0; trap - TERM INT; \
                    echo 'edgerunner: woken'; exec \"$@\" </dev/null";
/// The shell's name in its own messages.
const NAME: &str = "edgerunner";

/// From the line until the shell has read it.
const WAKE_LIMIT: Duration = Duration::from_secs(10);

impl Docker {
    /// A second call for the same labels parks nothing a second time.
    pub(crate) async fn park(&self, order: &Order) -> Result<ParkedContainer, Error> {
        // Its network is that of its own Engine, which has to run first.
        let has_engine = matches!(order.engine, JobEngine::Dind(_));
        if !has_engine && self.park_waiting(order).await? {
            return Ok(ParkedContainer::Waiting);
        }
        self.park_created(order).await?;
        Ok(ParkedContainer::Created)
    }

    /// Returns `false`, and leaves nothing, if the image has no shell.
    async fn park_waiting(&self, order: &Order) -> Result<bool, Error> {
        let command = self.whole_command(order).await?;
        let tool_cache = self.tool_cache(order).await?;
        let engine = self.job_engine(order, tool_cache.as_ref(), None).await?;
        let request = body::runner(order, &engine, tool_cache.as_ref(), None);
        let Created { id, started } = self.create_runner(order, waiting(request, command)).await?;
        if started {
            return Ok(true);
        }
        if !self.has_shell(&id).await? {
            self.delete_container(&id).await?;
            return Ok(false);
        }
        self.upload(&id, order, &engine, None).await?;
        self.start(&id).await?;
        Ok(true)
    }

    async fn park_created(&self, order: &Order) -> Result<(), Error> {
        let mut order = order.clone();
        if let Some(parked) = &mut order.labels.parked {
            parked.container = ParkedContainer::Created;
        }
        let tool_cache = self.tool_cache(&order).await?;
        let tool_cache = tool_cache.as_ref();
        let engine = self.job_engine(&order, tool_cache, None).await?;
        let request = body::runner(&order, &engine, tool_cache, None);
        let Created { id, started } = self.create_runner(&order, request).await?;
        match started {
            true => Ok(()),
            false => self.upload(&id, &order, &engine, None).await,
        }
    }

    /// The image's entry point, and the order's command or else the image's.
    async fn whole_command(&self, order: &Order) -> Result<Vec<String>, Error> {
        let image = self.image_config(&order.image).await?;
        let mut command = image.entrypoint.unwrap_or_default();
        match order.command.is_empty() {
            true => command.extend(image.cmd.unwrap_or_default()),
            false => command.extend_from_slice(&order.command),
        }
        Ok(command)
    }

    async fn has_shell(&self, id: &str) -> Result<bool, Error> {
        let call = format!("look for {SHELL} in container {}", super::short(id));
        let options = ContainerArchiveInfoOptions { path: SHELL.to_owned() };
        match self.bollard.get_container_archive_info(id, Some(options)).await {
            Ok(_) => Ok(true),
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            Err(error) => Err(from_bollard(&call, &error)),
        }
    }

    /// Makes the command of a parked runner begin. `again`: an earlier call may have done so.
    pub(crate) async fn wake(&self, runner: &str, again: bool) -> Result<(), Error> {
        let call = format!("wake runner {runner}");
        let found = self.inspect(runner).await?;
        let labels = Labels::from_map(labels_of(&found), &self.instance);
        let Some(Parked { container, .. }) = labels.and_then(|labels| labels.parked) else {
            return Err(error(ErrorKind::Refused, &call, "the container was not parked"));
        };
        match container {
            ParkedContainer::Created => {
                if has_dind(&found) {
                    self.start_dind(&format!("{runner}{DIND_SUFFIX}")).await?;
                }
                self.start(found.id.as_deref().unwrap_or(runner)).await
            }
            ParkedContainer::Waiting if !is_running(&found) => {
                Err(error(ErrorKind::Gone, &call, "its container does not run any more"))
            }
            ParkedContainer::Waiting => {
                within(WAKE_LIMIT, &call, self.write_line(runner, &call, again)).await
            }
        }
    }

    async fn write_line(&self, runner: &str, call: &str, again: bool) -> Result<(), Error> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            ..AttachContainerOptions::default()
        };
        let attached = self.bollard.attach_container(runner, Some(options)).await;
        let AttachContainerResults { mut output, mut input } =
            attached.map_err(|error| from_bollard(call, &error))?;
        let unavailable = |cause| error(ErrorKind::Unavailable, call, cause);
        input.write_all(b"\n").await.map_err(unavailable)?;
        input.flush().await.map_err(unavailable)?;
        if again {
            return Ok(());
        }
        let mut seen = Vec::new();
        while let Some(written) = output.next().await {
            let written = written.map_err(|error| from_bollard(call, &error))?;
            if let LogOutput::StdOut { message } | LogOutput::Console { message } = written {
                seen.extend_from_slice(&message);
            }
            if contains(&seen, WOKEN.as_bytes()) {
                return Ok(());
            }
        }
        Err(no_answer(call))
    }
}

/// A shell that waits before it becomes the command.
fn waiting(body: ContainerCreateBody, command: Vec<String>) -> ContainerCreateBody {
    let arguments = ["-c", WAIT, NAME].map(str::to_owned).into_iter().chain(command);
    ContainerCreateBody {
        entrypoint: Some(vec![SHELL.to_owned()]),
        cmd: Some(arguments.collect()),
        open_stdin: Some(true),
        stdin_once: Some(false),
        ..body
    }
}

fn is_running(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().and_then(|state| state.status) == Some(Status::RUNNING)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command, Output, Stdio},
    };

    use axum::{Json, response::IntoResponse as _};
    use serde_json::json;

    use super::*;
    use crate::{
        config::{Container, DockerAccess},
        provider::docker::fake_engine::{
            self, done, inspected, refused, runner_labels, unexpected,
        },
    };

    fn shell() -> Child {
        let body = waiting(
            ContainerCreateBody::default(),
            ["printf", "<%s>", "a b", "$HOME"].map(str::to_owned).into(),
        );
        let (shell, arguments) = (body.entrypoint.unwrap().remove(0), body.cmd.unwrap());
        let mut command = Command::new(shell);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn output(shell: Child) -> (Output, String) {
        let output = shell.wait_with_output().unwrap();
        let written = String::from_utf8(output.stdout.clone()).unwrap();
        (output, written)
    }

    #[test]
    fn a_line_makes_the_shell_the_command_and_its_end_does_not() {
        let mut woken = shell();
        woken.stdin.as_mut().unwrap().write_all(b"\n\n").unwrap();
        let (_, written) = output(woken);
        assert_eq!(written, format!("{WOKEN}\n<a b><$HOME>"));

        // Its input ends.
        let (ended, written) = output(shell());
        assert_eq!((ended.status.code(), &*written), (Some(0), ""));

        let mut stopped = shell();
        let input = stopped.stdin.take();
        let id = stopped.id().to_string();
        let killed = Command::new(SHELL).args(["-c", "kill -TERM $0", &id]).status().unwrap();
        assert!(killed.success());
        let (ended, written) = output(stopped);
        assert_eq!(written, "");
        // By the signal if it came before the trap.
        assert_eq!(ended.status.code().or(ended.status.signal().map(|it| 128 + it)), Some(143));
        drop(input);
    }

    fn parked_order(container: Container) -> Order {
        let mut order = fake_engine::order(container);
        order.labels.parked = Some(Parked { container: ParkedContainer::Waiting, revision: 7 });
        order
    }

    #[tokio::test]
    async fn an_image_without_a_shell_is_parked_created_and_not_started() {
        let engine = fake_engine::Engine::start(|call| match call {
            "POST /containers/create" => {
                Json(json!({ "Id": "0f", "Warnings": [] })).into_response()
            }
            "HEAD /containers/0f/archive" => refused(404, "Could not find the file /bin/sh"),
            "DELETE /containers/0f" => done(),
            "GET /containers/0f/json" => refused(404, "No such container: 0f"),
            call if call.starts_with("GET /images/") => {
                Json(json!({ "Id": "1f", "Config": { "Entrypoint": ["/entry"] } })).into_response()
            }
            call => unexpected(call),
        })
        .await;
        let parked = engine.docker.park(&parked_order(Container::default())).await.unwrap();
        assert_eq!(parked, ParkedContainer::Created);
        let calls = engine.calls();
        let count = |call: &str| calls.iter().filter(|it| *it == call).count();
        assert_eq!(count("POST /containers/create"), 2);
        assert_eq!(count("DELETE /containers/0f"), 1);
        assert!(!calls.iter().any(|call| call.ends_with("/start")), "{calls:?}");
    }

    #[tokio::test]
    async fn one_that_was_created_is_woken_by_its_start_and_one_that_died_is_gone() {
        let labels = |container| Labels {
            parked: Some(Parked { container, revision: 7 }),
            ..runner_labels("edge-1")
        };
        let of = |container, status: &'static str| {
            fake_engine::Engine::start(move |call| match call {
                "GET /containers/edge-1/json" => {
                    Json(inspected(&labels(container), status, "bridge")).into_response()
                }
                "POST /containers/0f/start" => done(),
                call => unexpected(call),
            })
        };
        let created = of(ParkedContainer::Created, "created").await;
        created.docker.wake("edge-1", false).await.unwrap();
        assert!(created.calls().contains(&"POST /containers/0f/start".to_owned()));
        let died = of(ParkedContainer::Waiting, "exited").await;
        let error = died.docker.wake("edge-1", false).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Gone);
        let never = fake_engine::Engine::start(|_| {
            Json(inspected(&runner_labels("edge-1"), "running", "bridge")).into_response()
        });
        let error = never.await.docker.wake("edge-1", false).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Refused);
    }

    #[tokio::test]
    async fn a_runner_with_its_own_engine_is_created_beside_it() {
        let engine = fake_engine::Engine::start(|call| match call {
            "POST /containers/create" => {
                Json(json!({ "Id": "0f", "Warnings": [] })).into_response()
            }
            "POST /volumes/create" => Json(json!({
                "Name": "v", "Driver": "local", "Mountpoint": "/", "Labels": {}, "Scope": "local",
                "Options": {},
            }))
            .into_response(),
            "GET /networks" => Json(json!([])).into_response(),
            "POST /networks/create" => Json(json!({ "Id": "2f", "Warning": "" })).into_response(),
            "PUT /containers/0f/archive" => done(),
            call if call.starts_with("GET /images/") => {
                Json(json!({ "Id": "1f", "Config": {} })).into_response()
            }
            call => unexpected(call),
        })
        .await;
        let container = Container { docker: DockerAccess::Dind, ..Container::default() };
        let parked = engine.docker.park(&parked_order(container)).await.unwrap();
        assert_eq!(parked, ParkedContainer::Created);
        let calls = engine.calls();
        let created = calls.iter().filter(|it| *it == "POST /containers/create").count();
        assert_eq!(created, 2, "{calls:?}");
        assert!(!calls.iter().any(|call| call.ends_with("/start")), "{calls:?}");
    }
}
