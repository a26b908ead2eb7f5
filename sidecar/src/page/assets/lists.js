// The lists of runners and deliveries.

import { choice } from "./address.js";
import { opener, tag } from "./cells.js";
import { byId, setText, since } from "./elements.js";
import { showJob, showRunner } from "./details.js";
import { order } from "./order.js";
import { table } from "./table.js";
import { LOOK_UP } from "./timeline.js";
import { capital, EVENTS, PHASES } from "./words.js";

const PHASE_KINDS = { provisioning: "starting", starting: "starting", idle: "idle", busy: "busy" };
const RANKS = Object.keys(PHASES);
// As the sidecar lists them.
const RUNNERS_MAX = 100;

const reasonOf = (runner) => {
  if (runner.why) return capital(runner.why);
  const subject = runner.job ? `job ${runner.job}` : runner.target;
  return runner.unreachable_ms ? `${subject}, no answer from its node for ${since(runner.unreachable_ms)}` : subject;
};

const runners = table(byId("runners"), Object.assign([
  { class: "state", build: (cell) => tag(cell, (runner) => runner.failed
    ? ["bad", "Failed"] : runner.unreachable_ms ? ["bad", "Unreachable"] : [PHASE_KINDS[runner.phase] ?? "", capital(PHASES[runner.phase] ?? runner.phase)]) },
  { build: (cell) => opener(cell, (runner) => [runner.name], (runner) => showRunner(runner.name)) },
  { class: "wide", text: (runner) => runner.pool },
  { class: "wide node", text: (runner) => runner.node },
  { class: "wide", text: reasonOf },
  { class: "number", text: (runner) => since(runner.since_ms) },
], { heading: 1, limit: 12 }), () => "None");

const sorted = order(byId("runners"), "runners-sort", {
  phase: (runner) => RANKS.indexOf(runner.phase),
  runner: (runner) => runner.name,
  pool: (runner) => runner.pool,
  node: (runner) => runner.node,
  age: (runner) => -runner.since_ms,
});

const label = (value, text) =>
  setText(document.querySelector(`input[name=runners][value=${value}]`).nextElementSibling, text);

const listRunners = (dashboard) => {
  const named = (rows) => Object.entries(rows).map(([name, row]) => ({ name, ...row }));
  const live = named(dashboard.runners).sort((a, b) => a.created_ms - b.created_ms || a.name.localeCompare(b.name));
  const failed = named(dashboard.failed)
    .map((runner) => ({ ...runner, failed: true, since_ms: runner.gone_ms ?? runner.created_ms }))
    .sort((a, b) => b.created_ms - a.created_ms);
  byId("runners").classList.toggle("on-nodes", [...live, ...failed].some((runner) => runner.node));
  const isLive = choice("runners") !== "failed";
  runners(sorted(isLive ? live : failed));
  label("live", `Live ${dashboard.runners_live.toLocaleString("en")}`);
  label("failed", `Failed ${failed.length}`);
  setText(byId("runners-more"), isLive
    ? live.length < RUNNERS_MAX ? "Each runner runs one job, in a container with the same name." : `The ${RUNNERS_MAX} oldest; edgerunner runners lists all.`
    : "The latest failures. Open a runner to see the last lines of its log.");
};

const deliveries = table(byId("deliveries"), Object.assign([
  { class: "number", text: (delivery) => since(delivery.received_ms) },
  { class: "state", build: (cell) => tag(cell, (delivery) => EVENTS[delivery.state]) },
  { build: (cell) => opener(cell, (delivery) => [delivery.name, delivery.repository], (delivery) => showJob(delivery.job)) },
  { class: "outcome", text: (delivery) => delivery.stale ? "outdated" : delivery.id.startsWith(LOOK_UP) ? "by polling" : "accepted" },
  { class: "wide mono", text: (delivery) => delivery.id },
], { heading: 2, limit: 25 }), () => "No deliveries yet");

const listDeliveries = (dashboard) =>
  deliveries(Object.entries(dashboard.deliveries)
    .map(([id, delivery]) => ({ id, ...delivery }))
    .sort((a, b) => b.received_ms - a.received_ms || a.id.localeCompare(b.id)));

export const lists = (dashboard) => {
  listRunners(dashboard);
  listDeliveries(dashboard);
};
