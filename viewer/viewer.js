// Shows the classes of a plain Zarr v3 store. Everything it says about them comes from the store's attributes: CF's
// flags, and the Zarr conventions proj, spatial and multiscales. It requests nothing from other hosts.
import "ol/ol.css";
import "./viewer.css";
import { defaults as controls } from "ol/control/defaults.js";
import { defaults as interactions } from "ol/interaction/defaults.js";
import Link from "ol/interaction/Link.js";
import WebGLTile from "ol/layer/WebGLTile.js";
import OpenLayersMap from "ol/Map.js";
import { get as getProjection } from "ol/proj.js";
import Projection from "ol/proj/Projection.js";
import GeoZarr from "ol/source/GeoZarr.js";
import TileGrid from "ol/tilegrid/TileGrid.js";
import View from "ol/View.js";

const TRANSPARENT = [0, 0, 0, 0];
const ABOUT = ["source", "license", "references", "institution", "history", "comment"]; // CF's names

const byId = (id) => document.getElementById(id);

function create(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function swatch(color) {
  const element = create("span", { className: "swatch" });
  element.style.background = color;
  return element;
}

function tell(message) {
  byId("message").textContent = message;
  byId("message").hidden = false;
}

/** The URL of the requested store, or of the folder with this page, without a slash at the end. */
function findStore(asked) {
  const url = new URL(asked || ".", location.href);
  if (!/^https?:$/.test(url.protocol)) {
    throw Error(
      `Expected an address that begins with https:// or http://, found ${url.href}. ` +
        (asked ? "Use the bucket's web address." : "Open this page through a web server."),
    );
  }
  return (url.origin + url.pathname).replace(/(\/zarr\.json)?\/*$/, "");
}

async function readMetadata(url) {
  const address = `${url}/zarr.json`;
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    // the only way to distinguish a server that is down from one that refuses this page
    const there = await fetch(address, { mode: "no-cors" }).then(
      () => true,
      () => false,
    );
    throw Error(
      there
        ? `The server of ${url} does not let pages of ${location.origin} read it. Give the bucket a CORS rule that ` +
          "allows the methods GET and HEAD and all headers, or put this page into the same bucket."
        : `No server answers at ${url}. Check the address and the connection. A page loaded over https cannot read a ` +
          "store over http.",
    );
  }
  if (!answer.ok) {
    throw Error(
      `Expected a Zarr v3 group at ${url}, found status ${answer.status} instead of its zarr.json. Check the address, ` +
        "and whether the objects are public. An Icechunk repository must be exported as plain Zarr first.",
    );
  }
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    throw Error(`Expected JSON in ${address}, found "${text.slice(0, 40)}". Check the address.`);
  }
}

/** Read the description of classes and levels from the metadata, or throw an error that says what is missing. */
function understand({ attributes = {}, consolidated_metadata }, url, asked) {
  const nodes = consolidated_metadata?.metadata;
  if (!nodes) {
    throw Error(
      `${url} has no consolidated metadata, and a browser cannot find the arrays without it. ` +
        "Run zarr.consolidate_metadata(store) on the group that holds the levels.",
    );
  }
  const layout = attributes.multiscales?.layout;
  const [yName, xName] = attributes["spatial:dimensions"] ?? [];
  const bbox = attributes["spatial:bbox"];
  if (!layout?.length || !xName || bbox?.length !== 4) {
    throw Error(
      `${url} has no levels: expected the attributes multiscales (with a layout), spatial:dimensions and spatial:bbox, ` +
        `found ${Object.keys(attributes).join(", ") || "none"}. Write those of the Zarr conventions multiscales and ` +
        "spatial at the group that holds the levels.",
    );
  }
  const names = Object.keys(nodes)
    .filter((path) => path.startsWith(`${layout[0].asset}/`) && nodes[path].attributes?.flag_values)
    .map((path) => path.slice(layout[0].asset.length + 1));
  const variable = asked ?? names[0];
  if (!names.includes(variable)) {
    throw Error(
      `Expected ${asked ? `the array ${asked}` : "an array"} with CF's flag_values in the level ${layout[0].asset} of ` +
        `${url}, found ${names.join(", ") || "none"}. Describe the classes with flag_values, flag_meanings and ` +
        "flag_colors.",
    );
  }
  const levels = layout.map((entry) => {
    const array = nodes[`${entry.asset}/${variable}`];
    const size = (name) => array?.shape[array.dimension_names?.indexOf(name)];
    const method = entry.resampling_method ?? attributes.multiscales.resampling_method;
    const transform = entry["spatial:transform"] ?? array?.attributes["spatial:transform"];
    return { asset: entry.asset, array, columns: size(xName), rows: size(yName), method, transform };
  });
  const missing = levels.find(({ array }) => !array);
  if (missing) {
    throw Error(`Expected the array ${variable} in each level of ${url}, found none in ${missing.asset}. Write it again.`);
  }
  const columns = Math.max(...levels.map((level) => level.columns));
  const pixel = (bbox[2] - bbox[0]) / columns;
  // OpenLayers stretches each level over the box, so a level with other bounds would be misplaced
  for (const { asset, columns, rows, transform: [dx, skewX, x, skewY, dy, y] = [] } of levels) {
    const box = [x, y + dy * rows, x + dx * columns, y];
    if (skewX || skewY || !box.every((side, i) => Math.abs(side - bbox[i]) < pixel / 2)) {
      throw Error(
        `Expected the level ${asset} of ${url} to cover ${bbox.join(", ")} with rows from north to south, found ` +
          `${box.join(", ")}. Correct its spatial:transform, or write it again with whole cells.`,
      );
    }
  }
  const { array } = levels[0];
  return { url, variable, bbox, pixel, columns, levels, attributes, array, classes: readClasses(array, variable) };
}

/** Return an array's CF flags as a map from code to name and color. */
function readClasses({ attributes }, variable) {
  const codes = [attributes.flag_values].flat();
  const [names, colors] = ["flag_meanings", "flag_colors"].map((key) => (attributes[key] ?? "").trim().split(/\s+/));
  const count = new Set(codes).size;
  if (names.length !== count || colors.length !== count || !colors.every((color) => CSS.supports("color", color))) {
    throw Error(
      `Expected a name in flag_meanings and a color in flag_colors (such as #FF7D00) for each of the ${count} ` +
        `flag_values of ${variable}, found ${names.length} names and ${colors.length} colors: ${colors[0] || "none"}, ...`,
    );
  }
  if (!codes.every((code) => Number.isInteger(code) && code >= 0 && code < 256)) {
    throw Error(`Expected flag_values from 0 to 255 at ${variable}, found ${codes.join(", ")}.`);
  }
  return new Map(codes.map((code, i) => [code, { name: names[i].replaceAll("_", " "), color: colors[i] }]));
}

function showAbout({ attributes, array, variable, classes }) {
  document.title = attributes.title ?? array.attributes.long_name ?? variable;
  byId("title").textContent = document.title;
  for (const key of ABOUT.filter((key) => attributes[key])) {
    const parts = String(attributes[key]).split(/(https?:\/\/\S*[^\s.,;:)\]])/);
    const children = parts.map((part, i) => (i % 2 ? create("a", { href: part, textContent: part }) : part));
    byId("attributes").append(create("dt", { textContent: key }), create("dd", {}, ...children));
  }
  for (const [code, { name, color }] of classes) {
    const number = create("span", { className: "code", textContent: code });
    byId("legend").append(create("li", {}, swatch(color), number, create("span", { textContent: name })));
  }
  byId("classes").hidden = false;
}

function makeSource({ url, variable, array, attributes, bbox }) {
  const code = attributes["proj:code"] ?? "unknown";
  const dimensions = array.dimension_names.filter((name) => !attributes["spatial:dimensions"].includes(name));
  return new GeoZarr({
    url,
    variable,
    dimensions: Object.fromEntries(dimensions.map((name) => [name, 0])),
    // nothing is reprojected, so a CRS unknown to OpenLayers needs no definition
    projection: getProjection(code) ?? new Projection({ code, units: "m", extent: bbox }),
    transition: 0,
  });
}

/** Choose the level by the geometric mean: between factors 1 and 8, switch at 2.8, because 4.5 would read too much. */
function chooseLevelsByFactor(grid) {
  grid.getZForResolution = (resolution) =>
    TileGrid.prototype.getZForResolution.call(grid, resolution, (asked, coarse, fine) => asked - Math.sqrt(coarse * fine));
}

function makeMap(source, { bbox, pixel }) {
  const size = Math.max(bbox[2] - bbox[0], bbox[3] - bbox[1]);
  const map = new OpenLayersMap({
    target: "map",
    controls: controls({ attribution: false, rotate: false }),
    interactions: interactions({ altShiftDragRotate: false, pinchRotate: false }),
    view: new View({
      projection: source.getProjection(),
      center: [(bbox[0] + bbox[2]) / 2, (bbox[1] + bbox[3]) / 2],
      extent: bbox,
      showFullExtent: true,
      // at whole zoom levels, a pixel covers 1, 2, 4 ... screen pixels
      maxResolution: pixel * 2 ** Math.max(0, Math.ceil(Math.log2(size / pixel / 256))),
      minResolution: pixel / 32,
    }),
  });
  map.getView().fit(bbox);
  return map;
}

function makeLayer(source, { classes, array, bbox }) {
  const palette = Array.from({ length: 256 }, (_, code) => classes.get(code)?.color ?? TRANSPARENT);
  // If the legend has the fill value, draw it in its color like any class: OpenLayers would leave it out.
  source.nodataBandIndex = undefined;
  const fill = palette[array.fill_value] ?? TRANSPARENT;
  const style = { color: ["case", ["==", ["band", 2], 0], fill, ["palette", ["band", 1], palette]] };
  return new WebGLTile({ source, style, extent: bbox, cacheSize: 64 });
}

/** Show the class under the mouse, or without a mouse (phone, keyboard) the class at the center of the map. */
function followPointer(map, source, { classes, columns, levels, pixel }) {
  const layer = map.getLayers().item(0);
  const digits = Math.max(0, Math.ceil(1 - Math.log10(pixel)));
  let pointer;
  const update = () => {
    byId("map").classList.toggle("center", !pointer);
    const place = pointer ?? map.getSize().map((side) => side / 2);
    const code = layer.getData(place)?.[0];
    const { name = "not in the legend", color = "transparent" } = classes.get(code) ?? {};
    const where = map.getCoordinateFromPixel(place)?.map((value) => value.toFixed(digits));
    const what = code === undefined ? ["nothing here"] : [swatch(color), ` ${name} (${code})`];
    byId("here").replaceChildren(...what, ` at ${where?.join(", ")}`);
    const asset = source.tileGrid.getMatrixId(source.tileGrid.getZForResolution(map.getView().getResolution()));
    const level = levels.find((level) => level.asset === asset);
    const factor = Math.round(columns / level.columns);
    const cell = `each cell ${level.method ? `is the ${level.method} of` : "covers"} ${factor} × ${factor} pixels`;
    byId("level").textContent = `Level ${asset}: ${factor === 1 ? "the pixels themselves" : cell}`;
  };
  map.on("pointermove", ({ originalEvent, pixel }) => {
    if (originalEvent.pointerType === "mouse") {
      pointer = pixel;
      update();
    }
  });
  map.getViewport().addEventListener("pointerleave", () => {
    pointer = undefined;
    update();
  });
  map.on("rendercomplete", update);
}

/** Add a slider per non-spatial dimension, such as the year. The page's address stores the selected label. */
async function addSliders(source, map) {
  const link = new Link({ params: ["x", "y", "z"], replace: true });
  map.addInteraction(link);
  for (const [name, { size, attributes }] of Object.entries(await source.getDimensions())) {
    const values = await Promise.all(Array.from({ length: size }, (_, index) => source.getValue(name, index)));
    const labels = values.map((value, index) => [value ?? index, attributes?.units].filter((x) => x != null).join(" "));
    const slider = create("input", { type: "range", min: 0, max: size - 1, value: 0 });
    const output = create("output");
    const select = (index) => {
      slider.value = Math.max(0, index);
      slider.ariaValueText = output.value = labels[slider.value];
      source.updateDimensions({ [name]: Number(slider.value) });
    };
    select(labels.indexOf(link.track(name, (label) => select(labels.indexOf(label)))));
    slider.addEventListener("input", () => {
      select(slider.value);
      link.update(name, labels[slider.value]);
    });
    byId("dimensions").append(create("label", {}, name, slider, output));
  }
}

async function main() {
  const asked = new URLSearchParams(location.search);
  const url = findStore(asked.get("store"));
  byId("address").value = url;
  const store = understand(await readMetadata(url), url, asked.get("variable") ?? undefined);
  showAbout(store);
  if (!document.createElement("canvas").getContext("webgl")) {
    throw Error("Expected a browser with WebGL to draw the map, found none. Turn WebGL on, or use another browser.");
  }
  const source = makeSource(store);
  source.on("tileloaderror", () => tell(`A part of the map could not be read from ${url}. Reload the page to try again.`));
  await source.getDimensions(); // waits until the store is open
  chooseLevelsByFactor(source.tileGrid);
  byId("view").hidden = false;
  const map = makeMap(source, store);
  map.on("loadstart", () => (byId("map").ariaBusy = "true"));
  map.on("loadend", () => (byId("map").ariaBusy = "false"));
  await addSliders(source, map); // before the layer, which would otherwise fetch the first year
  map.addLayer(makeLayer(source, store));
  followPointer(map, source, store);
}

main().catch((error) => {
  tell(error.message);
  byId("other").open = true;
});
