"""The script that runs a `Program` in a page: nine operations over flat arrays of single precision."""

MACHINE = r"""
"use strict";
const unbase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// half precision (IEEE 754 binary16) to single
const halves = (bits) => {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const h = bits[i], sign = h & 0x8000 ? -1 : 1, e = (h >> 10) & 31, m = h & 1023;
    out[i] = sign * (e === 0 ? m * 2 ** -24 : e === 31 ? (m ? NaN : Infinity) : (1 + m / 1024) * 2 ** (e - 15));
  }
  return out;
};

// error function to 1.5e-7: Abramowitz & Stegun, Handbook of Mathematical Functions, 7.1.26
const erf = (x) => {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - p * Math.exp(-x * x));
};

const MAPS = {
  silu: (x) => x / (1 + Math.exp(-x)), sigmoid: (x) => 1 / (1 + Math.exp(-x)), tanh: Math.tanh,
  relu: (x) => (x > 0 ? x : 0), gelu: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)), neg: (x) => -x, abs: Math.abs,
  sqrt: Math.sqrt, rsqrt: (x) => 1 / Math.sqrt(x), exp: Math.exp, log: Math.log, log1p: Math.log1p,
  reciprocal: (x) => 1 / x, elu: (x, a) => (x > 0 ? x : a * Math.expm1(x)), leaky_relu: (x, a) => (x > 0 ? x : a * x),
  softplus: (x, beta, most) => (x * beta > most ? x : Math.log1p(Math.exp(x * beta)) / beta),
  pow: (x, a) => x ** a, scale: (x, a) => x * a,
};
const PAIRS = {
  add: (o, x, y) => { for (let i = 0; i < o.length; i++) o[i] = x[i] + y[i]; },
  sub: (o, x, y) => { for (let i = 0; i < o.length; i++) o[i] = x[i] - y[i]; },
  mul: (o, x, y) => { for (let i = 0; i < o.length; i++) o[i] = x[i] * y[i]; },
  div: (o, x, y) => { for (let i = 0; i < o.length; i++) o[i] = x[i] / y[i]; },
};

// rows of x (m, k) by rows of y (n, k) into rows of out, `pitch` apart; eight sums at once stay in registers
const rows = (out, x, y, m, n, k, x0, y0, o0, pitch) => {
  let i = 0;
  for (; i + 2 <= m; i += 2) {
    const a0 = x0 + i * k, a1 = a0 + k;
    let j = 0;
    for (; j + 4 <= n; j += 4) {
      const b0 = y0 + j * k, b1 = b0 + k, b2 = b1 + k, b3 = b2 + k;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let q = 0; q < k; q++) {
        const u = x[a0 + q], v = x[a1 + q], c0 = y[b0 + q], c1 = y[b1 + q], c2 = y[b2 + q], c3 = y[b3 + q];
        s00 += u * c0; s01 += u * c1; s02 += u * c2; s03 += u * c3;
        s10 += v * c0; s11 += v * c1; s12 += v * c2; s13 += v * c3;
      }
      const o = o0 + i * pitch + j, p = o + pitch;
      out[o] = s00; out[o + 1] = s01; out[o + 2] = s02; out[o + 3] = s03;
      out[p] = s10; out[p + 1] = s11; out[p + 2] = s12; out[p + 3] = s13;
    }
    for (; j < n; j++) {
      const b = y0 + j * k;
      let s0 = 0, s1 = 0;
      for (let q = 0; q < k; q++) { s0 += x[a0 + q] * y[b + q]; s1 += x[a1 + q] * y[b + q]; }
      out[o0 + i * pitch + j] = s0; out[o0 + (i + 1) * pitch + j] = s1;
    }
  }
  for (; i < m; i++) {
    const a = x0 + i * k;
    for (let j = 0; j < n; j++) {
      const b = y0 + j * k;
      let s = 0;
      for (let q = 0; q < k; q++) s += x[a + q] * y[b + q];
      out[o0 + i * pitch + j] = s;
    }
  }
};

const BAND = 2 ** 18;  // values of a convolution's columns that are laid out at once

const OPS = {
  take: (o, at) => {
    const x = at(o.x), out = new Float32Array(o.size), d = o.sides.length;
    const inner = o.sides[d - 1], step = o.strides[d - 1];
    const count = new Array(d).fill(0);
    let from = o.at;
    for (let i = 0; i < o.size; ) {
      for (let j = 0, p = from; j < inner; j++, p += step) out[i++] = x[p];
      for (let a = d - 2; a >= 0; a--) {
        from += o.strides[a];
        if (++count[a] < o.sides[a]) break;
        from -= o.strides[a] * o.sides[a];
        count[a] = 0;
      }
    }
    return out;
  },
  map: (o, at) => {
    const x = at(o.x), out = new Float32Array(o.size), f = MAPS[o.f], [a, b] = o.by;
    for (let i = 0; i < out.length; i++) out[i] = f(x[i], a, b);
    return out;
  },
  pair: (o, at) => {
    const out = new Float32Array(o.size);
    PAIRS[o.f](out, at(o.x), at(o.y));
    return out;
  },
  reduce: (o, at) => {
    const x = at(o.x), out = new Float32Array(o.size);
    for (let i = 0; i < o.size; i++) {
      let s = o.f === "max" ? -Infinity : 0;
      for (let j = i * o.n; j < (i + 1) * o.n; j++) s = o.f === "max" ? Math.max(s, x[j]) : s + x[j];
      out[i] = o.f === "mean" ? s / o.n : s;
    }
    return out;
  },
  softmax: (o, at) => {
    const x = at(o.x), out = new Float32Array(o.size);
    for (let i = 0; i < o.size; i += o.n) {
      let most = -Infinity, sum = 0;
      for (let j = i; j < i + o.n; j++) if (x[j] > most) most = x[j];
      for (let j = i; j < i + o.n; j++) sum += out[j] = Math.exp(x[j] - most);
      for (let j = i; j < i + o.n; j++) out[j] /= sum;
    }
    return out;
  },
  matmul: (o, at) => {
    const out = new Float32Array(o.size), x = at(o.x), y = at(o.y);
    for (let b = 0; b < o.batch; b++)
      rows(out, x, y, o.m, o.n, o.k, b * o.m * o.k, b * o.n * o.k, b * o.m * o.n, o.n);
    return out;
  },
  conv: (o, at) => {
    const x = at(o.x), bias = at(o.b), [channels, height, width] = o.input, [count, tall, wide] = o.output;
    const [kh, kw] = o.kernel, k = channels * kh * kw, places = tall * wide, out = new Float32Array(o.size);
    const band = Math.max(1, Math.min(tall, Math.floor(BAND / (wide * k))));
    const columns = new Float32Array(band * wide * k);
    for (let top = 0; top < tall; top += band) {
      const bottom = Math.min(tall, top + band);
      columns.fill(0);
      for (let r = top; r < bottom; r++) for (let c = 0; c < wide; c++) {
        const base = ((r - top) * wide + c) * k;
        for (let i = 0; i < kh; i++) {
          const row = r * o.stride[0] - o.pad[0] + i * o.dilation[0];
          if (row < 0 || row >= height) continue;
          for (let j = 0; j < kw; j++) {
            const column = c * o.stride[1] - o.pad[1] + j * o.dilation[1];
            if (column < 0 || column >= width) continue;
            let from = row * width + column, to = base + i * kw + j;
            for (let ch = 0; ch < channels; ch++, from += height * width, to += kh * kw) columns[to] = x[from];
          }
        }
      }
      rows(out, at(o.w), columns, count, (bottom - top) * wide, k, 0, 0, top * wide, places);
    }
    for (let ch = 0; ch < count; ch++) for (let i = ch * places; i < (ch + 1) * places; i++) out[i] += bias[ch];
    return out;
  },
  spread: (o, at) => {
    const x = at(o.x), out = new Float32Array(o.size), [, channels, height, width] = o.sides, [down, across] = o.stride;
    const tall = (height - 1) * down + 1, wide = (width - 1) * across + 1;
    for (let ch = 0, i = 0; ch < channels; ch++) for (let r = 0; r < height; r++) for (let c = 0; c < width; c++)
      out[(ch * tall + r * down) * wide + c * across] = x[i++];
    return out;
  },
  group_norm: (o, at) => {
    const x = at(o.x), w = at(o.w), b = at(o.b), out = new Float32Array(o.size);
    const each = o.channels / o.groups, n = each * o.inner;
    for (let g = 0; g < o.groups; g++) {
      let sum = 0, square = 0;
      for (let i = g * n; i < (g + 1) * n; i++) sum += x[i];
      const mean = sum / n;
      for (let i = g * n; i < (g + 1) * n; i++) square += (x[i] - mean) ** 2;
      const scale = 1 / Math.sqrt(square / n + o.eps);
      for (let ch = g * each; ch < (g + 1) * each; ch++) for (let i = ch * o.inner; i < (ch + 1) * o.inner; i++)
        out[i] = (x[i] - mean) * scale * w[ch] + b[ch];
    }
    return out;
  },
};

// what decodes one latent: (flat latent) => flat picture
const machine = (program) => {
  const constants = program.constants.map(([kind, text]) => {
    const bytes = unbase64(text);
    return kind === "h" ? halves(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
  });
  const last = {};
  program.ops.forEach((o, i) => { for (const key of ["x", "y"]) if (o[key] && o[key][0] === "v") last[o[key]] = i; });
  return (z) => {
    const values = { v0: z };
    const at = (ref) => (ref[0] === "c" ? constants[Number(ref.slice(1))] : values[ref]);
    program.ops.forEach((o, i) => {
      values[o.to] = OPS[o.op](o, at);
      for (const key of ["x", "y"]) if (last[o[key]] === i && o[key] !== program.result) delete values[o[key]];
    });
    return values[program.result];
  };
};

// the same with the milliseconds that it took
const timed = (program) => {
  const run = machine(program);
  return (z) => {
    const begin = performance.now(), out = run(z);
    return { out, took: performance.now() - begin };
  };
};
"""
