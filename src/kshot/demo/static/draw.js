// The page: classes and their examples on one side, a drawing to name on the other.
// It adapts once to every change of the class set and predicts as often as the drawing changes.

import {ask, tell} from "./api.js";
import {drawMap} from "./map.js";
import {Pad, readPicture, squared} from "./pad.js";

const COLORS = 8;
const MOST_SHOTS = 5; // of a class on this page
const BETWEEN = 90; // milliseconds between two predictions while a line is drawn
const byId = (id) => document.getElementById(id);

const state = {
  learners: [],
  learner: null,
  limits: {classes: 20, name_length: 60},
  classes: [], // {id, name, color, shots: [{url, drawn}]}
  current: null,
  session: null,
  map: null,
  query: null,
};
let nextId = 1;

const examplePad = new Pad(byId("example-pad"), {changed: updateTools, entered: keep});
const queryPad = new Pad(byId("query-pad"), {changed: () => { updateTools(); predictSoon(); }});

// Classes

function addClass(name = freeName(), shots = []) {
  const used = state.classes.map((one) => one.color);
  const free = [...Array(COLORS).keys()].find((color) => !used.includes(color));
  const added = {id: nextId++, name, color: free ?? state.classes.length % COLORS, shots};
  state.classes.push(added);
  return added;
}

function freeName() {
  for (let number = state.classes.length + 1; ; number++) {
    const name = `Class ${number}`;
    if (!state.classes.some((one) => one.name === name)) return name;
  }
}

const colorOf = (name) => {
  const found = state.classes.find((one) => one.name === name);
  return `var(--c${found ? found.color : 0})`;
};

function renderClasses() {
  const list = byId("classes");
  list.replaceChildren(...state.classes.map(renderClass));
  byId("current-class").textContent = state.current.name;
  byId("add-class").disabled = state.classes.length >= state.limits.classes;
  updateTools();
}

function renderClass(one) {
  const item = make("li", {className: "class"});
  item.style.setProperty("--color", `var(--c${one.color})`);
  item.dataset.current = String(one === state.current);
  const pick = make("button", {type: "button", className: "pick", textContent: "Draw"});
  pick.setAttribute("aria-pressed", String(one === state.current));
  pick.setAttribute("aria-label", `Draw examples of ${one.name}`);
  pick.addEventListener("click", () => { select(one); });
  const name = make("input", {value: one.name, maxLength: state.limits.name_length, autocomplete: "off"});
  name.setAttribute("aria-label", `Name of ${one.name}`);
  name.addEventListener("change", () => rename(one, name));
  const drop = make("button", {type: "button", className: "drop-class", textContent: "×"});
  drop.setAttribute("aria-label", `Remove the class ${one.name}`);
  drop.addEventListener("click", () => removeClass(one));
  const shots = make("div", {className: "shots"});
  one.shots.forEach((shot, place) => {
    const button = make("button", {type: "button", className: "shot", title: "Remove this example"});
    button.setAttribute("aria-label", `Remove example ${place + 1} of ${one.name}`);
    const image = make("img", {src: shot.url, alt: "", className: shot.drawn ? "drawn" : ""});
    button.append(image);
    button.addEventListener("click", () => {
      one.shots.splice(place, 1);
      renderClasses();
      adaptSoon();
    });
    shots.append(button);
  });
  for (let place = one.shots.length; place < MOST_SHOTS; place++) shots.append(make("span", {className: "empty"}));
  item.append(pick, name, drop, shots);
  return item;
}

function make(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

function select(one) {
  state.current = one;
  renderClasses();
  byId("example-pad").focus({preventScroll: innerWidth > 860});
}

function rename(one, input) {
  const name = input.value.trim();
  if (!name || state.classes.some((other) => other !== one && other.name === name)) {
    if (name) tell(`There is a class called ${name} already: choose another name.`);
    input.value = one.name;
    return;
  }
  one.name = name;
  renderClasses();
  adaptSoon();
}

function removeClass(one) {
  state.classes = state.classes.filter((other) => other !== one);
  if (!state.classes.length) addClass();
  if (state.current === one) state.current = state.classes[0];
  renderClasses();
  byId("add-class").focus();
  adaptSoon();
}

// Examples

function keep() {
  if (examplePad.empty) return;
  if (addShot(state.current, {url: examplePad.export(), drawn: examplePad.drawn})) examplePad.clear();
}

function addShot(one, shot) {
  if (one.shots.length >= MOST_SHOTS) {
    tell(`${one.name} has ${MOST_SHOTS} examples, which is as many as fit: remove one by a click on it.`);
    return false;
  }
  one.shots.push(shot);
  renderClasses();
  adaptSoon();
  return true;
}

async function addFiles(files) {
  for (const file of files) {
    try {
      const picture = await readPicture(file);
      if (!addShot(state.current, {url: picture.toDataURL("image/jpeg", 0.9), drawn: false})) return;
    } catch (error) {
      tell(error.message);
    }
  }
}

function updateTools() {
  const full = state.current?.shots.length >= MOST_SHOTS;
  byId("keep").disabled = examplePad.empty || full;
  byId("keep").textContent = full ? "5 of 5" : "Add example";
  for (const [name, pad] of [["example", examplePad], ["query", queryPad]]) {
    byId(`${name}-undo`).disabled = byId(`${name}-clear`).disabled = pad.empty;
  }
  byId("teach-this").disabled = queryPad.empty || full;
  byId("teach-this").textContent = state.current ? `Add to ${shorten(state.current.name)}` : "Add to class";
}

const shorten = (name) => (name.length > 12 ? `${name.slice(0, 11)}…` : name);

// Learning and asking

let adapting = 0;
let adaptTimer;

function adaptSoon() {
  state.session = null;
  clearTimeout(adaptTimer);
  adaptTimer = setTimeout(adapt, 60);
}

async function adapt() {
  const taught = state.classes.filter((one) => one.shots.length);
  const turn = ++adapting;
  if (taught.length < 2) {
    state.map = null;
    byId("status").textContent = "";
    return showAnswer(null);
  }
  try {
    const found = await ask("/api/adapt", {
      learner: state.learner,
      classes: taught.map((one) => ({name: one.name, pictures: one.shots.map((shot) => shot.url)})),
    });
    if (turn !== adapting) return; // the class set has changed since
    state.session = found.session;
    state.map = found.map;
    const count = taught.reduce((sum, one) => sum + one.shots.length, 0);
    byId("map-of").textContent = found.map.of === "embeddings"
      ? "(its embeddings, flattened)" : "(its outputs, flattened)";
    byId("status").textContent =
      `Learned ${taught.length} classes from ${count} example${count === 1 ? "" : "s"} in ${Math.max(1, Math.round(1000 * found.seconds))} ms.`;
    if (queryPad.empty) showAnswer(null);
    else predictSoon();
  } catch (error) {
    if (turn !== adapting) return;
    state.map = null;
    byId("status").textContent = "";
    showAnswer(null);
    tell(error.message);
  }
}

let predicting = false;
let stale = false;

async function predictSoon() {
  if (queryPad.empty || !state.session) return showAnswer(null);
  if (predicting) {
    stale = true;
    return;
  }
  predicting = true;
  stale = false;
  const {session} = state;
  try {
    const found = await ask("/api/predict", {session, pictures: [queryPad.export()]});
    if (session === state.session && !queryPad.empty) showAnswer(found.predictions[0]);
  } catch (error) {
    if (error.status === 404) adaptSoon(); // forgotten after a long pause
    else if (error.status !== 429) tell(error.message);
  }
  await new Promise((done) => setTimeout(done, BETWEEN));
  predicting = false;
  if (stale) predictSoon();
}

let speaking;

function showAnswer(answer) {
  state.query = answer;
  const verdict = byId("verdict");
  verdict.classList.toggle("waiting", !answer);
  const taught = state.classes.filter((one) => one.shots.length);
  if (answer) {
    const share = Math.round(100 * answer.probabilities[0].probability);
    verdict.textContent = share >= 60 ? answer.class : `${answer.class}, perhaps`;
    clearTimeout(speaking);
    speaking = setTimeout(() => { byId("spoken").textContent = `${answer.class}, ${share} percent`; }, 700);
  } else if (taught.length < 2) {
    verdict.textContent = "Give two or more classes an example each, then draw here.";
  } else {
    verdict.textContent = "Ready. Draw something and watch.";
  }
  renderBars(taught, answer);
  drawMap(byId("map"), state.map, answer, colorOf);
}

function renderBars(taught, answer) {
  const list = byId("probabilities");
  const shares = new Map(answer?.probabilities.map((one) => [one.class, one.probability]));
  const names = taught.map((one) => one.name);
  const shown = [...list.children].map((bar) => bar.dataset.name);
  if (names.join("\n") !== shown.join("\n")) {
    list.replaceChildren(...names.map((name) => {
      const bar = make("li", {className: "bar"});
      bar.dataset.name = name;
      bar.append(
        make("span", {className: "name", textContent: name}),
        make("span", {className: "share"}),
        make("div", {className: "track"}),
      );
      bar.lastChild.append(make("div", {className: "fill"}));
      return bar;
    }));
  }
  for (const bar of list.children) {
    const share = shares.get(bar.dataset.name) ?? 0;
    bar.style.setProperty("--color", colorOf(bar.dataset.name));
    bar.querySelector(".fill").style.width = `${100 * share}%`;
    bar.querySelector(".share").textContent = answer ? `${(100 * share).toFixed(share > 0.995 || share < 0.0005 ? 0 : 1)} %` : "";
  }
}

// Learners

function renderLearners() {
  byId("learners").replaceChildren(...state.learners.map((one) => {
    const label = make("label", {});
    const radio = make("input", {type: "radio", name: "learner", value: one.name, checked: one.name === state.learner});
    radio.addEventListener("change", () => {
      state.learner = one.name;
      showSummary();
      adaptSoon();
    });
    label.append(radio, make("span", {textContent: one.name}));
    return label;
  }));
  showSummary();
}

function showSummary() {
  const one = state.learners.find((learner) => learner.name === state.learner);
  const bound = one.most_classes < state.limits.classes ? `; up to ${one.most_classes} classes` : "";
  byId("learner-summary").textContent = `${one.summary[0].toUpperCase()}${one.summary.slice(1)}; trained on ${one.trained_on}${bound}.`;
}

// Class sets as files

function save() {
  const content = {kshot_class_set: 1, classes: state.classes.map(({name, shots}) => ({name, pictures: shots.map(({url, drawn}) => ({url, drawn}))}))};
  const link = make("a", {
    href: URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], {type: "application/json"})),
    download: "classes.json",
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function load(file) {
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    return tell(`${file.name} is no class set: expected the JSON file that "Save set" writes.`);
  }
  const isPicture = (one) => typeof one?.url === "string" && one.url.startsWith("data:image/");
  const isClass = (one) => typeof one?.name === "string" && one.name.trim() && Array.isArray(one.pictures) && one.pictures.every(isPicture);
  const classes = content?.classes;
  if (content?.kshot_class_set !== 1 || !Array.isArray(classes) || !classes.length || !classes.every(isClass)) {
    return tell(`${file.name} is no class set: expected the JSON file that "Save set" writes.`);
  }
  state.classes = [];
  for (const one of classes.slice(0, state.limits.classes)) {
    addClass(one.name.slice(0, state.limits.name_length), one.pictures.slice(0, MOST_SHOTS).map(({url, drawn}) => ({url, drawn: Boolean(drawn)})));
  }
  state.current = state.classes[0];
  renderClasses();
  adaptSoon();
}

function restart() {
  state.classes = [];
  for (const name of ["Circle", "Star", "House"]) addClass(name);
  state.current = state.classes[0];
  examplePad.clear();
  queryPad.clear();
  renderClasses();
  adaptSoon();
}

// Camera

let stream;

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch {
    return tell("The camera cannot be used: allow it for this page in the browser, or choose picture files.");
  }
  byId("video").srcObject = stream;
  byId("camera-dialog").showModal();
}

function shoot() {
  const video = byId("video");
  const picture = squared(video, video.videoWidth, video.videoHeight);
  if (addShot(state.current, {url: picture.toDataURL("image/jpeg", 0.9), drawn: false})) byId("camera-dialog").close();
}

// What the controls do

const onClick = (id, action) => byId(id).addEventListener("click", action);
onClick("add-class", () => { select(addClass()); adaptSoon(); });
onClick("keep", keep);
onClick("example-undo", () => examplePad.undo());
onClick("example-clear", () => examplePad.clear());
onClick("query-undo", () => queryPad.undo());
onClick("query-clear", () => queryPad.clear());
onClick("teach-this", () => {
  if (addShot(state.current, {url: queryPad.export(), drawn: queryPad.drawn})) queryPad.clear();
});
onClick("save", save);
onClick("restart", restart);
onClick("camera", openCamera);
onClick("shoot", shoot);
onClick("camera-close", () => byId("camera-dialog").close());
byId("camera-dialog").addEventListener("close", () => stream?.getTracks().forEach((track) => track.stop()));
byId("camera").hidden = !navigator.mediaDevices?.getUserMedia;

const onFiles = (id, action) => byId(id).addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  if (files.length) action(files);
});
onFiles("files", addFiles);
onFiles("load", ([file]) => load(file));
onFiles("query-file", ([file]) => askAbout(file));

async function askAbout(file) {
  try {
    queryPad.show(await readPicture(file));
  } catch (error) {
    tell(error.message);
  }
}

for (const [id, action] of [["example-drop", addFiles], ["query-drop", ([file]) => askAbout(file)]]) {
  const place = byId(id);
  place.addEventListener("dragover", (event) => { event.preventDefault(); place.classList.add("over"); });
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) action(files);
  });
}

restart();
try {
  const found = await ask("/api/learners");
  state.learners = found.learners;
  state.limits = found.limits;
  state.learner = found.learners[0].name;
  renderLearners();
  renderClasses();
} catch (error) {
  tell(error.message);
}
document.documentElement.dataset.ready = "true";
