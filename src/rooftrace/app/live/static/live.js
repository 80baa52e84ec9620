// Show one camera at a time as MJPEG, with the figures of the server, which are asked for each second.

const ROOT = new URL("live/cameras", document.baseURI).href;
const PERIOD_MS = 1000;
const $ = (id) => document.getElementById(id);
const picture = $("picture");
let chosen = 0;
let paused = false;
let failed = false;
let attempts = 0;
let opening = 0; // answers in a row in which the camera is being opened
let unwatched = 0; // answers in a row in which nobody watches the camera

const number = (value, digits = 0) => value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

// A browser keeps a stream open as long as the picture has its address. The camera stops
// without viewers, so a hidden page gives the stream up, too.
function connect() {
  const playing = !paused && !document.hidden;
  failed = false;
  unwatched = 0;
  if (playing) {
    attempts += 1;
    picture.src = `${ROOT}/${chosen}/stream?${attempts}`;
  } else {
    keepPicture();
  }
}

function keepPicture() {
  if (!picture.naturalWidth) {
    picture.removeAttribute("src");
    return;
  }
  const canvas = document.createElement("canvas");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.src = canvas.toDataURL("image/jpeg", 0.9);
}

function choose(index) {
  chosen = index;
  opening = 0;
  picture.removeAttribute("src");
  setPaused(false);
  for (const button of $("cameras").children) button.setAttribute("aria-pressed", String(button === $("cameras").children[index]));
}

function setPaused(value) {
  paused = value;
  $("pause").textContent = paused ? "Play" : "Pause";
  connect();
}

function showCameras(cameras) {
  $("none").hidden = cameras.length > 0;
  $("stage").hidden = cameras.length === 0;
  $("cameras").hidden = cameras.length < 2;
  if ($("cameras").children.length === cameras.length) return;
  $("cameras").replaceChildren(...cameras.map(({ name }, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.onclick = () => choose(index);
    return button;
  }));
  if (cameras.length) choose(Math.min(chosen, cameras.length - 1));
}

function showFigures(page) {
  const camera = page.cameras[chosen];
  if (!camera) return;
  const plays = camera.state === "playing";
  picture.alt = plays ? `${camera.name}: ${camera.buildings} buildings outlined` : "";
  setText("buildings", plays ? number(camera.buildings) : "–");
  setText("share", plays ? `${number(100 * camera.built_up_share, 1)} %` : "–");
  unwatched = paused || document.hidden || camera.state !== "idle" ? 0 : unwatched + 1;
  failed ||= unwatched > 2;
  opening = camera.state === "opening" ? opening + 1 : 0;
  const slow = opening > 3 ? `: no picture for ${opening} s` : "";
  const waits = paused ? "Paused" : camera.message ? "No picture" : `Opening ${camera.name}${slow}`;
  setText("wait", picture.naturalWidth ? "" : waits);
  $("wait").classList.toggle("busy", !picture.naturalWidth && !paused && !camera.message);
  setMessage(camera.message || (failed && !paused ? "The picture was cut off. Connecting again." : ""));
  if (failed && !paused && !document.hidden) connect();
}

function setMessage(text) {
  setText("message", text);
  $("message").hidden = !text;
}

async function update() {
  try {
    const answer = await fetch(ROOT);
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    const page = await answer.json();
    showCameras(page.cameras);
    showFigures(page);
  } catch (error) {
    setMessage(error instanceof TypeError ? "The server does not answer. Connecting again." : error.message);
    failed = true;
  }
  setTimeout(update, PERIOD_MS);
}

picture.addEventListener("error", () => { failed = !paused && !document.hidden; });
$("pause").addEventListener("click", () => setPaused(!paused));
document.addEventListener("visibilitychange", connect);
update();
