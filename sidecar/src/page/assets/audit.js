// The audit log: what people changed, the latest first.

import { byId, el, setText } from "./elements.js";
import { table } from "./table.js";

const REFRESH_EVERY_MS = 60_000;

const ACTIONS = {
  drain: "drained",
  resume: "resumed",
  retry: "retried failed launches",
  remove: "removed runner",
  drain_node: "drained node",
  resume_node: "resumed node",
};

const what = ({ action, target }) => {
  const all = action === "drain" || action === "resume" ? "all pools" : "";
  const pool = all && target ? "pool " : "";
  return [ACTIONS[action] ?? action, `${pool}${target || all}`].filter(Boolean).join(" ");
};

const when = (ms) => {
  const at = new Date(ms);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" })}, ${time}`;
};

const rows = table(byId("audit"), Object.assign([
  { class: "number", text: (change) => when(change.at_ms) },
  {
    build: (cell) => {
      const [who, address] = [el("b"), el("span", { class: "muted" })];
      cell.append(who, " ", address);
      return (change) => {
        setText(who, change.who);
        setText(address, change.address);
      };
    },
  },
  { text: what },
  { class: "wide", text: (change) => change.outcome },
], { heading: 1 }), "No changes yet");

export const audit = async () => {
  const response = await fetch("/api/v1/audit?limit=100");
  if (!response.ok) return;
  const changes = await response.json();
  document.querySelector(".panel.audit").hidden = changes.length === 0;
  rows(changes);
};

const refresh = () => {
  if (!document.hidden) audit().catch(() => {});
};
refresh();
setInterval(refresh, REFRESH_EVERY_MS);
