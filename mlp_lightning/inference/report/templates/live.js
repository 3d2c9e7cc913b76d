// The network of the page: its surface, its units, and what they answer to the values that a reader sets.
const PALETTE = [[194, 87, 12], [22, 103, 199], [27, 127, 77], [122, 63, 181], [176, 137, 0], [0, 134, 139], [190, 40, 100], [110, 110, 110], [90, 60, 20], [70, 90, 200]];
const MOST_UNITS = 16, UNIT = 34, UNIT_GAP = 22, LAYER_GAP = 118, HEAD = 18;

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const middle = () => (isDark() ? [35, 42, 52] : [242, 243, 245]);

// From orange over the colour of the page to blue; share from 0 to 1.
function diverging(share) {
  const end = PALETTE[share < 0.5 ? 0 : 1], weight = Math.abs(share - 0.5) * 2, mid = middle();
  return end.map((one, i) => mid[i] + (one - mid[i]) * weight);
}

function paint(canvas, size, colourAt) {
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), image = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    const [red, green, blue] = colourAt(i);
    image.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

// An axis over a column: shares from 0 to 1 and back.
function axisOf(column) {
  if (column.codes) {
    const codes = column.codes.map(([code]) => code), count = codes.length;
    return {
      valueAt: (share) => codes[Math.min(count - 1, Math.floor(share * count))],
      placeOf: (value) => (codes.includes(value) ? (codes.indexOf(value) + 0.5) / count : NaN),
      ends: [column.codes[0], column.codes[count - 1]].map(([code, name]) => codeName(code, name)),
      step: 1 / count,
    };
  }
  const { low, high } = column, text = (value) => (column.kind === "datetime" ? new Date(value * 1000).toISOString().slice(0, 10) : shortNumber(value));
  return { valueAt: (share) => low + share * (high - low), placeOf: (value) => (value - low) / (high - low), ends: [text(low), text(high)], step: 0.02 };
}

const codeName = (code, name) => (name === null ? T.js_missing : code === 1 && name === "(other)" ? T.js_other : name);

// Which layers are shown, and the linear layer between one and the one before where there is just one.
function shownLayers(spec) {
  const found = [{ at: 0, name: T.js_input, linear: null }];
  let linears = [], isPlain = true, at = 0, number = 0;
  spec.layers.forEach((layer, index) => {
    if (layer.kind === "begin") {
      isPlain = false;
      return;
    }
    at += 1;
    if (layer.kind === "linear") linears.push(layer);
    const isLast = index === spec.layers.length - 1;
    if (layer.kind !== "activation" && layer.kind !== "add" && !isLast) return;
    const name = isLast ? T.js_output : `${T.js_layer} ${(number += 1)}`;
    found.push({ at, name, linear: isPlain && linears.length === 1 ? linears[0] : null });
    [linears, isPlain] = [[], true];
  });
  return found;
}

class LivePart {
  constructor(parent, live) {
    this.live = live;
    this.network = new Network(live.spec);
    this.raw = live.columns.map((one) => one.start);
    this.axes = [...live.axes];
    this.isFlat = live.columns.length === 1;
    this.layers = shownLayers(live.spec);
    const task = live.spec.task.name;
    this.shown = task === "multiclass" ? -1 : task === "binary" ? 1 : 0;
    this.size = Math.max(16, Math.min(48, Math.floor(Math.sqrt(1.5e7 / this.network.weights.length))));
    this.build(parent);
    this.answer();
    this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  build(parent) {
    this.values = make("div", { class: "values" });
    this.inputs = this.live.columns.map((column, number) => this.input(column, number));
    this.surface = make("div", { class: "surface", tabindex: 0, role: "application" });
    this.picture = make("canvas", { class: "smooth" });
    this.overlay = make("canvas");
    this.surface.append(this.picture, this.overlay);
    this.across = make("div", { class: "axis" });
    this.read = make("p", { class: "answer", role: "status" });
    this.note = make("p", { class: "small" });
    this.units = make("div", { class: "network" });
    const left = make("div", {}, this.read, this.values);
    const right = make("div", {}, this.controls(), this.surface, this.across, this.note);
    parent.append(make("div", { class: "live" }, left, right));
    if (this.live.snapshots) parent.append(this.slider());
    parent.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": T.js_units }, this.units));
    this.table = make("details", {}, make("summary", {}, T.js_units), make("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": T.js_units }));
    this.table.addEventListener("toggle", () => this.answer());
    parent.append(this.table);
    this.buildUnits();
    this.listen();
  }

  input(column, number) {
    let input;
    if (column.codes) {
      input = make("select", {}, ...column.codes.map(([code, name]) => make("option", { value: code }, codeName(code, name))));
      input.addEventListener("change", () => this.set(number, Number(input.value)));
    } else if (column.kind === "datetime") {
      input = make("input", { type: "datetime-local", step: 1 });
      input.addEventListener("input", () => this.set(number, input.value ? Date.parse(`${input.value}Z`) / 1000 : NaN));
    } else {
      input = make("input", { type: "number", step: "any", placeholder: T.js_missing });
      input.addEventListener("input", () => input.validity.badInput || this.set(number, input.value === "" ? NaN : Number(input.value)));
    }
    this.values.append(make("label", {}, make("span", {}, column.name), input));
    return input;
  }

  controls() {
    const bar = make("div", { class: "controls" }), { columns, outputs } = this.live;
    const choice = (title, options, chosen, change) => {
      const select = make("select", {}, ...options.map(([value, name]) => make("option", { value }, name)));
      select.value = String(chosen);
      select.addEventListener("change", () => change(Number(select.value)));
      bar.append(make("label", {}, title, select));
    };
    const named = columns.map((one, i) => [i, one.name]);
    if (columns.length > 1)
      [T.js_across, T.js_up].forEach((title, axis) =>
        choice(title, named, this.axes[axis], (value) => {
          this.axes[axis] = value;
          this.changed();
        })
      );
    const several = this.live.spec.task.name === "multiclass" ? [[-1, T.js_predicted_class]] : [];
    if (outputs.length > 1)
      choice(T.js_show, [...several, ...outputs.map((one, i) => [i, one])], this.shown, (value) => {
        this.shown = value;
        this.draw();
      });
    return bar;
  }

  slider() {
    const { steps, weights } = this.live.snapshots, last = steps.length - 1;
    const range = make("input", { type: "range", min: 0, max: last, value: last }), nameOf = (index) => (steps[index] === null ? T.js_reported : steps[index].toLocaleString()), text = make("output", {}, nameOf(last));
    const play = make("button", { type: "button" }, T.js_play);
    let timer = null;
    const go = (index) => {
      this.network.weights = decoded(weights[index], this.live.spec.double);
      text.textContent = nameOf(index);
      range.setAttribute("aria-valuetext", `${T.js_snapshot} ${nameOf(index)}`);
      this.changed();
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = T.js_play;
    };
    range.addEventListener("input", () => go(Number(range.value)));
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(range.value) === last) range.value = 0;
      go(Number(range.value));
      play.textContent = T.js_pause;
      timer = setInterval(() => {
        if (Number(range.value) >= last) return stop();
        range.value = Number(range.value) + 1;
        go(Number(range.value));
      }, 250);
    });
    return make("div", { class: "controls" }, make("label", {}, T.js_snapshot, range), text, play);
  }

  // One small picture for every unit, and a line for every weight.
  buildUnits() {
    const counts = this.network.forward(this.raw).layers.map((one) => one.values.length);
    this.columnsOfUnits = this.layers.map(({ at }) => Math.min(MOST_UNITS, counts[at]));
    const tallest = Math.max(...this.columnsOfUnits), height = HEAD + tallest * (UNIT + UNIT_GAP);
    const width = (this.layers.length - 1) * LAYER_GAP + UNIT + 80;
    Object.assign(this.units.style, { width: `${width}px`, height: `${height}px` });
    this.lines = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    this.units.append(this.lines);
    const top = (layer, unit) => HEAD + (tallest - this.columnsOfUnits[layer]) * (UNIT + UNIT_GAP) / 2 + unit * (UNIT + UNIT_GAP);
    this.place = (layer, unit) => [40 + layer * LAYER_GAP, top(layer, unit)];
    const label = (text, left, above, wide) => {
      const span = make("span", {}, text);
      Object.assign(span.style, { left: `${left - wide / 2}px`, top: `${above}px`, width: `${wide}px` });
      this.units.append(span);
      return span;
    };
    this.pictures = this.layers.map(({ at, name }, layer) => {
      const shown = this.columnsOfUnits[layer], of = counts[at];
      const title = shown < of ? filled(T.js_first_units, { shown, of }) : name;
      label(title, this.place(layer, 0)[0] + UNIT / 2, Math.max(0, this.place(layer, 0)[1] - HEAD), LAYER_GAP - 4);
      return Array.from({ length: shown }, (_, unit) => {
        const [left, above] = this.place(layer, unit), canvas = make("canvas", { role: "img" });
        Object.assign(canvas.style, { left: `${left}px`, top: `${above}px`, width: `${UNIT}px`, height: `${UNIT}px` });
        this.units.append(canvas);
        return { canvas, answer: label("", left + UNIT / 2, above + UNIT, 80) };
      });
    });
  }

  drawLines() {
    this.lines.replaceChildren();
    this.layers.forEach(({ linear }, layer) => {
      if (!linear) return;
      const from = this.columnsOfUnits[layer - 1], to = this.columnsOfUnits[layer], w = this.network.weights;
      const weight = (o, i) => w[linear.w + o * linear.in + i];
      let most = 0;
      for (let o = 0; o < to; o++) for (let i = 0; i < from; i++) most = Math.max(most, Math.abs(weight(o, i)));
      for (let o = 0; o < to; o++)
        for (let i = 0; i < from; i++) {
          const [x1, y1] = this.place(layer - 1, i), [x2, y2] = this.place(layer, o), value = weight(o, i), share = Math.abs(value) / (most || 1);
          const line = make("line", { class: value < 0 ? "negative" : "positive", x1: x1 + UNIT, y1: y1 + UNIT / 2, x2, y2: y2 + UNIT / 2 });
          line.setAttribute("stroke-width", (0.2 + 3.3 * share).toFixed(2));
          line.setAttribute("opacity", (0.12 + 0.75 * share).toFixed(2));
          this.lines.append(line);
        }
    });
  }

  set(number, value, fromSurface = false) {
    this.raw[number] = value;
    this.row = null;
    if (fromSurface) this.fill(number);
    this.answer();
    if (this.axes.includes(number)) this.drawPoints();
    else this.draw();
  }

  fill(number) {
    const column = this.live.columns[number], value = this.raw[number], input = this.inputs[number];
    if (column.codes) input.value = String(value);
    else if (Number.isNaN(value)) input.value = "";
    else if (column.kind === "datetime") input.value = new Date(Math.round(value) * 1000).toISOString().slice(0, 19);
    else input.value = String(Number(value.toPrecision(12)));
  }

  changed() {
    this.answer();
    this.draw();
  }

  listen() {
    this.live.columns.forEach((_, number) => this.fill(number));
    const move = (event) => {
      const box = this.surface.getBoundingClientRect();
      const shares = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height].map((one) => clamped(one, 0, 0.999999));
      this.toShares(shares);
    };
    this.surface.addEventListener("pointerdown", (event) => {
      this.surface.setPointerCapture(event.pointerId);
      this.surface.focus();
      if (!this.takeRow(event)) move(event);
    });
    this.surface.addEventListener("pointermove", (event) => event.buttons & 1 && move(event));
    this.surface.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
      const by = moves[event.key];
      if (!by) return;
      event.preventDefault();
      const axes = this.axes.map((one) => axisOf(this.live.columns[one]));
      this.toShares(axes.map((axis, i) => clamped((axis.placeOf(this.raw[this.axes[i]]) || 0) + by[i] * axis.step, 0, 0.999999)));
    });
  }

  toShares(shares) {
    const axes = this.isFlat ? [this.axes[0]] : this.axes;
    axes.forEach((number, i) => {
      this.raw[number] = axisOf(this.live.columns[number]).valueAt(shares[i]);
      this.fill(number);
    });
    this.row = null;
    this.answer();
    this.drawPoints();
  }

  // The values of the row under the pointer, if there is one.
  takeRow(event) {
    const box = this.surface.getBoundingClientRect();
    const near = this.places.find(({ left, above }) => Math.hypot(left * box.width + box.left - event.clientX, above * box.height + box.top - event.clientY) < 7);
    if (!near) return false;
    this.raw = near.raw.map((one) => (one === null ? NaN : one));
    this.live.columns.forEach((_, number) => this.fill(number));
    this.row = near;
    this.changed();
    return true;
  }

  truthOf(targets) {
    const { classes, outputs } = this.live;
    return classes.length ? classes[targets[0]] : outputs.map((name, i) => `${name} ${shortNumber(targets[i])}`).join(", ");
  }

  answer() {
    const { layers, predictions } = this.network.forward(this.raw), { outputs, classes } = this.live;
    const order = predictions.map((value, i) => [value, i]).sort((a, b) => (classes.length ? b[0] - a[0] : 0)).slice(0, 4);
    const row = this.row ? ` (${filled(T.js_nearest, { row: this.row.row, truth: this.truthOf(this.row.targets) })})` : "";
    this.read.textContent = `${T.js_prediction}: ${order.map(([value, i]) => `${outputs[i]}: ${shortNumber(value)}`).join(", ")}${row}`;
    this.layers.forEach(({ at }, layer) =>
      this.pictures[layer].forEach(({ answer }, unit) => (answer.textContent = shortNumber(layers[at].values[unit])))
    );
    if (this.table.open) {
      const rows = this.layers.flatMap(({ at, name }) => Array.from(layers[at].values, (value, unit) => [name, unit + 1, shortNumber(value)]));
      this.table.lastChild.replaceChildren(tableOf([T.js_layer, T.js_unit, T.js_answer], rows));
    }
  }

  draw() {
    if (this.waits) return;
    this.waits = requestAnimationFrame(() => {
      this.waits = null;
      this.drawNow();
    });
  }

  drawNow() {
    const { size, live } = this, [xAxis, yAxis] = this.axes.map((one) => axisOf(live.columns[one]));
    const predictions = [], units = this.layers.map((_, layer) => Array.from({ length: this.columnsOfUnits[layer] }, () => new Float64Array(size * size)));
    const raw = [...this.raw];
    for (let i = 0; i < size * size; i++) {
      if (!this.isFlat) raw[this.axes[1]] = yAxis.valueAt(1 - (Math.floor(i / size) + 0.5) / size);
      raw[this.axes[0]] = xAxis.valueAt(((i % size) + 0.5) / size);
      const { layers, predictions: of } = this.network.forward(raw);
      predictions.push(of);
      this.layers.forEach(({ at }, layer) => units[layer].forEach((values, unit) => (values[i] = layers[at].values[unit])));
    }
    units.forEach((of, layer) => of.forEach((values, unit) => this.drawUnit(values, layer, unit)));
    this.drawSurface(predictions, size);
    this.drawLines();
    const [x, y] = this.axes.map((one) => live.columns[one].name);
    this.surface.setAttribute("aria-label", filled(T.js_surface, { x, y }));
    this.across.replaceChildren(make("span", {}, xAxis.ends[0]), make("span", {}, this.isFlat ? x : `→ ${x}   ↑ ${y} (${yAxis.ends.join(" – ")})`), make("span", {}, xAxis.ends[1]));
    this.drawPoints();
  }

  drawUnit(values, layer, unit) {
    let [low, high] = [Infinity, -Infinity];
    for (const one of values) [low, high] = [Math.min(low, one), Math.max(high, one)];
    const { canvas } = this.pictures[layer][unit];
    paint(canvas, this.size, (i) => diverging(high > low ? (values[i] - low) / (high - low) : 0.5));
    const text = `${this.layers[layer].name}, ${T.js_unit} ${unit + 1}: ${filled(T.js_range, { low: shortNumber(low), high: shortNumber(high) })}`;
    canvas.title = text;
    canvas.setAttribute("aria-label", text);
  }

  drawSurface(predictions, size) {
    if (this.shown < 0) {
      const mid = middle();
      paint(this.picture, size, (i) => {
        const best = predictions[i].indexOf(Math.max(...predictions[i])), colour = PALETTE[best % PALETTE.length];
        const share = predictions[i][best] * 0.8;
        return colour.map((one, channel) => mid[channel] + (one - mid[channel]) * share);
      });
      return;
    }
    const values = predictions.map((one) => one[this.shown]), isShare = this.live.spec.task.name !== "regression";
    const [low, high] = isShare ? [0, 1] : [Math.min(...values), Math.max(...values)];
    paint(this.picture, size, (i) => diverging(high > low ? (values[i] - low) / (high - low) : 0.5));
  }

  drawPoints() {
    const scale = window.devicePixelRatio || 1, side = (this.surface.clientWidth || 320) * scale;
    this.overlay.width = this.overlay.height = side;
    const context = this.overlay.getContext("2d"), axes = this.axes.map((one) => axisOf(this.live.columns[one]));
    const { classes, points, columns } = this.live;
    const placeOf = (raw) => axes.map((axis, i) => (i && this.isFlat ? 0.5 : axis.placeOf(raw[this.axes[i]] ?? NaN)));
    this.places = [];
    let shown = 0, of = 0;
    for (const [split, { raw, targets, rows, of: all }] of Object.entries(points)) {
      of += all;
      raw.forEach((one, number) => {
        const [x, y] = placeOf(one);
        if (!(x >= 0 && x <= 1 && y >= 0 && y <= 1)) return;
        shown += 1;
        this.places.push({ left: x, above: 1 - y, raw: one, targets: targets[number], row: rows[number] });
        const [left, above, r] = [x * side, (1 - y) * side, 4 * scale];
        context.beginPath();
        if (split === "val") context.rect(left - r, above - r, 2 * r, 2 * r);
        else context.arc(left, above, r, 0, 2 * Math.PI);
        context.fillStyle = classes.length ? `rgb(${PALETTE[targets[number][0] % PALETTE.length].map((one) => Math.round(one * 0.7))})` : isDark() ? "#ccc" : "#555";
        context.fill();
        context.lineWidth = 1.5 * scale;
        context.strokeStyle = isDark() ? "#000" : "#fff";
        context.stroke();
      });
    }
    const [x, y] = placeOf(this.raw);
    context.beginPath();
    context.arc(x * side, (1 - y) * side, 8 * scale, 0, 2 * Math.PI);
    context.lineWidth = 3 * scale;
    context.strokeStyle = isDark() ? "#fff" : "#000";
    context.stroke();
    const note = of ? filled(T.js_points, { shown, of }) : "";
    this.note.textContent = of && columns.length > 2 ? `${note} ${T.js_projected}` : note;
  }
}

function livePart(parent, live) {
  new LivePart(parent, live);
}
