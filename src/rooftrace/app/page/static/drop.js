// Files that are dropped on the stage go to the field for files. A file over the page's limit is
// uploaded as a job. Run by the page's HTML component, which gives `element`.
const line = element.querySelector("p");
const limit = Number(line.dataset.limit);
const FIELD = "#rt-files", STAGE = "#rt-viewer";

function say(text, kind = "note") {
  line.className = `rt-status ${kind}`;
  line.textContent = text;
  line.hidden = false;
}

async function startJobs(files) {
  const most = `the ${Math.floor(limit / 2 ** 20)} MiB that this page takes`;
  try {
    const { uploadScene } = await import(new URL("jobs/static/upload.js", document.baseURI).href);
    for (const file of files) {
      const { job } = uploadScene(file, {}, (share) => {
        say(`${file.name} is larger than ${most}, so it becomes a job: ${Math.floor(100 * share)} % uploaded.`);
      });
      await job;
      say(`${file.name} is larger than ${most}, so it is a job now: `);
      const link = document.createElement("a");
      link.href = "jobs";
      link.textContent = "see its progress and results under Jobs.";
      line.append(link);
    }
  } catch (error) {
    say(error.message, "error");
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
  line.hidden = true;
  give(files.filter((file) => file.size <= limit));
  if (large.length) startJobs(large);
}

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
