/**
 * Elements are made here, from names and strings alone: what comes from files becomes text or the value of a
 * harmless attribute, never markup.
 */

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/**
 * An element with attributes (`onclick` and the like take functions) and children; strings become text.
 * @param {string} tag
 * @param {Record<string, any>} [attributes] null, undefined and false leave an attribute out
 * @param {...(Node | string | null | undefined)} children
 * @returns {any}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name.startsWith("on")) throw new TypeError(`${name} takes a function`);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) element.append(child);
  return element;
}

/** An element of the page. @param {string} id @returns {any} */
export function the(id) {
  return document.getElementById(id);
}

/** A name as it may be shown: characters that hide or turn what follows them are made visible. @param {string} name */
export function shown(name) {
  return name.replace(HIDDEN, "\ufffd");
}

/** "1:05.2" of 65.2 seconds, "1:05" of 65. @param {number} seconds */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const rest = tenths % 600;
  const whole = `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}`;
  return rest % 10 ? `${whole}.${rest % 10}` : whole;
}
