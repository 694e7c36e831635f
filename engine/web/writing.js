/** Adding files to the index and deleting items from it, where the server may write. */
import { clock, make, shown, the } from "./element.js";
import { addItem, deleteItem, item } from "./server.js";
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
  const said = [];
  let nItems = 0;
  alarm("");
  button.setAttribute("aria-busy", "true");
  for (const [place, file] of files.entries()) {
    tell(`Adding ${shown(file.name)} (${place + 1} of ${files.length}) …`);
    try {
      const { ids, notes } = await addItem(file);
      nItems += ids.length;
      said.push(...(notes ?? []).map((note) => `${shown(note)}.`));
    } catch (error) {
      said.push(`${shown(file.name)}: ${error instanceof Error ? error.message : error}`);
    }
  }
  button.removeAttribute("aria-busy");
  tell(`${nItems} item${nItems === 1 ? "" : "s"} added to the index.`);
  if (said.length) alarm(said.join(" "));
  if (nItems) changed();
}

/**
 * Delete a hit from the index if the reader says so; the focus goes to the hit that takes its place.
 * @param {Hit} hit
 * @param {HTMLElement} card
 * @param {() => void} changed the index
 */
export async function remove(hit, card, changed) {
  let isPart, isWholeFile, gone;
  try {
    isPart = ((await item(hit.id)).n_of_file ?? 1) > 1;
    const answer = await confirmed(hit, isPart);
    if (!answer) return;
    isWholeFile = answer === "file";
    gone = await deleteItem(hit.id, isWholeFile);
  } catch (error) {
    alarm(error instanceof Error ? error.message : String(error));
    return;
  }
  const ids = new Set((gone.ids ?? [hit.id]).map(String));
  const cards = [...the("hits").querySelectorAll(".card")];
  const staying = cards.filter((one) => !ids.has(one.dataset.item));
  const next = staying.find((one) => cards.indexOf(one) > cards.indexOf(card)) ?? staying.at(-1);
  for (const one of cards) if (ids.has(one.dataset.item)) one.parentElement?.remove();
  (next ?? the("words")).focus();
  tell(`${isPart && !isWholeFile ? partName(hit) : shown(hit.path)} is deleted from the index.`);
  changed();
}

/** An item by its place in its file. @param {Hit} hit */
function partName(hit) {
  const end = hit.end_s === null ? "" : ` to ${clock(hit.end_s)}`;
  const seconds = hit.start_s === null ? "" : ` from ${clock(hit.start_s)}${end}`;
  return `${hit.line ? `line ${hit.line}` : `the ${hit.modality}${seconds}`} of ${shown(hit.path)}`;
}

/** @param {Hit} hit @param {boolean} isPart of a file @returns {Promise<string>} "item", "file" or, to keep it, "" */
function confirmed(hit, isPart) {
  const dialog = the("deleting");
  const name = isPart ? partName(hit) : shown(hit.path);
  the("deleting-what").replaceChildren("Delete ", make("bdi", {}, name), " from the index?");
  the("deleting-file").hidden = !isPart;
  the("deleting-item").textContent = isPart ? "Delete this part" : "Delete";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}
