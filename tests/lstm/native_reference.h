// An LSTM layer and its gradients in double precision, as plain loops; the reference of
// native_check.cc. See lstm_optax/lstm/sequence.py for the formulas.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"

namespace reference {

using lstm_optax::Clip;
using Array = std::vector<double>;

struct Inputs {
  lstm_optax::Dims dims;
  bool reverse;
  bool rounded;  // the factors of products, to bfloat16
  Clip clip;
  const float* x;      // [time, rows, features]; null if there are ids
  const int32_t* ids;  // [time, rows] or null: the feature that is 1, the others are 0
  const float *kernel_ih, *kernel_hh, *bias, *h_first, *c_first;
  const uint8_t* flags;  // or null
  const float *d_outputs, *d_h_last, *d_c_last, *bounds;
};

struct Layer : Inputs {  // gates and dz [time, rows, 4, hidden]
  explicit Layer(const Inputs& inputs) : Inputs(inputs) {}

  Array outputs, h_last, c_last, gates, c_before, h_before;
  Array dz, d_h_first, d_c_first, d_x, d_kernel_ih, d_kernel_hh, d_bias;

  bool has(int flag, int64_t at) const { return flags && (flags[at] & flag); }

  void forward() {
    auto [time, rows, features, hidden] = dims;
    outputs.assign(time * rows * hidden, 0);
    gates.assign(time * rows * 4 * hidden, 0);
    c_before.assign(time * rows * hidden, 0);
    h_before = c_before;
    h_last.assign(h_first, h_first + rows * hidden);
    c_last.assign(c_first, c_first + rows * hidden);
    Array z(4 * hidden);
    for (int64_t at = 0; at < time * rows; ++at) {
      int64_t step = at / rows, row = at % rows, t = reverse ? time - 1 - step : step;
      int64_t to = t * rows + row;
      double *h = &h_last[row * hidden], *c = &c_last[row * hidden];
      if (has(lstm_optax::INVALID, to)) continue;
      if (has(lstm_optax::RESET, to)) std::fill_n(h, hidden, 0), std::fill_n(c, hidden, 0);
      std::copy_n(h, hidden, &h_before[to * hidden]);
      std::copy_n(c, hidden, &c_before[to * hidden]);
      std::copy_n(bias, 4 * hidden, z.begin());
      for (int64_t k = 0; k < features; ++k) {
        if (!ids) add(input(to, k), kernel_ih, k, z);
      }
      for (int64_t n = 0; ids && n < 4 * hidden; ++n) z[n] += kernel_ih[ids[to] * 4 * hidden + n];
      for (int64_t k = 0; k < hidden; ++k) add(h_before[to * hidden + k], kernel_hh, k, z);
      for (int64_t u = 0; u < hidden; ++u) {
        double* gate = &gates[to * 4 * hidden + u];
        for (int g = 0; g < 4; ++g) {
          double v = z[g * hidden + u];
          gate[g * hidden] = g == 2 ? std::tanh(v) : 1 / (1 + std::exp(-v));
        }
        c[u] = gate[hidden] * c[u] + gate[0] * gate[2 * hidden];
        outputs[to * hidden + u] = h[u] = gate[3 * hidden] * std::tanh(c[u]);
      }
    }
  }

  void backward() {
    auto [time, rows, features, hidden] = dims;
    dz.assign(time * rows * 4 * hidden, 0);
    d_x.assign(time * rows * features, 0);
    d_kernel_ih.assign(features * 4 * hidden, 0);
    d_kernel_hh.assign(hidden * 4 * hidden, 0);
    d_bias.assign(4 * hidden, 0);
    d_h_first.assign(d_h_last, d_h_last + rows * hidden);
    d_c_first.assign(d_c_last, d_c_last + rows * hidden);
    for (int64_t at = time * rows - 1; at >= 0; --at) {
      int64_t step = at / rows, row = at % rows, t = reverse ? time - 1 - step : step;
      int64_t to = t * rows + row;
      if (has(lstm_optax::INVALID, to)) continue;
      double *d_h = &d_h_first[row * hidden], *d_c = &d_c_first[row * hidden];
      double *d = &dz[to * 4 * hidden], *gate = &gates[to * 4 * hidden];
      const double* before = &c_before[to * hidden];
      auto tanh_c = [&, hidden = hidden](int64_t u) {
        return std::tanh(gate[hidden + u] * before[u] + gate[u] * gate[2 * hidden + u]);
      };
      for (int64_t u = 0; u < hidden; ++u) d_h[u] += d_outputs[to * hidden + u];
      clipped(d_h, hidden, 0);
      for (int64_t u = 0; u < hidden; ++u) {
        d_c[u] += d_h[u] * gate[3 * hidden + u] * (1 - tanh_c(u) * tanh_c(u));
      }
      clipped(d_c, hidden, 1);
      for (int64_t u = 0; u < hidden; ++u) {
        double i = gate[u], f = gate[hidden + u], g = gate[2 * hidden + u], o = gate[3 * hidden + u];
        d[u] = d_c[u] * g * i * (1 - i);
        d[hidden + u] = d_c[u] * before[u] * f * (1 - f);
        d[2 * hidden + u] = d_c[u] * i * (1 - g * g);
        d[3 * hidden + u] = d_h[u] * tanh_c(u) * o * (1 - o);
        d_c[u] *= f;
      }
      clipped(d, 4 * hidden, 2);
      for (int64_t k = 0; k < hidden; ++k) d_h[k] = dot(d, kernel_hh, k);
      for (int64_t k = 0; k < features; ++k) d_x[to * features + k] = dot(d, kernel_ih, k);
      if (has(lstm_optax::RESET, to)) std::fill_n(d_c, hidden, 0);
      if (has(lstm_optax::RESET | lstm_optax::DETACH, to)) std::fill_n(d_h, hidden, 0);
      for (int64_t n = 0; n < 4 * hidden; ++n) {
        for (int64_t k = 0; k < features; ++k) {
          d_kernel_ih[k * 4 * hidden + n] += factor(input(to, k)) * (ids ? d[n] : factor(d[n]));
        }
        for (int64_t k = 0; k < hidden; ++k) {
          d_kernel_hh[k * 4 * hidden + n] += factor(h_before[to * hidden + k]) * factor(d[n]);
        }
        d_bias[n] += d[n];
      }
    }
  }

 private:
  // A factor of a product.
  double factor(double number) const {
    if (!rounded) return number;
    int exponent;
    double digits = std::frexp(number, &exponent);
    return std::ldexp(std::nearbyint(std::ldexp(digits, 8)), exponent - 8);
  }
  double input(int64_t at, int64_t k) const {
    return ids ? ids[at] == k : x[at * dims.features + k];
  }
  void add(double number, const float* kernel, int64_t k, Array& z) const {
    const float* row = kernel + k * 4 * dims.hidden;
    for (int64_t n = 0; n < 4 * dims.hidden; ++n) z[n] += factor(number) * factor(row[n]);
  }
  double dot(const double* d, const float* kernel, int64_t k) const {
    double sum = 0;
    const float* row = kernel + k * 4 * dims.hidden;
    for (int64_t n = 0; n < 4 * dims.hidden; ++n) sum += factor(d[n]) * factor(row[n]);
    return sum;
  }
  void clipped(double* d, int64_t size, int of) const {
    double low = bounds[2 * of], high = bounds[2 * of + 1], square = 0;
    for (int64_t k = 0; k < size; ++k) square += d[k] * d[k];
    double factor = std::sqrt(square) > high ? high / std::sqrt(square) : 1;
    for (int64_t k = 0; k < size; ++k) {
      if (clip == Clip::ENTRIES) d[k] = std::min(std::max(d[k], low), high);
      if (clip == Clip::NORM) d[k] *= factor;
    }
  }
};

}  // namespace reference
