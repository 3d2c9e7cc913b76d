// The runs of a sweep: a table to sort and filter, the metric against each key, the curves, and runs side by side.
const MOST_ROWS = 100, MOST_BEST = 3;

// What a filter leaves: every word is in the row, or is key=value of a key.
function filteredRuns(runs, keys, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return runs.filter((run) => {
    const values = keys.map((key, i) => `${key}=${run.values[i]}`.toLowerCase()), whole = [run.label.toLowerCase(), ...values].join(" ");
    return words.every((word) => (word.includes("=") ? values.some((one) => one === word || one.endsWith(`.${word}`)) : whole.includes(word)));
  });
}

// Numbers in their order, before texts in theirs; what is missing is last, whichever way round.
function sortedRuns(runs, valueOf, isFalling) {
  const rank = (value) => (value === null || value === undefined ? 2 : typeof value === "number" ? 0 : 1);
  return [...runs].sort((one, other) => {
    const [a, b] = [valueOf(one), valueOf(other)], order = rank(a) - rank(b);
    if (order || a === b) return order;
    return (a < b ? -1 : 1) * (isFalling ? -1 : 1);
  });
}

function boardPart(parent, board) {
  const { keys, metrics, runs, ranked_by: rankedBy } = board, ranked = metrics.indexOf(rankedBy);
  runs.forEach((run, i) => (run.rank = i + 1));
  const columns = [
    { name: T.js_rank, of: (run) => run.rank },
    { name: T.js_run, of: (run) => run.label },
    ...keys.map((name, i) => ({ name, of: (run) => run.values[i] })),
    ...metrics.map((name, i) => ({ name, of: (run) => run.metrics[i] })),
  ];
  const state = { column: columns[0], isFalling: false, text: "", all: false, ticked: new Set() };
  const filter = make("input", { type: "search", placeholder: T.js_filter_help }), count = make("span", { class: "small", role: "status" });
  const all = make("button", { type: "button" }, T.js_all), place = make("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": T.js_run });
  const charts = make("div", { class: "charts" }), compared = make("div");
  const draw = () => {
    const left = sortedRuns(filteredRuns(runs, keys, state.text), state.column.of, state.isFalling);
    const shown = state.all ? left : left.slice(0, MOST_ROWS);
    count.textContent = filled(T.js_runs_shown, { shown: shown.length, of: runs.length });
    all.hidden = shown.length === left.length;
    place.replaceChildren(boardTable(columns, shown, state, draw, () => drawCompared()));
    drawCharts(left);
  };
  const drawCharts = (left) => {
    charts.replaceChildren();
    curvesPart(charts, board, left, state.ticked);
    keys.forEach((key, i) => {
      const values = left.map((run) => run.values[i]), areNumbers = values.every((one) => typeof one === "number");
      const labels = areNumbers ? null : [...new Set(values.map(String))].sort();
      const points = left.map((run) => [areNumbers ? run.values[i] : labels.indexOf(String(run.values[i])), run.metrics[ranked], run.rank <= MOST_BEST ? 1 : 0, `${run.label}: ${shortNumber(run.metrics[ranked])}`]);
      const positive = points.every((one) => one[1] > 0), wide = areNumbers && values.every((one) => one > 0) && Math.max(...values) > 20 * Math.min(...values);
      if (points.length && (!labels || labels.length <= 12)) pointChart(charts, { title: filled(T.js_against, { metric: rankedBy, key }), x: key, points, labels, logY: positive, logX: wide });
    });
  };
  const drawCompared = () => {
    const ticked = runs.filter((run) => state.ticked.has(run));
    compared.replaceChildren();
    if (ticked.length) {
      const rows = columns.slice(2).map(({ name, of }) => [name, ...ticked.map((run) => cellText(of(run)))]);
      compared.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": T.js_of_compared }, tableOf([T.js_run, ...ticked.map((run) => run.label)], rows, T.js_of_compared)));
      curvesPart(compared, board, ticked, state.ticked);
    }
  };
  filter.addEventListener("input", () => {
    state.text = filter.value;
    draw();
  });
  all.addEventListener("click", () => {
    state.all = true;
    draw();
  });
  parent.append(make("div", { class: "controls" }, make("label", {}, T.js_filter, filter), count, all), place, compared, charts);
  draw();
}

const cellText = (value) => (typeof value === "number" ? shortNumber(value) : value === null || value === undefined ? "–" : String(value));

function boardTable(columns, shown, state, draw, compare) {
  const heads = columns.map((column) => {
    const button = make("button", { type: "button" }, column.name), head = make("th", { scope: "col" }, button);
    if (column === state.column) head.setAttribute("aria-sort", state.isFalling ? "descending" : "ascending");
    button.addEventListener("click", () => {
      state.isFalling = column === state.column && !state.isFalling;
      state.column = column;
      draw();
    });
    return head;
  });
  const rows = shown.map((run) => {
    const tick = make("input", { type: "checkbox", "aria-label": `${T.js_compare}: ${run.label}` });
    tick.checked = state.ticked.has(run);
    tick.addEventListener("change", () => {
      state.ticked[tick.checked ? "add" : "delete"](run);
      compare();
    });
    return make("tr", {}, make("td", {}, tick), ...columns.map(({ of }) => make("td", {}, cellText(of(run)))));
  });
  return make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, T.js_compare), ...heads)), make("tbody", {}, ...rows));
}

function curvesPart(parent, board, runs, ticked) {
  const drawn = runs.filter((run) => run.curve);
  if (!drawn.length) return;
  const areTicked = drawn.every((run) => ticked.has(run)), best = [...drawn].sort((a, b) => a.rank - b.rank).slice(0, areTicked ? 4 : MOST_BEST);
  const series = drawn.map((run) => ({ name: best.includes(run) ? run.label : "", steps: board.steps[run.at], values: run.curve, kind: best.includes(run) ? best.indexOf(run) : "thin" }));
  series.sort((a, b) => (a.kind === "thin" ? 0 : 1) - (b.kind === "thin" ? 0 : 1));
  const isPositive = series.every((one) => one.values.every((value) => value === null || value > 0));
  lineChart(parent, { title: filled(T.js_curves, { curve: board.curve }), x: T.js_step, series, height: 300 }, { logY: isPositive, hint: T.js_chart_keys });
}
if (typeof module !== "undefined") Object.assign(module.exports, { filteredRuns, sortedRuns });
