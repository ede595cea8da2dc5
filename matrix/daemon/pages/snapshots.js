// Snapshots: lists them, looks into one, fetches a file or puts it back.
// Whatever comes from the machine is set as text, never as markup.

import { $, ask, attempt, call, decoded, element, say, sizeText } from "/assets/page.js";

const SNAPSHOTS = "/v1/snapshots";
const TOP = "workspace"; // the folder of a snapshot that is the user's files
const CAUSES = {
  interval: "while in use", suspend: "before sleep", operator: "on demand", rollout: "before an update",
};

const rows = $("files").tBodies[0];
let asked = 0; // the number of the latest question: older answers are ignored

// Where we are: the location's hash is "#/ID/FOLDER", percent-encoded.
const place = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
const hrefOf = (...steps) => `#/${steps.map(encodeURIComponent).join("/")}`;

const timeText = (text) => new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function row(name, size, time, ...actions) {
  return element("tr", {},
    element("td", {}, name),
    element("td", { className: "size", textContent: size }),
    element("td", { className: "date" }, element("time", { dateTime: time, textContent: timeText(time) })),
    element("td", {}, ...actions));
}

function snapshotRow(snapshot) {
  const cause = snapshot.tags.map((tag) => CAUSES[tag]).find(Boolean) ?? "";
  const link = element("a", { href: hrefOf(snapshot.id, TOP), textContent: timeText(snapshot.time) });
  return row(link, cause, snapshot.time);
}

function entryRow(id, entry) {
  if (entry.kind === "directory") {
    const steps = entry.path.split("/");
    return row(element("a", { href: hrefOf(id, ...steps), textContent: `${entry.name}/` }), "", entry.mtime);
  }
  if (entry.kind !== "file") {
    return row(element("span", { textContent: `${entry.name} (${entry.kind})` }), "", entry.mtime);
  }
  const back = element("button", { type: "button", className: "restore", textContent: "Put back" });
  back.setAttribute("aria-label", `Put ${entry.name} back into your files`);
  back.addEventListener("click", () => attempt(() => putBack(id, entry)));
  const link = element("a", { href: entry.href, download: entry.name, textContent: entry.name });
  return row(link, sizeText(entry.size), entry.mtime, back);
}

async function restore(id, entry, overwrite) {
  return fetch(`${SNAPSHOTS}/restore`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ snapshot: id, path: entry.path, overwrite }),
  });
}

async function putBack(id, entry) {
  tell("");
  let response = await restore(id, entry, false);
  if (response.status === 409 && (await response.clone().json()).reason === "exists") {
    const text = `Replace “${entry.name}” as it is now by what it was in this snapshot?`;
    if (!(await ask(text, { yes: "Replace" }))) return;
    response = await restore(id, entry, true);
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail || answer.title);
  tell(`“${answer.path}” is in your files again.`);
}

function tell(text) {
  $("done").textContent = text;
  $("done").hidden = !text;
}

function crumbs(steps) {
  const links = [["Snapshots", "#/"]];
  if (steps.length) links.push([steps[0].slice(0, 8), hrefOf(steps[0], TOP)]);
  steps.slice(2).forEach((step, index) => links.push([step, hrefOf(...steps.slice(0, index + 3))]));
  $("crumbs").replaceChildren(...links.map(([textContent, href]) =>
    element("li", {}, element("a", { href, textContent }))));
  $("crumbs").lastElementChild.firstElementChild.setAttribute("aria-current", "page");
}

async function show() {
  const number = ++asked;
  const [id, ...folder] = place();
  crumbs(place());
  tell("");
  rows.replaceChildren();
  $("empty").hidden = false;
  $("empty").textContent = "Reading…";
  await attempt(async () => {
    const lines = id ? await inside(id, folder) : await all();
    if (number !== asked) return;
    rows.replaceChildren(...lines);
    $("empty").hidden = lines.length > 0;
    $("empty").textContent = id ? "This folder is empty." : "There is no snapshot yet.";
  });
  if (number === asked && !rows.rows.length && !$("message").hidden) $("empty").hidden = true;
}

async function all() {
  return (await (await call(SNAPSHOTS)).json()).snapshots.map(snapshotRow);
}

async function inside(id, folder) {
  const query = new URLSearchParams({ path: folder.join("/") });
  const found = await (await call(`${SNAPSHOTS}/${encodeURIComponent(id)}/files?${query}`)).json();
  if (!found.complete) say("This folder holds more than can be shown.");
  return found.entries.map((entry) => entryRow(id, entry));
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("files").focus();
});
addEventListener("hashchange", show);
show();
