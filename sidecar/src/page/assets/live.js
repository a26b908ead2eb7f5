// What the sidecar tells as it happens: everything at once, and then what changes.

import { byId, setNow, setText } from "./elements.js";

const SILENCE_MAX_MS = 25_000;
const AGAIN_AFTER_MS = 2_000;

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

const say = (state, words) => {
  const connection = byId("connection");
  if (connection.dataset.state === state) return;
  connection.dataset.state = state;
  setText(connection, words);
};

export const follow = (show) => {
  let board = null;
  let source = null;
  let timer = 0;

  const close = () => {
    source?.close();
    source = null;
  };

  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(lost, SILENCE_MAX_MS);
    say("live", "Live");
  };

  const lost = () => {
    close();
    say("lost", "Connection lost");
    clearTimeout(timer);
    timer = setTimeout(open, AGAIN_AFTER_MS);
  };

  const take = (text) => {
    const { now_ms, board: told } = JSON.parse(text);
    setNow(now_ms);
    board = patched(board, told);
    heard();
    show(board);
  };

  const open = () => {
    close();
    source = new EventSource("/page/events");
    source.addEventListener("board", ({ data }) => { board = null; take(data); });
    source.addEventListener("change", ({ data }) => take(data));
    source.addEventListener("beat", heard);
    source.addEventListener("error", lost);
  };

  // A page that nobody sees costs nothing, and leaves the browser's few connections to
  // those that are seen.
  const seen = () => {
    if (document.hidden) {
      clearTimeout(timer);
      close();
    } else if (!source) {
      open();
    }
  };
  document.addEventListener("visibilitychange", seen);
  seen();
};
