// The overview: tiles, problems, pools and API quota.

import { byId, count, el, duration, setBar, setText, until } from "./elements.js";
import { setOperation, operation } from "./operate.js";
import { table } from "./table.js";

const tile = (name, value, note = "") => {
  setText(document.querySelector(`[data-tile=${name}]`), value);
  setText(document.querySelector(`[data-note=${name}]`), note);
};

// The median is weighted by jobs, so that a quiet step counts little.
const lastHour = (queueTimes, hourAgo) => {
  const steps = Object.entries(queueTimes).filter(([at]) => Number(at) >= hourAgo).map(([, step]) => step);
  const jobs = steps.reduce((sum, step) => sum + step.jobs, 0);
  if (!jobs) return null;
  const sorted = [...steps].sort((a, b) => a.median_ms - b.median_ms);
  let passed = 0;
  const middle = sorted.find((step) => (passed += step.jobs) >= jobs / 2);
  return { jobs, median: middle.median_ms, longest: Math.max(...steps.map((step) => step.longest_ms)) };
};

const tiles = (dashboard, now) => {
  const pools = Object.values(dashboard.pools);
  const running = pools.reduce((sum, pool) => sum + pool.busy, 0);
  tile("waiting", dashboard.waiting.toLocaleString("en"),
    dashboard.waiting ? `oldest: ${duration(now - dashboard.oldest_waiting_ms)}` : "none");
  tile("running", running.toLocaleString("en"), `in ${count(pools.length, "pool")}`);
  const max = dashboard.runners_max ?? pools.reduce((sum, pool) => sum + pool.max, 0);
  tile("runners", dashboard.runners_live.toLocaleString("en"), `max ${max.toLocaleString("en")}`);
  const wait = lastHour(dashboard.queue_times, now - 3_600_000);
  tile("wait", wait ? duration(wait.median) : "–",
    wait ? `median of ${count(wait.jobs, "job")}, longest ${duration(wait.longest)}` : "no job started");
  const scarce = [...dashboard.budgets].sort((a, b) => a.remaining / a.limit - b.remaining / b.limit)[0];
  tile("budget", scarce ? `${Math.floor((100 * scarce.remaining) / scarce.limit)} %` : "–",
    scarce ? `${scarce.credential}${scarce.account ? `, ${scarce.account}` : ""}: ${scarce.remaining.toLocaleString("en")}` : "not known yet");
};

const day = (ms) => new Date(ms).toISOString().slice(0, 10);

// Empty until something is known.
const runnerVersion = ({ runner_version: known }) => {
  if (!known) return "";
  const ends = known.ends_ms ? `, ends ${day(known.ends_ms)}` : known.problem ? ", end unknown" : "";
  return known.version ? `runner ${known.version}${ends}` : "runner version unknown";
};

const number = (of, more = "") => ({ class: `number${more}`, text: (row) => of(row).toLocaleString("en") });

// They count in no column.
const parked = (pool) => {
  if (pool.parked + pool.parked_wanted === 0) return "";
  const created = pool.parked_not_started;
  return `${pool.parked.toLocaleString("en")} parked${created > 0 ? ` (${created.toLocaleString("en")} not started)` : ""}`;
};

const pools = table(byId("pools"), [
  {
    build: (cell) => {
      const [name, badge, labels] = [el("b"), el("span", { class: "badge" }), el("span", { class: "muted labels" })];
      // Shown on narrow screens, which have no room for a column.
      const max = el("span", { class: "muted narrow" });
      const bar = el("div", { class: "bar", "aria-hidden": "true" });
      const drain = operation("drain");
      cell.append(el("div", { class: "pool" }, name, badge, max, labels, drain), bar);
      return (pool) => {
        setText(name, pool.name);
        setText(badge, pool.drains ? "draining" : "");
        // While all pools are drained, one alone cannot be resumed.
        drain.hidden = pool.drains && !pool.draining;
        setOperation(drain, pool.draining ? "resume" : "drain", pool.name);
        setText(max, `max ${pool.max.toLocaleString("en")}`);
        setText(labels, [pool.labels.join(", "), parked(pool), runnerVersion(pool)].filter(Boolean).join(" · "));
        const taken = pool.busy + pool.idle + pool.starting + pool.provisioning + pool.leaving;
        const whole = Math.max(pool.max, taken) + pool.queued;
        const free = Math.max(0, pool.max - taken);
        setBar(bar, [["busy", pool.busy], ["idle", pool.idle], ["starting", pool.starting + pool.provisioning],
          ["leaving", pool.leaving], ["raised", free], ["panel", pool.queued && whole / 150], ["queued", pool.queued]], whole);
      };
    },
  },
  number((pool) => pool.queued),
  number((pool) => pool.starting + pool.provisioning),
  number((pool) => pool.idle),
  number((pool) => pool.busy),
  number((pool) => pool.max, " wide"),
], "No pools");

const budgets = table(byId("budgets"), [
  {
    build: (cell) => {
      const name = el("span");
      const bar = el("div", { class: "bar meter", "aria-hidden": "true" });
      cell.append(name, bar);
      return (budget) => {
        setText(name, budget.account ? `${budget.credential} · ${budget.account}` : budget.credential);
        const share = budget.remaining / budget.limit;
        setBar(bar, [[share < 0.05 ? "bad" : share < 0.2 ? "starting" : "idle", share]], 1);
      };
    },
  },
  { class: "number", text: (budget) => budget.remaining.toLocaleString("en") },
  { class: "number", text: (budget) => until(budget.reset_ms) },
  {
    class: "number",
    text: ({ missed }) => !missed ? "–" : missed.waits_until_ms
      ? `resumes in ${until(missed.waits_until_ms)}` : `${missed.spent} of ${missed.allowed}`,
  },
], "No requests to GitHub yet");

const spending = table(byId("spending"), [
  { text: (spent) => `${spent.purpose.replaceAll("_", " ")} · ${spent.credential}` },
  { class: "number", text: (spent) => spent.requests.toLocaleString("en") },
  { class: "number", text: (spent) => spent.refused.toLocaleString("en") },
  { class: "number", text: (spent) => spent.failed.toLocaleString("en") },
], "No requests in the last hour");

export const overview = (dashboard, now) => {
  tiles(dashboard, now);
  setOperation(byId("drain-all"), dashboard.draining ? "resume" : "drain");
  setText(byId("drain-all"), dashboard.draining ? "Resume all" : "Drain all");
  pools(Object.values(dashboard.pools)
    .map((pool) => ({ ...pool, drains: pool.draining || dashboard.draining }))
    .sort((a, b) => a.name.localeCompare(b.name)));
  budgets(dashboard.budgets);
  spending(dashboard.spending);
};
