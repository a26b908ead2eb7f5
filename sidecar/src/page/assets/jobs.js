// The list of jobs: filters, order and rows.

import { address, choice, choose } from "./address.js";
import { byId, count, el, duration, isWebAddress, setBar, setText, since } from "./elements.js";
import { showJob } from "./details.js";
import { opener, tag } from "./cells.js";
import { runningJobs } from "./figures.js";
import { order } from "./order.js";
import { table } from "./table.js";
import { jobState } from "./words.js";

const NAMES_EVERY_MS = 2_000;

const waited = (job, now) => (job.started_ms ?? (job.state === "queued" ? now : job.queued_ms)) - job.queued_ms;
const ran = (job, now) => job.started_ms && job.runner ? (job.completed_ms ?? now) - job.started_ms : null;

// What all rows have in common.
let now = 0;
let longest = 1;
let reasons = {};
let nothing = "";

const rows = table(byId("jobs"), Object.assign([
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
  { class: "number", text: (job) => job.state === "queued" ? since(job.queued_ms) : duration(waited(job, now)) },
  {
    class: "wide line",
    build: (cell) => {
      const bar = el("div", { class: "bar", "aria-hidden": "true" });
      cell.append(bar);
      return (job) => {
        if (job.state === "queued") {
          setBar(bar, [["queued", now - job.queued_ms]], longest);
          return;
        }
        const end = job.completed_ms ?? now;
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
  { class: "number wide", text: (job) => job.completed_ms ? duration(ran(job, now)) : job.started_ms ? since(job.started_ms) : "" },
  { class: "wide why", text: (job) => job.state === "queued" ? reasons[job.reason] : job.node ? `${job.runner} on ${job.node}` : job.runner },
  {
    class: "wide link",
    build: (cell) => {
      const at = el("a", { rel: "noreferrer noopener", target: "_blank", text: "↗" });
      cell.append(at);
      return ({ name, url }) => {
        const usable = isWebAddress(url);
        at.hidden = !usable;
        if (!usable) return;
        if (at.getAttribute("href") !== url) at.setAttribute("href", url);
        at.setAttribute("aria-label", `${name} at GitHub`);
      };
    },
  },
], { heading: 1, limit: 15 }), () => nothing);

const RANKS = { queued: 0, in_progress: 1, completed: 2 };
const usual = (a, b) =>
  RANKS[a.state] - RANKS[b.state] ||
  (a.state === "completed" ? (b.completed_ms ?? 0) - (a.completed_ms ?? 0) : a.queued_ms - b.queued_ms) ||
  a.id - b.id;

const sorted = order(byId("jobs"), "sort", {
  state: (job) => RANKS[job.state],
  job: (job) => job.name,
  repository: (job) => job.repository,
  pool: (job) => job.pool,
  label: (job) => job.labels,
  waited: (job) => waited(job, now),
  ran: (job) => ran(job, now),
});

const labelsOf = (job) => job.labels.split(", ").filter(Boolean);
const FILTERS = {
  repository: { all: "All repositories", of: (job) => [job.repository] },
  pool: { all: "All pools", of: (job) => (job.pool ? [job.pool] : []) },
  label: { all: "All labels", of: labelsOf },
};

// What can be chosen is what there is, and what is chosen.
let named = -Infinity;
const offer = (all) => {
  if (performance.now() - named < NAMES_EVERY_MS) return;
  named = performance.now();
  for (const [name, { all: everything, of }] of Object.entries(FILTERS)) {
    const select = byId(`jobs-${name}`);
    // Not under the reader's eyes.
    if (select === document.activeElement) continue;
    const found = new Set(all.flatMap(of));
    if (choice(name)) found.add(choice(name));
    const names = ["", ...[...found].sort((a, b) => a.localeCompare(b))];
    const old = [...select.options].map((option) => option.value);
    if (names.length !== old.length || names.some((it, index) => it !== old[index])) {
      select.replaceChildren(...names.map((it) => el("option", { value: it, text: it || everything })));
    }
    select.value = choice(name);
  }
};

const fitting = () => {
  const asked = choice("filter").toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(FILTERS).filter(([name]) => choice(name));
  return (job) => {
    if (choice("jobs") !== "all" && job.state !== choice("jobs")) return false;
    if (chosen.some(([name, { of }]) => !of(job).includes(choice(name)))) return false;
    if (!asked.length) return true;
    const { name, repository, workflow, labels, pool, runner } = job;
    const text = [name, repository, workflow, labels, pool, runner].join(" ").toLowerCase();
    return asked.every((word) => text.includes(word));
  };
};

const label = (value, text) =>
  setText(document.querySelector(`input[name=jobs][value=${value}]`).nextElementSibling, text);

export const jobs = (dashboard, moment) => {
  now = moment;
  reasons = dashboard.reasons;
  const all = Object.values(dashboard.jobs).sort(usual);
  const queued = all.filter((job) => job.state === "queued");
  // The longest wait of all waiting jobs is the scale of their bars, to compare them.
  longest = Math.max(1, now - (queued[0]?.queued_ms ?? now));
  offer(all);
  const fit = all.filter(fitting());
  nothing = all.length ? "No job fits the filter." : "No jobs yet. A job appears here as soon as GitHub announces it.";
  rows(sorted(fit));
  const running = runningJobs(dashboard);
  label("queued", `Waiting ${dashboard.waiting.toLocaleString("en")}`);
  label("in_progress", `Running ${running.toLocaleString("en")}`);
  const hidden = dashboard.waiting - queued.length;
  const narrowed = fit.length < all.length;
  byId("jobs-clear").hidden = !narrowed;
  setText(byId("jobs-more"), [
    narrowed ? `${count(fit.length, "job")} of ${all.length.toLocaleString("en")} shown.` : "",
    `${count(dashboard.waiting, "job")} waiting, ${running.toLocaleString("en")} running, and the last ${all.filter((job) => job.state === "completed").length} completed.`,
    hidden > 0 ? `${hidden.toLocaleString("en")} more waiting; use the search to find any job.` : "",
  ].filter(Boolean).join(" "));
};

// Shows in the form what is chosen in the address.
export const showChoices = () => {
  for (const name of ["jobs", "runners"]) {
    const value = [...document.querySelectorAll(`input[name=${name}]`)].find((it) => it.value === choice(name));
    if (value) value.checked = true;
  }
  const filter = byId("jobs-filter");
  if (filter.value.trim() !== choice("filter")) filter.value = choice("filter");
  for (const name of Object.keys(FILTERS)) byId(`jobs-${name}`).value = choice(name);
  byId("jobs-sort").value = choice("sort").replace(/^-/, "");
  byId("jobs-clear").setAttribute("href", address({ jobs: "all", filter: "", repository: "", pool: "", label: "" }));
  named = -Infinity;
};

for (const name of ["jobs", "runners"]) {
  byId(`${name}-shown`).addEventListener("change", ({ target }) => choose({ [name]: target.value }));
}
byId("jobs-filter").addEventListener("input", ({ target }) => choose({ filter: target.value.trim() }));
for (const name of Object.keys(FILTERS)) {
  byId(`jobs-${name}`).addEventListener("change", ({ target }) => choose({ [name]: target.value }));
}
byId("jobs-sort").addEventListener("change", ({ target }) => choose({ sort: target.value }));
byId("jobs-clear").addEventListener("click", (event) => {
  event.preventDefault();
  choose({ jobs: "all", filter: "", repository: "", pool: "", label: "" });
});
