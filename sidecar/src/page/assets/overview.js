// The tiles, the pools and the API quota.

import { lastHour, runnersMax, runnerVersion, runningJobs } from "./figures.js";
import { showPool } from "./places.js";
import { byId, count, el, duration, setBar, setText, since, until } from "./elements.js";
import { operation, setOperation } from "./operate.js";
import { table } from "./table.js";

const tile = (name, value, note = "") => {
  setText(document.querySelector(`[data-tile=${name}]`), value);
  setText(document.querySelector(`[data-note=${name}]`), note);
};

const tiles = (dashboard, now) => {
  const pools = Object.values(dashboard.pools);
  const running = runningJobs(dashboard);
  tile("waiting", dashboard.waiting.toLocaleString("en"),
    dashboard.waiting ? `oldest: ${since(dashboard.oldest_waiting_ms)}` : "none");
  tile("running", running.toLocaleString("en"), `in ${count(pools.length, "pool")}`);
  tile("runners", dashboard.runners_live.toLocaleString("en"), `max ${runnersMax(dashboard).toLocaleString("en")}`);
  const wait = lastHour(dashboard.queue_times, now - 3_600_000);
  tile("wait", wait ? duration(wait.median) : "–",
    wait ? `median of ${count(wait.jobs, "job")}, longest ${duration(wait.longest)}` : "no job started");
  const scarce = [...dashboard.budgets].sort((a, b) => a.remaining / a.limit - b.remaining / b.limit)[0];
  tile("budget", scarce ? `${Math.floor((100 * scarce.remaining) / scarce.limit)} %` : "–",
    scarce ? `${scarce.credential}${scarce.account ? `, ${scarce.account}` : ""}: ${scarce.remaining.toLocaleString("en")}` : "not known yet");
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
      let shown = "";
      const name = el("b");
      const button = el("button", { type: "button", class: "link", onclick: () => showPool(shown) }, name);
      const [badge, labels] = [el("span", { class: "badge" }), el("span", { class: "muted labels" })];
      // Shown on narrow screens, which have no room for a column.
      const max = el("span", { class: "muted narrow" });
      const bar = el("div", { class: "bar", "aria-hidden": "true" });
      const drain = operation("drain");
      cell.append(el("div", { class: "pool" }, button, badge, max, labels, drain), bar);
      return (pool) => {
        shown = pool.name;
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
], () => "No pools");

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
], () => "No requests to GitHub yet");

const spending = table(byId("spending"), [
  { text: (spent) => `${spent.purpose.replaceAll("_", " ")} · ${spent.credential}` },
  { class: "number", text: (spent) => spent.requests.toLocaleString("en") },
  { class: "number", text: (spent) => spent.refused.toLocaleString("en") },
  { class: "number", text: (spent) => spent.failed.toLocaleString("en") },
], () => "No requests in the last hour");

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
