// The map of a class set: examples, the mean of each class, and the drawing that is asked about.

const WIDTH = 320, HEIGHT = 190, MARGIN = 26;

function element(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function drawMap(svg, map, query, colorOf) {
  svg.replaceChildren();
  if (!map) {
    svg.setAttribute("aria-label", "Map of the examples: empty");
    return;
  }
  const all = [...map.support, ...map.prototypes];
  const reach = (axis) => Math.max(0.15, ...all.map((point) => Math.abs(point[axis])));
  const scale = {x: (WIDTH / 2 - MARGIN) / reach("x"), y: (HEIGHT / 2 - MARGIN) / reach("y")};
  const clamp = (value, limit) => Math.min(limit - 8, Math.max(8, value));
  const place = ({x, y}) => [clamp(WIDTH / 2 + x * scale.x, WIDTH), clamp(HEIGHT / 2 - y * scale.y, HEIGHT)];
  svg.append(
    element("line", {class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2}),
    element("line", {class: "axis", y1: 0, y2: HEIGHT, x1: WIDTH / 2, x2: WIDTH / 2}),
  );
  for (const point of map.support) {
    const [x, y] = place(point);
    const dot = element("circle", {class: "example", cx: x, cy: y, r: 4.2});
    dot.style.fill = colorOf(point.class);
    svg.append(dot);
  }
  for (const point of map.prototypes) {
    const [x, y] = place(point);
    if (query && point.class === query.class) {
      const [qx, qy] = place(query.map);
      svg.append(element("line", {class: "tie", x1: x, y1: y, x2: qx, y2: qy}));
    }
    const diamond = element("rect", {x: x - 5.5, y: y - 5.5, width: 11, height: 11, transform: `rotate(45 ${x} ${y})`});
    diamond.style.fill = colorOf(point.class);
    const anchor = x > WIDTH - 70 ? "end" : "start";
    const short = point.class.length > 14 ? `${point.class.slice(0, 13)}…` : point.class;
    svg.append(diamond, element("text", {x: x + (anchor === "end" ? -11 : 11), y: y - 7, "text-anchor": anchor}, short));
  }
  if (query?.map) {
    const [x, y] = place(query.map);
    svg.append(
      element("circle", {class: "halo", cx: x, cy: y, r: 10}),
      element("path", {class: "query", d: `M${x - 5.5} ${y}h11M${x} ${y - 5.5}v11`}),
    );
  }
  const names = map.prototypes.map((point) => point.class).join(", ");
  const asked = query ? `; the drawing is taken for ${query.class}` : "";
  svg.setAttribute("aria-label", `Map of ${map.support.length} examples of ${names}${asked}`);
}
