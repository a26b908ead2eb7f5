// The nodes of a Docker Swarm: which there are, and what keeps runners away from them.

import { showNode } from "./places.js";
import { byId, count, el, setBar, setText } from "./elements.js";
import { tag } from "./cells.js";
import { operation, setOperation } from "./operate.js";
import { table } from "./table.js";

const CONDITIONS = {
  ready: ["good", "Ready"],
  drained: ["", "Drained"],
  too_old: ["bad", "Too old"],
  down: ["bad", "Down"],
};

const gib = (mib) => Number((mib / 1024).toFixed(1));

// What is reserved, as numbers and as a bar.
const room = (cell, of) => {
  const text = el("span");
  const bar = el("div", { class: "bar meter", "aria-hidden": "true" });
  cell.append(text, bar);
  return (node) => {
    const [reserved, whole] = of(node);
    setText(text, `${reserved.toLocaleString("en")} of ${whole.toLocaleString("en")}`);
    setBar(bar, [["busy", reserved], ["raised", Math.max(0, whole - reserved)]], Math.max(reserved, whole) || 1);
  };
};

const rows = table(byId("nodes"), Object.assign([
  { class: "state", build: (cell) => tag(cell, (node) => CONDITIONS[node.condition]) },
  {
    build: (cell) => {
      let shown = "";
      const [name, role] = [el("b"), el("span", { class: "muted" })];
      const drain = operation("drain_node");
      cell.append(el("button", { type: "button", class: "link", onclick: () => showNode(shown) }, name, " ", role), drain);
      return (node) => {
        shown = node.name;
        setText(name, node.name);
        setOperation(drain, node.condition === "drained" ? "resume_node" : "drain_node", node.name);
        setText(role, node.message ? `${node.role}: ${node.message}` : node.role);
      };
    },
  },
  { class: "room", build: (cell) => room(cell, (node) => [node.reserved_cpus, node.cpus]) },
  { class: "room wide", build: (cell) => room(cell, (node) => [gib(node.reserved_memory_mib), gib(node.memory_mib)]) },
  { class: "number", text: (node) => node.runners.toLocaleString("en") },
  { class: "engine wide", text: (node) => node.engine },
], { heading: 1 }), () => "No nodes");

const all = (dashboard) => Object.entries(dashboard.nodes).map(([id, node]) => ({ id, ...node }))
  .sort((a, b) => a.name.localeCompare(b.name) || a.id.localeCompare(b.id));

const total = (dashboard) => Object.values(dashboard.node_counts).reduce((sum, nodes) => sum + nodes, 0);

export const nodes = (dashboard) => {
  const listed = all(dashboard);
  document.querySelector(".panel.nodes").hidden = listed.length === 0;
  rows(listed);
  const more = total(dashboard) - listed.length;
  setText(byId("nodes-more"), more > 0
    ? `${count(more, "more node")}; \`edgerunner nodes\` lists all.`
    : "To stop launches on a node, run `edgerunner nodes drain NAME`.");
};
