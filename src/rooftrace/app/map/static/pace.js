// Where frames are slow, buildings are drawn without outlines and with hard edges while the map moves. Without a
// graphics card that is half of the work: bench/README.md, map.py.
import { paints } from "./style.js";

const FRAMES = 3;

export function createPace({ map, view, scene }) {
  const pace = { slowMs: 70, plain: false };
  let last = 0, slow = 0;

  // In a review each outline has an opacity of its own; changing that to a number would load all tiles anew.
  const draw = (plain) => {
    pace.plain = plain;
    map.setPaintProperty("fill", "fill-antialias", !plain);
    if (!view.review) map.setPaintProperty("outline", "line-opacity", plain ? 0 : paints(scene(), view).outline["line-opacity"]);
  };

  map.on("movestart", () => { last = 0; });
  map.on("render", () => {
    if (pace.plain || !map.isMoving() || !map.getLayer("outline")) return;
    const now = performance.now(), gap = last ? now - last : 0;
    last = now;
    // A gap of a second is a pause of the hand, not a frame.
    if (gap && gap < 1000) slow = gap > pace.slowMs ? slow + 1 : 0;
    if (slow >= FRAMES) draw(true);
  });
  map.on("moveend", () => {
    if (!pace.plain) return;
    // One more slow frame is enough in the next move, and a fast one ends it.
    slow = FRAMES - 1;
    if (map.getLayer("outline")) draw(false);
    pace.plain = false;
  });
  return pace;
}
