// Clicks of a review: a roof that is clicked gets its outline from the server, and every further
// click changes it. Nothing is saved before the person says so.

import { NoAnswer, send } from "./ask.js";

export const MOST_CLICKS = 50; // as in app/map/review.py

const $ = (id) => document.getElementById(id);

// The state of the tool; it is plain data, so that a draft of it survives a reload.
export const newClicks = () => ({ clicks: [], outline: null, score: 0, parts: 0, outside: false, replaces: false });

// Return whether a point lies in a polygon or multipolygon: an even-odd count over all rings.
function contains({ type, coordinates }, [x, y]) {
  let inside = false;
  for (const ring of type === "Polygon" ? coordinates : coordinates.flat()) {
    for (let at = 0, before = ring.length - 1; at < ring.length; before = at, at += 1) {
      const [[x1, y1], [x2, y2]] = [ring[at], ring[before]];
      if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) inside = !inside;
    }
  }
  return inside;
}

// Ask for the outline at some clicks; without any, there is none.
async function outlined(mode, clicks, base) {
  if (!clicks.length) return Object.assign(mode, { clicks, outline: null, score: 0, parts: 0 });
  if (!clicks[0].inside) throw new NoAnswer("Click on the building first, and then on what is too much.");
  if (clicks.length > MOST_CLICKS) throw new NoAnswer(`More than ${MOST_CLICKS} clicks are not possible: take some back with Delete, or draw the outline.`);
  $("review-hint").textContent = "Looking for the outline…";
  try {
    return Object.assign(mode, { clicks, ...(await send(`${base}/clicks`, { clicks })) });
  } finally {
    describeClicks(mode);
  }
}

// Add a click; the first one decides whether the chosen building gets the outline.
export async function addClick(mode, position, away, { base, current }) {
  if (!mode.clicks.length) mode.replaces = Boolean(current) && contains(current.outline, position);
  await outlined(mode, [...mode.clicks, { position, inside: !(away || mode.outside) }], base);
}

export const removeClick = (mode, { base }) => outlined(mode, mode.clicks.slice(0, -1), base);

// Say what was found and what Enter does; show the two switches of the tool.
export function describeClicks(mode, current) {
  const number = current?.id ?? mode.number;
  mode.number = number;
  const target = mode.replaces ? `replaces the outline of building ${number}` : "adds it as a new building";
  const more = "A further click adds to it. A click with Shift or Alt takes away. Delete takes the last click back.";
  let text = "Click a roof, or move the map and press Space at the cross.";
  if (mode.outline) {
    const parts = mode.parts > 1 ? ` The clicks lie on ${mode.parts} separate parts, and only the largest is kept: click between them.` : "";
    text = `Confidence ${mode.score.toFixed(2)}: Enter ${target}.${parts} ${more}`;
  } else if (mode.clicks.length) {
    text = "No building was found there. Click again, or draw the outline with D or B after Esc.";
  }
  $("review-hint").textContent = text;
  $("click-outside").setAttribute("aria-pressed", String(mode.outside));
  $("click-target").setAttribute("aria-pressed", String(mode.replaces));
}
