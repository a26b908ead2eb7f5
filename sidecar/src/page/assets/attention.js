// What somebody should know of: what is broken, what never runs unless somebody acts, and what
// waits as it should. The sidecar finds it; see attention.rs.

import { byId, count, el, setText, since, until } from "./elements.js";
import { operation } from "./operate.js";

const GROUPS = ["broken", "blocked", "waiting"];
const ICON = "/page/icon.svg";
const ICON_BROKEN = "/page/icon-broken.svg";

// Empty if the title has their number.
export const jobsOf = ({ jobs, title }) => (jobs && !title.startsWith(count(jobs, "job")) ? count(jobs, "job") : "");

// What is counted, how long it has been so, and when it is tried again.
const facts = (finding, now) => [
  jobsOf(finding),
  finding.jobs ? `oldest ${since(finding.oldest_ms)}` : "",
  finding.since_ms ? `${since(finding.since_ms)} ago` : "",
  finding.until_ms ? (finding.until_ms > now ? `next try in ${until(finding.until_ms)}` : "trying again now") : "",
].filter(Boolean).join(" · ");

// Hidden where the browser permits no copying: the text can still be selected.
const copied = async ({ currentTarget: button }) => {
  await navigator.clipboard.writeText(button.previousElementSibling.textContent);
  setText(button, "Copied");
  setTimeout(() => setText(button, "Copy"), 2000);
};

const item = () => {
  const [title, aside] = [el("b"), el("span", { class: "aside" })];
  const [text, advice] = [el("p"), el("p", { class: "advice" })];
  const code = el("code");
  const copy = el("button", { type: "button", class: "copy", text: "Copy", onclick: copied });
  copy.hidden = !navigator.clipboard;
  const command = el("div", { class: "command" }, code, copy);
  const retry = operation("retry");
  const li = el("li", {}, el("div", { class: "title" }, title, " ", aside, " ", retry), text, advice, command);
  return {
    li,
    show: (finding, now) => {
      setText(title, finding.title);
      setText(aside, facts(finding, now));
      setText(text, finding.text);
      retry.hidden = !finding.until_ms;
      setText(advice, finding.advice);
      advice.hidden = !finding.advice;
      command.hidden = !finding.command;
      setText(code, finding.command);
      copy.setAttribute("aria-label", `Copy ${finding.command}`);
    },
  };
};

const items = Object.fromEntries(GROUPS.map((group) => [group, []]));

const list = (group, findings, now) => {
  const element = byId(`attention-${group}`);
  const shown = items[group];
  while (shown.length < findings.length) {
    const added = item();
    shown.push(added);
    element.append(added.li);
  }
  while (shown.length > findings.length) shown.pop().li.remove();
  findings.forEach((finding, index) => shown[index].show(finding, now));
  element.closest(".group").hidden = !findings.length;
};

export const attention = (dashboard, now) => {
  const of = (group) => dashboard.attention.filter((finding) => finding.group === group);
  for (const group of GROUPS) list(group, of(group), now);
  const [broken, blocked] = ["broken", "blocked"].map((group) => of(group).length);
  const waiting = of("waiting").reduce((sum, { jobs }) => sum + jobs, 0);
  setText(byId("attention-waiting-title"), `${count(waiting, "job")} waiting as usual`);
  setText(byId("attention-count"), broken + blocked || "");
  byId("attention-count").classList.toggle("bad", broken > 0);
  byId("attention-calm").hidden = broken + blocked > 0;
  const mark = broken + blocked ? `(${broken + blocked}) ` : "";
  if (document.title !== `${mark}edgerunner`) document.title = `${mark}edgerunner`;
  const icon = broken || dashboard.outdated ? ICON_BROKEN : ICON;
  if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
};
