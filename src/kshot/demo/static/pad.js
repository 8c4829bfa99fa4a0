// A pad to draw on with mouse, pen, finger or keyboard. Lines are kept as points from 0 to 1, so that
// they can be undone, drawn at any size and in the colors of the page.

const PEN = 0.032; // width of a line, as a share of the pad
const EXPORT_SIDE = 160; // pixels of the picture that the server gets
const STEP = 0.02; // one press of an arrow key

export class Pad {
  constructor(canvas, {changed, entered}) {
    this.canvas = canvas;
    this.parts = []; // lines [{x, y}, ...] and pictures (canvases)
    this.changed = changed;
    this.cursor = {x: 0.5, y: 0.5};
    this.penDown = false;
    this.showsCursor = false;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(name, () => { this.line = null; });
    }
    canvas.addEventListener("keydown", (event) => this.#key(event, entered));
    canvas.addEventListener("blur", () => { this.showsCursor = false; this.penDown = false; this.draw(); });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get empty() { return this.parts.length === 0; }
  get drawn() { return this.parts.every(Array.isArray); }

  clear() { this.parts = []; this.penDown = false; this.#update(); }
  undo() { this.parts.pop(); this.penDown = false; this.#update(); }
  show(picture) { this.parts = [picture]; this.#update(); }

  // The picture as a data URL: dark on white, whatever the colors of the page.
  export() {
    const canvas = document.createElement("canvas");
    const photograph = this.parts.find((part) => !Array.isArray(part));
    canvas.width = canvas.height = photograph ? Math.max(EXPORT_SIDE, photograph.width) : EXPORT_SIDE;
    this.#paint(canvas, "#000", "#fff");
    return photograph ? canvas.toDataURL("image/jpeg", 0.9) : canvas.toDataURL("image/png");
  }

  draw() {
    const {canvas} = this;
    const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
    if (!side) return;
    canvas.width = canvas.height = side;
    this.#paint(canvas, getComputedStyle(canvas).getPropertyValue("--ink"), null);
    if (this.showsCursor) this.#paintCursor(side);
    canvas.parentElement.classList.toggle("used", !this.empty);
  }

  #paint(canvas, ink, paper) {
    const side = canvas.width;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    if (paper) {
      context.fillStyle = paper;
      context.fillRect(0, 0, side, side);
    }
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = PEN * side;
    context.strokeStyle = context.fillStyle = ink;
    for (const part of this.parts) {
      if (!Array.isArray(part)) {
        context.drawImage(part, 0, 0, side, side);
        continue;
      }
      context.beginPath();
      const [first] = part;
      if (part.length === 1) {
        context.arc(first.x * side, first.y * side, PEN * side * 0.6, 0, 2 * Math.PI);
        context.fill();
        continue;
      }
      context.moveTo(first.x * side, first.y * side);
      for (let i = 1; i < part.length - 1; i++) {
        const x = (part[i].x + part[i + 1].x) / 2, y = (part[i].y + part[i + 1].y) / 2;
        context.quadraticCurveTo(part[i].x * side, part[i].y * side, x * side, y * side);
      }
      const last = part[part.length - 1];
      context.lineTo(last.x * side, last.y * side);
      context.stroke();
    }
  }

  #paintCursor(side) {
    const context = this.canvas.getContext("2d");
    const x = this.cursor.x * side, y = this.cursor.y * side, arm = side * 0.035;
    context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--accent");
    context.lineWidth = side * (this.penDown ? 0.014 : 0.007);
    context.beginPath();
    context.arc(x, y, arm, 0, 2 * Math.PI);
    context.moveTo(x - arm * 1.6, y); context.lineTo(x + arm * 1.6, y);
    context.moveTo(x, y - arm * 1.6); context.lineTo(x, y + arm * 1.6);
    context.stroke();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (value) => Math.min(1, Math.max(0, value));
    return {x: clamp((event.clientX - box.left) / box.width), y: clamp((event.clientY - box.top) / box.height)};
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.showsCursor = this.penDown = false;
    this.line = [this.#place(event)];
    this.parts.push(this.line);
    this.#update();
  }

  #move(event) {
    if (!this.line) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.line.push(this.#place(one));
    this.#update();
  }

  #key(event, entered) {
    const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const {key} = event;
    if (key in moves) {
      const [x, y] = moves[key], step = STEP * (event.shiftKey ? 4 : 1);
      this.cursor = {
        x: Math.min(1, Math.max(0, this.cursor.x + x * step)),
        y: Math.min(1, Math.max(0, this.cursor.y + y * step)),
      };
      if (this.penDown) this.parts[this.parts.length - 1].push({...this.cursor});
    } else if (key === " ") {
      this.penDown = !this.penDown;
      if (this.penDown) this.parts.push([{...this.cursor}]);
    } else if (key === "Enter" && entered) {
      this.penDown = false;
      entered();
    } else if (key.toLowerCase() === "z") {
      this.undo();
    } else {
      return; // Tab goes on
    }
    event.preventDefault();
    this.showsCursor = true;
    this.#update();
  }

  #update() {
    this.draw();
    this.changed();
  }
}

// A picture file as a square canvas of at most 512 pixels: what is sent stays small.
export async function readPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name ?? "The file"} is no picture that this browser can read.`);
  });
  return squared(bitmap, bitmap.width, bitmap.height);
}

export function squared(source, width, height) {
  const longest = Math.max(width, height);
  const side = Math.min(512, longest);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, side, side);
  const scale = side / longest;
  context.drawImage(source, (side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale);
  return canvas;
}
