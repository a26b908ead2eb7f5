// The sidecars that share a store: which of them plans, and why the page may be out of date.

import { byId, count, el, setText, since, time } from "./elements.js";
import { tag } from "./cells.js";
import { table } from "./table.js";

const STATES = {
  plans: ["good", "Plans"],
  accepts: ["idle", "Accepts"],
  silent: ["bad", "Silent"],
};

const namesakes = (sidecars) => {
  const seen = new Map();
  for (const { name } of sidecars) seen.set(name, (seen.get(name) ?? 0) + 1);
  return seen;
};

const plans = (sidecar) => sidecar.term === undefined ? ""
  : `for ${since(sidecar.since_ms)}, term ${sidecar.term.toLocaleString("en")}`;

const behind = ({ behind }) => {
  if (!behind) return "–";
  return behind.deliveries ? `${count(behind.deliveries, "delivery", "deliveries")}, ${since(behind.oldest_ms)}` : "0";
};

const rows = table(byId("sidecars"), Object.assign([
  { class: "state", build: (cell) => tag(cell, (sidecar) => STATES[sidecar.state]) },
  {
    build: (cell) => {
      const [name, id] = [el("b"), el("span", { class: "muted" })];
      cell.append(name, " ", id);
      return (sidecar) => {
        setText(name, sidecar.name);
        setText(id, sidecar.shares_name ? sidecar.id.slice(0, 8) : "");
      };
    },
  },
  { class: "term wide", text: plans },
  { class: "number", text: (sidecar) => since(sidecar.seen_ms) },
  { class: "behind wide", text: behind },
  { class: "number wide", text: (sidecar) => sidecar.queued_writes.toLocaleString("en") },
  { class: "number wide", text: (sidecar) => since(sidecar.started_ms) },
  { class: "version wide", text: (sidecar) => sidecar.version },
], { heading: 1 }), () => "No sidecar has reported yet");

const all = (dashboard) => {
  const sidecars = Object.entries(dashboard.sidecars).map(([id, sidecar]) => ({ id, ...sidecar }));
  const seen = namesakes(sidecars);
  return sidecars.map((sidecar) => ({ ...sidecar, shares_name: seen.get(sidecar.name) > 1 }))
    .sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));
};

// Says that the page does not show the present, and greys what is old.
const banner = ({ outdated }) => {
  const element = byId("outdated");
  document.body.classList.toggle("outdated", Boolean(outdated));
  element.hidden = !outdated;
  setText(byId("outdated-title"), outdated?.title);
  setText(byId("outdated-text"), outdated?.message);
  setText(byId("outdated-since"), outdated?.since_ms
    ? `This page shows the state of ${since(outdated.since_ms)} ago, ${time(outdated.since_ms)}. It updates again by itself.`
    : "This page has not been up to date since it was opened. It updates by itself.");
};

export const sidecars = (dashboard) => {
  const listed = all(dashboard);
  document.querySelector(".panel.sidecars").hidden = listed.length === 0;
  rows(listed);
  banner(dashboard);
};
