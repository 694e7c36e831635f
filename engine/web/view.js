/** What a hit looks and sounds like, on its card and large: the picture, the sound, the moment of a video, the sentence. */
import { make, shown } from "./element.js";
import { Moment } from "./moment.js";
import { address, largePicture, smallPicture } from "./server.js";
import { Sound } from "./sound.js";

/** @typedef {import("./server.js").Hit} Hit */

const MOST_SHOWN = 600; // characters of a sentence on a card
const MOST_HIDDEN = 0.5; // of a picture that is cut to fill its card

/** On a card. @param {Hit} hit @returns {{view: HTMLElement, player: Sound | Moment | null}} */
export function smallView(hit) {
  const text = hit.text ?? "";
  return viewOf(hit, text.length > MOST_SHOWN ? `${text.slice(0, MOST_SHOWN)}…` : text, smallPicture(hit.thumbnail));
}

/** In a window of its own. @param {Hit} hit @returns {{view: HTMLElement, player: Sound | Moment | null}} */
export function largeView(hit) {
  return viewOf(hit, hit.text ?? "", largePicture(hit.thumbnail));
}

/** To its file, in another tab of the browser; null where it has none. @param {Hit} hit */
export function openLink(hit) {
  const media = address(hit.media);
  const href = hit.medium === "video" && hit.start_s ? `${media}#t=${hit.start_s}` : media;
  const label = `Open ${shown(hit.path)} in another tab`;
  if (!media) return null;
  return make("a", { class: "open", href, target: "_blank", rel: "noopener", "aria-label": label }, "Open the file");
}

/** @param {Hit} hit @param {string} text @param {string} small address of a picture */
function viewOf(hit, text, small) {
  const view = make("div", { class: `view ${hit.medium}` });
  if (hit.medium === "text") {
    view.append(make("p", { class: "said", dir: "auto" }, shown(text)));
    return { view, player: null };
  }
  if (hit.media === null) {
    view.append(make("p", { class: "absent" }, "Its embedding was made elsewhere: there is no file to show."));
    return { view, player: null };
  }
  if (hit.modality !== "image") {
    const sound = new Sound(hit, hit.medium === "video", small);
    view.append(sound.element);
    return { view, player: sound };
  }
  const picture = hit.thumbnail || hit.medium === "image" ? pictureOf(hit, small) : make("p", { class: "absent" }, "Video");
  view.append(picture);
  if (hit.medium === "image") return { view, player: null };
  const moment = new Moment(hit, picture);
  view.append(moment.button);
  return { view, player: moment };
}

/** @param {Hit} hit @param {string} small */
function pictureOf(hit, small) {
  const picture = make("img", {
    src: small || address(hit.media),
    alt: shown(hit.text || hit.path),
    loading: "lazy",
    decoding: "async",
  });
  picture.addEventListener("load", () => picture.classList.toggle("whole", shareHidden(picture) > MOST_HIDDEN));
  picture.addEventListener("error", () => {
    picture.replaceWith(make("p", { class: "absent" }, "No picture of it can be shown; the file may have moved."));
  });
  return picture;
}

/** What a cut to its box hides of a picture. @param {HTMLImageElement} picture */
function shareHidden(picture) {
  const ratio = (picture.naturalWidth * picture.clientHeight) / (picture.naturalHeight * picture.clientWidth || 1);
  return 1 - Math.min(ratio, 1 / ratio);
}
