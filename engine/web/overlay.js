/** Where in a picture a query is found: heat, box and point over the picture as it is shown. */
import { make } from "./element.js";

/**
 * @typedef {object} PictureHeat in pixels of the upright picture
 * @property {[number, number]} size width, height
 * @property {[number, number, number, number]} box x, y, width, height
 * @property {[number, number]} point
 * @property {number[][]} [values] (h, w), one number a cell
 * @property {[number, number, number, number]} [area] what the values cover
 * @property {number} score
 */

const LONG = 640; // pixels of the drawing's longer side
const OPACITY = 0.75; // of the hottest place
// from cold to hot, each lighter than the one before, so that colour-blind eyes read it too
const COLOURS = [
  [13, 8, 52],
  [72, 18, 112],
  [148, 36, 118],
  [214, 66, 84],
  [246, 128, 44],
  [252, 196, 60],
  [252, 248, 172],
];

/** A layer as large as the picture. @param {PictureHeat} heat @returns {HTMLCanvasElement} */
export function overlay(heat) {
  const factor = LONG / Math.max(...heat.size);
  const [width, height] = heat.size.map((side) => Math.max(1, Math.round(side * factor)));
  const canvas = make("canvas", { class: "heat", width, height, role: "img", "aria-label": placeOf(heat) });
  const context = canvas.getContext("2d");
  if (heat.values?.length) {
    const [x, y, w, h] = (heat.area ?? [0, 0, ...heat.size]).map((side) => side * factor);
    context.drawImage(cells(heat.values), x, y, w, h);
  }
  mark(context, heat, factor);
  return canvas;
}

/** In words. @param {PictureHeat} heat */
export function placeOf(heat) {
  const third = (/** @type {number} */ share) => Math.min(2, Math.floor(3 * share));
  const row = ["top", "", "bottom"][third(heat.point[1] / heat.size[1])];
  const column = ["left", "", "right"][third(heat.point[0] / heat.size[0])];
  return `Strongest ${row || column ? `at the ${[row, column].filter(Boolean).join(" ")}` : "in the middle"}`;
}

/** One pixel a cell; what is cold can be seen through. @param {number[][]} values */
function cells(values) {
  const [rows, columns] = [values.length, values[0].length];
  const all = values.flat();
  const low = all.reduce((a, b) => Math.min(a, b));
  const range = all.reduce((a, b) => Math.max(a, b)) - low || 1;
  const image = new ImageData(columns, rows);
  all.forEach((value, place) => {
    const share = (value - low) / range;
    image.data.set([...colour(share), 255 * OPACITY * share], 4 * place);
  });
  const canvas = make("canvas", { width: columns, height: rows });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** @param {number} share from 0 to 1 */
function colour(share) {
  const place = share * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[below].map((channel, i) => channel + (place - below) * (COLOURS[below + 1][i] - channel));
}

/** Outlines in white on black, which show on any picture. */
function mark(
  /** @type {CanvasRenderingContext2D} */ context,
  /** @type {PictureHeat} */ heat,
  /** @type {number} */ factor,
) {
  const [x, y, width, height] = heat.box.map((side) => side * factor);
  for (const [style, line] of /** @type {[string, number][]} */ ([
    ["#000", 5],
    ["#fff", 2],
  ])) {
    context.strokeStyle = style;
    context.lineWidth = line;
    context.strokeRect(x + 1, y + 1, Math.max(1, width - 2), Math.max(1, height - 2));
    context.beginPath();
    context.arc(heat.point[0] * factor, heat.point[1] * factor, 8, 0, 2 * Math.PI);
    context.stroke();
  }
}
