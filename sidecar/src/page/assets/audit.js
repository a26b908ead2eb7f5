// The audit log: what people changed, the latest first.

import { choice, onChoice } from "./address.js";
import { byId, el, setText, time } from "./elements.js";
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

const rows = table(byId("audit"), Object.assign([
  { class: "number", text: (change) => time(change.at_ms) },
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
  rows(await response.json());
};

const refresh = () => {
  if (!document.hidden && choice("view") === "changes") audit().catch(() => {});
};
onChoice(refresh);
refresh();
setInterval(refresh, REFRESH_EVERY_MS);
