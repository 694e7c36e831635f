"use strict";
// Without this script the page shows all of its figures; it adds what is under the pointer, and smaller players.

const points = JSON.parse(document.getElementById("data").textContent).points;
const tip = Object.assign(document.createElement("div"), { id: "tip", hidden: true });
document.body.append(tip);

function fillTip(target) {
  const point = points[target.dataset.item];
  tip.replaceChildren();
  if (point && point.picture) tip.append(Object.assign(new Image(), { src: point.picture, alt: "" }));
  tip.append(point ? `${point.modality}: ${point.name}` : target.dataset.tip);
}

function moveTip(event) {
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(event.clientX + 14, innerWidth - width - 8);
  const above = event.clientY - height - 14;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 8 ? above : event.clientY + 18}px`;
}

function showKin(target) {
  for (const kin of document.querySelectorAll(".kin")) kin.classList.remove("kin");
  const chart = document.querySelector("#map .chart");
  if (!chart) return;
  chart.classList.toggle("asking", Boolean(target));
  if (!target) return;
  for (const other of chart.querySelectorAll(".point"))
    if (other.dataset.key === target.dataset.key) other.classList.add("kin");
}

document.addEventListener("pointerover", (event) => {
  const target = event.target.closest("[data-tip], [data-item]");
  tip.hidden = !target;
  showKin(target && target.dataset.item !== undefined ? target : null);
  if (!target) return;
  fillTip(target);
  moveTip(event);
});
document.addEventListener("pointermove", (event) => { if (!tip.hidden) moveTip(event); });
document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

const PLAY = "M2 1l11 7-11 7z", STOP = "M2 2h12v12H2z";

function makeButton(clip) {
  const audio = clip.querySelector("audio");
  const button = Object.assign(document.createElement("button"), { className: "play", type: "button", title: audio.title });
  const draw = (isPlaying) => {
    button.innerHTML = `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${isPlaying ? STOP : PLAY}"/></svg>`;
    button.setAttribute("aria-label", `${isPlaying ? "Stop" : "Play"} ${audio.getAttribute("aria-label")}`);
  };
  audio.controls = false;
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    draw(true);
  });
  for (const end of ["pause", "ended"]) audio.addEventListener(end, () => draw(false));
  button.addEventListener("click", () => {
    if (!audio.paused) { audio.pause(); return; }
    audio.currentTime = 0;
    audio.play();
  });
  draw(false);
  clip.classList.add("is-short");
  clip.prepend(button);
}
document.querySelectorAll(".clip").forEach(makeButton);

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  const seen = entries.find((entry) => entry.isIntersecting);
  if (!seen) return;
  for (const [anchor, link] of links)
    if (anchor === seen.target.id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
}, { rootMargin: "-20% 0px -70% 0px" });
for (const section of document.querySelectorAll("main section")) reading.observe(section);
