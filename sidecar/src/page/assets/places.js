// Pools and nodes in the dialog, and the links to everything that it shows.

import { address, choose } from "./address.js";
import { current, facts, linked, lines, open, setHash, show, showJob, showRunner } from "./details.js";
import { byId, el } from "./elements.js";
import { runnerVersion } from "./figures.js";
import { operation } from "./operate.js";
import { PHASES, states } from "./words.js";

const LISTED_MAX = 20;

const listed = (title, rows) => !rows.length ? [] : [
  el("h3", { text: rows.length > LISTED_MAX ? `${title}: the first ${LISTED_MAX} of ${rows.length}` : title }),
  lines(rows.slice(0, LISTED_MAX)),
];

const runnerLines = (dashboard, fits) => Object.entries(dashboard.runners)
  .filter(([, runner]) => fits(runner))
  .map(([name, runner]) => [linked("runner", name), PHASES[runner.phase] ?? runner.phase]);

const jobsOf = (dashboard, pool) => Object.values(dashboard.jobs)
  .filter((job) => job.pool === pool && job.state !== "completed")
  .sort((a, b) => a.queued_ms - b.queued_ms || a.id - b.id);

const code = (text) => el("code", { text });
const number = (value) => value.toLocaleString("en");

const poolContent = (dashboard, name) => {
  const pool = dashboard.pools[name];
  const drains = pool.draining || dashboard.draining;
  const all = { view: "overview", jobs: "all", repository: "", label: "", filter: "", pool: name };
  return [
    facts([
      ["Labels", pool.labels.join(", ")],
      ["Queued jobs", number(pool.queued)],
      ["Launching", number(pool.provisioning)],
      ["Starting", number(pool.starting)],
      ["Idle", pool.min_idle ? `${number(pool.idle)}, kept idle: ${number(pool.min_idle)}` : number(pool.idle)],
      ["Busy", number(pool.busy)],
      ["Leaving", number(pool.leaving)],
      ["Parked", pool.parked + pool.parked_wanted ? `${number(pool.parked)}, kept parked: ${number(pool.parked_wanted)}` : ""],
      ["Max", number(pool.max)],
      ["Runner", runnerVersion(pool)],
      ["Version problem", pool.runner_version?.problem],
      ["Draining", drains ? "yes: nothing is launched" : "no"],
      [drains ? "To resume" : "To drain", dashboard.draining ? code("edgerunner resume")
        : code(drains ? `edgerunner resume --pool ${name}` : `edgerunner drain --pool ${name}`)],
    ]),
    // While all pools are drained, one alone cannot be resumed.
    dashboard.draining ? null : el("p", {}, operation(pool.draining ? "resume" : "drain", name)),
    el("p", { class: "all" }, el("a", {
      href: address(all),
      text: "All its jobs in the list",
      onclick: (event) => {
        event.preventDefault();
        byId("details").close();
        choose(all, true);
        byId("jobs-title").focus();
      },
    })),
    ...listed("Jobs", jobsOf(dashboard, name).map((job) => [linked("job", job.id, job.name || `Job ${job.id}`), job.repository, states(job)])),
    ...listed("Runners", runnerLines(dashboard, (runner) => runner.pool === name)),
  ];
};

const nodeNamed = (dashboard, name) => Object.values(dashboard.nodes).find((node) => node.name === name);

const nodeContent = (dashboard, node) => {
  const gib = (mib) => Number((mib / 1024).toFixed(1)).toLocaleString("en");
  return [
    facts([
      ["State", node.condition.replaceAll("_", " ")],
      ["Message", node.message],
      ["Role", node.role],
      ["Docker Engine", node.engine],
      ["Runners", number(node.runners)],
      ["CPUs", `${number(node.reserved_cpus)} of ${number(node.cpus)} reserved`],
      ["Memory", `${gib(node.reserved_memory_mib)} of ${gib(node.memory_mib)} GiB reserved`],
      [node.condition === "drained" ? "To resume" : "To drain",
        code(`edgerunner nodes ${node.condition === "drained" ? "resume" : "drain"} ${node.name}`)],
    ]),
    el("p", {}, operation(node.condition === "drained" ? "resume_node" : "drain_node", node.name)),
    ...listed("Runners", runnerLines(dashboard, (runner) => runner.node === node.name)),
  ];
};

const place = (kind, name, find, content, title) => {
  // What is listed of it, not how old that is.
  const state = (update) => [find(update), runnerLines(update, (runner) => runner[kind] === name).map(([, phase]) => phase),
    kind === "pool" ? jobsOf(update, name).map((job) => [job.id, job.state]) : null];
  return show({ [kind]: name }, state, async () => {
    const dashboard = current();
    const found = dashboard && find(dashboard);
    if (!found) return false;
    open(title, ...content(dashboard, found));
    setHash(`${kind}=${encodeURIComponent(name)}`);
    return true;
  });
};

export const showPool = (name) => place("pool", name, (update) => Object.hasOwn(update.pools, name) && update.pools[name], (update) => poolContent(update, name), `Pool ${name}`);
export const showNode = (name) => place("node", name, (update) => nodeNamed(update, name), nodeContent, `Node ${name}`);

const SHOW = {
  job: (id) => /^\d{1,18}(\.\d{1,9})?$/.test(id) && showJob(...id.split(".")),
  runner: (name) => showRunner(name),
  pool: (name) => showPool(name),
  node: (name) => showNode(name),
};

// Shows what the address names.
export const showLinked = async () => {
  const [, kind, name] = location.hash.match(/^#(job|runner|pool|node)=([\w.%-]{1,200})$/) ?? [];
  if (!kind) {
    byId("details").close();
    return;
  }
  let wanted;
  try {
    wanted = decodeURIComponent(name);
  } catch {
    return;
  }
  if (await SHOW[kind](wanted)) return;
  open("Nothing found", el("p", { text: `There is no ${kind} ${wanted}, or it is no longer kept.` }));
};
addEventListener("hashchange", showLinked);
