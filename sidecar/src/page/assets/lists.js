// The lists of jobs, runners and deliveries.

import { byId, count, el, duration, isWebAddress, setBar, setClass, setText, since } from "./elements.js";
import { LOOK_UP, showJob, showRunner } from "./details.js";
import { table } from "./table.js";

const CONCLUSIONS = { success: "good", failure: "bad", timed_out: "bad", startup_failure: "bad" };
const STATES = { queued: "Waiting", in_progress: "Running", completed: "Done" };
const PHASES = { provisioning: "launching", starting: "starting", idle: "idle", busy: "busy", leaving: "leaving", parking: "being parked", parked: "parked" };
const PHASE_KINDS = { provisioning: "starting", starting: "starting", idle: "idle", busy: "busy" };

const words = (text) => text.replaceAll("_", " ");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const tag = (cell, of) => {
  const mark = el("span");
  cell.append(mark);
  return (row) => {
    const [kind, text] = of(row);
    setClass(mark, `tag ${kind}`);
    setText(mark, text);
  };
};

// A row keeps its button; the click handler opens the job or runner that the row shows then.
const opener = (cell, of, open) => {
  let current;
  const [main, more] = [el("span", { class: "main" }), el("span", { class: "muted repository" })];
  const button = el("button", { type: "button", class: "link", onclick: () => open(current) }, main, " ", more);
  cell.append(button);
  return (row) => {
    current = row;
    const [text, aside = ""] = of(row);
    setText(main, text);
    setText(more, aside);
  };
};

export const jobState = (job) => {
  if (job.state === "queued") return ["queued", "Waiting"];
  if (job.state === "in_progress") return ["busy", "Running"];
  return [CONCLUSIONS[job.conclusion] ?? "", capital(words(job.conclusion || "done"))];
};

const waited = (job, now) => (job.started_ms ?? (job.state === "queued" ? now : job.queued_ms)) - job.queued_ms;
const ran = (job, now) => job.started_ms && job.runner ? (job.completed_ms ?? now) - job.started_ms : null;

const jobs = table(byId("jobs"), Object.assign([
  { class: "state", build: (cell) => tag(cell, jobState) },
  { build: (cell) => opener(cell, (job) => [job.name, [job.repository, job.workflow].filter(Boolean).join(" · ")], (job) => showJob(job.id)) },
  {
    class: "wide labels",
    build: (cell) => {
      const [pool, labels] = [el("span"), el("span", { class: "muted repository" })];
      cell.append(el("span", { class: "lines" }, pool, labels));
      return (job) => {
        setText(pool, job.pool ?? (job.state === "queued" ? "none" : ""));
        setText(labels, job.labels);
      };
    },
  },
  { class: "number", text: (job) => job.state === "queued" ? since(job.queued_ms) : duration(waited(job, job.now)) },
  {
    class: "wide line",
    build: (cell) => {
      const bar = el("div", { class: "bar", "aria-hidden": "true" });
      cell.append(bar);
      return (job) => {
        if (job.state === "queued") {
          setBar(bar, [["queued", job.now - job.queued_ms]], job.longest);
          return;
        }
        const end = job.completed_ms ?? job.now;
        const taken = job.started_ms ?? end;
        const container = Math.min(taken, Math.max(job.queued_ms, job.container_ms ?? taken));
        const whole = Math.max(1, end - job.queued_ms);
        // Short parts stay visible.
        const shown = (ms) => ms > 0 ? Math.max(ms, whole / 50) : 0;
        const parts = [["starting", shown(container - job.queued_ms)], ["idle", shown(taken - container)], ["busy", shown(end - taken)]];
        setBar(bar, parts, parts.reduce((sum, [, ms]) => sum + ms, 0) || 1);
      };
    },
  },
  { class: "number wide", text: (job) => job.completed_ms ? duration(ran(job, job.now)) : job.started_ms ? since(job.started_ms) : "" },
  { class: "wide why", text: (job) => job.state === "queued" ? job.why : job.node ? `${job.runner} on ${job.node}` : job.runner },
  {
    class: "wide link",
    build: (cell) => {
      const address = el("a", { rel: "noreferrer noopener", target: "_blank", text: "↗" });
      cell.append(address);
      return ({ name, url }) => {
        const usable = isWebAddress(url);
        address.hidden = !usable;
        if (!usable) return;
        if (address.getAttribute("href") !== url) address.setAttribute("href", url);
        address.setAttribute("aria-label", `${name} at GitHub`);
      };
    },
  },
], { heading: 1, limit: 15 }), "No jobs yet. A job appears here as soon as GitHub announces it.");

const RANKS = { queued: 0, in_progress: 1, completed: 2 };
const inOrder = (a, b) =>
  RANKS[a.state] - RANKS[b.state] ||
  (a.state === "completed" ? (b.completed_ms ?? 0) - (a.completed_ms ?? 0) : a.queued_ms - b.queued_ms) ||
  a.id - b.id;

const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
const label = (name, value, text) =>
  setText(document.querySelector(`input[name=${name}][value=${value}]`).nextElementSibling, text);

const listJobs = (dashboard, now) => {
  const all = Object.values(dashboard.jobs).sort(inOrder);
  const of = (state) => all.filter((job) => job.state === state);
  // The longest wait of all waiting jobs is the scale of their bars, to compare them.
  const longest = Math.max(1, now - Math.min(now, ...of("queued").map((job) => job.queued_ms)));
  const wanted = chosen("jobs");
  const words = byId("jobs-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = ({ name, repository, workflow, labels, pool, runner }) => {
    const text = [name, repository, workflow, labels, pool, runner].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };
  jobs((wanted === "all" ? all : of(wanted)).filter(fits).map((job) => ({ ...job, now, longest })));
  label("jobs", "queued", `${STATES.queued} ${dashboard.waiting}`);
  const hidden = dashboard.waiting - of("queued").length;
  const shown = `${count(of("queued").length, "job")} waiting, ${of("in_progress").length} running, and the last ${of("completed").length} completed.`;
  setText(byId("jobs-more"), hidden > 0 ? `${shown} ${hidden.toLocaleString("en")} more waiting; use the search to find any job.` : shown);
};

const reasonOf = (runner) => {
  if (runner.why) return capital(runner.why);
  const subject = runner.job ? `job ${runner.job}` : runner.target;
  return runner.unreachable_ms ? `${subject}, no answer from its node for ${since(runner.unreachable_ms)}` : subject;
};

const runners = table(byId("runners"), Object.assign([
  { class: "state", build: (cell) => tag(cell, (runner) => runner.failed
    ? ["bad", "Failed"] : runner.unreachable_ms ? ["bad", "Unreachable"] : [PHASE_KINDS[runner.phase] ?? "", capital(PHASES[runner.phase] ?? runner.phase)]) },
  { build: (cell) => opener(cell, (runner) => [runner.name], (runner) => showRunner(runner.name)) },
  { class: "wide", text: (runner) => runner.pool },
  { class: "wide node", text: (runner) => runner.node },
  { class: "wide", text: reasonOf },
  { class: "number", text: (runner) => since(runner.since_ms) },
], { heading: 1, limit: 12 }), "None");

const listRunners = (dashboard) => {
  const named = (rows) => Object.entries(rows).map(([name, row]) => ({ name, ...row }));
  const live = named(dashboard.runners).sort((a, b) => a.created_ms - b.created_ms || a.name.localeCompare(b.name));
  const failed = named(dashboard.failed)
    .map((runner) => ({ ...runner, failed: true, since_ms: runner.gone_ms ?? runner.created_ms }))
    .sort((a, b) => b.created_ms - a.created_ms);
  byId("runners").classList.toggle("on-nodes", [...live, ...failed].some((runner) => runner.node));
  runners(chosen("runners") === "live" ? live : failed);
  label("runners", "live", `Live ${live.length}`);
  label("runners", "failed", `Failed ${failed.length}`);
  setText(byId("runners-more"), chosen("runners") === "live"
    ? "Each runner runs one job, in a container with the same name."
    : "The latest failures. Open a runner to see the last lines of its log.");
};

const EVENTS = { queued: ["queued", "Queued"], in_progress: ["busy", "Started"], completed: ["good", "Completed"] };

const deliveries = table(byId("deliveries"), Object.assign([
  { class: "number", text: (delivery) => since(delivery.received_ms) },
  { class: "state", build: (cell) => tag(cell, (delivery) => EVENTS[delivery.state]) },
  { build: (cell) => opener(cell, (delivery) => [delivery.name, delivery.repository], (delivery) => showJob(delivery.job)) },
  { class: "outcome", text: (delivery) => delivery.stale ? "outdated" : delivery.id.startsWith(LOOK_UP) ? "by polling" : "accepted" },
  { class: "wide mono", text: (delivery) => delivery.id },
], { heading: 2, limit: 12 }), "No deliveries yet");

const listDeliveries = (dashboard) =>
  deliveries(Object.entries(dashboard.deliveries)
    .map(([id, delivery]) => ({ id, ...delivery }))
    .sort((a, b) => b.received_ms - a.received_ms || a.id.localeCompare(b.id)));

export const lists = (dashboard, now) => {
  listJobs(dashboard, now);
  listRunners(dashboard);
  listDeliveries(dashboard);
};

// The choices are in the address, so that it can be kept and shared.
const CHOICES = { jobs: "all", runners: "live" };

const readAddress = () => {
  const address = new URLSearchParams(location.search);
  for (const name of Object.keys(CHOICES)) {
    const value = [...document.querySelectorAll(`input[name=${name}]`)].find((it) => it.value === address.get(name));
    if (value) value.checked = true;
  }
  byId("jobs-filter").value = address.get("filter") ?? "";
};

const writeAddress = () => {
  const address = new URLSearchParams();
  for (const [name, usual] of Object.entries(CHOICES)) if (chosen(name) !== usual) address.set(name, chosen(name));
  const filter = byId("jobs-filter").value.trim();
  if (filter) address.set("filter", filter);
  const text = address.toString();
  history.replaceState(null, "", `${location.pathname}${text && `?${text}`}${location.hash}`);
};

// Calls `update` when another selection of jobs or runners is chosen.
export const onChoice = (update) => {
  readAddress();
  const changed = () => {
    writeAddress();
    update();
  };
  for (const id of ["jobs-shown", "runners-shown"]) byId(id).addEventListener("change", changed);
  byId("jobs-filter").addEventListener("input", changed);
};
