/** The modalities to find and the filters, between the form and a question. */
import { make, the } from "./element.js";
import { ALIKE, PAGE_SIZES, nFilters } from "./question.js";

/** @typedef {import("./question.js").Question} Question */

/**
 * One choice for each modality that the index holds.
 * @param {Record<string, number>} counts
 * @param {() => void} changed
 */
export function showModalities(counts, changed) {
  const labels = Object.entries(counts)
    .filter(([, count]) => count > 0)
    .map(([modality, count]) =>
      make(
        "label",
        {},
        make("input", { type: "checkbox", name: "to", value: modality, onchange: changed }),
        modality,
        make("span", { class: "count", "aria-label": `${count} items` }, count.toLocaleString()),
      ),
    );
  the("to").replaceChildren(make("legend", {}, "Find"), ...labels);
  the("to").hidden = labels.length < 2;
}

/** @param {() => void} changed @param {() => void} cleared */
export function watch(changed, cleared) {
  the("size").replaceChildren(...PAGE_SIZES.toSorted((a, b) => a - b).map((size) => make("option", {}, String(size))));
  the("slide").addEventListener("input", () => {
    the("min").value = the("slide").value === the("slide").min ? "" : the("slide").value;
    slide(the("min").value);
  });
  the("min").addEventListener("input", () => slide(the("min").value));
  the("filters").addEventListener("click", () => open(the("narrow").hidden));
  for (const id of ["slide", "min", "not", "where", "group", "fold", "size"]) {
    the(id).addEventListener("change", () => the("min").reportValidity() && changed());
  }
  the("clear").addEventListener("click", cleared);
}

/** @param {Question} question */
export function write(question) {
  for (const box of boxes()) box.checked = question.to.includes(box.value);
  the("min").value = question.min;
  slide(question.min);
  the("size").value = String(question.k);
  the("not").value = question.not;
  the("where").value = question.where;
  the("group").checked = question.group;
  the("fold").checked = Boolean(question.fold);
  the("fold").value = question.fold || ALIKE;
  const count = nFilters(question);
  the("filters-set").textContent = `(${count} set)`;
  the("filters-set").hidden = count === 0;
  the("clear").disabled = count === 0;
  markCondition("");
}

/** The filters as the form has them. @returns {Partial<Question>} */
export function read() {
  return {
    to: boxes()
      .filter((box) => box.checked)
      .map((box) => box.value),
    min: the("min").validity.valid ? the("min").value : "",
    not: the("not").value.trim(),
    where: the("where").value.trim(),
    group: the("group").checked,
    fold: the("fold").checked ? the("fold").value : "",
    k: Number(the("size").value),
  };
}

/** @param {string} score "": any */
function slide(score) {
  the("slide").value = score || the("slide").min;
  the("slide").setAttribute("aria-valuetext", score || "any");
}

/** Say that the condition could not be read; "" takes it back. @param {string} sentence */
export function markCondition(sentence) {
  the("where").setAttribute("aria-invalid", String(Boolean(sentence)));
  the("where-bad").textContent = sentence;
  the("where-bad").hidden = !sentence;
  if (sentence) open(true);
}

/** @param {boolean} isOpen */
function open(isOpen) {
  the("narrow").hidden = !isOpen;
  the("filters").setAttribute("aria-expanded", String(isOpen));
}

/** @returns {boolean} whether the focus was in there */
export function close() {
  if (![the("narrow"), the("filters")].some((one) => one.contains(document.activeElement))) return false;
  const wasOpen = !the("narrow").hidden;
  open(false);
  the("filters").focus();
  return wasOpen;
}

/** @returns {HTMLInputElement[]} */
function boxes() {
  return [...the("to").querySelectorAll("input")];
}
