/** One hit in a window over the page, as large as it fits: looked into, played, and from there to the next. */
import { shown, the } from "./element.js";
import { Look } from "./look.js";
import { stop } from "./playing.js";
import { Sound } from "./sound.js";
import { largeView, openLink } from "./view.js";

/** @typedef {import("./server.js").Hit} Hit @typedef {import("./hits.js").Ways} Ways */

/** What is open: hits, the place among them, what is done with them. @type {{hits: Hit[], place: number, ways: Ways} | null} */
let open = null;
/** @type {Look | null} */
let look = null;

/** @param {Hit[]} hits @param {number} place from 0 @param {Ways} ways */
export function openLarge(hits, place, ways) {
  open = { hits, place, ways };
  show();
  the("large").showModal();
  the("large-close").focus();
}

/** @param {(place: number) => void} closed is told where the reader was */
export function watch(closed) {
  const dialog = the("large");
  the("large-earlier").addEventListener("click", () => step(-1));
  the("large-later").addEventListener("click", () => step(1));
  the("large-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (/** @type {MouseEvent} */ event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = /** @type {Element} */ (event.target);
    if (target.matches("input, video")) return; // whose own keys these are
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key.toLowerCase() === "w") look?.toggle();
    else if (event.key.toLowerCase() === "l") dialog.close();
  });
  dialog.addEventListener("close", () => {
    stop();
    the("large-view").replaceChildren();
    if (open) closed(open.place);
    open = null;
  });
}

/** @param {number} by */
function step(by) {
  if (!open?.hits[open.place + by]) return;
  open.place += by;
  show();
}

function show() {
  if (!open) return;
  const { hits, place, ways } = open;
  const hit = hits[place];
  stop();
  const { view, player } = largeView(hit);
  if (player instanceof Sound) player.load();
  look = ways.look(hit, view, player);
  const similar = ways.link(hit, { class: "search-by" }, "Similar");
  similar.addEventListener("click", () => {
    open = null; // the focus goes to the hits that are coming
    the("large").close();
  });
  the("large-title").textContent = shown(hit.path);
  the("large-place").textContent = `${place + 1} of ${hits.length}, ${hit.modality}, score ${hit.score.toFixed(3)}`;
  the("large-earlier").disabled = place === 0;
  the("large-later").disabled = place === hits.length - 1;
  the("large-view").replaceChildren(view);
  the("large-found").replaceChildren(...(look ? [look.found] : []));
  the("large-does").replaceChildren(...[look?.button, similar, openLink(hit)].filter((does) => does));
  if (!the("large").contains(document.activeElement)) the("large-close").focus();
}
