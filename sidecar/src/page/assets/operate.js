// Changes by people who signed in and may operate: each asks once, and is in the audit log.

import { audit } from "./audit.js";
import { byId, el, setText } from "./elements.js";

const post = (path, body) => ({ method: "POST", path, body });
const encoded = encodeURIComponent;

// What each button asks, and the request that it sends.
const OPERATIONS = {
  drain: {
    name: "Drain",
    ask: (pool) => pool ? `Drain pool ${pool}?` : "Drain all pools?",
    effect: () => "No runner is launched there any more. Idle ones are removed, busy ones finish their job. Lasts until somebody resumes it.",
    request: (pool) => post("/api/v1/drain", { pool: pool || null }),
  },
  resume: {
    name: "Resume",
    ask: (pool) => pool ? `Resume pool ${pool}?` : "Resume all pools?",
    effect: () => "Runners are launched there again.",
    request: (pool) => post("/api/v1/resume", { pool: pool || null }),
  },
  retry: {
    name: "Retry now",
    ask: () => "Retry failed launches now?",
    effect: () => "One launch is tried for everything that failed. If it fails again, the wait goes on. GitHub's rate limits are kept.",
    request: () => post("/api/v1/retry"),
  },
  remove: {
    name: "Remove",
    ask: (runner) => `Remove runner ${runner}?`,
    effect: (busy) => busy ? "It is running a job, which fails." : "Its registration and its container are removed.",
    request: (runner, busy) => ({ method: "DELETE", path: `/api/v1/runners/${encoded(runner)}?force=${Boolean(busy)}` }),
  },
  drain_node: {
    name: "Drain",
    ask: (node) => `Drain node ${node}?`,
    effect: () => "No runner is launched on it any more, and its runners finish their jobs. Services of yours that run there move to other nodes.",
    request: (node) => post(`/api/v1/nodes/${encoded(node)}/drain`),
  },
  resume_node: {
    name: "Resume",
    ask: (node) => `Resume node ${node}?`,
    effect: () => "Runners are launched on it again.",
    request: (node) => post(`/api/v1/nodes/${encoded(node)}/resume`),
  },
};

// A button that only people who may operate see. `about`: the pool, runner or node.
export const operation = (kind, about = "", busy = false) => {
  const button = el("button", { type: "button", class: "operate" });
  setOperation(button, kind, about, busy);
  return button;
};

export const setOperation = (button, kind, about = "", busy = false) => {
  if (button.dataset.about === about && button.dataset.operation === kind && button.dataset.busy === String(busy)) return;
  Object.assign(button.dataset, { operation: kind, about, busy });
  setText(button, OPERATIONS[kind].name);
  button.setAttribute("aria-label", OPERATIONS[kind].ask(about).replace("?", ""));
};

const dialog = byId("confirm");
let asked = null;

const send = async ({ method, path, body }) => {
  const response = await fetch(path, {
    method,
    headers: body ? { "content-type": "application/json" } : {},
    body: body && JSON.stringify(body),
  });
  if (response.ok) return;
  const text = await response.text();
  let message = text.trim();
  try {
    message = JSON.parse(text).error ?? message;
  } catch {
    // Envoy answered.
  }
  throw new Error(response.status === 401 ? "you are signed out: reload the page to sign in again" : message || `status ${response.status}`);
};

document.addEventListener("click", ({ target }) => {
  const button = target.closest?.("button.operate");
  if (!button) return;
  const { operation: kind, about, busy } = button.dataset;
  const { ask, effect, name, request } = OPERATIONS[kind];
  asked = request(about, busy === "true");
  setText(byId("confirm-title"), ask(about));
  setText(byId("confirm-effect"), effect(busy === "true"));
  setText(byId("confirm-problem"), "");
  setText(byId("confirm-do"), name);
  dialog.showModal();
});

byId("confirm-cancel").addEventListener("click", () => dialog.close());
byId("confirm-do").addEventListener("click", async ({ currentTarget: button }) => {
  button.disabled = true;
  try {
    await send(asked);
    dialog.close();
  } catch (error) {
    setText(byId("confirm-problem"), `Not done: ${error.message}`);
  }
  button.disabled = false;
  audit().catch(() => {});
});

// Without sign-in the page is read-only, and says nothing about people.
const recognize = async () => {
  const response = await fetch("/api/v1/caller");
  if (!response.ok) return;
  const { user, may_operate: mayOperate } = await response.json();
  if (!user) return;
  setText(byId("caller-name"), user);
  byId("caller").hidden = false;
  document.body.classList.toggle("operates", mayOperate);
};
recognize().catch(() => {});
