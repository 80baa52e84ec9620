// Where the map is: coordinates to read and to copy, links to a place, home and fit.

const $ = (id) => document.getElementById(id);
const MARK = "@", NOTICE_MS = 2500;

// "#FOLDER/IMAGE/review@ZOOM,LATITUDE,LONGITUDE" as its parts; the place may be missing.
export function readAddress(hash) {
  const [path, at] = hash.slice(1).split(MARK);
  const [folder, name, mode] = path.split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return "";
    }
  });
  const numbers = at?.split(",").map(Number) ?? [];
  const [zoom, lat, lng] = numbers;
  const known = numbers.length === 3 && numbers.every(Number.isFinite) && Math.abs(lat) <= 85 && Math.abs(lng) <= 360;
  return { folder, name, review: mode === "review", place: known ? { zoom, center: [lng, lat] } : null };
}

export function addressOf(scene, review, zoom, at) {
  const path = [scene.folder, scene.name].map(encodeURIComponent).join("/");
  const place = at ? `${MARK}${zoom.toFixed(2)},${at.lat.toFixed(6)},${at.lng.toFixed(6)}` : "";
  return `#${path}${review ? "/review" : ""}${place}`;
}

export function createPlace({ maplibregl, map, popup, current, home, fit, notice, failed }) {
  const unit = (at) => maplibregl.MercatorCoordinate.fromLngLat(at);

  // Latitude and longitude, or the pixel of a scene without a coordinate system.
  function text(at) {
    const { scene } = current();
    if (!scene?.flat) return `${at.lat.toFixed(6)}, ${at.lng.toFixed(6)}`;
    const [west, south, east, north] = scene.bounds, [rows, cols] = scene.shape;
    const low = unit({ lng: west, lat: north }), high = unit({ lng: east, lat: south }), here = unit(at);
    const share = (axis) => (here[axis] - low[axis]) / (high[axis] - low[axis]);
    return `column ${Math.floor(share("x") * cols)}, row ${Math.floor(share("y") * rows)}`;
  }

  function show(at) {
    $("coordinates").hidden = !current().scene;
    $("coordinates").firstElementChild.textContent = text(at);
  }

  async function copy(words) {
    try {
      await navigator.clipboard.writeText(words);
    } catch {
      // Browsers give the clipboard only to pages of this machine and of encrypted addresses.
      const field = Object.assign(document.createElement("textarea"), { value: words });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    notice(`Copied: ${words}`);
    setTimeout(() => notice(""), NOTICE_MS);
  }

  function menu(at) {
    const { scene, review } = current();
    if (!scene) return;
    const box = document.createElement("div"), line = document.createElement("p");
    box.className = "place-menu";
    line.textContent = text(at);
    const button = (label, words) => {
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: label });
      made.addEventListener("click", () => copy(words()));
      return made;
    };
    box.append(line, button("Copy the coordinates", () => text(at)),
      button("Copy a link to here", () => new URL(addressOf(scene, review, map.getZoom(), at), location.href).href));
    popup.setLngLat(at).setDOMContent(box).addTo(map);
  }

  class Buttons {
    onAdd() {
      this.box = document.createElement("div");
      this.box.className = "maplibregl-ctrl maplibregl-ctrl-group";
      for (const [id, sign, title, work] of [["home", "⌂", "Show the whole scene", home], ["fit", "⤢", "Show all buildings that pass the filters", fit]]) {
        const made = Object.assign(document.createElement("button"), { id, type: "button", title, textContent: sign });
        made.setAttribute("aria-label", title);
        made.addEventListener("click", async () => {
          try {
            await work();
          } catch (error) {
            failed(error);
          }
        });
        this.box.append(made);
      }
      return this.box;
    }

    onRemove() {
      this.box.remove();
    }
  }

  map.addControl(new Buttons(), "top-right");
  map.on("mousemove", (event) => show(event.lngLat));
  map.on("mouseout", () => show(map.getCenter()));
  map.on("move", () => show(map.getCenter()));
  map.on("contextmenu", (event) => menu(event.lngLat));
  $("coordinates").addEventListener("click", () => copy($("coordinates").firstElementChild.textContent));

  return { show };
}
