/** Files that are dropped or pasted anywhere on the page. */
import { the } from "./element.js";

/**
 * @param {(files: File[]) => void} given
 * @param {(sentence: string) => void} refused
 */
export function watch(given, refused) {
  let depth = 0; // elements that the pointer entered and did not leave
  const end = () => {
    depth = 0;
    the("dropping").hidden = true;
  };
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event.dataTransfer)) return;
    depth += 1;
    the("dropping").hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    the("dropping").hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => {
    if (carriesFiles(event.dataTransfer) || carriesAddress(event.dataTransfer)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    end();
    if (event.defaultPrevented) return; // it was dropped on what takes files itself
    const files = [...(event.dataTransfer?.files ?? [])];
    if (!files.length && !carriesAddress(event.dataTransfer)) return;
    event.preventDefault(); // else the browser leaves the page for the file
    if (files.length) given(files);
    else refused("An address was dropped, and nothing is fetched from elsewhere; save the file, then drop that.");
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    given(files);
  });
}

/** @param {DataTransfer | null} transfer */
function carriesFiles(transfer) {
  return Boolean(transfer?.types.includes("Files"));
}

/** @param {DataTransfer | null} transfer */
function carriesAddress(transfer) {
  return Boolean(transfer?.types.includes("text/uri-list"));
}
