// Charts as SVG, with a cursor for mouse and keyboard.
const SVG = "http://www.w3.org/2000/svg";

// An element: attributes as they are, texts as texts.
function make(name, attributes = {}, ...inside) {
  const isSvg = ["svg", "path", "line", "g", "text", "circle", "rect"].includes(name);
  const element = isSvg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside.map((one) => (one instanceof Node ? one : String(one))));
  return element;
}

function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

function shortNumber(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(5)));
}

function ticks(low, high, isLog) {
  if (isLog) {
    const found = [];
    const least = Math.floor(Math.log10(low)), most = Math.ceil(Math.log10(high)), step = Math.ceil((most - least) / 5) || 1;
    for (let power = least; power <= most; power += step) found.push(10 ** power);
    const inside = found.filter((one) => one >= low * 0.999 && one <= high * 1.001);
    return inside.length > 1 ? inside : [low, high];
  }
  const raw = (high - low) / 4 || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * unit >= raw) * unit, found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n++) found.push(n * step);
  return found;
}

// From values to places: [place, ticks] of an axis.
function scaleOf(values, from, to, isLog) {
  const usable = values.filter((one) => one !== null && Number.isFinite(one) && (!isLog || one > 0));
  let low = Math.min(...usable), high = Math.max(...usable);
  if (!usable.length) [low, high] = [isLog ? 1 : 0, isLog ? 10 : 1];
  if (low === high) [low, high] = isLog ? [low / 2, high * 2] : [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const of = isLog ? Math.log10 : (one) => one;
  const place = (one) => from + ((of(one) - of(low)) / (of(high) - of(low))) * (to - from);
  return { place, ticks: ticks(low, high, isLog), low, high };
}

const WIDTH = 420, LEFT = 50, RIGHT = 12, TOP = 8, BOTTOM = 34;

function axes(svg, x, y, height, names) {
  for (const at of y.ticks)
    svg.append(
      make("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.place(at), y2: y.place(at) }),
      make("text", { x: LEFT - 6, y: y.place(at) + 4, "text-anchor": "end" }, shortNumber(at))
    );
  for (const at of x.ticks)
    svg.append(
      make("line", { class: "grid", x1: x.place(at), x2: x.place(at), y1: height - BOTTOM, y2: height - BOTTOM + 4 }),
      make("text", { x: x.place(at), y: height - BOTTOM + 16, "text-anchor": "middle" }, names.labels ? names.labels[at] ?? "" : shortNumber(at))
    );
  svg.append(make("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: height - 4, "text-anchor": "middle" }, names.x));
}

function pathOf(steps, values, x, y, isLogX, isLogY) {
  let text = "", isDown = false;
  values.forEach((value, i) => {
    const isThere = value !== null && (!isLogY || value > 0) && (!isLogX || steps[i] > 0);
    if (isThere) text += `${isDown ? "L" : "M"}${x.place(steps[i]).toFixed(1)} ${y.place(value).toFixed(1)}`;
    isDown = isThere;
  });
  return text;
}

// A chart of lines. chart: { title, x, series: [{ name, steps, values, kind }], marks, height, labels }
// kind: a number for a colour, or "thin" for a line that is only background.
function lineChart(parent, chart, options = {}) {
  const height = chart.height || 230, logX = Boolean(options.logX), logY = Boolean(options.logY);
  const steps = chart.series.flatMap((one) => one.steps), values = chart.series.flatMap((one) => one.values);
  const x = scaleOf(steps, LEFT, WIDTH - RIGHT, logX), y = scaleOf(values, height - BOTTOM, TOP, logY);
  if (chart.labels) x.ticks = steps.filter((one, i) => steps.indexOf(one) === i);
  const named = chart.series.filter((one) => one.name);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", tabindex: 0 });
  svg.setAttribute("aria-label", `${chart.title}. ${options.hint || ""}`);
  axes(svg, x, y, height, chart);
  for (const one of chart.series) {
    const kind = one.kind === "thin" ? "thin" : `line c${one.kind}`;
    svg.append(make("path", { class: kind, d: pathOf(one.steps, one.values, x, y, logX, logY) }));
    if (one.name && one.values.length < 3)
      one.values.forEach((value, i) => value !== null && svg.append(make("circle", { class: `dot f${one.kind}`, cx: x.place(one.steps[i]), cy: y.place(value), r: 4 })));
  }
  for (const mark of chart.marks || []) {
    if (logX && mark.step <= 0) continue;
    const at = x.place(mark.step);
    svg.append(make("line", { class: "mark", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
    svg.append(make("text", { x: at, y: TOP + 8, "text-anchor": at > WIDTH / 2 ? "end" : "start", dx: at > WIDTH / 2 ? -4 : 4 }, mark.name));
  }
  const legend = make("div", { class: "legend" });
  for (const one of named) {
    const line = make("svg", { viewBox: "0 0 32 10", "aria-hidden": "true" }, make("line", { class: `line c${one.kind}`, x1: 0, x2: 32, y1: 5, y2: 5 }));
    legend.append(make("span", {}, line, one.name));
  }
  const read = make("div", { class: "read", role: "status" });
  const figure = make("figure", {}, make("figcaption", {}, chart.title), legend, svg, read);
  cursor(svg, read, named, x, chart, height);
  parent.append(figure);
  return figure;
}

function cursor(svg, read, named, x, chart, height) {
  const places = [...new Set(named.flatMap((one) => one.steps))].filter((one) => Number.isFinite(x.place(one))).sort((a, b) => a - b);
  if (!places.length) return;
  const line = make("line", { class: "cursor", y1: TOP, y2: height - BOTTOM, visibility: "hidden" });
  svg.append(line);
  let at = -1;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), places.length - 1);
    const step = places[at];
    line.setAttribute("x1", x.place(step));
    line.setAttribute("x2", x.place(step));
    line.setAttribute("visibility", "visible");
    const parts = named.map((one) => [one.name, one.values[one.steps.indexOf(step)]]).filter(([, value]) => value !== undefined);
    const where = chart.labels ? chart.labels[step] : shortNumber(step);
    read.textContent = `${chart.x} ${where}: ${parts.map(([name, value]) => `${name} ${shortNumber(value)}`).join(", ")}`;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), wanted = ((event.clientX - box.left) / box.width) * WIDTH;
    let best = 0;
    places.forEach((one, i) => {
      if (Math.abs(x.place(one) - wanted) < Math.abs(x.place(places[best]) - wanted)) best = i;
    });
    show(best);
  });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1, PageUp: at - 10, PageDown: at + 10 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    show(moves[event.key]);
  });
}

// A cloud of points. chart: { title, x, points: [[x, y, kind]], labels, line }
function pointChart(parent, chart) {
  const height = chart.height || 230;
  const x = scaleOf(chart.points.map((one) => one[0]), LEFT + 10, WIDTH - RIGHT - 10, chart.logX);
  const y = scaleOf(chart.points.map((one) => one[1]), height - BOTTOM - 6, TOP + 6, chart.logY);
  if (chart.labels) x.ticks = chart.labels.map((_, i) => i);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": chart.title });
  axes(svg, x, y, height, chart);
  if (chart.line !== undefined && chart.line >= y.low && chart.line <= y.high)
    svg.append(make("line", { class: "cursor", x1: LEFT, x2: WIDTH - RIGHT, y1: y.place(chart.line), y2: y.place(chart.line) }));
  for (const [px, py, kind, title] of chart.points) {
    if (py === null || (chart.logY && py <= 0) || (chart.logX && px <= 0)) continue;
    const dot = make("circle", { class: `dot f${kind || 0}`, cx: x.place(px).toFixed(1), cy: y.place(py).toFixed(1), r: kind === 1 ? 4 : 3 });
    if (title) dot.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: title }));
    svg.append(dot);
  }
  const figure = make("figure", {}, make("figcaption", {}, chart.title), svg);
  parent.append(figure);
  return figure;
}

function tableOf(heads, rows, caption) {
  const table = make("table");
  if (caption) table.append(make("caption", {}, caption));
  table.append(make("thead", {}, make("tr", {}, ...heads.map((one) => make("th", { scope: "col" }, one)))));
  const cells = (row) => row.map((one, i) => (i ? make("td", {}, one) : make("th", { scope: "row" }, one)));
  table.append(make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
  return table;
}

function folded(summary, makeInside) {
  const details = make("details", {}, make("summary", {}, summary));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1)
      details.append(make("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": summary }, makeInside()));
  });
  return details;
}
