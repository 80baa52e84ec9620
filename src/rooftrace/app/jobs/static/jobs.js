// Jobs are sent, followed and taken from here. What it shows, the API under /v1/jobs says.

const ROOT = new URL("v1/jobs", document.baseURI).href;
const MOST = 50;
const ENDED = ["done", "failed", "cancelled"];
const TOLD = { queued: "waits", running: "runs", done: "done", failed: "failed", cancelled: "cancelled" };
const $ = (id) => document.getElementById(id);
const rows = new Map(); // by id: { row, events }

const sentence = (problem) => [problem.detail, problem.remedy].filter(Boolean).join(" ");
const number = (value) => value.toLocaleString("en-US");

function say(text) {
  $("told").textContent = text;
  $("told").hidden = !text;
}

async function asked(url, options) {
  const answer = await fetch(url, options);
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(body ? sentence(body) : `The server answered ${answer.status}.`);
  return body;
}

function guarded(work) {
  return async () => {
    say("");
    try {
      await work();
    } catch (error) {
      say(error.message);
    }
  };
}

function figures(job) {
  const { pixels_done: done, pixels, buildings } = job.progress;
  const size = `${(pixels / 1e6).toFixed(1)} Mpx`;
  if (job.state === "done" && job.figures) {
    const share = (100 * job.figures.built_up_share).toFixed(1);
    return `${number(job.figures.buildings)} buildings · ${share} % built up · ${size} in ${job.figures.seconds.toFixed(1)} s`;
  }
  if (job.state === "queued") return size;
  return `${(done / 1e6).toFixed(1)} of ${size} · ${number(buildings)} buildings so far`;
}

function show(job, first = false) {
  let entry = rows.get(job.id);
  if (!entry) {
    const row = $("job").content.firstElementChild.cloneNode(true);
    entry = { row, events: null };
    rows.set(job.id, entry);
    if (first) $("jobs").prepend(row);
    else $("jobs").append(row);
    const url = `${ROOT}/${job.id}`;
    row.querySelector(".cancel").onclick = guarded(async () => show(await asked(`${url}/cancel`, { method: "POST" })));
    row.querySelector(".remove").onclick = guarded(async () => {
      await asked(url, { method: "DELETE" });
      gone(job.id);
    });
  }
  const { row } = entry;
  const ended = ENDED.includes(job.state);
  const part = (name) => row.querySelector(name);
  row.dataset.state = job.state;
  part("h2").textContent = job.name;
  part(".state").textContent = TOLD[job.state];
  part("progress").value = job.progress.share;
  part("progress").hidden = ended;
  part("progress").setAttribute("aria-label", `Progress of ${job.name}`);
  part(".figures").textContent = figures(job);
  part(".error").hidden = !job.error;
  part(".error").textContent = job.error ? [job.error.message, job.error.remedy].filter(Boolean).join(" ") : "";
  part(".map").hidden = part(".archive").hidden = job.state !== "done";
  part(".map").href = new URL(`map#job-${job.id}`, document.baseURI).href;
  part(".archive").href = `${ROOT}/${job.id}/results.zip`;
  part(".cancel").hidden = ended;
  part(".remove").hidden = !ended;
  $("none").hidden = rows.size > 0;
  if (ended) {
    entry.events?.close();
    entry.events = null;
  } else if (!entry.events) {
    follow(job.id, entry);
  }
}

function follow(id, entry) {
  const events = new EventSource(`${ROOT}/${id}/events`);
  entry.events = events;
  const told = (event) => show(JSON.parse(event.data));
  for (const name of ["message", "state", "progress", ...ENDED, "queued", "running"]) events.addEventListener(name, told);
  events.addEventListener("removed", () => gone(id));
}

function gone(id) {
  const entry = rows.get(id);
  entry?.events?.close();
  entry?.row.remove();
  rows.delete(id);
  $("none").hidden = rows.size > 0;
}

// fetch does not tell how much of a body was sent.
function send(file, query) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${ROOT}?${query}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => { $("sent").value = event.loaded / event.total; };
    request.onerror = () => reject(new Error("The server did not take the file; it may be too large, or the connection broke off."));
    request.onload = () => {
      let body = null;
      try { body = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status === 202) resolve(body);
      else reject(new Error(body ? sentence(body) : `The server answered ${request.status}.`));
    };
    request.send(file);
  });
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = $("file").files;
  const query = new URLSearchParams({ filename: file.name.slice(-255) });
  for (const name of ["gsd", "threshold"]) if ($(name).value) query.set(name, $(name).value);
  $("send").disabled = true;
  $("sent").hidden = false;
  await guarded(async () => {
    show(await send(file, query), true);
    $("file").value = "";
  })();
  $("send").disabled = false;
  $("sent").hidden = true;
});

guarded(async () => {
  const page = await asked(`${ROOT}?limit=${MOST}`);
  for (const job of page.jobs) show(job);
  $("none").hidden = rows.size > 0;
})();
