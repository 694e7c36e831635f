/** One thing plays at a time. */

/** @type {HTMLMediaElement | null} */
let current = null;

/**
 * Play a sound or a video, or pause it. @param {HTMLMediaElement} media
 * @param {() => void} failed is called when the browser cannot play it
 */
export async function toggle(media, failed) {
  if (!media.paused) {
    media.pause();
    return;
  }
  if (current !== media) current?.pause();
  current = media;
  try {
    await media.play();
  } catch (error) {
    if (!(error instanceof DOMException && error.name === "AbortError")) failed();
  }
}

/** Before the hits go. */
export function stop() {
  current?.pause();
  current = null;
}

/** The address of a file from a second on. @param {string} path @param {number | null} start_s */
export function from(path, start_s) {
  return start_s ? `${path}#t=${start_s}` : path;
}
