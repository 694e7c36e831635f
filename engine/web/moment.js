/** A moment of a video: its picture, and from it the video, which starts at the right second. */
import { clock, make, shown } from "./element.js";
import { from, toggle } from "./playing.js";
import { address } from "./server.js";

/** @typedef {import("./server.js").Hit} Hit */

export class Moment {
  /** @param {Hit} hit @param {HTMLElement} picture what is shown until it plays */
  constructor(hit, picture) {
    this.hit = hit;
    this.picture = picture;
    /** @type {HTMLVideoElement | null} */
    this.video = null;
    this.opened = () => {}; // is called when the video takes the place of the picture
    const second = clock(hit.start_s ?? 0);
    this.button = make(
      "button",
      { type: "button", class: "play", "aria-label": `Play ${shown(hit.path)} from ${second}`, onclick: () => this.toggle() },
      `▶ ${second}`,
    );
  }

  toggle() {
    if (!this.video) this.#open();
    if (this.video) toggle(this.video, () => this.#failed());
  }

  /** The picture again. */
  close() {
    this.video?.pause();
    this.video?.replaceWith(this.picture, this.button);
    this.video = null;
  }

  /** The video with the browser's own controls takes the place of its picture. */
  #open() {
    this.opened();
    const isFocused = document.activeElement === this.button;
    this.video = make("video", {
      controls: true,
      playsinline: true,
      preload: "metadata",
      src: from(address(this.hit.media), this.hit.start_s),
      "aria-label": shown(this.hit.path),
    });
    this.picture.replaceWith(/** @type {HTMLVideoElement} */ (this.video));
    this.button.remove();
    if (isFocused) this.video?.focus();
  }

  #failed() {
    this.picture = make("p", { class: "absent" }, "This browser cannot play the video; open it instead.");
    this.video?.replaceWith(this.picture);
  }
}
