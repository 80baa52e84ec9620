// Files that are dropped on the stage go to the field for files. A file over the page's limit
// becomes a job with the settings of the page, and so does an image whose button asks for it. Each
// job has a line. Run by the page's HTML component, which gives `element`.
const { limit, threshold } = element.querySelector("[data-limit]").dataset;
const message = element.querySelector("p"), list = element.querySelector("ul");
const FIELD = "#rt-files", STAGE = "#rt-viewer";
const ENDED = ["done", "failed", "cancelled"];
const PERIOD_MS = 1000;

const percent = (share) => `${Math.floor(100 * share)} %`;
const uploads = () => import(new URL("jobs/static/upload.js", document.baseURI).href);
const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

function say(text) {
  message.className = "rt-status error";
  message.textContent = text;
  message.hidden = !text;
}

// The page's settings as parameters of the API.
function settings() {
  const typed = (name) => document.querySelector(`#rt-${name} :is(textarea, input)`)?.value.trim() ?? "";
  const at = document.querySelector("#rt-threshold input[type=number]")?.value ?? "";
  const given = {
    gsd: typed("gsd").replace(",", ".").replace(/\s*m$/, ""),
    bands: typed("bands"),
    stretch: typed("stretch"),
    threshold: threshold && Math.abs(at - threshold) > 1e-9 ? at : "",
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== ""));
}

// A line for one job: its name, what happens to it, and a link.
function addLine(name) {
  const line = document.createElement("li");
  const title = document.createElement("b"), state = document.createElement("span"), link = document.createElement("a");
  title.textContent = name;
  state.role = "status";
  link.hidden = true;
  line.append(title, " ", state, " ", link);
  list.append(line);
  return {
    say(text) { if (state.textContent !== text) state.textContent = text; },
    link(text, address) {
      link.textContent = text;
      link.href = address;
      link.hidden = false;
    },
  };
}

function stateText(job, inPageTerms) {
  if (job.error) return `failed: ${inPageTerms([job.error.message, job.error.remedy].filter(Boolean).join(" "))}`;
  return job.state === "running" ? `running · ${percent(job.progress.share)}` : job.state;
}

// Shows a job until it ends, and returns its last state.
async function follow(id, line) {
  line.link("Jobs", "jobs");
  const { inPageTerms } = await uploads();
  for (;;) {
    const answer = await fetch(`v1/jobs/${id}`).catch(() => null);
    if (answer?.status === 404) {
      line.say("removed");
      return "removed";
    }
    const job = answer?.ok ? await answer.json() : null;
    line.say(job ? stateText(job, inPageTerms) : "The server does not answer.");
    if (job?.state === "done") line.link("Map and review", `map#job-${id}`);
    if (ENDED.includes(job?.state)) return job.state;
    await pause(PERIOD_MS);
  }
}

// Makes a job of an image that the server has, and goes to its map if the button says so.
async function startJob(button) {
  const line = addLine(button.dataset.name);
  line.say("becomes a job");
  button.disabled = true;
  try {
    const { sentence } = await uploads();
    const answer = await fetch(button.dataset.job, { method: "POST" });
    const body = await answer.json();
    if (!answer.ok) throw new Error(sentence(body));
    const state = await follow(body.id, line);
    if (state === "done" && "map" in button.dataset) location.assign(`map#job-${body.id}`);
  } catch (error) {
    line.say(`failed: ${error.message}`);
  }
  button.disabled = false;
}

async function uploadJobs(files) {
  const options = settings();
  const why = `larger than the ${Math.floor(limit / 2 ** 20)} MiB that this page takes, so it becomes a job`;
  const waiting = files.map((file) => [file, addLine(file.name)]);
  for (const [, line] of waiting) line.say(`${why}: waits for the upload before it`);
  for (const [file, line] of waiting) {
    try {
      const { uploadScene } = await uploads();
      const { job } = uploadScene(file, options, (share) => line.say(`${why}: ${percent(share)} uploaded`));
      follow((await job).id, line);
    } catch (error) {
      line.say(`failed: ${error.message}`);
    }
  }
}

function give(files) {
  const input = document.querySelector(`${FIELD} input[type="file"]`);
  if (!input || !files.length) return;
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

// Takes an event away from Gradio if the files are not all for the field.
function sort(event, files, forField) {
  const large = files.filter((file) => file.size > limit);
  if (forField && !large.length) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  say("");
  give(files.filter((file) => file.size <= limit));
  if (large.length) uploadJobs(large);
}

addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-job]");
  if (button) startJob(button);
});

const over = (event, place) => Boolean(event.target.closest?.(place));
addEventListener("drop", (event) => {
  const files = [...event.dataTransfer?.files ?? []];
  document.querySelector(STAGE).classList.remove("rt-over");
  if (files.length && (over(event, FIELD) || over(event, STAGE))) sort(event, files, over(event, FIELD));
}, true);
addEventListener("change", (event) => {
  if (over(event, `${FIELD} input[type="file"]`)) sort(event, [...event.target.files], true);
}, true);
for (const name of ["dragover", "dragleave"]) {
  addEventListener(name, (event) => {
    if (!over(event, STAGE) || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.querySelector(STAGE).classList.toggle("rt-over", name === "dragover");
  });
}
