//! A provider in memory, for unit tests. It does everything at once, unless a test makes the
//! next call of a verb fail or wait.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use futures_util::Stream;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{
    Capacity, MadeSpace, OnWait, PulledImage, Refreshed,
    error::{Error, ErrorKind},
    instance::{Exit, Instance, InstanceState, Launched},
    labels::{Labels, ParkedContainer},
    node::{Availability, Node},
    order::{Images, Order},
    usage::Usage,
};
use edgerunner_scheduler::plan::ExitStatus;

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// All calls so far, as `launch edge-1`.
    calls: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct State {
    instances: BTreeMap<String, Instance>,
    orders: HashMap<String, Order>,
    /// Runners that something was left of.
    leftovers: BTreeSet<String>,
    /// Those of them that cannot be removed.
    stuck: BTreeSet<String>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    away: bool,
    nodes: Option<Vec<Node>>,
    capacity: Option<Capacity>,
    pulled: Vec<PulledImage>,
    /// In place of the logs of all runners.
    log: Option<String>,
    /// Images whose tag names another one at the registry.
    moved: HashSet<String>,
    usages: HashMap<String, Usage>,
    watchers: Vec<mpsc::UnboundedSender<Result<Exit, Error>>>,
}

enum Fault {
    Fail(ErrorKind),
    Wait(Arc<Notify>),
    /// There is no room until it is notified.
    NoRoom(Arc<Notify>),
}

fn error(kind: ErrorKind) -> Error {
    Error { kind, message: format!("Fake: {kind:?}") }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), calls: watch::Sender::new(Vec::new()) }
    }

    // What tests do

    /// The next call of `verb` fails.
    pub(crate) fn fail_next(&self, verb: &'static str, kind: ErrorKind) {
        self.fault(verb, Fault::Fail(kind));
    }

    /// The next call of `verb` waits until it is notified.
    pub(crate) fn hold_next(&self, verb: &'static str) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        self.fault(verb, Fault::Wait(Arc::clone(&release)));
        release
    }

    /// The next launch waits for room until it is notified.
    pub(crate) fn fill_next(&self) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        self.fault("room", Fault::NoRoom(Arc::clone(&release)));
        release
    }

    pub(crate) fn set_log(&self, log: &str) {
        self.state.lock().unwrap().log = Some(log.to_owned());
    }

    /// What a runner uses from now on.
    pub(crate) fn set_usage(&self, runner: &str, usage: Usage) {
        self.state.lock().unwrap().usages.insert(runner.to_owned(), usage);
    }

    pub(super) fn usage(&self, runner: &str) -> Option<Usage> {
        self.state.lock().unwrap().usages.get(runner).copied()
    }

    /// The next refresh of this image brings another one.
    pub(crate) fn move_tag(&self, image: &str) {
        self.state.lock().unwrap().moved.insert(image.to_owned());
    }

    pub(crate) fn set_capacity(&self, capacity: Capacity) {
        self.state.lock().unwrap().capacity = Some(capacity);
    }

    pub(crate) fn add_pulled(&self, image: PulledImage) {
        self.state.lock().unwrap().pulled.push(image);
    }

    pub(crate) fn set_nodes(&self, nodes: Vec<Node>) {
        self.state.lock().unwrap().nodes = Some(nodes);
    }

    /// While it is away all calls fail, and exits are not reported.
    pub(crate) fn set_away(&self, away: bool) {
        let mut state = self.state.lock().unwrap();
        state.away = away;
        if away {
            for watcher in state.watchers.drain(..) {
                let _ = watcher.send(Err(error(ErrorKind::Unavailable)));
            }
        }
    }

    pub(crate) fn insert(&self, labels: Labels, instance_state: InstanceState) {
        let id = format!("id of {}", labels.runner);
        let instance = Instance { labels, id, node: None, state: instance_state };
        let mut state = self.state.lock().unwrap();
        state.instances.insert(instance.labels.runner.clone(), instance);
    }

    pub(crate) fn exit(&self, runner: &str, status: impl Into<ExitStatus>) {
        let status = status.into();
        let mut state = self.state.lock().unwrap();
        if let Some(instance) = state.instances.get_mut(runner) {
            instance.state = InstanceState::Exited(status);
        }
        let exit = Exit { runner: runner.to_owned(), status };
        state.watchers.retain(|watcher| watcher.send(Ok(exit.clone())).is_ok());
    }

    /// Something of a runner is left. If it is `stuck`, it cannot be removed.
    pub(crate) fn add_leftover(&self, runner: &str, stuck: bool) {
        let mut state = self.state.lock().unwrap();
        state.leftovers.insert(runner.to_owned());
        if stuck {
            state.stuck.insert(runner.to_owned());
        }
    }

    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.state.lock().unwrap().instances.values().cloned().collect()
    }

    pub(crate) fn leftovers(&self) -> Vec<String> {
        self.state.lock().unwrap().leftovers.iter().cloned().collect()
    }

    /// The last one for this runner.
    pub(crate) fn order(&self, runner: &str) -> Option<Order> {
        self.state.lock().unwrap().orders.get(runner).cloned()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    /// Returns once there was such a call, even if it has not ended.
    pub(crate) async fn called(&self, call: &str) {
        let mut calls = self.calls.subscribe();
        calls.wait_for(|calls| calls.iter().any(|made| made == call)).await.unwrap();
    }

    // What a provider does

    pub(super) async fn prepare(&self, images: &Images) -> Result<(), Error> {
        self.begin("prepare", &images.names.join(" ")).await
    }

    pub(super) async fn refresh(&self, image: &str) -> Result<Refreshed, Error> {
        self.begin("refresh", image).await?;
        match self.state.lock().unwrap().moved.remove(image) {
            true => Ok(Refreshed::Updated),
            false => Ok(Refreshed::Unchanged),
        }
    }

    pub(super) async fn launch(
        &self,
        order: &Order,
        on_wait: OnWait<'_>,
    ) -> Result<Launched, Error> {
        let runner = &order.labels.runner;
        self.begin("launch", runner).await?;
        let full = self.state.lock().unwrap().faults.get_mut("room").and_then(VecDeque::pop_front);
        if let Some(Fault::NoRoom(release)) = full {
            on_wait(Some("Fake: no room".to_owned()));
            release.notified().await;
            on_wait(None);
        }
        let mut state = self.state.lock().unwrap();
        state.orders.insert(runner.clone(), order.clone());
        let instance = state.instances.entry(runner.clone()).or_insert_with(|| Instance {
            labels: order.labels.clone(),
            id: format!("id of {runner}"),
            node: None,
            state: InstanceState::Running,
        });
        Ok(Launched { id: instance.id.clone(), node: None })
    }

    pub(super) async fn park(&self, order: &Order) -> Result<ParkedContainer, Error> {
        let runner = &order.labels.runner;
        self.begin("park", runner).await?;
        let mut state = self.state.lock().unwrap();
        state.orders.insert(runner.clone(), order.clone());
        let instance = Instance {
            labels: order.labels.clone(),
            id: format!("id of {runner}"),
            node: None,
            state: InstanceState::Running,
        };
        state.instances.insert(runner.clone(), instance);
        Ok(ParkedContainer::Waiting)
    }

    pub(super) async fn wake(&self, runner: &str) -> Result<(), Error> {
        self.begin("wake", runner).await?;
        match self.state.lock().unwrap().instances.contains_key(runner) {
            true => Ok(()),
            false => Err(error(ErrorKind::Gone)),
        }
    }

    pub(super) async fn protect(&self, runner: &str) -> Result<(), Error> {
        self.begin("protect", runner).await
    }

    pub(super) async fn remove(&self, runner: &str) -> Result<(), Error> {
        self.begin("remove", runner).await?;
        let mut state = self.state.lock().unwrap();
        state.instances.remove(runner);
        state.leftovers.remove(runner);
        Ok(())
    }

    pub(super) async fn list(&self) -> Result<Vec<Instance>, Error> {
        self.begin("list", "").await?;
        Ok(self.instances())
    }

    pub(super) fn exits(&self) -> impl Stream<Item = Result<Exit, Error>> + Send + use<> {
        let mut state = self.state.lock().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        match state.away {
            true => drop(sender.send(Err(error(ErrorKind::Unavailable)))),
            false => state.watchers.push(sender),
        }
        UnboundedReceiverStream::new(receiver)
    }

    pub(super) async fn log(&self, runner: &str) -> Result<String, Error> {
        self.begin("log", runner).await?;
        let state = self.state.lock().unwrap();
        match state.instances.contains_key(runner) {
            true => Ok(state.log.clone().unwrap_or_else(|| format!("log of {runner}"))),
            false => Err(error(ErrorKind::Gone)),
        }
    }

    pub(super) async fn sweep<E: From<Error>>(
        &self,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
    ) -> Result<Vec<Error>, E> {
        self.begin("sweep", "").await?;
        let found = self.leftovers();
        let alive = alive.await?;
        let mut failed = Vec::new();
        let mut state = self.state.lock().unwrap();
        for runner in found {
            if alive.contains(&runner) || state.instances.contains_key(&runner) {
                continue;
            }
            match state.stuck.contains(&runner) {
                true => failed.push(error(ErrorKind::Refused)),
                false => drop(state.leftovers.remove(&runner)),
            }
        }
        Ok(failed)
    }

    pub(super) fn nodes(&self) -> Option<Result<Vec<Node>, Error>> {
        let state = self.state.lock().unwrap();
        let nodes = state.nodes.clone()?;
        Some(if state.away { Err(error(ErrorKind::Unavailable)) } else { Ok(nodes) })
    }

    pub(super) fn capacity(&self) -> Option<Result<Capacity, Error>> {
        let state = self.state.lock().unwrap();
        let capacity = state.capacity?;
        Some(if state.away { Err(error(ErrorKind::Unavailable)) } else { Ok(capacity) })
    }

    pub(super) fn take_pulled(&self) -> Vec<PulledImage> {
        std::mem::take(&mut self.state.lock().unwrap().pulled)
    }

    /// All that is not named goes, and makes enough space.
    pub(super) async fn make_space(
        &self,
        pulled: &[PulledImage],
        named: &[String],
    ) -> Result<MadeSpace, Error> {
        self.begin("make_space", "").await?;
        let gone = pulled.iter().filter(|image| !named.contains(&image.name)).cloned().collect();
        if let Some(capacity) = &mut self.state.lock().unwrap().capacity {
            capacity.free_disk_mib = Some(u64::MAX);
        }
        Ok(MadeSpace { gone, ..MadeSpace::default() })
    }

    pub(super) async fn drain_node(&self, name: &str, drain: bool) -> Result<(), Error> {
        self.begin("drain_node", name).await?;
        let mut state = self.state.lock().unwrap();
        let node = state.nodes.iter_mut().flatten().find(|node| node.name == name);
        let node = node.ok_or_else(|| error(ErrorKind::Gone))?;
        node.availability = if drain { Availability::Drain } else { Availability::Active };
        Ok(())
    }

    /// The start of every call.
    async fn begin(&self, verb: &'static str, what: &str) -> Result<(), Error> {
        let fault = self.state.lock().unwrap().faults.get_mut(verb).and_then(VecDeque::pop_front);
        self.calls.send_modify(|calls| calls.push(format!("{verb} {what}").trim().to_owned()));
        match fault {
            Some(Fault::Fail(kind)) => return Err(error(kind)),
            Some(Fault::Wait(release)) => release.notified().await,
            Some(Fault::NoRoom(_)) | None => {}
        }
        match self.state.lock().unwrap().away {
            true => Err(error(ErrorKind::Unavailable)),
            false => Ok(()),
        }
    }

    fn fault(&self, verb: &'static str, fault: Fault) {
        self.state.lock().unwrap().faults.entry(verb).or_default().push_back(fault);
    }
}
