/** The hits: a card each, with what it is, how near it is, and what can be done with it. */
import { clock, make, shown, the } from "./element.js";
import { openLarge } from "./large.js";
import { Look } from "./look.js";
import { stop } from "./playing.js";
import { toAddress } from "./question.js";
import { Sound } from "./sound.js";
import { openLink, smallView } from "./view.js";

/**
 * @typedef {import("./server.js").Hit} Hit
 * @typedef {object} Does what a card can do
 * @property {() => void} search
 * @property {() => void} enlarge
 * @property {(() => void) | null} play
 * @property {(() => void) | null} look where or when
 *
 * @typedef {object} Page what the page lets be done with hits
 * @property {import("./look.js").LookFor | null} lookFor what can be looked for inside them
 * @property {string[]} [maps] modalities that can be looked into; undefined: not known
 * @property {import("./question.js").Part[]} parts what is searched by
 * @property {(hit: Hit) => import("./question.js").Question} by the question that a hit asks
 * @property {(hit: Hit) => void} searchBy
 * @property {((hit: Hit, card: HTMLElement) => void) | null} remove from the index
 *
 * @typedef {object} Ways what is made of it for a hit
 * @property {(hit: Hit, attributes: object, ...children: (Node | string)[]) => HTMLElement} link that searches by it
 * @property {(hit: Hit, view: HTMLElement, player: any) => Look | null} look
 * @property {(hit: Hit) => boolean} isAsked is it searched by
 */

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

/** Show hits in place of those before. @param {Hit[]} hits @param {Page} page */
export function showHits(hits, page) {
  clear();
  const ways = waysOf(page);
  const cards = hits.map((hit, place) => card(hit, page, ways, () => openLarge(hits, place, ways)));
  if (cards.length) cards[0].tabIndex = 0;
  the("hits").append(...cards.map((made) => make("li", {}, made)));
}

/** @param {Page} page @returns {Ways} */
function waysOf(page) {
  return {
    link: (hit, attributes, ...children) => {
      const link = make("a", { href: toAddress(page.by(hit)), title: "Search by it", ...attributes }, ...children);
      link.addEventListener("click", (/** @type {MouseEvent} */ event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return; // the browser opens it elsewhere
        event.preventDefault();
        page.searchBy(hit);
      });
      return link;
    },
    look: (hit, view, player) => {
      const isLooked = hit.medium !== "text" && hit.media !== null && (page.maps?.includes(hit.modality) ?? true);
      return page.lookFor && isLooked ? new Look(hit, page.lookFor, view, player) : null;
    },
    isAsked: (hit) => page.parts.some((part) => part.id === hit.id && !part.minus),
  };
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

/** @param {Hit} hit @param {Page} page @param {Ways} ways @param {() => void} enlarge */
function card(hit, page, ways, enlarge) {
  const { view, player } = smallView(hit);
  if (player instanceof Sound) {
    sounds.set(view, player);
    near.observe(view);
  } else {
    const by = ways.link(hit, { class: "by", tabindex: "-1", "aria-hidden": "true" });
    view.insertBefore(by, view.children[1] ?? null); // below the button of a moment
  }
  const look = ways.look(hit, view, player);
  const remove = page.remove && (() => page.remove?.(hit, made));
  /** @type {HTMLElement} */
  const made = make(
    "div",
    {
      class: "card",
      role: "group",
      tabindex: "-1",
      "data-item": hit.id,
      "aria-label": spoken(hit),
      "aria-keyshortcuts": "Enter Space W L",
    },
    view,
    facts(hit, ways, look?.found),
    actions(hit, ways, look?.button, enlarge, remove),
  );
  const play = player ? () => player.toggle() : null;
  doing.set(made, { search: () => page.searchBy(hit), enlarge, play, look: look ? () => look.toggle() : null });
  return made;
}

/** @param {Hit} hit @param {Ways} ways @param {HTMLElement | undefined} found */
function facts(hit, ways, found) {
  const parts = hit.path.split("/");
  const name = shown(parts.pop() ?? "");
  return make(
    "div",
    { class: "facts" },
    ways.link(hit, { class: "title", title: name, tabindex: "-1" }, make("bdi", {}, name)),
    make(
      "span",
      { class: "score", title: "Cosine of question and hit: 1 is alike" },
      make("span", { class: "unseen" }, "score "),
      hit.score.toFixed(3),
    ),
    make(
      "span",
      { class: "from", title: shown(hit.path) },
      [hit.rank, ways.isAsked(hit) && "searched by", hit.modality, seconds(hit), folded(hit)].filter(Boolean).join(" · "),
      parts.length ? " · " : null,
      parts.length ? make("bdi", {}, shown(parts.join("/"))) : null,
    ),
    found,
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
  return count > 0 ? `and ${count} near duplicate${count > 1 ? "s" : ""}` : "";
}

function actions(
  /** @type {Hit} */ hit,
  /** @type {Ways} */ ways,
  /** @type {HTMLElement | undefined} */ lookButton,
  /** @type {() => void} */ enlarge,
  /** @type {(() => void) | null} */ remove,
) {
  const name = shown(hit.path);
  return make(
    "div",
    { class: "actions" },
    ways.link(hit, { class: "search-by", "aria-label": `Similar to ${name}` }, "Similar"),
    lookButton,
    make("button", { type: "button", "aria-label": `Large: ${name}`, onclick: enlarge }, "Large"),
    details(hit, remove),
  );
}

/** @param {Hit} hit @param {(() => void) | null} remove */
function details(hit, remove) {
  const rows = Object.entries({ path: hit.path, id: hit.id, ...(hit.text ? { text: hit.text } : {}), ...hit.metadata });
  const told = rows.flatMap(([name, value]) => [
    make("dt", {}, shown(name)),
    make("dd", { dir: "auto" }, shown(typeof value === "string" ? value : JSON.stringify(value))),
  ]);
  const label = `Delete ${shown(hit.path)} from the index`;
  return make(
    "details",
    { name: "details" },
    make("summary", { "aria-label": `Details of ${shown(hit.path)}` }, "Details"),
    make(
      "div",
      { class: "more" },
      make("dl", {}, ...told),
      openLink(hit),
      remove && make("button", { type: "button", class: "bad", "aria-label": label, onclick: remove }, "Delete from the index"),
    ),
  );
}

/** @param {Hit} hit */
function spoken(hit) {
  const what = hit.modality === "text" ? (hit.text ?? "").slice(0, 200) : hit.path;
  return `${hit.rank}: ${hit.modality}, ${shown(what)}, score ${hit.score.toFixed(2)}`;
}
