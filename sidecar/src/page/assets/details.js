// The dialog with everything about one job or runner. `places.js` shows pools and nodes in it.

import { EVENTS, states } from "./words.js";
import { byId, el, duration, link, time } from "./elements.js";
import { LOOK_UP, timeline } from "./timeline.js";
import { operation } from "./operate.js";

const dialog = byId("details");
// What the dialog shows, to update it when that changes.
let shown = null;
let dashboard = null;

const focusable = () => [...byId("details-body").querySelectorAll("a, button, [tabindex]")];

export const open = (title, ...content) => {
  const focused = focusable().indexOf(document.activeElement);
  byId("details-title").textContent = title;
  byId("details-body").replaceChildren(...content.filter(Boolean));
  if (!dialog.open) dialog.showModal();
  // The same place, after an update.
  if (focused >= 0) focusable()[focused]?.focus({ preventScroll: true });
};

const get = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.text()).trim() || `status ${response.status}`);
  return response.json();
};

export const facts = (pairs) => el("dl", { class: "facts" }, ...pairs
  .filter(([, value]) => value !== undefined && value !== null && value !== "")
  .flatMap(([name, value]) => [el("dt", { text: name }), el("dd", {}, value)]));

export const linked = (kind, id, text = id) => el("a", { href: `#${kind}=${encodeURIComponent(id)}`, text });

// Lines with a link, a state and more, as `[link, text, text]`.
export const lines = (rows) => el("ul", { class: "found" }, ...rows.map(([target, ...rest]) =>
  el("li", {}, target, ...rest.map((text) => el("span", { text })))));

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
    ["Pool", linked("pool", runner.pool)],
    ["Node", runner.node && linked("node", runner.node)],
    ["Registered at", runner.target],
    ["Credential", runner.credential],
    ["Phase", runner.phase],
    ["Launched", time(runner.created_ms)],
    ["Removed", runner.gone_ms ? `${time(runner.gone_ms)}, after ${duration(runner.gone_ms - runner.created_ms)}` : null],
    ["Reason", runner.why],
    ["Used at most", used(runner)],
    ["Log", runner.gone_ms ? null : el("code", { text: `edgerunner runners logs ${runner.name}` })],
  ]),
  runner.gone_ms ? null : el("p", {}, operation("remove", runner.name, runner.phase === "busy")),
  runner.failed || runner.log ? el("h3", { text: "End of the log" }) : null,
  runner.log ? el("pre", { class: "log", tabindex: "0", role: "group", "aria-label": "End of the runner's log", text: plain(runner.log) })
    : runner.failed ? el("p", { class: "muted", text: "No log was kept: the container never started, or was removed before its log could be read." }) : null,
];

const deliveries = (job) => !job.deliveries.length ? [] : [
  el("h3", { text: "Deliveries" }),
  el("ul", { class: "found" }, ...job.deliveries.map(({ id, received_ms, hook, state }) => el("li", {},
    el("code", { text: id }), el("span", { text: EVENTS[state][1] }),
    el("span", { text: id.startsWith(LOOK_UP) ? "by polling" : hook ? `hook ${hook}` : "" }), el("span", { class: "at", text: time(received_ms) })))),
];

const others = (title, jobs, target) => !jobs.length ? [] : [
  el("h3", { text: title }),
  lines(jobs.map((job) => [target(job), states(job)])),
];

const jobContent = (job) => {
  const { runner } = job;
  const row = Object.values(dashboard?.jobs ?? {}).find(({ id }) => id === job.id);
  // As the list shows it: the store has the one from when it was last written.
  const reason = dashboard?.reasons[row?.reason] ?? job.waiting_message;
  const attempts = job.attempts.filter(({ run_attempt }) => run_attempt !== job.run_attempt);
  const pool = job.state === "queued" ? row?.pool : job.pool;
  return [
    job.state === "queued" && reason ? el("p", { class: "reason" }, el("b", { text: "Waiting: " }), reason) : null,
    timeline(job, runner),
    el("h3", { text: "Job" }),
    facts([
      ["State", states(job)],
      ["Repository", job.repository],
      ["Workflow", job.workflow_name],
      ["Branch", job.head_branch],
      ["Labels", job.labels.join(", ")],
      ["Pool", pool && linked("pool", pool)],
      ["Job ID", `${job.id}, attempt ${job.run_attempt}`],
      ["Run ID", job.run_id ? String(job.run_id) : null],
      ["At GitHub", link(job.html_url, "Open the job")],
    ]),
    ...(runner ? runnerFacts(runner) : [
      job.runner_name ? el("h3", { text: "Runner" }) : null,
      job.runner_name ? el("p", { text: `${job.runner_name} (not launched by this installation)` }) : null,
    ]),
    ...deliveries(job),
    ...others("Other attempts of this job", attempts, (it) => linked("job", `${it.id}.${it.run_attempt}`, `Attempt ${it.run_attempt}`)),
    ...others("Other jobs of its run", job.run, (it) => linked("job", it.id, it.name || `Job ${it.id}`)),
  ];
};

const fillJob = async (id, attempt) => {
  const job = await get(`/page/jobs/${id}${attempt ? `?attempt=${attempt}` : ""}`);
  if (!job) return false;
  // The dialog may show something else by now, or be closed.
  if (shown?.job !== job.id) return true;
  open(job.name || `Job ${job.id}`, ...jobContent(job));
  setHash(`job=${job.id}${attempt ? `.${attempt}` : ""}`);
  return true;
};

const fillRunner = async (name) => {
  const runner = await get(`/page/runners/${encodeURIComponent(name)}`);
  if (!runner) return false;
  if (shown?.runner !== name) return true;
  const job = runner.job && [el("h3", { text: "Job" }), el("p", {}, linked("job", runner.job.id, `Job ${runner.job.id}`))];
  open(runner.name, ...runnerFacts(runner), ...(job ?? []));
  setHash(`runner=${runner.name}`);
  return true;
};

export const setHash = (hash) => {
  if (location.hash !== `#${hash}`) history.replaceState(null, "", `#${hash}`);
};

// Resolves to whether it exists. `state` returns what the dashboard says of it: once that changes,
// `fill` is called again.
export const show = async (what, state, fill) => {
  shown = { ...what, fill, stateOf: (update) => JSON.stringify(update && state(update)) };
  shown.state = shown.stateOf(dashboard);
  try {
    return await fill();
  } catch (error) {
    open("Couldn't load", el("p", { text: `The sidecar didn't answer: ${error.message}` }));
    return true;
  }
};

export const current = () => dashboard;

export const showJob = (id, attempt) => show({ job: Number(id) },
  (update) => Object.values(update.jobs).filter((job) => job.id === Number(id)).map((job) => [job, update.reasons[job.reason]]),
  () => fillJob(id, attempt));
export const showRunner = (name) => show({ runner: name },
  (update) => [update.runners[name], update.failed[name]], () => fillRunner(name));

export const showRun = (id) => show({}, () => null, async () => {
  const jobs = await get(`/page/jobs?run=${id}`);
  if (jobs.length === 1) return showJob(jobs[0].id);
  const newest = jobs.filter((job) => job.run_attempt === jobs[0].run_attempt);
  if (jobs.length) open(`Run ${id}: ${newest.length} jobs`, lines(newest.map((job) => [linked("job", job.id, job.name), states(job)])));
  return jobs.length > 0;
});

// Updates the dialog with the dashboard.
export const details = (update) => {
  dashboard = update;
  if (!dialog.open || !shown) return;
  const state = shown.stateOf(dashboard);
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
