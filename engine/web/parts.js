/** The files and items that a question is made of, as chips in the search box: chosen, dropped, pasted, recorded. */
import { make, shown, the } from "./element.js";
import { address, item } from "./server.js";

/** @typedef {import("./question.js").Part} Part */

const SUFFIXES = {
  image: /\.(jpe?g|png|gif|webp|bmp|tiff?|avif|heic|heif)$/i,
  sound: /\.(wav|flac|mp3|ogg|oga|opus|m4a|aac|aiff?)$/i,
  video: /\.(mp4|m4v|mov|mkv|webm|avi)$/i,
};
const LONG_SIDE = 2048; // pixels that a picture too large to send is made smaller to
const IN_BASE64 = 4 / 3;
const WEIGHTS = [0.25, 0.5, 1, 2, 4];

/**
 * A part of a file, or a sentence that says why not.
 * @param {File} file
 * @param {string[]} modalities what the model takes
 * @param {number} maxBytes of a request
 * @returns {Promise<Part>}
 */
export async function partOf(file, modalities, maxBytes) {
  const name = shown(file.name || "what was pasted");
  const kind = kindOf(file, modalities);
  if (kind === null)
    throw new Error(`${name}: neither a picture, a sound nor a video; add a JPEG, PNG, WAV, FLAC or MP4.`);
  if (kind !== "video" && !modalities.includes(kind)) {
    throw new Error(`${name}: this model does not take a question that is ${kind}; it takes ${modalities.join(", ")}.`);
  }
  const limit = Math.floor((maxBytes - 10_000) / IN_BASE64);
  if (file.size === 0) throw new Error(`${name}: an empty file; add another.`);
  const sent = file.size > limit && kind === "image" ? await smaller(file, name) : file;
  if (sent.size > limit) {
    throw new Error(`${name}: ${megabytes(file.size)} found, at most ${megabytes(limit)} can be sent; cut it shorter.`);
  }
  const picture = kind === "image" ? URL.createObjectURL(sent) : undefined;
  return { kind, name, minus: false, weight: 1, file: sent, picture };
}

/** A hit to search by. @param {{id: number, modality: string, path: string, text?: string | null, thumbnail?: string | null}} hit @returns {Part} */
export function partOfHit(hit) {
  const name = hit.modality === "text" && hit.text ? hit.text.slice(0, 60) : (hit.path.split("/").pop() ?? "");
  return { kind: "like", id: hit.id, name: shown(name), minus: false, weight: 1, picture: address(hit.thumbnail) || undefined };
}

/** The items of an address with their names and pictures. @param {Part[]} parts @returns {Promise<Part[]>} */
export function named(parts) {
  return Promise.all(
    parts.map(async (part) => {
      if (part.id === undefined || part.picture || part.name !== `item ${part.id}`) return part;
      const found = await item(part.id).catch(() => null);
      if (!found) return part;
      const name = shown(found.path.split("/").pop() ?? part.name);
      return { ...part, name, picture: address(found.thumbnail) || undefined };
    }),
  );
}

/**
 * Show the parts in the box; where there is more to a question than one part, each has its weight.
 * @param {Part[]} parts
 * @param {boolean} isCombined
 * @param {string[]} modalities
 * @param {(parts: Part[]) => void} changed
 */
export function showParts(parts, isCombined, modalities, changed) {
  the("parts").replaceChildren(
    ...parts.map((part, place) => {
      const become = (/** @type {Partial<Part>[]} */ ...others) => {
        const focused = document.activeElement?.getAttribute("aria-label");
        changed(parts.toSpliced(place, 1, ...others.map((other) => ({ ...part, ...other }))));
        focusOn(focused);
      };
      return chip(part, isCombined, modalities, become);
    }),
  );
}

/** The control that was used, made anew with its chip; the words where it went. @param {string | null | undefined} label */
function focusOn(label) {
  const controls = [...the("parts").querySelectorAll("button, select")];
  (controls.find((control) => control.getAttribute("aria-label") === label) ?? the("words")).focus();
}

/**
 * @param {Part} part
 * @param {boolean} isCombined
 * @param {string[]} modalities
 * @param {(...others: Partial<Part>[]) => void} become
 */
function chip(part, isCombined, modalities, become) {
  const name = shown(part.name);
  return make(
    "li",
    { class: part.minus ? "part minus" : "part" },
    part.picture
      ? make("img", { src: part.picture, alt: "", onerror: (/** @type {Event} */ event) => remove(event) })
      : null,
    make("bdi", { class: "name", title: name }, name),
    part.minus ? make("span", { class: "unseen" }, "what the hits should not be like") : null,
    heardAs(part, modalities, become),
    isCombined || part.weight !== 1 ? weighed(part, become) : null,
    make(
      "button",
      {
        type: "button",
        "aria-pressed": part.minus,
        "aria-label": `Not like ${name}`,
        title: part.minus ? "Search by it" : "Stay away from it",
        onclick: () => become({ minus: !part.minus }),
      },
      "not",
    ),
    make("button", { type: "button", "aria-label": `Remove ${name}`, title: "Remove", onclick: () => become() }, "×"),
  );
}

/**
 * The weight of the words, beside other parts.
 * @param {import("./question.js").Question} question
 * @param {boolean} isCombined
 * @param {(weight: number) => void} changed
 */
export function showWeight(question, isCombined, changed) {
  const choice = weighed({ ...question, name: "the words" }, (/** @type {{weight: number}} */ by) => changed(by.weight));
  choice.id = "weight";
  choice.hidden = !question.words || !(isCombined || question.weight !== 1);
  const isFocused = document.activeElement === the("weight");
  the("weight").replaceWith(choice);
  if (isFocused) choice.focus();
}

/** How much it counts beside the rest of the question. */
function weighed(/** @type {{name: string, weight: number}} */ part, /** @type {Function} */ become) {
  const weights = [...new Set([...WEIGHTS, part.weight])].sort((a, b) => a - b);
  const choice = make(
    "select",
    { "aria-label": `Weight of ${shown(part.name)}`, title: "How much it counts" },
    ...weights.map((weight) => make("option", { value: weight, selected: weight === part.weight }, `×${weight}`)),
  );
  choice.addEventListener("change", () => become({ weight: Number(choice.value) }));
  return choice;
}

/** A sound is what happens or what is said; only its owner knows. */
function heardAs(/** @type {Part} */ part, /** @type {string[]} */ modalities, /** @type {Function} */ become) {
  const kinds = ["sound", "speech"].filter((kind) => modalities.includes(kind));
  if (!part.file || !["sound", "speech"].includes(part.kind) || kinds.length < 2) return null;
  const choice = make(
    "select",
    { "aria-label": `${shown(part.name)} is heard as` },
    ...kinds.map((kind) => make("option", { value: kind, selected: kind === part.kind }, kind)),
  );
  choice.addEventListener("change", () => become({ kind: choice.value }));
  return choice;
}

/** @param {File} file @param {string[]} modalities @returns {Part["kind"] | null} */
function kindOf(file, modalities) {
  const byType = { image: "image", audio: "sound", video: "video" }[file.type.split("/")[0]];
  const byName = Object.entries(SUFFIXES).find(([, suffix]) => suffix.test(file.name))?.[0];
  const kind = /** @type {Part["kind"] | null} */ (byType ?? byName ?? null);
  return kind === "sound" && !modalities.includes("sound") && modalities.includes("speech") ? "speech" : kind;
}

/** @param {File} file @param {string} name */
async function smaller(file, name) {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(`${name}: no picture that this browser reads; save it as JPEG or PNG.`);
  });
  const factor = Math.min(1, LONG_SIDE / Math.max(picture.width, picture.height));
  const canvas = new OffscreenCanvas(Math.round(picture.width * factor), Math.round(picture.height * factor));
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

/** @param {Event} event */
function remove(event) {
  if (event.target instanceof Element) event.target.remove();
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
