// Importances, dependences, and predictions beside truths.
function tablePart(table) {
  const of = (id) => document.getElementById(id);
  importancePart(of("importance"), table.importance);
  for (const one of table.dependence) dependencePart(of("dependence"), one, table);
  if (table.task === "regression") residualPart(of("probabilities"), table);
  else probabilityPart(of("probabilities"), table);
}

function importancePart(parent, importance) {
  const ROW = 18, height = importance.length * ROW + 30, left = 150;
  const ends = importance.flatMap((one) => [one.mean - one.sd, one.mean + one.sd, 0]), x = scaleOf(ends, left, WIDTH - 20, false);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-hidden": "true" });
  for (const at of x.ticks)
    svg.append(make("line", { class: "grid", x1: x.place(at), x2: x.place(at), y1: 0, y2: height - 22 }), make("text", { x: x.place(at), y: height - 6, "text-anchor": "middle" }, shortNumber(at)));
  importance.forEach((one, i) => {
    const middle = i * ROW + ROW / 2, [from, to] = [x.place(0), x.place(one.mean)], name = one.name.length > 24 ? `${one.name.slice(0, 23)}…` : one.name;
    svg.append(make("text", { x: left - 8, y: middle + 4, "text-anchor": "end" }, name));
    svg.append(make("rect", { class: "f0", x: Math.min(from, to), y: middle - 6, width: Math.max(1, Math.abs(to - from)), height: 12 }));
    svg.append(make("line", { class: "cursor", x1: x.place(one.mean - one.sd), x2: x.place(one.mean + one.sd), y1: middle, y2: middle }));
  });
  parent.append(svg);
}

function dependencePart(parent, one, table) {
  const { shown, outputs } = table, thin = (values) => ({ name: "", steps: one.grid, values, kind: "thin" });
  // A missing value has no place among numbers.
  const places = one.grid.map((value, i) => i).filter((i) => one.kind !== "numeric" || one.labels[i] !== null);
  const steps = places.map((i) => one.grid[i]), labels = one.kind === "numeric" ? null : one.labels.map((text) => text ?? T.js_missing);
  const curves = shown.length === 1 ? one.curves.map((curve) => ({ ...thin(places.map((i) => curve[i][shown[0]])), steps })) : [];
  const means = shown.slice(0, 4).map((output, kind) => ({ name: outputs[output], steps, values: places.map((i) => one.mean[i][output]), kind }));
  const chart = { title: one.name, x: one.name, series: [...curves, ...means], height: 220 };
  if (labels) chart.labels = labels;
  const figure = lineChart(parent, chart, { hint: T.js_chart_keys });
  figure.append(folded(T.js_as_table, () => tableOf([one.name, ...shown.map((output) => outputs[output])], one.labels.map((text, i) => [text ?? T.js_missing, ...shown.map((output) => shortNumber(one.mean[i][output]))]))));
}

// Rows by falling probability, with the sums of their weights up to each: what a threshold there does.
function sweepThresholds(truths, scores, weights) {
  const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]), weight = (i) => (weights ? weights[i] : 1);
  const found = [{ threshold: Infinity, tp: 0, fp: 0 }];
  let [tp, fp] = [0, 0];
  order.forEach((i, place) => {
    if (truths[i]) tp += weight(i);
    else fp += weight(i);
    if (place === order.length - 1 || scores[order[place + 1]] < scores[i]) found.push({ threshold: scores[i], tp, fp });
  });
  return { positives: tp, negatives: fp, points: found };
}

// Mean prediction and share of the class in tenths of the probabilities.
function calibrationOf(truths, scores, weights, bins = 10) {
  const sums = Array.from({ length: bins }, () => ({ weight: 0, predicted: 0, right: 0 }));
  scores.forEach((score, i) => {
    const bin = sums[Math.min(bins - 1, Math.floor(score * bins))], weight = weights ? weights[i] : 1;
    bin.weight += weight;
    bin.predicted += weight * score;
    bin.right += weight * truths[i];
  });
  return sums.filter((one) => one.weight > 0).map((one) => ({ ...one, predicted: one.predicted / one.weight, share: one.right / one.weight }));
}

function probabilityPart(parent, table) {
  const names = table.shown.map((one) => table.outputs[one]), select = make("select", {}, ...names.map((one, i) => make("option", { value: i }, one)));
  const range = make("input", { type: "range", min: 0, max: 1, step: 0.005, value: 0.5 }), read = make("p", { role: "status" });
  const place = make("div", { class: "charts" }), controls = make("div", { class: "controls" });
  if (names.length > 1) controls.append(make("label", {}, T.js_class, select));
  controls.append(make("label", {}, T.js_threshold, range));
  const draw = () => {
    const chosen = Number(select.value || 0), scores = table.predictions[chosen], truths = table.truths[chosen];
    const { positives, negatives, points } = sweepThresholds(truths, scores, table.weights), threshold = Number(range.value);
    // The last point whose threshold is not below the wanted one.
    const at = points.filter((one) => one.threshold >= threshold).pop(), { tp, fp } = at;
    const values = { threshold, name: names[chosen], tp, fp, fn: positives - tp, tn: negatives - fp };
    for (const key of ["threshold", "tp", "fp", "fn", "tn"]) values[key] = shortNumber(values[key]);
    read.textContent = filled(T.js_at_threshold, values);
    place.replaceChildren();
    const line = (title, x, y, xs, ys, here) => lineChart(place, { title: `${title}: ${names[chosen]}`, x, series: [{ name: y, steps: xs, values: ys, kind: 0 }], marks: here === null ? [] : [{ step: here, name: T.js_threshold }] }, { hint: T.js_chart_keys });
    if (positives && negatives) {
      line("ROC", T.js_false_positives, T.js_true_positives, points.map((one) => one.fp / negatives), points.map((one) => one.tp / positives), fp / negatives);
      const real = points.slice(1);
      line("PR", T.js_recall, T.js_precision, real.map((one) => one.tp / positives), real.map((one) => one.tp / (one.tp + one.fp)), tp / positives);
    }
    const bins = calibrationOf(truths, scores, table.weights);
    lineChart(place, { title: `${T.js_calibration}: ${names[chosen]}`, x: T.js_predicted_share, series: [{ name: "", steps: [0, 1], values: [0, 1], kind: "thin" }, { name: T.js_true_share, steps: bins.map((one) => one.predicted), values: bins.map((one) => one.share), kind: 0 }] }, { hint: T.js_chart_keys });
  };
  select.addEventListener("change", draw);
  range.addEventListener("input", draw);
  parent.append(controls, read, place);
  draw();
}

function residualPart(parent, table) {
  const place = make("div", { class: "charts" });
  table.shown.forEach((output, i) => {
    const points = table.predictions[i].map((value, row) => [value, table.truths[i][row] - value, 0]);
    const title = table.outputs[output];
    pointChart(place, { title: `${title}: ${T.js_residual}`, x: filled(T.js_predicted, { name: title }), points, line: 0 });
  });
  parent.append(place);
}
if (typeof module !== "undefined") Object.assign(module.exports, { sweepThresholds, calibrationOf });
