/** Adding files to the index and deleting items from it, where the server may write. */
import { make, shown, the } from "./element.js";
import { addItem, deleteItem } from "./server.js";
import { alarm, tell } from "./states.js";

/** @typedef {import("./server.js").Hit} Hit */

/**
 * Show the control that files are chosen by, or dropped on.
 * @param {() => void} changed the index
 */
export function watch(changed) {
  const [button, files] = [the("add"), the("adding")];
  button.hidden = false;
  button.addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    const chosen = [...files.files]; // emptied by the next line
    files.value = "";
    await add(chosen, changed);
  });
  button.addEventListener("drop", (/** @type {DragEvent} */ event) => {
    const dropped = [...(event.dataTransfer?.files ?? [])];
    if (!dropped.length) return;
    event.preventDefault(); // and so it is no question
    add(dropped, changed);
  });
}

/** One after the other, since the index is written by one. @param {File[]} files @param {() => void} changed */
async function add(files, changed) {
  const button = the("add");
  const refusals = [];
  let nItems = 0;
  alarm("");
  button.setAttribute("aria-busy", "true");
  for (const [place, file] of files.entries()) {
    tell(`Adding ${shown(file.name)} (${place + 1} of ${files.length}) …`);
    try {
      nItems += (await addItem(file)).ids.length;
    } catch (error) {
      refusals.push(`${shown(file.name)}: ${error instanceof Error ? error.message : error}`);
    }
  }
  button.removeAttribute("aria-busy");
  tell(`${nItems} item${nItems === 1 ? "" : "s"} added to the index.`);
  if (refusals.length) alarm(refusals.join(" "));
  if (nItems) changed();
}

/**
 * Delete a hit from the index if the reader says so; the focus goes to the hit that takes its place.
 * @param {Hit} hit
 * @param {HTMLElement} card
 * @param {() => void} changed the index
 */
export async function remove(hit, card, changed) {
  if (!(await isConfirmed(shown(hit.path)))) return;
  try {
    await deleteItem(hit.id);
  } catch (error) {
    alarm(error instanceof Error ? error.message : String(error));
    return;
  }
  const cards = [...the("hits").querySelectorAll(".card")];
  const next = cards[cards.indexOf(card) + 1] ?? cards[cards.indexOf(card) - 1];
  card.parentElement?.remove();
  (next ?? the("words")).focus();
  tell(`${shown(hit.path)} is deleted from the index.`);
  changed();
}

/** @param {string} name @returns {Promise<boolean>} */
function isConfirmed(name) {
  const dialog = the("deleting");
  the("deleting-what").replaceChildren("Delete ", make("bdi", {}, name), " from the index?");
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "delete"), { once: true });
  });
}
