// Puts the parts of the page where they belong.
const DATA = typeof document === "undefined" ? {} : JSON.parse(document.getElementById("data").textContent);
const T = DATA.texts || {};

function learningPart(parent, { charts }, marks) {
  const named = (split) => T[`js_${split}`] || split;
  const logY = make("input", { type: "checkbox" }), logX = make("input", { type: "checkbox" });
  const controls = make("div", { class: "controls" }, make("label", {}, logY, T.js_log_values), make("label", {}, logX, T.js_log_steps));
  const place = make("div", { class: "charts" });
  const titles = { loss: T.js_loss, learning_rate: T.js_learning_rate };
  const draw = () => {
    place.replaceChildren();
    for (const { metric, series } of charts) {
      const title = titles[metric] || metric;
      const lines = series.map((one) => ({ ...one, name: named(one.split) || title, kind: one.split === "val" ? 1 : metric === "learning_rate" ? 2 : 0 }));
      const events = marks.map((one) => ({ step: one.step, name: T[`js_${one.kind}`] }));
      const chart = { title, x: T.js_step, series: lines, marks: events };
      const figure = lineChart(place, chart, { logX: logX.checked, logY: logY.checked && metric === "loss", hint: T.js_chart_keys });
      const thinned = series.find((one) => one.of > one.steps.length);
      if (thinned) figure.append(make("p", { class: "small" }, filled(T.js_shown_of, { shown: thinned.steps.length, of: thinned.of })));
      figure.append(folded(T.js_as_table, () => tableOf([T.js_step, ...lines.map((one) => one.name)], rowsOf(lines))));
    }
  };
  logY.addEventListener("change", draw);
  logX.addEventListener("change", draw);
  parent.append(controls, place);
  draw();
}

function rowsOf(lines) {
  const values = lines.map((one) => new Map(one.steps.map((step, i) => [step, one.values[i]])));
  const steps = [...new Set(lines.flatMap((one) => one.steps))].sort((a, b) => a - b);
  return steps.map((step) => [step, ...values.map((one) => (one.has(step) ? shortNumber(one.get(step)) : ""))]);
}

if (typeof document !== "undefined") {
  const of = (id) => document.getElementById(id);
  if (DATA.curves && DATA.curves.charts.length) learningPart(of("curves"), DATA.curves, DATA.marks);
  if (DATA.live) livePart(of("live"), DATA.live);
  if (DATA.table) tablePart(DATA.table);
  if (DATA.sweep) document.querySelectorAll(".board").forEach((one) => boardPart(one, DATA.sweep[one.dataset.board]));
}
