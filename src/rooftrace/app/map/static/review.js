// Review of the buildings: a queue in the order of doubt, decisions and corrections.
// All of it works by keyboard alone; the server saves each change before the next building is shown.

import { ask as askServer, NoAnswer, send as sendServer } from "./ask.js";
import { addClick, describeClicks, newClicks, removeClick } from "./clicks.js";
import { colourKey } from "./panel.js";
import { STATUSES } from "./style.js";

const $ = (id) => document.getElementById(id), number = (value) => value.toLocaleString("en");
const POLL_MS = 10_000, LOCKED_MS = 2000, LOCKED_TRIES = 10;
const KEYS = { a: "accept", r: "reject", o: "reopen", n: "next", p: "previous", e: "edit", d: "redraw", s: "split",
  m: "merge", b: "add", z: "undo", Enter: "save", Escape: "cancel", Delete: "remove", Backspace: "remove",
  i: "insert", c: "click", x: "outside", t: "target", " ": "corner", "?": "help", v: "box", "+": "closer", "-": "farther" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const WORDS = [
  ["A", "accept the building and go on"], ["R", "reject it and go on"], ["O", "open it again"],
  ["N, P", "next or previous building"], ["Z", "undo your last change"],
  ["E", "edit: N and P choose a corner, arrow keys move it (with Shift farther), I inserts a corner, Delete removes it"],
  ["D", "redraw the outline"], ["B", "add a building that is missing"],
  ["C", "click a roof to get its outline; a further click adds to it, and a click with Shift or Alt takes away"],
  ["X, T", "while clicking: the next clicks take away; replace the chosen building, or add a new one"],
  ["V", "accept all open buildings in a rectangle: drag it, or place two corners with Space"],
  ["S", "split the building along a line"], ["M", "merge it with a neighbour: N and P choose which"],
  ["Arrow keys", "move the map; while drawing, move it under the cross"],
  ["Space", "while drawing, place a corner or a click at the cross; Delete removes the last one"],
  ["+ −", "zoom"], ["Enter", "save what was drawn"], ["Esc", "cancel it"], ["?", "this list"],
];
const HINTS = {
  edit: "Drag a corner, or choose one with N and P and move it with the arrow keys. I inserts a corner, Delete removes it.",
  redraw: "Click the corners of the building, or place them at the cross with Space.",
  add: "Click the corners of the new building, or place them at the cross with Space.",
  split: "Click the ends of a line across the building, or place them at the cross with Space.",
  box: "Drag a rectangle over the buildings to accept, or place two corners at the cross with Space.",
  merge: "Click the neighbour, or choose it with N and P.",
};
const STATUS_WORDS = { open: "not reviewed", accepted: "accepted", rejected: "rejected", changed: "corrected", added: "added" };

// Ends work on a scene that the map no longer shows.
class SceneLeft extends Error {}

export function createReview({ map, view, fitTo, restyle, address, popup }) {
  let scene = null, base = "", revision = 0, polygons, current = null, mode = null, working = Promise.resolve(), beginning = 0, saving = 0;
  const outlines = new Map();

  const feature = (geometry, properties = {}) => ({ type: "Feature", geometry, properties });
  const say = (text) => { $("review-now").textContent = text; };
  function warn(text) {
    $("review-message").textContent = text ?? "";
    $("review-message").hidden = !text;
  }

  // One thing after the other: keys that come while a change is saved are not lost. Those for a
  // scene that the map no longer shows are; without a scene there is nothing to review.
  function run(work) {
    const of = scene;
    if (!of) return working;
    const done = working.then(() => (of === scene ? work() : null));
    // An error ends its own work only.
    working = done.catch(() => {});
    return done.catch((error) => {
      if (error instanceof SceneLeft) return;
      if (!(error instanceof NoAnswer)) throw error;
      warn(error.message);
    });
  }

  // Wait for an answer; it is of no use once the map shows another scene.
  async function still(answer) {
    const of = scene;
    await answer.catch(() => {});
    if (of !== scene) throw new SceneLeft();
    return answer;
  }

  const ask = (address) => still(askServer(address));
  const send = (address, change) => still(sendServer(address, change));

  // The map leaves the scene; `open` follows.
  function close() {
    scene = null;
  }

  async function open(given) {
    scene = given;
    $("review").hidden = !scene?.buildings?.count || Boolean(scene.comparison);
    if ($("review").hidden) view.review = false;
    // Work on the scene before may still use its drawing.
    await run(() => {
      mode = current = null;
      return show();
    });
  }

  function toggle() {
    view.review = !view.review;
    // MapLibre cannot change between expressions with and without a feature's state.
    restyle();
    return show();
  }

  function addressOf({ folder, name }) {
    return new URL(`v1/results/${encodeURIComponent(folder)}/images/${encodeURIComponent(name)}/review`, document.baseURI).href;
  }

  async function show() {
    const on = view.review;
    $("review-on").textContent = on ? "End the review" : "Review the buildings";
    $("review-on").setAttribute("aria-pressed", String(on));
    $("review-body").hidden = !on;
    document.body.classList.toggle("reviewing", on);
    address();
    leave();
    warn("");
    popup.remove();
    outlines.clear();
    current = null;
    if (!on) return;
    await still(styled());
    $("review-sure").hidden = !scene.buildings.scores;
    base = addressOf(scene);
    revision = 0;
    polygons = undefined;
    await refresh();
    if (!await restore()) await go();
  }

  // A drawing that was not saved is kept by this tab, so that it survives a reload.
  const draftKey = () => `rooftrace-draft ${base}`;
  const forget = () => sessionStorage.removeItem(draftKey());

  // Draw a change of what is drawn, and keep it.
  function keep() {
    draw();
    if (mode.kind === "box") return;
    mode.unsaved = (mode.points ?? mode.clicks)?.length !== 0;
    if (!mode.unsaved) return forget();
    const { id, revision: seenAt } = isNew() ? {} : current;
    sessionStorage.setItem(draftKey(), JSON.stringify({ id, revision: seenAt, polygons, mode }));
  }

  // Return whether what is drawn will be a new building.
  const isNew = () => mode.kind === "add" || (Boolean(mode.clicks) && !mode.replaces);

  // Return a building as it is now; null if it was removed.
  async function present(id) {
    try {
      return await ask(`${base}/buildings/${id}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      return null;
    }
  }

  // Return whether a drawing was brought back.
  async function restore() {
    const draft = JSON.parse(sessionStorage.getItem(draftKey()));
    if (!draft) return false;
    if (draft.polygons !== polygons && draft.id !== undefined) {
      forget();
      await go();
      warn("The image has been predicted again since you drew: your drawing was of another building.");
      return true;
    }
    const building = draft.id === undefined ? null : await present(draft.id);
    if (draft.id !== undefined && !building) {
      forget();
      return false;
    }
    if (building) await look(building);
    else await go();
    enter(draft.mode.kind, draft.mode);
    if (!building) fitAround(mode.outline ?? { type: "Polygon", coordinates: [mode.points ?? mode.clicks.map((one) => one.position)] });
    const other = building && building.revision !== draft.revision;
    warn(other ? `${building.reviewer} has changed this building since you drew. Your drawing was not saved: look before you save it, or cancel it.`
      : "Your drawing was not saved: continue, save it, or cancel it.");
    return true;
  }

  // The style of a scene is there a moment after it was set.
  const styled = () => (map.getSource("review") ? Promise.resolve() : new Promise((done) => map.once("style.load", done)));

  async function refresh() {
    const state = await ask(`${base}?after=${revision}`);
    // The numbers of the buildings on this page are those of the first answer.
    polygons ??= state.polygons;
    if (polygons !== state.polygons) throw new NoAnswer("The image has been predicted again. Reload the page to review its new buildings.");
    revision = state.revision;
    scene.reviewed ||= revision > 0;
    for (const one of state.buildings) {
      if (one.row != null) {
        const id = { source: "buildings", sourceLayer: "buildings", id: one.row };
        map.setFeatureState(id, { status: one.status, hidden: Boolean(one.outline) });
      }
      outlines.delete(one.id);
      if (one.outline) outlines.set(one.id, feature(one.outline, { id: one.id, status: one.status }));
      if (one.id === current?.id && one.revision > current.revision) {
        if (one.reviewer !== reviewer()) warn(`${one.reviewer} has changed this building: it is ${STATUS_WORDS[one.status]} now.`);
        if (!mode) await look(await ask(`${base}/buildings/${one.id}`));
      }
    }
    for (const id of state.removed) outlines.delete(id);
    map.getSource("review")?.setData({ type: "FeatureCollection", features: [...outlines.values()] });
    const { reviewed, total, open, rejected } = state.counts;
    $("review-progress").textContent = `${number(reviewed)} of ${number(total)} reviewed`;
    $("review-bar").firstElementChild.style.width = `${(100 * reviewed) / Math.max(total, 1)}%`;
    const rest = $("review-rest"), left = [rejected && `${number(rejected)} rejected`, open && `${number(open)} not reviewed`].filter(Boolean);
    rest.textContent = `The rest (${number(open)})`;
    rest.disabled = !open;
    document.querySelector("#review-export b").textContent = `${number(total - rejected)} building${total - rejected === 1 ? "" : "s"}`;
    $("review-kept").textContent = left.length ? `(${left.join(", ")})` : "";
    $("review-labels").hidden = !open;
    links(!open);
  }

  async function go(backwards = false) {
    const query = new URLSearchParams({ status: $("review-show").value, backwards });
    if (current) query.set("start", current.id);
    const { building } = await ask(`${base}/next?${query}`);
    if (building) return look(building);
    current = null;
    draw();
    const word = { all: "" }[$("review-show").value] ?? $("review-show").value;
    say(word === "open" ? "All buildings are reviewed." : `There are no ${word} buildings.`);
  }

  async function look(building) {
    current = building;
    draw();
    const score = building.score == null ? "" : `, confidence ${building.score.toFixed(2)}`;
    const who = building.reviewer && building.status !== "open" ? ` by ${building.reviewer}` : "";
    say(`Building ${building.id}${score}: ${STATUS_WORDS[building.status]}${who}.`);
    fit();
  }

  // Clear of the panel, with the neighbours around it.
  function fit() {
    if (view.review && current) fitAround(current.outline);
  }

  function fitAround(outline) {
    const [west, south, east, north] = bounds(outline), around = Math.max(east - west, north - south);
    fitTo([west - around, south - around, east + around, north + around]);
  }

  function bounds(outline) {
    const points = outline.coordinates.flat(outline.type === "Polygon" ? 1 : 2);
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  }

  // The building in hand, with its corners while it is edited.
  function draw() {
    const features = [];
    if (mode?.rings) {
      features.push(feature({ type: "MultiLineString", coordinates: mode.rings.map(closed) }));
      mode.rings.forEach((ring, r) => ring.forEach((point, at) => {
        features.push(feature({ type: "Point", coordinates: point }, { ring: r, at, chosen: r === mode.ring && at === mode.at }));
      }));
    } else {
      const fresh = mode?.clicks ? isNew() : mode?.points && mode.kind !== "split";
      if (current && !fresh && !mode?.outline) features.push(feature(current.outline));
      if (mode?.outline) features.push(feature(mode.outline));
      for (const { position, inside } of mode?.clicks ?? []) {
        features.push(feature({ type: "Point", coordinates: position }, { chosen: false, outside: !inside }));
      }
      if (mode?.other) features.push(feature(mode.other.outline));
      if (mode?.kind === "box") {
        if (mode.points.length) features.push(feature(rectangle(mode.points[0], mode.to ?? map.getCenter().toArray())));
      } else if (mode?.points) {
        const line = [...mode.points, map.getCenter().toArray()];
        features.push(feature({ type: "LineString", coordinates: fresh && line.length > 2 ? closed(line) : line }));
        mode.points.forEach((point) => features.push(feature({ type: "Point", coordinates: point }, { chosen: false })));
      }
    }
    map.getSource("hand")?.setData({ type: "FeatureCollection", features });
  }

  const closed = (ring) => [...ring, ring[0]];
  const rectangle = ([x, y], [to, low]) => outlineOf([[[x, y], [to, y], [to, low], [x, low]]]);
  const outlineOf = (rings) => ({ type: "Polygon", coordinates: rings.map(closed) });
  const seen = (...buildings) => buildings.map(({ id, revision: at }) => ({ id, revision: at }));

  function enter(kind, more) {
    mode = { kind, ...more };
    $("review-hint").textContent = HINTS[kind];
    $("review-decide").hidden = true;
    $("review-mode").hidden = false;
    document.body.classList.toggle("drawing", Boolean(mode.points || mode.clicks));
    for (const id of ["click-outside", "click-target"]) $(id).hidden = !mode.clicks;
    // Shift and a drag would choose a part of the map.
    if (mode.clicks) map.boxZoom.disable();
    if (mode.clicks) describeClicks(mode, current);
    warn("");
    draw();
  }

  function leave() {
    mode = null;
    $("review-decide").hidden = false;
    $("review-mode").hidden = true;
    document.body.classList.remove("drawing");
    map.boxZoom.enable();
    draw();
  }

  // Return whether it was saved. A file that another program holds is tried again for a while.
  async function save(change) {
    saving += 1;
    try {
      for (let tries = 0; ; tries += 1) {
        try {
          // A drawing that is saved is no draft, also if the map shows another scene by then.
          await still(sendServer(`${base}/changes`, { ...change, polygons, reviewer: reviewer() }).then(forget));
          break;
        } catch (error) {
          if (error.status !== 423 || tries === LOCKED_TRIES) throw error;
          warn(`${error.message} It is tried again.`);
          await new Promise((done) => setTimeout(done, LOCKED_MS));
        }
      }
    } catch (error) {
      if (error.status !== 409) throw error;
      await refresh();
      await yieldTo(error.problem.buildings);
      warn(error.message);
      return false;
    } finally {
      saving -= 1;
    }
    warn("");
    await refresh();
    return true;
  }

  // After a conflict: what was drawn stays, and the building is that of the other reviewer now. A
  // building that is gone takes its drawing along, which would otherwise be saved for the next one.
  async function yieldTo(buildings) {
    if (!mode) {
      const now = buildings.find((one) => one.id === current?.id);
      return now ? look(now) : go();
    }
    const now = current && await present(current.id);
    if (!now) {
      forget();
      leave();
      return go();
    }
    current = now;
    if (!mode.other) return;
    const other = await present(mode.other.id);
    if (!other) return leave();
    mode.other = other;
    mode.near = mode.near.map((one) => (one.id === other.id ? other : one));
    draw();
  }

  async function decide(action) {
    if (!current) return;
    if (await save({ action, buildings: seen(current) })) await go();
  }

  // One change for all, which one undo takes back.
  async function acceptMany(which) {
    const { changed } = await send(`${base}/bulk`, { action: "accept", reviewer: reviewer(), polygons, ...which });
    await refresh();
    await go();
    warn(changed ? `${number(changed)} building${changed === 1 ? "" : "s"} accepted. Undo takes ${changed === 1 ? "it" : "all of them"} back.` : "No open building is there.");
  }

  // The second corner of a rectangle decides.
  async function acceptInside([[x, y], [to, low]]) {
    leave();
    await acceptMany({ bounds: [Math.min(x, to), Math.min(y, low), Math.max(x, to), Math.max(y, low)] });
  }

  const actions = {
    accept: () => decide("accept"),
    reject: () => decide("reject"),
    reopen: () => decide("reopen"),
    next: () => (warn(""), go()),
    previous: () => (warn(""), go(true)),
    help: () => $("review-keys").showModal(),
    closer: () => map.zoomIn({ animate: false }),
    farther: () => map.zoomOut({ animate: false }),
    edit() {
      if (current?.outline.type === "Polygon") enter("edit", { rings: current.outline.coordinates.map((ring) => ring.slice(0, -1)), ring: 0, at: 0 });
      else if (current) warn("This building has several parts: redraw it instead.");
    },
    redraw: () => current && enter("redraw", { points: [] }),
    add: () => enter("add", { points: [] }),
    click: () => enter("click", newClicks()),
    box: () => enter("box", { points: [] }),
    sure: () => acceptMany({ min_score: Number($("review-score").value) }),
    rest: () => acceptMany({}),
    split: () => current && enter("split", { points: [] }),
    async merge() {
      if (!current) return;
      const near = await neighbours();
      if (!near.length) return warn("No other building is near this one on the map.");
      enter("merge", { near, at: 0, other: near[0] });
    },
    async undo() {
      const { buildings } = await send(`${base}/undo`, { reviewer: reviewer() });
      const before = revision;
      await refresh();
      warn(revision === before ? "There is nothing to undo." : "");
      if (buildings.length) await look(await ask(`${base}/buildings/${buildings[0].id}`));
      else if (current && !outlines.has(current.id) && current.row == null) await go();
    },
  };

  const inMode = {
    next: () => step(1),
    previous: () => step(-1),
    cancel: () => (forget(), leave()),
    help: actions.help,
    closer: actions.closer,
    farther: actions.farther,
    corner: (away) => place(map.getCenter().toArray(), away),
    outside() {
      if (!mode.clicks) return;
      mode.outside = !mode.outside;
      describeClicks(mode, current);
    },
    target() {
      if (!mode.clicks) return;
      if (!current) return warn("No building is chosen that could be replaced.");
      mode.replaces = !mode.replaces;
      describeClicks(mode, current);
      keep();
    },
    async remove() {
      if (mode.clicks) await removeClick(mode, { base });
      else if (mode.points) mode.points.pop();
      else if (mode.rings?.[mode.ring].length > 3) {
        mode.rings[mode.ring].splice(mode.at, 1);
        mode.at %= mode.rings[mode.ring].length;
      }
      keep();
    },
    insert() {
      if (!mode.rings) return;
      const ring = mode.rings[mode.ring], [from, to] = [ring[mode.at], ring[(mode.at + 1) % ring.length]];
      ring.splice(++mode.at, 0, [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2]);
      keep();
    },
    async save() {
      const { kind, rings, points, other, clicks, outline } = mode;
      if (kind === "box") return points.length ? acceptInside([...points, map.getCenter().toArray()]) : warn("Drag a rectangle first.");
      if (clicks && !outline) return warn("Click a roof first.");
      const least = kind === "split" ? 2 : 3;
      if (points && points.length < least) return warn(`Place at least ${least} corners first.`);
      const fresh = isNew(), action = { edit: "redraw", click: fresh ? "add" : "redraw" }[kind] ?? kind;
      const change = { action, buildings: fresh ? [] : seen(current, ...(other ? [other] : [])) };
      if (kind === "split") change.line = points;
      else if (kind !== "merge") change.outline = outline ?? outlineOf(rings ?? [points]);
      if (!await save(change)) return;
      leave();
      if (fresh) draw();
      else await look(await ask(`${base}/buildings/${current.id}`));
    },
  };

  function step(by) {
    if (mode.rings) {
      // Over the corners of all rings.
      const all = mode.rings.flatMap((ring, r) => ring.map((_, at) => [r, at]));
      const now = all.findIndex(([r, at]) => r === mode.ring && at === mode.at);
      [mode.ring, mode.at] = all[(now + by + all.length) % all.length];
    } else if (mode.near) {
      mode.at = (mode.at + by + mode.near.length) % mode.near.length;
      mode.other = mode.near[mode.at];
    }
    draw();
  }

  async function place(point, away = false) {
    if (mode?.clicks) await addClick(mode, point, away, { base, current });
    else if (mode?.points) mode.points.push(point);
    else return;
    if (mode.kind === "box" && mode.points.length > 1) return acceptInside(mode.points);
    keep();
  }

  async function neighbours() {
    const [west, south, east, north] = bounds(current.outline);
    const [low, high] = [map.project([west, south]), map.project([east, north])];
    const box = [[low.x - 6, high.y - 6], [high.x + 6, low.y + 6]];
    const found = await Promise.all(under(box).map(buildingOf));
    return found.filter((one) => one && one.id !== current.id && one.status !== "rejected");
  }

  function under(place) {
    const found = map.queryRenderedFeatures(place, { layers: ["review-fill", "fill"].filter((id) => map.getLayer(id)) });
    const keys = new Map(found.filter((one) => !one.state.hidden).map((one) => [one.properties.id ?? `row ${one.id}`, one]));
    return [...keys.values()];
  }

  const buildingOf = (one) => ask(one.properties.id ? `${base}/buildings/${one.properties.id}` : `${base}/buildings?row=${one.id}`);

  // Return whether the click was for the review.
  async function click(point, { shiftKey, altKey }) {
    if (!scene) return true;
    const at = map.unproject(point).toArray();
    if (mode?.points || mode?.clicks) await run(() => place(at, shiftKey || altKey));
    if (mode?.points || mode?.clicks || mode?.rings) return true;
    const [found] = under(point);
    if (!found) return Boolean(mode);
    await run(async () => {
      const building = await buildingOf(found);
      if (!mode) return look(building);
      if (building.id !== current.id) mode.other = building;
      draw();
    });
    return true;
  }

  function arrow([right, down], far) {
    if (!mode?.rings) return map.panBy([right, down].map((by) => by * (far ? 60 : 10)), { animate: false });
    const ring = mode.rings[mode.ring], { x, y } = map.project(ring[mode.at]), by = far ? 10 : 2;
    ring[mode.at] = map.unproject([x + right * by, y + down * by]).toArray();
    keep();
  }

  function press(event) {
    const typing = event.target.closest?.("input:not([type=checkbox]), select, textarea, dialog, [role=slider]");
    if (!scene || !view.review || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    // Enter and Space press the button in focus, but while something is drawn only Save and Cancel.
    // A key that waits for an answer may begin a drawing.
    const drawing = mode || beginning;
    const control = event.target.closest?.(drawing ? "#review-mode button" : "button, a, input");
    if (control && (event.key === "Enter" || event.key === " ")) return;
    const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = KEYS[letter === "=" ? "+" : letter], way = ARROWS[event.key];
    if (!way && !actions[name] && !(drawing && inMode[name])) return;
    event.preventDefault();
    event.stopPropagation();
    const begins = name === "click" || Boolean(HINTS[name]);
    beginning += begins;
    run(() => (way ? arrow(way, event.shiftKey) : (mode ? inMode : actions)[name]?.(event.shiftKey))).finally(() => { beginning -= begins; });
  }

  function drag(event) {
    if (!mode?.rings || !event.features.length) return;
    event.preventDefault();
    const { ring, at } = event.features[0].properties, touch = event.type === "touchstart";
    Object.assign(mode, { ring, at });
    const move = (next) => {
      if (!mode?.rings) return;
      mode.rings[ring][at] = next.lngLat.toArray();
      keep();
    };
    map.on(touch ? "touchmove" : "mousemove", move);
    map.once(touch ? "touchend" : "mouseup", () => map.off(touch ? "touchmove" : "mousemove", move));
    draw();
  }

  // A rectangle is dragged; a short touch or click places a corner instead.
  function dragBox(event) {
    if (mode?.kind !== "box" || mode.points.length || event.originalEvent.touches?.length > 1) return;
    event.preventDefault();
    const touch = event.type === "touchstart", from = event.lngLat.toArray(), start = event.point;
    const far = (next) => start.dist(next.point) > 6;
    const move = (next) => {
      if (mode?.kind !== "box" || !far(next)) return;
      Object.assign(mode, { points: [from], to: next.lngLat.toArray() });
      draw();
    };
    map.on(touch ? "touchmove" : "mousemove", move);
    map.once(touch ? "touchend" : "mouseup", (end) => {
      map.off(touch ? "touchmove" : "mousemove", move);
      if (mode?.kind !== "box" || !mode.to) return;
      const corners = [from, mode.to];
      run(() => acceptInside(corners));
    });
  }

  function reviewer() {
    const name = $("review-name").value.trim();
    return name || $("review-name").placeholder;
  }

  // Ground without a building is background in labels, so that they wait for the end of the review.
  function links(complete) {
    for (const link of document.querySelectorAll("#review-export a")) {
      const format = link.dataset.open === "include" ? $("review-format").value : "gpkg";
      link.href = `${base}/export?format=${format}&open=${link.dataset.open}`;
      const off = link.dataset.open !== "include" && !complete;
      link.setAttribute("aria-disabled", String(off));
      if (off) link.removeAttribute("href");
    }
  }

  // Two people who have not given their names are still two.
  const known = localStorage.getItem("rooftrace-reviewer") ?? `Reviewer ${Math.floor(Math.random() * 9000 + 1000)}`;
  localStorage.setItem("rooftrace-reviewer", known);
  $("review-name").value = $("review-name").placeholder = known;
  $("review-name").addEventListener("change", () => localStorage.setItem("rooftrace-reviewer", reviewer()));
  $("review-on").addEventListener("click", () => run(toggle));
  $("review-show").addEventListener("change", () => run(() => (current = null, go())));
  $("review-format").addEventListener("change", () => links($("review-labels").hidden));
  $("review-score").addEventListener("input", () => { $("review-score-out").value = Number($("review-score").value).toFixed(2); });
  $("review").addEventListener("click", (event) => {
    const name = event.target.closest("[data-do]")?.dataset.do;
    if (name) run(() => (mode ? inMode : actions)[name]?.());
  });
  $("review-keys").querySelector("tbody").append(...WORDS.map(([keys, text]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.append(...keys.split(", ").map((one) => Object.assign(document.createElement("kbd"), { textContent: one })));
    row.append(head);
    row.insertCell().textContent = text;
    return row;
  }));
  $("review-key").append(colourKey(Object.entries(STATUSES).map(([status, colour]) => [colour, STATUS_WORDS[status]])));
  addEventListener("keydown", press, true);
  addEventListener("beforeunload", (event) => { if (saving || mode?.unsaved) event.preventDefault(); });
  map.on("move", () => mode?.points && draw());
  map.on("mousedown", dragBox);
  map.on("touchstart", dragBox);
  map.on("mousedown", "hand-corner", drag);
  map.on("touchstart", "hand-corner", drag);
  setInterval(() => { if (view.review && base && !document.hidden) run(refresh); }, POLL_MS);

  return { open, close, click, addressOf, get current() { return current; }, get mode() { return mode; }, settled: () => working };
}
