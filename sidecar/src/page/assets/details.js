// The dialog with all details of one job or runner.

import { byId, el, duration, link } from "./elements.js";
import { operation } from "./operate.js";

const dialog = byId("details");
// What the dialog shows, to update it when that changes.
let shown = null;
let dashboard = null;

export const open = (title, ...content) => {
  byId("details-title").textContent = title;
  byId("details-body").replaceChildren(...content.filter(Boolean));
  if (!dialog.open) dialog.showModal();
};

const get = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
};

const facts = (pairs) => el("dl", { class: "facts" }, ...pairs
  .filter(([, value]) => value !== undefined && value !== null && value !== "")
  .flatMap(([name, value]) => [el("dt", { text: name }), el("dd", {}, value)]));

// With the date, unless that is today.
const time = (ms) => {
  const at = new Date(ms);
  const text = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return text;
  return `${at.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" })}, ${text}`;
};

// Prefix of the delivery of a job that was found by polling GitHub.
export const LOOK_UP = "look-up-";

const steps = (job) => {
  const received = job.delivery.startsWith(LOOK_UP) ? "Found by polling GitHub" : "Webhook received and stored";
  const ran = job.runner_name !== "";
  const list = [
    ["Queued at GitHub", job.created_ms],
    [received, job.queued_ms],
    ["Runner launch started", ran ? job.launched_ms : null],
    ["Container started", ran ? job.container_ms : null],
    ["Job started", ran ? job.started_ms : null],
    ["Job completed", job.completed_ms],
  ];
  // A runner that existed before the job, or that is not ours, was not launched for it.
  const known = list.filter(([name, at]) => at != null || (job.state !== "completed" && !(name === "Queued at GitHub") && !(ran && /launch|Container/.test(name))));
  const done = known.filter(([, at]) => at != null).sort((a, b) => a[1] - b[1]);
  const open = known.filter(([, at]) => at == null);
  return el("ol", { class: "steps" },
    ...done.map(([name, at], index) => el("li", {}, el("b", { text: name }),
      el("span", { text: index ? `+${duration(at - done[index - 1][1])}` : "" }), el("span", { class: "at", text: time(at) }))),
    ...open.map(([name]) => el("li", { class: "open" }, el("b", { text: name }), el("span", { text: "not yet" }))));
};

// Removes the terminal's escape sequences and control characters.
const plain = (log) => log.replace(/\u001b\[[0-9;?]*[ -\/]*[@-~]/g, "").replace(/[\u0000-\u0008\u000b-\u001f]/g, "");

const used = ({ memory_peak_bytes: memory, cpu_peak_millis: cpu }) => [
  memory && `${Math.round(memory / 1_048_576).toLocaleString("en")} MiB`,
  cpu != null && `${(cpu / 1000).toFixed(1)} CPUs`,
].filter(Boolean).join(", ");

const runnerFacts = (runner) => [
  el("h3", { text: "Runner" }),
  facts([
    ["Container", el("code", { text: runner.name })],
    ["Pool", runner.pool],
    ["Node", runner.node],
    ["Registered at", runner.target],
    ["Phase", runner.phase],
    ["Launched", time(runner.created_ms)],
    ["Removed", runner.gone_ms ? `${time(runner.gone_ms)}, after ${duration(runner.gone_ms - runner.created_ms)}` : null],
    ["Reason", runner.why],
    ["Used at most", used(runner)],
    ["Log", runner.gone_ms ? null : el("code", { text: `${runner.node ? "edgerunner runners logs" : "docker logs"} ${runner.name}` })],
  ]),
  runner.gone_ms ? null : el("p", {}, operation("remove", runner.name, runner.phase === "busy")),
  runner.failed || runner.log ? el("h3", { text: "Last lines of the log" }) : null,
  runner.log ? el("pre", { class: "log", tabindex: "0", role: "group", "aria-label": "Last lines of the runner's log", text: plain(runner.log) })
    : runner.failed ? el("p", { class: "muted", text: "No log was kept: the container never started, or was removed before its log could be read." }) : null,
];

const jobContent = async (job) => {
  const runner = job.runner_name ? await get(`/page/runners/${encodeURIComponent(job.runner_name)}`) : null;
  const state = job.state === "completed" ? job.conclusion || "done" : job.state;
  return [
    steps(job),
    job.state === "queued" && job.waiting_message ? el("p", {}, el("b", { text: "Waiting: " }), job.waiting_message) : null,
    el("h3", { text: "Job" }),
    facts([
      ["Repository", job.repository],
      ["Workflow", job.workflow_name],
      ["Branch", job.head_branch],
      ["Labels", job.labels.join(", ")],
      ["State", state.replaceAll("_", " ")],
      ["Job ID", `${job.id}, attempt ${job.run_attempt}`],
      ["Run ID", job.run_id ? String(job.run_id) : null],
      ["Delivery", el("code", { text: job.delivery })],
      ["At GitHub", link(job.html_url, "Open the job")],
    ]),
    ...(runner ? runnerFacts(runner) : [
      job.runner_name ? el("h3", { text: "Runner" }) : null,
      job.runner_name ? el("p", { text: `${job.runner_name} (not launched by this installation)` }) : null,
    ]),
  ];
};

const choices = (jobs) => el("ul", { class: "found" }, ...jobs.map((job) => el("li", {}, el("button", { type: "button", onclick: () => showJob(job.id) },
  el("b", { text: job.name }), el("span", { text: `attempt ${job.run_attempt}` }), el("span", { text: (job.conclusion || job.state).replaceAll("_", " ") })))));

const fillJob = async (id) => {
  const [job] = await get(`/page/jobs?job=${id}`);
  if (!job) return false;
  const content = await jobContent(job);
  // The dialog may show something else by now, or be closed.
  if (shown?.job !== job.id) return true;
  open(job.name || `Job ${job.id}`, ...content);
  history.replaceState(null, "", `#job=${job.id}`);
  return true;
};

const fillRunner = async (name) => {
  const runner = await get(`/page/runners/${encodeURIComponent(name)}`);
  if (!runner) return false;
  if (shown?.runner !== name) return true;
  const job = runner.job && el("p", {}, el("button", {
    type: "button", class: "link", text: `Job ${runner.job.id}`, onclick: () => showJob(runner.job.id),
  }));
  open(runner.name, ...runnerFacts(runner), job);
  history.replaceState(null, "", `#runner=${runner.name}`);
  return true;
};

// Resolves to whether it exists.
const show = async (what, fill) => {
  shown = { ...what, fill };
  shown.state = stateOf(dashboard);
  try {
    return await fill();
  } catch (error) {
    open("Couldn't load", el("p", { text: `The sidecar didn't answer: ${error.message}` }));
    return true;
  }
};

export const showJob = (id) => show({ job: Number(id) }, () => fillJob(id));
export const showRunner = (name) => show({ runner: name }, () => fillRunner(name));

export const showRun = (id) => show({}, async () => {
  const jobs = await get(`/page/jobs?run=${id}`);
  if (jobs.length === 1) return showJob(jobs[0].id);
  if (jobs.length) open(`Run ${id}: ${jobs.length} jobs`, choices(jobs));
  return jobs.length > 0;
});

const stateOf = (dashboard) => JSON.stringify(!dashboard ? null : shown.job
  ? Object.values(dashboard.jobs).filter((job) => job.id === shown.job)
  : [dashboard.runners[shown.runner], dashboard.failed[shown.runner]]);

// Updates the dialog with the dashboard.
export const details = (update) => {
  dashboard = update;
  if (!dialog.open || !shown) return;
  const state = stateOf(dashboard);
  if (state === shown.state) return;
  shown.state = state;
  // If the sidecar does not answer, the dialog keeps what it showed.
  shown.fill().catch(() => {});
};

byId("details-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  shown = null;
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
});
