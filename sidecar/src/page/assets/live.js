// Live updates: the whole dashboard first, then its changes.

import { byId, setNow, setText } from "./elements.js";

const SILENCE_MAX_MS = 25_000;
const RECONNECT_AFTER_MS = 2_000;

// A JSON Merge Patch, RFC 7396.
const patched = (target, patch) => {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  if (target === null || typeof target !== "object" || Array.isArray(target)) target = {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else target[name] = patched(target[name], value);
  }
  return target;
};

const setConnection = (state, text) => {
  const connection = byId("connection");
  if (connection.dataset.state === state) return;
  connection.dataset.state = state;
  setText(connection, text);
};

// Connects, reconnects, and calls `show` with each new dashboard.
export const follow = (show) => {
  let dashboard = null;
  let number = null;
  let source = null;
  let timer = 0;

  const close = () => {
    source?.close();
    source = null;
  };

  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(lost, SILENCE_MAX_MS);
    if (dashboard?.outdated) setConnection("old", "Out of date");
    else setConnection("live", "Live");
  };

  const lost = () => {
    close();
    setConnection("lost", "Connection lost");
    clearTimeout(timer);
    timer = setTimeout(open, RECONNECT_AFTER_MS);
  };

  const apply = (text) => {
    const content = JSON.parse(text);
    // The page was served before its state was known.
    if (!content) return;
    setNow(content.now_ms);
    number = content.number;
    dashboard = patched(dashboard, content.dashboard);
    if (source) alive();
    show(dashboard);
  };

  const open = () => {
    close();
    // Only what has changed since.
    source = new EventSource(number === null ? "/page/events" : `/page/events?after=${number}`);
    source.addEventListener("open", alive);
    source.addEventListener("dashboard", ({ data }) => { dashboard = null; apply(data); });
    source.addEventListener("change", ({ data }) => apply(data));
    source.addEventListener("beat", alive);
    source.addEventListener("error", lost);
  };

  // A hidden page disconnects: it costs the sidecar nothing, and leaves the browser's few
  // connections to visible pages.
  const followIfVisible = () => {
    if (document.hidden) {
      clearTimeout(timer);
      close();
    } else if (!source) {
      open();
    }
  };
  document.addEventListener("visibilitychange", followIfVisible);
  apply(byId("first").textContent);
  followIfVisible();
};
