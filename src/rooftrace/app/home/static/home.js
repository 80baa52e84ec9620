// Results and jobs as cards; images that are dropped are predicted at once, or become jobs of /v1/jobs.

import { h, number, percent, plural, undoable } from "./ui.js";
import { uploadScene } from "./upload.js";
import { createViewer } from "./viewer.js";
import { inPageTerms, NO_ANSWER, sentence, sentences } from "../../words.js";

const ROOT = new URL("v1/jobs", document.baseURI).href, FOLDERS = new URL("map/folders", document.baseURI).href;
const PAGE_JOBS = 48; // jobs that "Older results" adds
const AT_ONCE_BYTES = 4e6;
// Of all jobs together: streams would use up the six connections to a server.
const POLL_MS = 1000, IDLE_POLL_MS = 5000;
const STALLED_S = 10; // without progress of an upload
const FIELDS = { gsd: "gsd_m", threshold: "threshold", bands: "bands", stretch: "stretch" }; // as a job names them
const ENDED = ["done", "failed", "cancelled"];
const $ = (id) => document.getElementById(id);
const cards = new Map(); // by id: { row, first, drawn }
const folders = new Map(); // what is known of each folder of the server, by id
const leaving = new Set(); // jobs that are removed unless that is undone
let pages = 1, timer = 0, refreshing = Promise.resolve(), lost = false;
let uploading = Promise.resolve(), uploads = 0; // the end of the last upload, as one goes after the other; how many are left
let current = null; // the file that is shown at once
let again = null; // the finished job whose options are changed

const viewer = createViewer($("viewer"), { change: showOptions });

function duration(seconds) {
  if (seconds < 59.5) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const day = (time) => new Date(time).toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });

// The state as the API names it, with the progress in percent and the time that is left.
function stateText(job, entry) {
  if (job.state !== "running") {
    entry.first = null;
    return job.state;
  }
  // Measured from the first progress that this page saw: the clock of the server may differ, and a
  // job that was resumed has done a part of its work before its start.
  const { share } = job.progress, now = performance.now() / 1000;
  entry.first ??= { at: now, share };
  const { at, share: before } = entry.first;
  const left = (now - at) / (share - before) * (1 - share);
  const ending = share > before && left > 0 ? ` · about ${duration(left)} left` : "";
  return `running · ${Math.floor(100 * share)} %${ending}`;
}

function showMessage(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

class RequestError extends Error {
  constructor(message, status = 0, type = "") {
    super(message);
    this.status = status;
    this.type = type;
  }
}

async function request(url, options) {
  const answer = await fetch(url, options).catch(() => {
    throw new RequestError(NO_ANSWER);
  });
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) {
    const text = body ? sentence(body) : `The server answered ${answer.status}.`;
    throw new RequestError(text, answer.status, body?.type);
  }
  return body;
}

const withMessage = (work) => async () => {
  showMessage("");
  await work().catch((error) => showMessage(error.message));
};

// Cards.

function figures(job) {
  const { pixels_done: done, pixels, buildings } = job.progress;
  const size = `${(pixels / 1e6).toFixed(1)} Mpx`;
  if (job.state === "queued") return size;
  if (ENDED.includes(job.state)) return done ? `${(done / 1e6).toFixed(1)} of ${size} were done` : size;
  return `${(done / 1e6).toFixed(1)} of ${size} · ${plural(buildings, "building")} so far`;
}

// What was assumed, and the way to change it: the first sentence, and the others on request.
function notes(texts, job) {
  const [first, ...more] = sentences(texts);
  if (!first) return [];
  return [
    h("p.note", {}, `${first} `, job && h("button.link", { type: "button", onclick: () => change(job) }, "change")),
    more.length ? h("details", {}, h("summary", {}, "More"), h("p.note", {}, more.join(" "))) : "",
  ];
}

function showOptions() {
  $("options").open = true;
  $("bands").focus();
}

// Offer to run a finished job again.
function change(job) {
  close();
  again = job;
  for (const id in FIELDS) $(id).value = job.options[FIELDS[id]] ?? "";
  $("again").textContent = `Run ${job.name} again`;
  $("again").hidden = false;
  showOptions();
  $("options").scrollIntoView({ block: "center", behavior: "smooth" });
}

async function runAgain() {
  const job = again, entries = Object.entries(FIELDS).map(([id, name]) => [name, $(id).value.trim() || null]);
  await request(`${ROOT}/${job.id}/again`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(Object.fromEntries(entries)) });
  close();
  $("options").open = false;
  for (const id in FIELDS) $(id).value = "";
  await refresh();
  $("results").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function picture(map, source) {
  const image = h("img", { src: source, alt: "", loading: "lazy", onload: () => image.classList.add("there"), onerror: () => image.remove() });
  return h("a.picture", { href: map, tabindex: "-1", "aria-hidden": "true" }, image);
}

// Where a review of the buildings is a file, with the corrections.
const reviewedFile = (id, image) => new URL(`v1/results/${encodeURIComponent(id)}/images/${encodeURIComponent(image)}/review/export`, document.baseURI).href;

function doneCard(id, title, { image, count, share, more, texts, download, files, remove, job, reviewable = true }) {
  const map = new URL(`map#${id}`, document.baseURI).href;
  const thumbnail = image && `${FOLDERS}/${encodeURIComponent(id)}/images/${encodeURIComponent(image)}/thumbnail`;
  const menu = (files || remove) && h("details.menu", {}, h("summary", { "aria-label": `More of ${title}` }, "⋯"), h("div", {},
    files && h("a.button", { href: files, download: true }, "All files (zip)"),
    remove && h("button", { type: "button", onclick: remove }, "Remove")));
  return [
    picture(map, thumbnail),
    h("h3", {}, title),
    h("p.figures", {}, count === null ? "" : h("b", {}, number(count)), count === null ? "" : ` building${count === 1 ? "" : "s"}`, share === null ? "" : `${count === null ? "" : " · "}${percent(share)} built up`),
    h("p.more", {}, more.filter(Boolean).join(" · ")),
    ...notes(texts, job),
    h("div.actions", {},
      h("a.button.main", { href: map }, "Map"),
      image && reviewable ? h("a.button", { href: `${map}/${encodeURIComponent(image)}/review` }, "Review") : "",
      download ? h("a.button", { href: download, download: true }, "Download") : "",
      menu || ""),
  ];
}

function jobCard(job, entry) {
  const url = `${ROOT}/${job.id}`, { figures: of, error } = job;
  const remove = () => removeJob(job);
  if (job.state === "done" && of) {
    const id = `job-${job.id}`, image = of.polygons?.replace(/_[^_]*$/, ""), files = `${url}/results.zip`;
    return doneCard(id, job.name, {
      image, count: of.buildings, share: of.built_up_share,
      more: [day(job.created), `${(job.progress.pixels / 1e6).toFixed(1)} Mpx in ${duration(of.seconds)}`, job.reviewed && "reviewed: kept until you remove it"],
      texts: of.notes, job, remove, ...(job.reviewed && image ? { download: reviewedFile(id, image), files } : { download: files }),
    });
  }
  const ended = ENDED.includes(job.state);
  const cancel = withMessage(async () => {
    await request(`${url}/cancel`, { method: "POST" });
    await refresh();
  });
  return [
    h(`div.picture${ended ? "" : ".busy"}`, {}, h("span.state", {}, stateText(job, entry)),
      ended ? "" : h("progress", { max: 1, value: job.progress.share, "aria-label": `Progress of ${job.name}` })),
    h("h3", {}, job.name),
    h("p.figures", {}, figures(job)),
    error ? h("p.error", {}, inPageTerms([error.message, error.remedy].filter(Boolean).join(" "))) : "",
    h("div.actions", {}, ended ? h("button", { type: "button", onclick: remove }, "Remove") : h("button", { type: "button", onclick: cancel }, "Cancel")),
  ];
}

function folderCard({ id, title }, of) {
  const [first] = of.images, count = of.images.some((one) => one.buildings !== null) ? of.images.reduce((sum, one) => sum + (one.buildings ?? 0), 0) : null;
  if (!first) return [h("div.picture", {}, h("span.state", {}, of.state)), h("h3", {}, title), h("p.note", {}, of.message)];
  const only = of.images.length === 1, folder = `${FOLDERS}/${encodeURIComponent(id)}`, files = `${folder}/results.zip`;
  return doneCard(id, title, {
    image: first.name, count, share: only ? first.built_up_share : null, reviewable: !first.comparison, texts: [...new Set(of.images.slice(0, 100).flatMap((one) => one.notes))],
    more: [of.created && day(of.created), !only && plural(of.images.length, "image"), first.measured != null && `${number(first.measured)} with a height`, ...first.changes, only && first.reviewed && "reviewed", of.state === "running" && "still running"],
    ...(!only ? { download: files } : { download: first.reviewed ? reviewedFile(id, first.name) : `${folder}/images/${encodeURIComponent(first.name)}/download`, files: (first.city_model || first.reviewed) && files }),
  });
}

// A card is drawn again only when what it shows has changed: an open menu and the focus stay.
function show(id, state, key, parts) {
  if (!cards.has(id)) cards.set(id, { row: h("li"), first: null, drawn: "" });
  const entry = cards.get(id);
  entry.row.dataset.state = state;
  if (entry.drawn === key(entry)) return entry.row;
  entry.drawn = key(entry);
  try {
    entry.row.replaceChildren(...parts(entry).filter((part) => part !== ""));
  } catch (error) {
    reportError(error);
    entry.row.replaceChildren(h("p.figures", {}, "This page cannot show the result."));
  }
  return entry.row;
}

// Removal can be undone for a while; a page that is left removes at once.
function removeJob(job) {
  leaving.add(job.id);
  refresh();
  undoable(`Removed ${job.name}${job.reviewed ? " with its review" : ""}.`, {
    undo() {
      leaving.delete(job.id);
      refresh();
    },
    async done() {
      const query = job.reviewed ? "?discard_review=true" : "";
      try {
        await request(`${ROOT}/${job.id}${query}`, { method: "DELETE", keepalive: true });
      } catch (error) {
        // The review was begun after the card was drawn, or the server is gone: the job stays.
        showMessage(error.type === "/problems/job-reviewed" ? `The buildings of ${job.name} have been reviewed since: it was not removed.` : error.message);
      }
      leaving.delete(job.id);
      refresh();
    },
  });
}

// The lists of the server are the only source of the cards: jobs of other clients appear, and those
// that expired or were removed elsewhere go.
async function load() {
  const jobs = [], named = (await request(FOLDERS)).filter((one) => !one.id.startsWith("job-"));
  const entries = named.slice(0, pages * PAGE_JOBS);
  await Promise.all(entries.filter(({ id }) => !["ready", "other"].includes(folders.get(id)?.state)).map(async ({ id }) => {
    folders.set(id, await request(`${FOLDERS}/${encodeURIComponent(id)}`));
  }));
  let older = `${ROOT}?limit=${PAGE_JOBS}`;
  for (let page = 0; older && page < pages; page += 1) {
    const list = await request(older);
    jobs.push(...list.jobs.filter((job) => !leaving.has(job.id)));
    // Only the query is used: behind a proxy the API may have another path.
    older = list.next && ROOT + new URL(list.next, document.baseURI).search;
  }
  const rows = [
    ...entries.map((entry) => {
      const of = folders.get(entry.id);
      return [entry.id, show(entry.id, of.state, () => JSON.stringify(of), () => folderCard(entry, of)), of.created];
    }),
    ...jobs.map((job) => [job.id, show(job.id, job.state, (entry) => JSON.stringify(job) + stateText(job, entry), (entry) => jobCard(job, entry)), job.created]),
  ].sort(([, , one], [, , other]) => (Date.parse(other) || 0) - (Date.parse(one) || 0));
  const shown = new Set(rows.map(([id]) => id));
  for (const [id, { row }] of cards) {
    if (shown.has(id)) continue;
    row.remove();
    cards.delete(id);
  }
  const first = document.querySelectorAll("#cards > .upload").length;
  rows.forEach(([, row], at) => {
    const there = $("cards").children[first + at];
    // A card that moved would lose the focus of its button.
    if (row !== there) $("cards").insertBefore(row, there ?? null);
  });
  $("older").hidden = !older && entries.length === named.length;
  arrange();
}

function arrange() {
  $("results").hidden = !$("cards").children.length;
  document.querySelector("main").dataset.state = $("cards").children.length ? "full" : "empty";
}

// One request after the other: an answer that is late does not replace a newer one.
function refresh() {
  refreshing = refreshing.then(async () => {
    clearTimeout(timer);
    try {
      await load();
      if (lost) showMessage("");
      lost = false;
    } catch (error) {
      if (!(error instanceof RequestError)) {
        reportError(error);
      } else if (error.status === 404) {
        // The job at the end of a page may have expired: begin again with the first page.
        pages = 1;
      } else {
        lost = true;
        showMessage(error.message);
      }
      arrange();
    }
    const busy = [...cards.values()].some(({ row }) => ["queued", "running"].includes(row.dataset.state));
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(refresh, busy ? POLL_MS : IDLE_POLL_MS);
  });
  return refreshing;
}

// Images.

function optionsOf() {
  return Object.fromEntries(Object.keys(FIELDS).map((name) => [name, $(name).value.trim()]).filter(([, value]) => value));
}

async function upload(file, options = optionsOf()) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Upload progress" }), state = h("span.state", { role: "status" }, "waits for the upload before it");
  const row = h("li.upload", {}, h("div.picture.busy", {}, state, bar), h("h3", {}, file.name), h("div.actions", {}, h("button", { type: "button", onclick: cancel }, "Cancel")));
  const megabytes = (bytes) => number(bytes / 1e6, bytes < 1e7 ? 1 : 0);
  let cancelled = false, xhr = null;
  function cancel() {
    cancelled = true;
    xhr?.abort();
    row.remove();
    arrange();
  }
  // A failed upload stays, with its reason: the file need not be looked for again.
  function failed({ message }) {
    const anew = () => {
      cancel();
      upload(file, options);
    };
    row.dataset.state = "failed";
    row.replaceChildren(h("div.picture", {}, h("span.state", {}, "not uploaded")), h("h3", {}, file.name), h("p.error", { role: "alert" }, message),
      h("div.actions", {}, h("button.main", { type: "button", onclick: anew }, "Try again"), h("button", { type: "button", onclick: cancel }, "Remove")));
  }
  $("cards").prepend(row);
  arrange();
  uploads += 1;
  uploading = uploading.then(async () => {
    let watch = 0;
    try {
      if (cancelled) return;
      const begun = performance.now();
      let last = begun, sent = 0, all = file.size;
      const since = (time) => (performance.now() - time) / 1000;
      watch = setInterval(() => {
        const left = since(begun) / sent * (all - sent);
        const ending = since(last) > STALLED_S ? ` · no connection for ${duration(since(last))}` : sent && left > 5 ? ` · about ${duration(left)} left` : "";
        bar.value = sent / all;
        state.textContent = sent < all ? `uploading · ${megabytes(sent)} of ${megabytes(all)} MB${ending}` : "uploaded; the server reads it";
      }, 500);
      const sending = uploadScene(file, options, (...now) => {
        [sent, all] = now;
        last = performance.now();
      });
      xhr = sending.xhr;
      await sending.job;
      row.remove();
      await refresh();
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    } finally {
      clearInterval(watch);
      uploads -= 1;
      arrange();
    }
  });
  return uploading;
}

// A small image is shown at once; several, or one that is too large for that, become jobs.
async function take(files) {
  showMessage("");
  const [file] = files;
  if (files.length !== 1 || file.size > AT_ONCE_BYTES) return [...files].forEach((one) => upload(one));
  await look(file);
}

async function look(file, preview = "") {
  current = file;
  again = null;
  $("again").textContent = "Run again";
  $("now").hidden = false;
  $("again").hidden = false;
  for (const id of ["keep", "slide", "view"]) $(id).hidden = true;
  $("now").querySelector("h2").textContent = file.name;
  $("now").scrollIntoView({ block: "nearest", behavior: "smooth" });
  const seen = preview || (/^image\/(png|jpeg|webp)$/.test(file.type) ? URL.createObjectURL(file) : "");
  try {
    const view = await viewer.run(file, optionsOf(), { picture: seen, thrown: ["/problems/too-large"] });
    $("keep").hidden = $("view").hidden = !view;
    $("slide").hidden = view?.kind !== "score";
    if (view?.threshold) $("slider").value = view.threshold;
  } catch {
    close();
    upload(file);
  }
}

function close() {
  current = again = null;
  viewer.clear();
  $("now").hidden = $("again").hidden = true;
}

async function example(name, options) {
  const answer = await fetch(new URL(`home/examples/${name}.tif`, document.baseURI));
  if (!answer.ok) throw new Error(`The server has no such example (${answer.status}).`);
  const file = new File([await answer.blob()], `${name}.tif`);
  if (options?.job) return upload(file);
  return look(file, new URL(`home/examples/${name}.webp`, document.baseURI).href);
}

$("form").addEventListener("submit", (event) => event.preventDefault());
$("file").addEventListener("change", () => {
  const files = [...$("file").files];
  $("file").value = "";
  take(files);
});
for (const button of document.querySelectorAll("[data-example]")) button.addEventListener("click", withMessage(() => example(button.dataset.example)));
$("town").addEventListener("click", withMessage(() => example("town", { job: true })));
$("again").addEventListener("click", withMessage(() => again ? runAgain() : look(current)));
for (const id in FIELDS) $(id).addEventListener("keydown", (event) => { if (event.key === "Enter" && !$("again").hidden) $("again").click(); });
$("slider").addEventListener("input", () => viewer.threshold(Number($("slider").value)));
$("mode").addEventListener("change", () => viewer.mode($("mode").value));
$("close").addEventListener("click", close);
$("keep").addEventListener("click", () => {
  const file = current, options = { ...optionsOf(), ...($("slide").hidden ? {} : { threshold: $("slider").value }) };
  close();
  upload(file, options);
});
// A file that misses the marked place would otherwise replace the page.
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    if (name === "drop") take([...event.dataTransfer.files]);
  });
}
// An upload ends with its page.
addEventListener("beforeunload", (event) => { if (uploads) event.preventDefault(); });
// A menu closes when something else is pressed.
addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});

$("older").onclick = async () => {
  pages += 1;
  await refresh();
};
document.addEventListener("visibilitychange", refresh);
refresh();
