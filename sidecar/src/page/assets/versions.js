// The versions of everything that has one.

import { byId, setText } from "./elements.js";
import { runnerVersion } from "./figures.js";
import { table } from "./table.js";

const rows = table(byId("versions"), [
  { text: (row) => row.what },
  { text: (row) => row.version },
  { class: "wide", text: (row) => row.where },
], () => "Nothing has a version yet");

// One row for all places that have the same version of the same.
const grouped = (found) => {
  const groups = new Map();
  for (const [what, version, where] of found) {
    const key = `${what} ${version}`;
    const group = groups.get(key) ?? { what, version, places: [] };
    group.places.push(where);
    groups.set(key, group);
  }
  return [...groups.values()].map(({ what, version, places }) => ({ what, version, where: places.sort().join(", ") }));
};

export const versions = (dashboard) => {
  const sidecars = Object.values(dashboard.sidecars).map(({ name, version }) => ["Sidecar", version, name]);
  const own = sidecars.length ? [] : [["Sidecar", dashboard.version, "this one"]];
  const runners = Object.values(dashboard.pools)
    .filter((pool) => pool.runner_version)
    .map((pool) => ["Runner", runnerVersion(pool).replace(/^runner /, ""), `pool ${pool.name}`]);
  const engines = Object.values(dashboard.nodes).map(({ engine, name }) => ["Docker Engine", engine, name]);
  rows(grouped([...own, ...sidecars, ...runners, ...engines]));
};

const gib = (mib) => Number((mib / 1024).toFixed(1)).toLocaleString("en");

// What the machine of the Docker Engine has for runners.
export const machine = ({ machine: known }) => {
  const parts = !known ? [] : [
    known.memory_mib != null && `${gib(known.promised_memory_mib)} of ${gib(known.memory_mib)} GiB of memory promised to runners`,
    known.cpus != null && `${known.promised_cpus} of ${known.cpus} CPUs promised`,
    known.free_disk_mib != null && `${gib(known.free_disk_mib)} GiB of disk free${known.reserve_disk_mib ? `, ${gib(known.reserve_disk_mib)} GiB are kept free` : ""}`,
  ].filter(Boolean);
  byId("machine").hidden = !parts.length;
  setText(byId("machine"), `Docker's machine: ${parts.join("; ")}.`);
};
