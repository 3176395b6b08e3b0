// Runs the kernels of each instruction set of this CPU on random layers, in memory of the exact
// size, and compares with native_reference.h. For sanitizers, and for other machines.
//
//     native_check CASES: exit status 0 if all agree.
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>

#include "instructions.h"
#include "native_reference.h"

using namespace lstm_optax;

namespace {

// Divided by the largest entry of the array. Where factors are rounded to bfloat16, one that is
// next to the middle of two may be another than in the reference.
constexpr double LARGEST_ERROR = 3e-6, LARGEST_ROUNDED = 1e-2;
const float NAN_F = std::numeric_limits<float>::quiet_NaN();

std::mt19937 generator(1);

int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

// A size from 1 to `most`; half of them small.
int64_t size_up_to(int64_t most) {
  return between(1, between(0, 1) ? most : std::min<int64_t>(most, 20));
}

// Memory of exactly this size, outside of which a sanitizer sees each access.
struct Floats {
  std::unique_ptr<float[]> data;
  int64_t size;

  explicit Floats(int64_t size, float value = NAN_F) : data(new float[size]), size(size) {
    std::fill_n(data.get(), size, value);
  }
  static Floats random(int64_t size, double scale) {
    Floats floats(size);
    std::normal_distribution<double> normal(0, scale);
    for (int64_t k = 0; k < size; ++k) floats.data[k] = static_cast<float>(normal(generator));
    return floats;
  }
  operator float*() { return data.get(); }
};

// Call run(begin, end) for consecutive parts of [0, size) of random sizes.
template <class Run>
void in_parts(int64_t size, Run run) {
  for (int64_t begin = 0, end; begin < size; begin = end) {
    end = std::min(size, begin + size_up_to(size));
    run(begin, end);
  }
}

bool failed = false;
double largest_error = 0;

void compare(const char* what, const float* found, const reference::Array& expected, bool rounded) {
  double scale = 1e-30, error = 0;
  for (double entry : expected) scale = std::max(scale, std::fabs(entry));
  for (size_t k = 0; k < expected.size(); ++k) {
    double off = std::fabs(found[k] - expected[k]) / scale;
    error = off <= error ? error : off;  // NaN replaces it
  }
  largest_error = error <= largest_error ? largest_error : error;
  if (!(error <= (rounded ? LARGEST_ROUNDED : LARGEST_ERROR))) {
    std::printf("  %s is off by %.2g\n", what, error);
    failed = true;
  }
}

void check_layer(const Kernels& kernel, reference::Layer layer) {
  auto [time, rows, features, hidden] = layer.dims;
  int64_t units = padded(hidden), all = time * rows;
  bool only_forward = between(0, 3) == 0;
  layer.forward();
  auto compare = [&layer](const char* what, const float* found, const reference::Array& expected) {
    ::compare(what, found, expected, layer.rounded);
  };

  Floats packed_ih(kernel.packed_gates(features, hidden, layer.ids));
  Floats packed_hh(kernel.packed_gates(hidden, hidden, false));
  in_parts(kernel.gate_blocks(hidden), [&, features = features, hidden = hidden](auto b, auto e) {
    kernel.pack_gates(layer.kernel_ih, features, hidden, layer.ids, b, e, packed_ih);
    kernel.pack_gates(layer.kernel_hh, hidden, hidden, false, b, e, packed_hh);
  });
  Floats outputs(all * hidden), h_last(rows * hidden), c_last(rows * hidden);
  Floats gates(only_forward ? 0 : all * 4 * units), c_before(only_forward ? 0 : all * units);
  Forward forward{layer.dims, layer.reverse, layer.x, layer.ids, layer.h_first, layer.c_first, layer.bias,
                  layer.flags, packed_ih, packed_hh, outputs, h_last, c_last,
                  only_forward ? nullptr : gates.data.get(),
                  only_forward ? nullptr : c_before.data.get()};
  in_parts(rows, [&](int64_t begin, int64_t end) {
    Floats scratch(kernel.forward_scratch(forward, end - begin));
    kernel.forward(forward, begin, end, scratch);
  });
  compare("outputs", outputs, layer.outputs);
  compare("h", h_last, layer.h_last);
  compare("c", c_last, layer.c_last);
  if (only_forward) return;

  layer.backward();
  Floats packed_hh_t(kernel.packed_columns(hidden, hidden));
  in_parts(kernel.column_blocks(hidden), [&, hidden = hidden](auto begin, auto end) {
    kernel.pack_columns(layer.kernel_hh, hidden, hidden, begin, end, packed_hh_t);
  });
  Floats d_h_first(rows * hidden), d_c_first(rows * hidden);
  Backward backward{layer.dims, layer.reverse, c_before, layer.d_outputs, layer.d_h_last,
                    layer.d_c_last, layer.flags, packed_hh_t, layer.clip, layer.bounds, gates,
                    d_h_first, d_c_first};
  in_parts(rows, [&](int64_t begin, int64_t end) {
    Floats scratch(kernel.backward_scratch(backward, end - begin));
    kernel.backward(backward, begin, end, scratch);
  });
  compare("d_h", d_h_first, layer.d_h_first);
  compare("d_c", d_c_first, layer.d_c_first);

  Floats packed_ih_t(kernel.packed_columns(features, hidden)), d_x(all * features);
  in_parts(kernel.column_blocks(features), [&, f = features, hidden = hidden](auto b, auto e) {
    kernel.pack_columns(layer.kernel_ih, f, hidden, b, e, packed_ih_t);
  });
  InputGradient input_gradient{layer.dims, gates, packed_ih_t, d_x};
  in_parts(all, [&](int64_t begin, int64_t end) {
    Floats scratch(kernel.input_scratch(input_gradient, end - begin));
    kernel.input_gradient(input_gradient, begin, end, scratch);
  });
  compare("d_x", d_x, layer.d_x);

  Floats d_kernel_ih(features * 4 * hidden), d_kernel_hh(hidden * 4 * hidden), d_bias(4 * hidden);
  WeightGradient weight_gradient{layer.dims, layer.reverse, layer.x, layer.ids, layer.h_first,
                                 outputs, layer.flags, gates, d_kernel_ih, d_kernel_hh, d_bias};
  in_parts(kernel.gate_blocks(hidden), [&](int64_t begin, int64_t end) {
    Floats scratch(kernel.weight_scratch(weight_gradient, end - begin));
    kernel.weight_gradient(weight_gradient, begin, end, scratch);
  });
  compare("d_kernel_ih", d_kernel_ih, layer.d_kernel_ih);
  compare("d_kernel_hh", d_kernel_hh, layer.d_kernel_hh);
  compare("d_bias", d_bias, layer.d_bias);
}

void check_case(const Kernels& kernel, bool rounded, int64_t number) {
  generator.seed(static_cast<unsigned>(number));
  Dims dims{size_up_to(20), size_up_to(70), size_up_to(300), size_up_to(300)};
  constexpr int64_t MOST = 30'000'000;  // multiply-adds, since the reference is slow
  int64_t step = dims.rows * 4 * dims.hidden * (dims.features + dims.hidden);
  dims.time = std::max<int64_t>(1, std::min(dims.time, MOST / step));
  auto [time, rows, features, hidden] = dims;
  double weight = 1 / std::sqrt(hidden), input = 1 / std::sqrt(features);
  std::unique_ptr<int32_t[]> ids(between(0, 2) ? nullptr : new int32_t[time * rows]);
  Floats x = Floats::random(ids ? 0 : time * rows * features, 1);
  for (int64_t at = 0; ids && at < time * rows; ++at) {
    ids[at] = static_cast<int32_t>(between(0, features - 1));
  }
  Floats kernel_ih = Floats::random(features * 4 * hidden, input);
  Floats kernel_hh = Floats::random(hidden * 4 * hidden, weight);
  Floats bias = Floats::random(4 * hidden, 1);
  Floats h = Floats::random(rows * hidden, 0.5), c = Floats::random(rows * hidden, 1);
  Floats d_outputs = Floats::random(time * rows * hidden, 1);
  Floats d_h = Floats::random(rows * hidden, 1), d_c = Floats::random(rows * hidden, 1);
  Clip clip = static_cast<Clip>(between(0, 2));
  float bounds[] = {-0.5f, 0.7f, -0.4f, 0.9f, -0.2f, 0.1f};
  std::unique_ptr<uint8_t[]> flags(between(0, 3) ? new uint8_t[time * rows] : nullptr);
  int64_t rare = size_up_to(20);
  for (int64_t row = 0; flags && row < rows; ++row) {
    int64_t length = between(0, 1) ? time : between(0, time);
    for (int64_t t = 0; t < time; ++t) {
      int set = (t < length ? 0 : INVALID) | (between(1, rare) == 1 ? RESET : 0) |
                (between(1, rare) == 1 ? DETACH : 0);
      flags[t * rows + row] = static_cast<uint8_t>(set);
    }
  }
  bool reverse = between(0, 1);
  failed = false;
  reference::Inputs inputs{dims, reverse, rounded, clip, ids ? nullptr : x.data.get(), ids.get(), kernel_ih,
                           kernel_hh, bias, h, c, flags.get(), d_outputs, d_h, d_c, bounds};
  check_layer(kernel, reference::Layer(inputs));
  if (!failed) return;
  std::printf("%s, case %ld: time %ld, rows %ld, features %ld, hidden %ld, %s, clip %d, %s, %s\n",
              kernel.name, number, time, rows, features, hidden, reverse ? "reverse" : "forward",
              static_cast<int>(clip), flags ? "flags" : "no flags", ids ? "ids" : "x");
  std::exit(1);
}

void check_activations(const Kernels& kernel) {
  constexpr float INFINITE = std::numeric_limits<float>::infinity();
  for (int64_t size = 1; size <= 70; ++size) {
    Floats x = Floats::random(size, 4), tanh(size), sigmoid(size);
    float special[] = {NAN_F, INFINITE, -INFINITE, 0.0f, -0.0f, 1e-40f, 3e38f, -3e38f};
    x[between(0, size - 1)] = special[size % 8];
    kernel.tanh(x, size, tanh);
    kernel.sigmoid(x, size, sigmoid);
    for (int64_t k = 0; k < size; ++k) {
      double off = std::fabs(tanh[k] - std::tanh(static_cast<double>(x[k]))) +
                   std::fabs(sigmoid[k] - 1 / (1 + std::exp(-static_cast<double>(x[k]))));
      bool both_nan = x[k] != x[k] && tanh[k] != tanh[k] && sigmoid[k] != sigmoid[k];
      if (off < 1e-6 || both_nan) continue;
      std::printf("%s: tanh or sigmoid of %g is off by %g\n", kernel.name, x[k], off);
      std::exit(1);
    }
  }
}

}  // namespace

void check_kernels(const Kernels& kernel, bool rounded, int64_t cases) {
  largest_error = 0;
  check_activations(kernel);
  for (int64_t number = 0; number < cases; ++number) check_case(kernel, rounded, number);
  std::printf("%s: %ld layers, largest error %.2g\n", kernel.name, cases, largest_error);
}

int main(int, char** arguments) {
  int64_t cases = std::atoll(arguments[1]);
  for (const Kernels* kernel : ALL) {
    if (!runs_here(kernel)) {
      std::printf("%s: not on this CPU\n", kernel->name);
      continue;
    }
    check_kernels(*kernel, false, cases);
    if (const Kernels* rounding = in_bfloat16(kernel)) check_kernels(*rounding, true, cases);
  }
}
