/** The hits: a card each, with what it is, how near it is, and what can be done with it. */
import { clock, make, shown, the } from "./element.js";
import { Look } from "./look.js";
import { Moment } from "./moment.js";
import { stop } from "./playing.js";
import { address, smallPicture } from "./server.js";
import { Sound } from "./sound.js";

/**
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {object} Does what a card can do
 * @property {() => void} search
 * @property {(() => void) | null} play
 * @property {(() => void) | null} look where or when
 *
 * @typedef {object} Ways what the page lets be done with hits
 * @property {import("./look.js").LookedFor | null} lookedFor what can be looked for inside them
 * @property {string[]} [maps] modalities that can be looked into; undefined: not known
 * @property {(hit: Hit) => void} searchBy
 * @property {((hit: Hit, card: HTMLElement) => void) | null} remove from the index
 */

const VIDEO = /\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|flv|ts|3gp|ogv)$/i;
const MOST_SHOWN = 600; // characters of a sentence
/** @type {WeakMap<Element, Does>} */
const doing = new WeakMap();
/** @type {WeakMap<Element, Sound>} */
const sounds = new WeakMap();
const near = new IntersectionObserver(
  (seen) => {
    for (const { target } of seen.filter((entry) => entry.isIntersecting)) {
      near.unobserve(target);
      sounds.get(target)?.load();
    }
  },
  { rootMargin: "300px" },
);

/** What a card can do. @param {Element} card @returns {Does | undefined} */
export function doings(card) {
  return doing.get(card);
}

/** Show hits in place of those before. @param {Hit[]} hits @param {Ways} ways */
export function showHits(hits, ways) {
  clear();
  const cards = hits.map((hit) => card(hit, ways));
  if (cards.length) cards[0].tabIndex = 0;
  the("hits").append(...cards.map((made) => make("li", {}, made)));
}

export function clear() {
  stop();
  near.disconnect();
  the("hits").replaceChildren();
}

/** Grey shapes where hits will be, when there are none to leave standing. */
export function showWaiting() {
  the("hits").classList.add("waiting");
  the("hits").setAttribute("aria-busy", "true");
  if (the("hits").childElementCount) return;
  the("hits").append(...Array.from({ length: 8 }, () => make("li", { class: "skeleton", "aria-hidden": "true" })));
}

export function endWaiting() {
  the("hits").classList.remove("waiting");
  the("hits").removeAttribute("aria-busy");
}

/** @param {Hit} hit @returns {"image" | "video" | "audio" | "text"} */
function mediumOf(hit) {
  if (hit.modality === "text") return "text";
  if (VIDEO.test(hit.path)) return "video";
  return hit.modality === "image" ? "image" : "audio";
}

/** @param {Hit} hit @param {Ways} ways */
function card(hit, ways) {
  const medium = mediumOf(hit);
  const view = make("div", { class: `view ${medium}` });
  const search = () => ways.searchBy(hit);
  const player = fill(view, hit, medium, search);
  const play = player ? () => player.toggle() : null;
  const isLooked = medium !== "text" && (ways.maps?.includes(hit.modality) ?? true);
  const look = ways.lookedFor && isLooked ? new Look(hit, ways.lookedFor, view, player) : null;
  const remove = ways.remove && (() => ways.remove?.(hit, made));
  /** @type {HTMLElement} */
  const made = make(
    "div",
    { class: "card", role: "group", tabindex: "-1", "aria-label": spoken(hit), "aria-keyshortcuts": "Enter Space W" },
    view,
    facts(hit),
    look?.found,
    actions(hit, medium, look?.button, search, remove),
  );
  doing.set(made, { search, play, look: look ? () => look.toggle() : null });
  return made;
}

/** The picture, the sound, the moment or the sentence. */
function fill(
  /** @type {HTMLElement} */ view,
  /** @type {Hit} */ hit,
  /** @type {string} */ medium,
  /** @type {() => void} */ search,
) {
  if (medium === "text") {
    const text = hit.text ?? "";
    const short = text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}…` : text;
    view.append(make("p", { class: "said", dir: "auto" }, shown(short)));
    return null;
  }
  if (hit.modality !== "image") {
    const sound = new Sound(hit, medium === "video", smallPicture(hit.thumbnail));
    sounds.set(view, sound);
    near.observe(view);
    view.append(sound.element);
    return sound;
  }
  const picture = hit.thumbnail || medium === "image" ? pictureOf(hit) : make("p", { class: "absent" }, "Video");
  view.append(
    picture,
    make("button", {
      type: "button",
      class: "by",
      tabindex: "-1",
      "aria-hidden": "true",
      title: "Search by it",
      onclick: search,
    }),
  );
  if (medium === "image") return null;
  const moment = new Moment(hit, picture);
  view.append(moment.button);
  return moment;
}

/** @param {Hit} hit */
function pictureOf(hit) {
  const picture = make("img", {
    src: smallPicture(hit.thumbnail) || address(hit.media),
    alt: shown(hit.text || hit.path),
    loading: "lazy",
    decoding: "async",
  });
  picture.addEventListener("error", () => {
    picture.replaceWith(make("p", { class: "absent" }, "No picture of it can be shown; the file may have moved."));
  });
  return picture;
}

/** @param {Hit} hit */
function facts(hit) {
  const parts = hit.path.split("/");
  const name = shown(parts.pop() ?? "");
  return make(
    "div",
    { class: "facts" },
    make("bdi", { class: "title", title: name }, name),
    make(
      "span",
      { class: "score", title: "Cosine of question and hit: 1 is alike" },
      make("span", { class: "unseen" }, "score "),
      hit.score.toFixed(3),
    ),
    make(
      "span",
      { class: "from" },
      [`${hit.rank}`, hit.modality, seconds(hit)].filter(Boolean).join(" · "),
      parts.length ? " · " : null,
      parts.length ? make("bdi", {}, shown(parts.join("/"))) : null,
      folded(hit),
    ),
  );
}

/** @param {Hit} hit */
function seconds(hit) {
  return hit.start_s === null
    ? ""
    : [hit.start_s, hit.end_s]
        .filter((second) => second !== null)
        .map(clock)
        .join("–");
}

/** @param {Hit} hit */
function folded(hit) {
  const count = hit.folded?.length ?? 0;
  return count > 0 ? ` · and ${count} near duplicate${count > 1 ? "s" : ""}` : null;
}

function actions(
  /** @type {Hit} */ hit,
  /** @type {string} */ medium,
  /** @type {HTMLElement | undefined} */ lookButton,
  /** @type {() => void} */ search,
  /** @type {(() => void) | null} */ remove,
) {
  const media = address(hit.media);
  const name = shown(hit.path);
  return make(
    "div",
    { class: "actions" },
    make(
      "button",
      { type: "button", class: "search-by", "aria-label": `Similar to ${name}`, title: "Search by it", onclick: search },
      "Similar",
    ),
    lookButton,
    media
      ? make(
          "a",
          {
            href: medium === "video" && hit.start_s ? `${media}#t=${hit.start_s}` : media,
            target: "_blank",
            rel: "noopener",
            "aria-label": `Open ${name} in another tab`,
          },
          "Open",
        )
      : null,
    details(hit, remove),
  );
}

/** @param {Hit} hit @param {(() => void) | null} remove */
function details(hit, remove) {
  const rows = Object.entries({ path: hit.path, id: hit.id, ...hit.metadata });
  return make(
    "details",
    {},
    make("summary", {}, "Details"),
    make(
      "dl",
      {},
      ...rows.flatMap(([name, value]) => [
        make("dt", {}, shown(name)),
        make("dd", { dir: "auto" }, shown(typeof value === "string" ? value : JSON.stringify(value))),
      ]),
    ),
    remove
      ? make(
          "button",
          { type: "button", class: "bad", "aria-label": `Delete ${shown(hit.path)} from the index`, onclick: remove },
          "Delete from the index",
        )
      : null,
  );
}

/** @param {Hit} hit */
function spoken(hit) {
  const what = hit.modality === "text" ? (hit.text ?? "").slice(0, 200) : hit.path;
  return `${hit.rank}: ${hit.modality}, ${shown(what)}, score ${hit.score.toFixed(2)}`;
}
