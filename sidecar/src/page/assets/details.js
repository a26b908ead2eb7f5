// One job or runner, in full.

import { byId, el, lasting, link } from "./elements.js";

const dialog = byId("details");
// What is open, to be shown again when it has changed.
let shown = null;
let board = null;

export const open = (title, ...content) => {
  byId("details-title").textContent = title;
  byId("details-body").replaceChildren(...content.filter(Boolean));
  if (!dialog.open) dialog.showModal();
};

const get = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
};

const facts = (pairs) => el("dl", { class: "facts" }, ...pairs
  .filter(([, value]) => value !== undefined && value !== null && value !== "")
  .flatMap(([name, value]) => [el("dt", { text: name }), el("dd", {}, value)]));

const time = (ms) => new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

// Begins the delivery of a job that no webhook told of.
export const LOOK_UP = "look-up-";

const steps = (job) => {
  const told = job.delivery.startsWith(LOOK_UP) ? "Found by a look at GitHub" : "Webhook stored, answered 202";
  const ran = job.runner_name !== "";
  const list = [
    ["Queued at GitHub", job.created_ms],
    [told, job.queued_ms],
    ["Launch of its runner began", ran ? job.launched_ms : null],
    ["Its container ran", ran ? job.container_ms : null],
    ["Picked up", ran ? job.started_ms : null],
    ["Done", job.completed_ms],
  ];
  // A runner that was there before, or another's, has no steps of its own to wait for.
  const known = list.filter(([name, at]) => at != null || (job.state !== "completed" && !(name === "Queued at GitHub") && !(ran && /Launch|container/.test(name))));
  const done = known.filter(([, at]) => at != null).sort((a, b) => a[1] - b[1]);
  const open = known.filter(([, at]) => at == null);
  return el("ol", { class: "steps" },
    ...done.map(([name, at], index) => el("li", {}, el("b", { text: name }),
      el("span", { text: index ? `+${lasting(at - done[index - 1][1])}` : "" }), el("span", { class: "at", text: time(at) }))),
    ...open.map(([name]) => el("li", { class: "open" }, el("b", { text: name }), el("span", { text: "not yet" }))));
};

// Colours and cursor movements of a terminal.
const plain = (log) => log.replace(/\u001b\[[0-9;?]*[ -\/]*[@-~]/g, "").replace(/[\u0000-\u0008\u000b-\u001f]/g, "");

const runnerFacts = (runner) => [
  el("h3", { text: "Runner" }),
  facts([
    ["Container", el("code", { text: runner.name })],
    ["Pool", runner.pool],
    ["Registered at", runner.target],
    ["Phase", runner.phase],
    ["Launched", time(runner.created_ms)],
    ["Gone", runner.gone_ms ? `${time(runner.gone_ms)}, after ${lasting(runner.gone_ms - runner.created_ms)}` : null],
    ["Why", runner.why],
    ["Look at it", runner.gone_ms ? null : el("code", { text: `docker logs ${runner.name}` })],
  ]),
  runner.failed || runner.log ? el("h3", { text: "End of its log" }) : null,
  runner.log ? el("pre", { class: "log", tabindex: "0", role: "group", "aria-label": "End of the runner's log", text: plain(runner.log) })
    : runner.failed ? el("p", { class: "muted", text: "None was kept: its container never ran, or was gone before it could be read." }) : null,
];

const jobContent = async (job) => {
  const runner = job.runner_name ? await get(`/page/runners/${encodeURIComponent(job.runner_name)}`) : null;
  const state = job.state === "completed" ? job.conclusion || "done" : job.state;
  return [
    steps(job),
    job.state === "queued" && job.waiting_message ? el("p", {}, el("b", { text: "Waits: " }), job.waiting_message) : null,
    el("h3", { text: "Job" }),
    facts([
      ["Repository", job.repository],
      ["Workflow", job.workflow_name],
      ["Branch", job.head_branch],
      ["Labels", job.labels.join(", ")],
      ["State", state.replaceAll("_", " ")],
      ["Job id", `${job.id}, attempt ${job.run_attempt}`],
      ["Run id", job.run_id ? String(job.run_id) : null],
      ["Delivery", el("code", { text: job.delivery })],
      ["At GitHub", link(job.html_url, "Open the job")],
    ]),
    ...(runner ? runnerFacts(runner) : [
      job.runner_name ? el("h3", { text: "Runner" }) : null,
      job.runner_name ? el("p", { text: `${job.runner_name}: not one of this installation.` }) : null,
    ]),
  ];
};

const choices = (jobs) => el("ul", { class: "found" }, ...jobs.map((job) => el("li", {}, el("button", { type: "button", onclick: () => showJob(job.id) },
  el("b", { text: job.name }), el("span", { text: `attempt ${job.run_attempt}` }), el("span", { text: (job.conclusion || job.state).replaceAll("_", " ") })))));

const fillJob = async (id) => {
  const [job] = await get(`/page/jobs?job=${id}`);
  if (!job) return false;
  const content = await jobContent(job);
  // Another may have been opened meanwhile, or none.
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
    type: "button", class: "link", text: `Its job, ${runner.job.id}`, onclick: () => showJob(runner.job.id),
  }));
  open(runner.name, ...runnerFacts(runner), job);
  return true;
};

// Whether there is such a one.
const show = async (what, fill) => {
  shown = { ...what, fill };
  shown.state = stateOf(board);
  try {
    return await fill();
  } catch (error) {
    open("Not found out", el("p", { text: `The sidecar does not tell: ${error.message}` }));
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

const stateOf = (board) => JSON.stringify(!board ? null : shown.job
  ? Object.values(board.jobs).filter((job) => job.id === shown.job)
  : [board.runners[shown.runner], board.failed[shown.runner]]);

// Whatever is open follows what happens.
export const details = (told) => {
  board = told;
  if (!dialog.open || !shown) return;
  const state = stateOf(board);
  if (state === shown.state) return;
  shown.state = state;
  // It says what it knew if the sidecar does not tell.
  shown.fill().catch(() => {});
};

byId("details-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  shown = null;
  if (location.hash) history.replaceState(null, "", location.pathname);
});
