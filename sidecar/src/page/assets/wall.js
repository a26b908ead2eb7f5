// The wall: the state in big figures, for a screen that is read from across a room.

import { choice } from "./address.js";
import { jobsOf } from "./attention.js";
import { byId, count, el, duration, setBar, setClass, setText, since } from "./elements.js";
import { lastHour, runnersMax, runningJobs } from "./figures.js";

// What fits on one screen.
const FINDINGS_MAX = 4;
const POOLS_MAX = 6;

const figure = (name, value, note) => {
  setText(document.querySelector(`[data-wall=${name}]`), value);
  setText(document.querySelector(`[data-wall-note=${name}]`), note);
};

// Keeps as many elements as there are rows.
const list = (element, rows, build) => {
  while (element.children.length > rows.length) element.lastElementChild.remove();
  while (element.children.length < rows.length) element.append(build());
  rows.forEach((row, index) => element.children[index].show(row));
};

const finding = () => {
  const [title, text] = [el("b"), el("p")];
  const li = el("li", {}, title, text);
  li.show = (found) => {
    setClass(li, found.group);
    setText(title, [found.title, jobsOf(found)].filter(Boolean).join(" · "));
    setText(text, found.text);
  };
  return li;
};

const pool = () => {
  const [name, figures] = [el("b"), el("span")];
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  const li = el("li", {}, el("div", {}, name, " ", figures), bar);
  li.show = (row) => {
    setText(name, row.name);
    setText(figures, `${row.busy} of ${row.max} busy, ${row.queued} queued${row.drains ? ", draining" : ""}`);
    const taken = row.busy + row.idle + row.starting + row.provisioning + row.leaving;
    setBar(bar, [["busy", row.busy], ["idle", row.idle], ["starting", row.starting + row.provisioning], ["leaving", row.leaving]],
      Math.max(row.max, taken) || 1);
  };
  return li;
};

export const wall = (dashboard, now) => {
  if (choice("view") !== "wall") return;
  figure("waiting", dashboard.waiting.toLocaleString("en"),
    dashboard.waiting ? `oldest: ${since(dashboard.oldest_waiting_ms)}` : "none");
  figure("running", runningJobs(dashboard).toLocaleString("en"), "jobs");
  figure("runners", dashboard.runners_live.toLocaleString("en"), `max ${runnersMax(dashboard).toLocaleString("en")}`);
  const wait = lastHour(dashboard.queue_times, now - 3_600_000);
  figure("wait", wait ? duration(wait.median) : "–", wait ? `longest ${duration(wait.longest)}` : "no job started");

  const urgent = dashboard.attention.filter(({ group }) => group !== "waiting");
  list(byId("wall-findings"), urgent.slice(0, FINDINGS_MAX), finding);
  byId("wall-calm").hidden = urgent.length > 0;
  const more = urgent.length - FINDINGS_MAX;
  setText(byId("wall-more"), more > 0 ? `and ${count(more, "more finding")}` : "");

  // Those with the most to do.
  const pools = Object.values(dashboard.pools)
    .map((row) => ({ ...row, drains: row.draining || dashboard.draining }))
    .sort((a, b) => b.queued - a.queued || b.busy - a.busy || a.name.localeCompare(b.name));
  list(byId("wall-pools"), pools.slice(0, POOLS_MAX), pool);
  setText(byId("wall-time"), new Date(now).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
};
