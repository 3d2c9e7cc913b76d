// The forward pass of a trained network: raw columns in, every unit and the predictions out, in double precision.
"use strict";

function decoded(text, isDouble) {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const size = isDouble ? 8 : 4, view = new DataView(bytes.buffer), numbers = new Float64Array(bytes.length / size);
  for (let i = 0; i < numbers.length; i++)
    numbers[i] = isDouble ? view.getFloat64(8 * i, true) : view.getFloat32(4 * i, true);
  return numbers;
}

// Abramowitz and Stegun 7.1.6: all terms have one sign, so nothing cancels. Beyond 6 it is 1 to the last bit.
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const softplus = (x) => (x > 20 ? x : Math.log1p(Math.exp(x)));
const sigmoid = (x) => (x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x)));
const ACTIVATIONS = {
  identity: (x) => x,
  sigmoid,
  tanh: Math.tanh,
  relu: (x) => (x > 0 ? x : 0),
  leaky_relu: (x) => (x > 0 ? x : 0.01 * x),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  silu: (x) => x * sigmoid(x),
  selu: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)),
  softplus,
  mish: (x) => x * Math.tanh(softplus(x)),
};

const clamped = (x, low, high) => Math.min(Math.max(x, low), high);

class Network {
  constructor(spec) {
    this.spec = spec;
    this.weights = decoded(spec.weights, spec.double);
    const statistics = decoded(spec.preprocessor.statistics, true), n = spec.preprocessor.numbers.length;
    [this.median, this.center, this.scale] = [0, 1, 2].map((part) => statistics.subarray(part * n, (part + 1) * n));
    this.knots = statistics.subarray(3 * n);
  }

  // Features of raw columns: missing numbers are NaN, categories are codes.
  features(raw) {
    const plan = this.spec.preprocessor, found = [];
    plan.numbers.forEach((i, n) => found.push(this.scaled(Number.isNaN(raw[i]) ? this.median[n] : raw[i], n)));
    for (const wave of [Math.sin, Math.cos])
      for (const [n, rate] of plan.cycles) found.push(wave(raw[plan.numbers[n]] * rate) || 0);
    for (const n of plan.indicators) found.push(Number.isNaN(raw[plan.numbers[n]]) ? 1 : 0);
    for (const [i, code] of plan.one_hot) found.push(raw[i] === code ? 1 : 0);
    for (const [i, least] of plan.embedded) found.push(Math.max(raw[i], least));
    return this.spec.double ? found : found.map(Math.fround);
  }

  scaled(number, n) {
    const { scaling, limit } = this.spec.preprocessor;
    if (scaling === "quantile") return this.normalScore(number, n);
    const scaled = (number - this.center[n]) / this.scale[n];
    if (scaling !== "robust") return clamped(scaled, -limit, limit);
    const bounded = clamped(scaled, -1e15, 1e15);
    return bounded / Math.sqrt(1 + (bounded / limit) ** 2);
  }

  normalScore(number, n) {
    const { scores, knots } = this.spec.preprocessor, columns = knots[1], half = (q) => this.knots[q * columns + n] / 2;
    let score = scores[0];
    for (let q = 0; q < scores.length - 1; q++) {
      const share = (number / 2 - half(q)) / Math.max(half(q + 1) - half(q), 1e-300);
      score += clamped(share, 0, 1) * (scores[q + 1] - scores[q]);
    }
    return score;
  }

  embedded(features) {
    const { embedding } = this.spec, w = this.weights;
    if (!embedding) return features;
    const { numbers, categories, inputs, of_numbers: of, tables } = embedding, found = [];
    for (let n = 0; n < numbers; n++) {
      const x = features[n], isPeriodic = of.kind === "periodic", learned = of.size;
      if (isPeriodic) found.push(x);
      for (let d = 0; d < learned; d++) {
        let sum = w[of.biases_ND + n * learned + d];
        for (let q = 0; q < of.bins; q++) {
          const weight = w[of.weights_NQD + (n * of.bins + q) * learned + d];
          sum += weight * (isPeriodic ? this.wave(of, n, q, x) : this.share(of, n, q, x));
        }
        found.push(sum);
      }
    }
    for (let i = numbers; i < inputs - categories; i++) found.push(features[i]);
    tables.forEach(({ size, w: first }, number) => {
      const code = features[inputs - categories + number];
      for (let d = 0; d < size; d++) found.push(w[first + code * size + d]);
    });
    return found;
  }

  wave(of, n, q, x) {
    const at = n * of.bins + q;
    return Math.cos(2 * Math.PI * (x * this.weights[of.frequencies_NQ + at] + this.weights[of.phases_NQ + at]));
  }

  share(of, n, q, x) {
    const edge = (at) => this.weights[of.edges_QN + at * this.spec.embedding.numbers + n];
    return clamped((x - edge(q)) / Math.max(edge(q + 1) - edge(q), 1e-6), 0, 1);
  }

  // What every layer answers, the logits last.
  forward(raw) {
    let x = this.embedded(this.features(raw));
    const layers = [{ kind: "input", values: x }], kept = [];
    for (const layer of this.spec.layers) {
      if (layer.kind === "begin") kept.push(x);
      else {
        x = this.apply(layer, x, kept);
        layers.push({ kind: layer.kind, name: layer.name, values: x });
      }
    }
    return { layers, logits: x, predictions: this.predictions(x) };
  }

  apply(layer, x, kept) {
    const w = this.weights;
    if (layer.kind === "activation") return x.map(ACTIVATIONS[layer.name]);
    if (layer.kind === "add") {
      const before = kept.pop();
      return x.map((one, i) => one + before[i]);
    }
    if (layer.kind === "linear") {
      const found = new Array(layer.out);
      for (let o = 0; o < layer.out; o++) {
        let sum = layer.b < 0 ? 0 : w[layer.b + o];
        for (let i = 0, at = layer.w + o * layer.in; i < layer.in; i++) sum += w[at + i] * x[i];
        found[o] = sum;
      }
      return found;
    }
    let mean = (i) => w[layer.mean + i], variance = (i) => w[layer.var + i];
    if (layer.kind === "layer") {
      const of = x.reduce((sum, one) => sum + one, 0) / x.length;
      const spread = x.reduce((sum, one) => sum + (one - of) ** 2, 0) / x.length;
      [mean, variance] = [() => of, () => spread];
    }
    return x.map((one, i) => ((one - mean(i)) / Math.sqrt(variance(i) + layer.eps)) * w[layer.w + i] + w[layer.b + i]);
  }

  predictions(logits) {
    const { name, mean, scale } = this.spec.task;
    if (name === "binary") return [sigmoid(-logits[0]), sigmoid(logits[0])];
    if (name === "multilabel") return logits.map(sigmoid);
    if (name === "regression") return logits.map((one, i) => (scale.length ? one * scale[i] + mean[i] : one));
    const most = Math.max(...logits), powers = logits.map((one) => Math.exp(one - most));
    const sum = powers.reduce((total, one) => total + one, 0);
    return powers.map((one) => one / sum);
  }
}
if (typeof module !== "undefined") module.exports = { Network, ACTIVATIONS, erf };
