// At a glance: tiles, what needs attention, pools, requests left.

import { byId, count, el, lasting, setBar, setClass, setText, until } from "./elements.js";
import { table } from "./table.js";

const tile = (name, value, note = "") => {
  setText(document.querySelector(`[data-tile=${name}]`), value);
  setText(document.querySelector(`[data-note=${name}]`), note);
};

// By jobs, so that a quiet step counts for little.
const lastHour = (queueTimes, hourAgo) => {
  const steps = Object.entries(queueTimes).filter(([at]) => Number(at) >= hourAgo).map(([, step]) => step);
  const jobs = steps.reduce((sum, step) => sum + step.jobs, 0);
  if (!jobs) return null;
  const sorted = [...steps].sort((a, b) => a.median_ms - b.median_ms);
  let passed = 0;
  const middle = sorted.find((step) => (passed += step.jobs) >= jobs / 2);
  return { jobs, median: middle.median_ms, longest: Math.max(...steps.map((step) => step.longest_ms)) };
};

const tiles = (board, now) => {
  const pools = Object.values(board.pools);
  const running = pools.reduce((sum, pool) => sum + pool.busy, 0);
  const oldest = Math.min(...board.reasons.map((reason) => reason.oldest_ms));
  tile("waiting", board.waiting.toLocaleString("en"),
    board.waiting ? `oldest for ${lasting(now - oldest)}` : "none");
  tile("running", running.toLocaleString("en"), `in ${count(pools.length, "pool")}`);
  const max = board.runners_max ?? pools.reduce((sum, pool) => sum + pool.max, 0);
  tile("runners", board.runners_live.toLocaleString("en"), `of at most ${max.toLocaleString("en")}`);
  const wait = lastHour(board.queue_times, now - 3_600_000);
  tile("wait", wait ? lasting(wait.median) : "–",
    wait ? `median of ${count(wait.jobs, "job")}, longest ${lasting(wait.longest)}` : "no job was taken");
  const scarce = [...board.budgets].sort((a, b) => a.remaining / a.limit - b.remaining / b.limit)[0];
  tile("budget", scarce ? `${Math.floor((100 * scarce.remaining) / scarce.limit)} %` : "–",
    scarce ? `${scarce.credential}${scarce.account ? `, ${scarce.account}` : ""}: ${scarce.remaining.toLocaleString("en")}` : "not told yet");
};

const notice = (kind, title, words) => ({ kind, title, words });

const noticesOf = (board, now) => {
  const notices = [];
  if (!board.recovered) {
    notices.push(notice("bad", "Docker has not answered yet", "Events are stored, nothing is launched until it does."));
  }
  for (const failure of board.failures) {
    const again = failure.until_ms > now ? `next try in ${until(failure.until_ms)}` : "being tried again";
    notices.push(notice("bad", `Failing: ${failure.blocks}`,
      `${failure.message} (${count(failure.failures, "failure")}, for ${lasting(now - failure.since_ms)}; ${again})`));
  }
  for (const budget of board.budgets) {
    if (budget.remaining < budget.limit / 20) {
      notices.push(notice("warn", `Few requests left: ${budget.credential}`,
        `${budget.remaining} of ${budget.limit}, anew in ${until(budget.reset_ms)}.`));
    }
  }
  const drains = Object.values(board.pools).filter((pool) => pool.draining).map((pool) => pool.name);
  if (board.draining) notices.push(notice("warn", "All pools drain", "Nothing is launched until edgerunner resume."));
  else if (drains.length) notices.push(notice("warn", `Draining: ${drains.join(", ")}`, "Nothing is launched there until edgerunner resume --pool."));
  for (const reason of board.reasons) {
    const held = reason.reason.startsWith("no_") || reason.reason === "job_without_labels";
    notices.push(notice(held ? "warn" : "", `${count(reason.jobs, "job waits", "jobs wait")}, the oldest for ${lasting(now - reason.oldest_ms)}`, reason.message));
  }
  return notices;
};

const attention = (board, now) => {
  const notices = noticesOf(board, now);
  setText(byId("attention-count"), notices.filter(({ kind }) => kind === "bad").length || "");
  if (!notices.length) notices.push(notice("good", "Nothing needs attention", "No job waits and nothing fails."));
  const list = byId("attention");
  while (list.children.length > notices.length) list.lastElementChild.remove();
  notices.forEach(({ kind, title, words }, index) => {
    const item = list.children[index] ?? list.appendChild(el("li", {}, el("b"), el("span")));
    setClass(item, kind);
    setText(item.firstElementChild, title);
    setText(item.lastElementChild, words);
  });
};

const number = (of, more = "") => ({ class: `number${more}`, text: (row) => of(row).toLocaleString("en") });

const pools = table(byId("pools"), [
  {
    build: (cell) => {
      const [name, badge, labels] = [el("b"), el("span", { class: "badge" }), el("span", { class: "muted labels" })];
      // Where there is no room for its column.
      const max = el("span", { class: "muted narrow" });
      const bar = el("div", { class: "bar", "aria-hidden": "true" });
      cell.append(el("div", { class: "pool" }, name, badge, max, labels), bar);
      return (pool) => {
        setText(name, pool.name);
        setText(badge, pool.drains ? "drains" : "");
        setText(max, `max ${pool.max.toLocaleString("en")}`);
        setText(labels, pool.labels.join(", "));
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
], "No pool is configured");

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
      ? `used up, ${until(missed.waits_until_ms)}` : `${missed.spent} of ${missed.allowed}`,
  },
], "GitHub has not told yet");

export const overview = (board, now) => {
  tiles(board, now);
  attention(board, now);
  pools(Object.values(board.pools)
    .map((pool) => ({ ...pool, drains: pool.draining || board.draining }))
    .sort((a, b) => a.name.localeCompare(b.name)));
  budgets(board.budgets);
};
