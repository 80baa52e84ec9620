// Samples in one language for all operations, and requests from the page.
const $$ = (what, of = document) => [...of.querySelectorAll(what)];
const KEY = "rooftrace-language";

function choose(language) {
  for (const button of $$("[data-choose]")) button.setAttribute("aria-pressed", String(button.dataset.choose === language));
  for (const sample of $$("pre[data-language]")) sample.hidden = sample.dataset.language !== language;
}

async function send(form) {
  const { method, path } = form.dataset, shown = form.querySelector("output"), fields = new FormData(form);
  let url = path, body;
  const query = new URLSearchParams();
  for (const [name, value] of fields) {
    if (value instanceof File) {
      body = new FormData();
      body.append("file", value.size ? value : await example());
    } else if (path.includes(`{${name}}`)) url = url.replace(`{${name}}`, encodeURIComponent(value));
    else if (value) query.append(name, value);
  }
  shown.textContent = "…";
  form.classList.add("sent");
  try {
    const response = await fetch(`..${url}${query.size ? `?${query}` : ""}`, { method, body });
    const text = await response.text();
    let data = null;
    try { data = JSON.parse(text); } catch { /* shown as it is */ }
    if (data?.id && path === "/v1/jobs") for (const one of $$("input[name=job_id]")) one.value = data.id;
    const all = data ? JSON.stringify(data, null, 2) : text;
    shown.textContent = `${response.status} ${response.statusText}\n${all.length > 4000 ? `${all.slice(0, 4000)}\n…` : all}`;
  } catch {
    shown.textContent = "The server does not answer. Try again in a few minutes.";
  }
}

// Where no file was chosen.
async function example() {
  const response = await fetch("../home/examples/streets.tif");
  return new File([await response.blob()], "streets.tif");
}

// Fill in the first result, so that the form can be sent as it is.
async function suggest() {
  const [folder] = await (await fetch("../map/folders")).json().catch(() => []);
  if (!folder) return;
  const { images: [image] } = await (await fetch(`../map/folders/${encodeURIComponent(folder.id)}`)).json();
  const job = folder.id.startsWith("job-") ? folder.id.slice(4) : "";
  for (const [name, value] of [["results_id", folder.id], ["name", image?.name], ["job_id", job]]) {
    for (const field of $$(`input[name=${name}]`)) field.value ||= value ?? "";
  }
}

const open = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");

addEventListener("DOMContentLoaded", () => {
  const server = new URL("..", location.href).href.replace(/\/$/, "");
  for (const one of $$("[data-server]")) one.textContent = server;
  choose(localStorage.getItem(KEY) ?? "curl");
  open();
  suggest().catch(() => {});
});
addEventListener("hashchange", open);
addEventListener("click", (event) => {
  const language = event.target.dataset.choose;
  if (!language) return;
  localStorage.setItem(KEY, language);
  choose(language);
});
addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target);
});
