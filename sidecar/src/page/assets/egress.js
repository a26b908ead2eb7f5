// Connections of jobs that the egress of their pool does not permit.

import { byId, el, setText, since } from "./elements.js";
import { tag } from "./cells.js";
import { table } from "./table.js";

const REASONS = {
  host: "not in egress",
  address: "closed address",
  server_name: "no TLS for this host",
  request: "not a proxy request",
};

const job = ({ repository, job_id: id, runner }) =>
  [repository, id && `job ${id}`, runner].filter(Boolean).join(" · ") || "unknown";

const rows = table(byId("egress"), Object.assign([
  { class: "state", build: (cell) => tag(cell, (row) => (row.observed ? ["", "Observed"] : ["bad", "Refused"])) },
  {
    build: (cell) => {
      const [host, reason] = [el("b"), el("span", { class: "muted" })];
      cell.append(host, " ", reason);
      return (row) => {
        setText(host, row.host);
        setText(reason, REASONS[row.reason] ?? row.reason);
      };
    },
  },
  { class: "wide", text: (row) => row.pool },
  { class: "wide origin", text: job },
  { class: "number", text: (row) => row.connections.toLocaleString("en") },
  { class: "number", text: (row) => since(row.last_ms) },
], { heading: 1 }), () => "None");

export const egress = (dashboard) => {
  const denied = dashboard.egress ?? [];
  document.querySelector(".panel.egress").hidden = denied.length === 0;
  rows(denied);
};
