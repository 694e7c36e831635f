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
    const label = `Play ${shown(hit.path)} from ${clock(hit.start_s ?? 0)}`;
    this.button = make(
      "button",
      { type: "button", class: "play", "aria-label": label, onclick: () => this.toggle() },
      `Play from ${clock(hit.start_s ?? 0)}`,
    );
  }

  toggle() {
    if (!this.video) this.#open();
    if (this.video) toggle(this.video, () => this.#failed());
  }

  /** The video with the browser's own controls takes the place of its picture. */
  #open() {
    this.video = make("video", {
      controls: true,
      playsinline: true,
      preload: "metadata",
      src: from(address(this.hit.media), this.hit.start_s),
      "aria-label": shown(this.hit.path),
    });
    this.picture.after(/** @type {HTMLVideoElement} */ (this.video));
    const view = this.picture.parentElement;
    view?.querySelector(".by")?.remove();
    if (document.activeElement === this.button) this.video?.focus();
    this.button.remove();
    this.picture.remove();
  }

  #failed() {
    this.video?.replaceWith(make("p", { class: "absent" }, "This browser cannot play the video; open it instead."));
  }
}
