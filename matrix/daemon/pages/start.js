// The start page: lists a folder, uploads into it, and follows the machine's events.
// Whatever comes from the machine is set as text, never as markup.

import { $, ask, attempt, call, decoded, element, say, sizeText } from "/assets/page.js";

const FILES = "/v1/files/";
const EVENTS_SHOWN = 20;
const REFRESH_DELAY = 120; // ms: several events of one action make one refresh.

const rows = $("files").tBodies[0];

let shown = new Map(); // name -> entry of the folder on show
let refreshing = 0; // the number of the latest refresh: older answers are ignored

// Where we are: the location's hash is the folder, percent-encoded as in the API.

const folder = () => location.hash.replace(/^#\/?/, "").replace(/\/+$/, "");
const folderNames = () => folder().split("/").filter(Boolean).map(decoded);
const childUrl = (name) => FILES + (folder() ? `${folder()}/` : "") + encodeURIComponent(name);

function nameCell(entry) {
  if (entry.kind === "directory") {
    return element("a", { href: `#/${entry.href.slice(FILES.length)}`, textContent: `${entry.name}/` });
  }
  if (entry.kind === "file") {
    return element("a", { href: entry.href, download: entry.name, textContent: entry.name });
  }
  return element("span", { textContent: `${entry.name} (${entry.kind})` });
}

function row(entry) {
  const changed = new Date(entry.mtime);
  const remove = element("button", { type: "button", className: "quiet delete", textContent: "Delete" });
  remove.setAttribute("aria-label", `Delete ${entry.name}`);
  remove.addEventListener("click", () => attempt(() => removeEntry(entry)));
  const line = element(
    "tr",
    { className: entry.kind },
    element("td", {}, nameCell(entry)),
    element("td", { className: "size", textContent: sizeText(entry.size) }),
    element("td", { className: "date" }, element("time", {
      dateTime: entry.mtime,
      textContent: changed.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }),
    })),
    element("td", {}, remove),
  );
  line.dataset.name = entry.name;
  line.dataset.etag = entry.etag;
  return line;
}

// Rows that are the same stay, so that neither focus nor selection is lost under a refresh.
function show(entries) {
  const old = new Map([...rows.rows].map((line) => [line.dataset.name, line]));
  const lines = entries.map((entry) => {
    const line = old.get(entry.name);
    return line?.dataset.etag === entry.etag ? line : row(entry);
  });
  lines.forEach((line, index) => {
    if (rows.rows[index] !== line) rows.insertBefore(line, rows.rows[index] ?? null);
  });
  while (rows.rows.length > lines.length) rows.lastElementChild.remove();
  shown = new Map(entries.map((entry) => [entry.name, entry]));
  $("empty").hidden = entries.length > 0;
}

async function refresh() {
  const number = ++refreshing;
  const page = await (await call(FILES + folder())).json();
  if (number !== refreshing) return;
  if (!page.entries) throw new Error("That is a file, not a folder.");
  show(page.entries);
  offerMore(page.next);
}

function offerMore(next) {
  $("more").hidden = !next;
  $("more").onclick = () => attempt(async () => {
    const number = ++refreshing;
    const page = await (await call(next)).json();
    if (number !== refreshing) return;
    show([...shown.values(), ...page.entries]);
    offerMore(page.next);
  });
}

let waiting = null;
function refreshSoon() {
  waiting ??= setTimeout(() => {
    waiting = null;
    attempt(refresh);
  }, REFRESH_DELAY);
}

function navigate() {
  const steps = folder().split("/").filter(Boolean);
  $("crumbs").replaceChildren(
    element("li", {}, element("a", { href: "#/", textContent: "Files" })),
    ...steps.map((step, index) =>
      element("li", {}, element("a", {
        href: `#/${steps.slice(0, index + 1).join("/")}`,
        textContent: decoded(step),
      }))),
  );
  $("crumbs").lastElementChild.firstElementChild.setAttribute("aria-current", "page");
  rows.replaceChildren();
  attempt(refresh);
}

async function removeEntry(entry) {
  const isFolder = entry.kind === "directory";
  const what = isFolder ? `the folder “${entry.name}” and everything in it` : `“${entry.name}”`;
  if (!(await ask(`Delete ${what}? This cannot be undone.`, { yes: "Delete" }))) return;
  await call(entry.href + (isFolder ? "?recursive=true" : ""), { method: "DELETE" });
  await refresh();
  $("files").focus();
}

async function makeFolder() {
  const name = await ask("Name of the new folder", { input: true, yes: "Create" });
  if (!name) return;
  await call(childUrl(name), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ op: "mkdir" }),
  });
  await refresh();
}

// Uploading, one file after the other

let uploads = Promise.resolve();

function upload(files) {
  for (const file of files) {
    const url = childUrl(file.name);
    const known = shown.get(file.name);
    uploads = uploads.then(() => attempt(async () => {
      if (known && !(await ask(`Replace “${file.name}”?`, { yes: "Replace" }))) return;
      await send(file, url, !known);
    }));
  }
  $("upload-input").value = "";
}

function send(file, url, isNew) {
  const bar = element("progress", { max: Math.max(file.size, 1), value: 0 });
  bar.setAttribute("aria-label", `Upload of ${file.name}`);
  const state = element("span", { className: "percent", textContent: "0 %" });
  const cancel = element("button", { type: "button", className: "quiet", textContent: "Cancel" });
  cancel.setAttribute("aria-label", `Cancel the upload of ${file.name}`);
  const line = element("li", {}, element("span", { className: "name", textContent: file.name }), state, cancel, bar);
  $("progress").append(line);
  const request = new XMLHttpRequest();
  request.upload.onprogress = ({ loaded }) => {
    bar.value = loaded;
    state.textContent = `${Math.floor((100 * loaded) / Math.max(file.size, 1))} %`;
  };
  cancel.onclick = () => request.abort();
  return new Promise((resolve, reject) => {
    request.onloadend = () => {
      line.remove();
      refreshSoon();
      if (request.status >= 200 && request.status < 300) return resolve();
      reject(new Error(uploadProblem(file, request)));
    };
    request.open("PUT", url);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (isNew) request.setRequestHeader("If-None-Match", "*");
    request.send(file);
  });
}

function uploadProblem(file, request) {
  if (!request.status) return `“${file.name}” was not uploaded: cancelled, or the connection broke.`;
  if (request.status === 412) return `“${file.name}” exists by now. Upload it again to replace it.`;
  try {
    const problem = JSON.parse(request.responseText);
    return `“${file.name}”: ${problem.detail || problem.title}`;
  } catch {
    return `“${file.name}”: the machine answered ${request.status}.`;
  }
}

// Dropping: the depth counts how many nested elements the pointer is over.

let depth = 0;
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

function drag(event, change) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth = Math.max(0, depth + change);
  $("drop").classList.toggle("over", depth > 0);
}

function dropped(event) {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  depth = 0;
  $("drop").classList.remove("over");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const folders = items.filter((item) => item.webkitGetAsEntry?.()?.isDirectory).length;
  const files = items
    .filter((item) => !item.webkitGetAsEntry?.()?.isDirectory)
    .map((item) => item.getAsFile())
    .filter(Boolean);
  upload(files);
  if (folders) say("Folders cannot be dropped: make a folder here and drop its files.");
}

// Events

const VERBS = { created: "is new", modified: "changed", deleted: "was deleted" };

function log(change) {
  const text = change.kind === "moved"
    ? `${change.from} is now ${change.path}`
    : `${change.path} ${VERBS[change.kind] ?? change.kind}`;
  const at = new Date(change.at);
  $("events").prepend(element("li", {},
    element("time", { dateTime: change.at, textContent: at.toLocaleTimeString() }), text));
  while ($("events").children.length > EVENTS_SHOWN) $("events").lastElementChild.remove();
}

function concernsFolder(change) {
  const here = folderNames().join("/");
  const inHere = (path) => path !== undefined &&
    (path.slice(0, Math.max(0, path.lastIndexOf("/"))) === here || `${here}/`.startsWith(`${path}/`));
  return inHere(change.path) || inHere(change.from);
}

function connection(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// A machine is not to be kept awake by a page that nobody looks at: when it goes to sleep, and
// the stream ends, the page comes back only to somebody who is there.
const AWAY_AFTER = 60_000; // milliseconds without a key or a move of the pointer
const RETRY_AFTER = 3_000; // milliseconds; a machine that wakes needs less
let seenAt = Date.now();
let source = null;
let retry = 0;

function follow() {
  clearTimeout(retry);
  retry = 0;
  source = new EventSource("/v1/events");
  source.onopen = () => {
    connection("live", "Live");
    refreshSoon();
  };
  source.onerror = () => {
    source.close();
    source = null;
    if (document.hidden || Date.now() - seenAt > AWAY_AFTER) {
      connection("away", "Asleep until you are back");
    } else {
      connection("lost", "Connection lost, trying again…");
      retry = setTimeout(follow, RETRY_AFTER);
    }
  };
  source.addEventListener("file", (event) => {
    const change = JSON.parse(event.data);
    log(change);
    if (concernsFolder(change)) refreshSoon();
  });
  source.addEventListener("reset", refreshSoon);
}

function seen() {
  if (document.hidden) return;
  seenAt = Date.now();
  if (!source && !retry) follow();
}

$("mkdir").addEventListener("click", () => attempt(makeFolder));
$("upload-input").addEventListener("change", (event) => upload([...event.target.files]));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("files").focus();
});
addEventListener("dragenter", (event) => drag(event, 1));
addEventListener("dragleave", (event) => drag(event, -1));
addEventListener("dragover", (event) => drag(event, 0));
addEventListener("drop", dropped);
addEventListener("hashchange", navigate);
for (const sign of ["pointermove", "pointerdown", "keydown", "wheel", "focus"]) {
  addEventListener(sign, seen, { passive: true });
}
document.addEventListener("visibilitychange", seen);
navigate();
follow();
