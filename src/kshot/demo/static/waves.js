// The page of waves: points in, and the curve of every learner after each gradient step.

import {ask, tell} from "./api.js";

const WIDTH = 640, HEIGHT = 320, X = 5, Y = 6, MOST = 50;
const STYLES = [["--c0", ""], ["--c1", "9 5"], ["--c2", "2 5"], ["--c3", "12 4 2 4"]];
const byId = (id) => document.getElementById(id);
const state = {points: [], learners: [], step: 0};
let turn = 0;
let playing = null;

const toPixel = (x, y) => [(x + X) / (2 * X) * WIDTH, (Y - y) / (2 * Y) * HEIGHT];

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw() {
  const svg = byId("plot");
  svg.replaceChildren();
  const numbers = [];  // drawn after the curves, so that these do not cover them
  for (const x of [-4, -2, 0, 2, 4]) {
    const [px] = toPixel(x, 0);
    svg.append(element("line", {class: "axis", x1: px, x2: px, y1: 0, y2: HEIGHT}));
    numbers.push(element("text", {x: px + 3, y: HEIGHT - 5}, String(x)));
  }
  for (const y of [-4, -2, 0, 2, 4]) {
    const [, py] = toPixel(0, y);
    svg.append(element("line", {class: "axis", y1: py, y2: py, x1: 0, x2: WIDTH}));
    numbers.push(element("text", {x: 4, y: py - 3}, String(y)));
  }
  state.learners.forEach((learner, place) => {
    const {y} = learner.steps[state.step];
    if (!y) return;
    const path = y.map((value, i) => toPixel(learner.x[i], Math.max(-20, Math.min(20, value))).map((part) => part.toFixed(1)).join(" ")).join("L");
    const [color, dash] = STYLES[place % STYLES.length];
    const curve = element("path", {class: "learned", d: `M${path}`, "stroke-dasharray": dash});
    curve.style.setProperty("--color", `var(${color})`);
    svg.append(curve);
  });
  svg.append(...numbers);
  for (const [x, y] of state.points) {
    const [cx, cy] = toPixel(x, y);
    svg.append(element("circle", {class: "point", cx, cy, r: 6}));
  }
  const count = state.points.length;
  svg.setAttribute("aria-label", count ? `${count} points and the curves of ${state.learners.length} learners after ${state.step} steps` : "No points yet");
  byId("step-value").textContent = state.step;
  byId("step").value = state.step;
  byId("undo").disabled = byId("clear").disabled = byId("play").disabled = byId("step").disabled = !count;
  drawPlayers();
}

function drawPlayers() {
  byId("players").replaceChildren(...state.learners.map((learner, place) => {
    const card = document.createElement("div");
    card.className = "player";
    card.style.setProperty("--color", `var(${STYLES[place % STYLES.length][0]})`);
    const {error} = learner.steps[state.step];
    const title = Object.assign(document.createElement("h3"), {textContent: learner.name});
    const summary = Object.assign(document.createElement("p"), {className: "hint", textContent: learner.summary});
    const shown = error === null ? "diverged" : `error at the points ${error.toFixed(error < 0.1 ? 3 : 2)}`;
    card.append(title, summary, Object.assign(document.createElement("p"), {className: "error", textContent: shown}));
    return card;
  }));
}

async function follow({play = true} = {}) {
  const mine = ++turn;
  stop();
  if (!state.points.length) {
    state.learners = [];
    state.step = 0;
    return draw();
  }
  draw();
  try {
    const found = await ask("/api/waves", {points: state.points});
    if (mine !== turn) return;
    state.learners = found.learners;
    byId("step").max = found.learners[0].steps.length - 1;
    draw();
    if (play) start();
  } catch (error) {
    tell(error.message);
  }
}

function start() {
  stop();
  const last = Number(byId("step").max);
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    state.step = last;
    return draw();
  }
  state.step = 0;
  byId("play").textContent = "Stop";
  playing = setInterval(() => {
    if (state.step >= last) return stop();
    state.step += 1;
    draw();
  }, 350);
  draw();
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
}

function add(x, y) {
  if (state.points.length >= MOST) return tell(`There are ${MOST} points, which is as many as fit: take some back.`);
  state.points.push([Number(x.toFixed(3)), Number(y.toFixed(3))]);
  follow();
}

byId("plot").addEventListener("click", (event) => {
  const box = byId("plot").getBoundingClientRect();
  add((event.clientX - box.left) / box.width * 2 * X - X, Y - (event.clientY - box.top) / box.height * 2 * Y);
});
byId("add-point").addEventListener("submit", (event) => {
  event.preventDefault();
  add(Number(byId("x").value), Number(byId("y").value));
  event.target.reset();
  byId("x").focus();
});
byId("example").addEventListener("click", () => {
  const amplitude = 1 + 3.5 * Math.random(), phase = Math.PI * Math.random();
  state.points = [...Array(10)].map(() => {
    const x = 10 * Math.random() - 5;
    return [Number(x.toFixed(3)), Number((amplitude * Math.sin(x - phase)).toFixed(3))];
  });
  follow();
});
byId("undo").addEventListener("click", () => { state.points.pop(); follow(); });
byId("clear").addEventListener("click", () => { state.points = []; follow(); });
byId("step").addEventListener("input", () => { stop(); state.step = Number(byId("step").value); draw(); });
byId("play").addEventListener("click", () => (playing ? stop() : start()));
draw();
document.documentElement.dataset.ready = "true";
