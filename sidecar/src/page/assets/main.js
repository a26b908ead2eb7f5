// The page: shows each new dashboard in all panels.

import { onChoice } from "./address.js";
import { attention } from "./attention.js";
import { chart } from "./chart.js";
import { details } from "./details.js";
import { egress } from "./egress.js";
import { byId, now } from "./elements.js";
import { jobs, showChoices } from "./jobs.js";
import { lists } from "./lists.js";
import { follow } from "./live.js";
import { nodes } from "./nodes.js";
import "./operate.js";
import { overview } from "./overview.js";
import { showLinked } from "./places.js";
import "./report.js";
import "./search.js";
import { sidecars } from "./sidecars.js";
import { machine, versions } from "./versions.js";
import { views } from "./views.js";
import { wall } from "./wall.js";

const REFRESH_AGES_EVERY_MS = 1000;

let dashboard = null;
let shown = 0;

const show = () => {
  if (!dashboard) return;
  shown = performance.now();
  attention(dashboard, now());
  overview(dashboard, now());
  jobs(dashboard, now());
  lists(dashboard);
  nodes(dashboard);
  sidecars(dashboard);
  egress(dashboard);
  machine(dashboard);
  versions(dashboard);
  views(dashboard);
  wall(dashboard, now());
  // Panels appear with their content, so that none moves.
  document.body.classList.remove("loading");
  chart(dashboard, now());
};

onChoice(() => {
  showChoices();
  show();
});
showChoices();
follow((update) => {
  const isFirst = !dashboard;
  dashboard = update;
  show();
  details(dashboard);
  if (isFirst) showLinked();
});
// Ages change even if nothing else does.
setInterval(() => {
  if (!document.hidden && performance.now() - shown >= REFRESH_AGES_EVERY_MS) show();
}, REFRESH_AGES_EVERY_MS);
new ResizeObserver(show).observe(byId("chart"));
