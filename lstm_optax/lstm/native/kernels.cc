// The kernels of one instruction set: compiled once for each, with TABLE the name of its table.
//
// No header of the C++ library is included: an inline function of it, compiled for AVX-512, could
// be the copy that the linker keeps for all callers.
#include "kernels.h"

#include "vectors.h"

namespace lstm_optax {
namespace {

constexpr int GROUP = 4;  // vectors of a block: the four gates of LANES units, or 4 * LANES columns
constexpr int64_t WIDTH = GROUP * LANES;
constexpr int64_t CHUNK = 48;   // rows of a product that share a block, if there are as many
constexpr int64_t DEPTH = LANES < 16 ? 64 : 128;  // rows of x and dz in a part of a weight's sums
constexpr int64_t DEPTHS = 16;  // as many times the rows, with ids: their sums need no products

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

INLINE void fill_zero(float* p, int64_t size) {
  for (int64_t k = 0; k < size; ++k) p[k] = 0;
}

INLINE void copy(const float* from, int64_t size, float* to) {
  for (int64_t k = 0; k < size; ++k) to[k] = from[k];
}

// Entries of `size` numbers; what fills the last one up is 0.
INLINE int64_t entries_of(int64_t size) { return ceil_div(size, PARTS); }

// Floats that `row_entries` writes, and those of a pair of rows; none if the rows have the entries.
INLINE int64_t room(int64_t size) { return PARTS == 1 ? 0 : padded(entries_of(size)); }
INLINE int64_t pair_room(int64_t size) { return PARTS == 1 ? 0 : padded(size); }

// The entries of consecutive numbers, written to `to` unless they are those of the row itself.
INLINE const float* row_entries(const float* row, int64_t size, float* to) {
  if constexpr (PARTS == 1) return row;
  for (int64_t k = 0; k < size; k += PARTS * LANES) {
    Vec first = load_some(row + k, size - k);
    Vec second = k + LANES < size ? load_some(row + k + LANES, size - k - LANES) : Vec{};
    store(to + k / PARTS, consecutive(first, second));
  }
  return to;
}

// Consecutive parts of one allocation, each aligned like it; without memory it only counts them.
struct Scratch {
  float* memory;
  int64_t used = 0;

  float* floats(int64_t count) {
    float* part = memory ? memory + used : nullptr;
    used += padded(count);
    return part;
  }
  template <class T>
  T* pointers(int64_t count) {
    return reinterpret_cast<T*>(floats(2 * count));
  }
};

// Floats that a struct of parts takes.
template <class Parts, class Call>
int64_t scratch_size(const Call& call, int64_t rows) {
  Scratch scratch{nullptr};
  Parts(scratch, call, rows);
  return scratch.used;
}

template <int N>
struct Size {
  static constexpr int value = N;
};

template <int N, class Run>
INLINE void with_size(int64_t size, Run run) {
  if constexpr (N > 1) {
    if (size < N) return with_size<N - 1>(size, run);
  }
  run(Size<N>{});
}

// Call run(Size<R>, first) for tiles of R <= ROWS rows, which differ by one row at most.
template <class Run>
INLINE void in_tiles(int64_t count, Run run) {
  int64_t tiles = ceil_div(count, ROWS), row = 0;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    int64_t size = (count - row) / (tiles - tile);
    with_size<ROWS>(size, [&](auto rows) { run(rows, row); });
    row += size;
  }
}

// sums[r][FIRST + v] += sum over k of a[r][k] * b[k][v], for V vectors; b [depth, V, LANES], with
// entries of PARTS numbers.
//
// Not inlined: the constants of what surrounds it would take registers that the sums need.
template <int FIRST, int V, int R, int G>
__attribute__((noinline)) void multiply_pass(Vec (&result)[R][G], const float* const* a,
                                             const float* b, int64_t depth) {
  const float* rows[R];
  Vec sums[R][V];
  for (int r = 0; r < R; ++r) {
    rows[r] = a[r];
    for (int v = 0; v < V; ++v) sums[r][v] = result[r][FIRST + v];
  }
  for (int64_t k = 0; k < depth; ++k, b += V * LANES) {
    Vec factors[V];
    for (int v = 0; v < V; ++v) factors[v] = load(b + v * LANES);
    for (int r = 0; r < R; ++r) {
      Vec entry = splat(rows[r][k]);
      for (int v = 0; v < V; ++v) sums[r][v] = add_product(sums[r][v], entry, factors[v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) result[r][FIRST + v] = sums[r][v];
  }
}

// sums[r] += sum over k of a[r][k] * b[k], for a packed block b of G vectors.
template <int R, int G, int FIRST = 0>
INLINE void multiply(Vec (&sums)[R][G], const float* const* a, const float* b, int64_t depth) {
  constexpr int V = G - FIRST < PASS ? G - FIRST : PASS;
  multiply_pass<FIRST, V>(sums, a, b + FIRST * depth * LANES, depth);
  if constexpr (FIRST + V < G) multiply<R, G, FIRST + V>(sums, a, b, depth);
}

// ---- packing ----
//
// A block of G vectors for each k is packed in parts of PASS vectors, [G / PASS][k][PASS][lane], so
// that each pass of a product reads consecutive memory.

// Where vector v of entry k is in a block of GROUP vectors.
INLINE int64_t in_block(int64_t depth, int64_t k, int v) {
  int first = v / PASS * PASS;
  return (first * depth + k * PASS + v - first) * LANES;
}

int64_t gate_blocks(int64_t hidden) { return padded(hidden) / LANES; }

int64_t packed_gates(int64_t depth, int64_t hidden, bool for_ids) {
  return gate_blocks(hidden) * (for_ids ? depth : entries_of(depth)) * WIDTH;
}

// A block has the four gates of LANES units.
void pack_gates(const float* kernel, int64_t depth, int64_t hidden, bool for_ids, int64_t begin,
                int64_t end, float* packed) {
  int64_t parts = for_ids ? 1 : PARTS, count = ceil_div(depth, parts);
  for (int64_t block = begin; block < end; ++block) {
    float* to = packed + block * count * WIDTH;
    int64_t unit = block * LANES;
    auto numbers = [&](int64_t k, int gate) {
      const float* from = kernel + (k * 4 + gate) * hidden + unit;
      return unit < hidden && k < depth ? load_some(from, hidden - unit) : Vec{};
    };
    for (int64_t k = 0; k < count; ++k) {
      for (int gate = 0; gate < 4; ++gate) {
        Vec first = numbers(parts * k, gate);
        store(to + in_block(count, k, gate),
              parts == 1 ? first : paired(first, numbers(parts * k + 1, gate)));
      }
    }
  }
}

int64_t column_blocks(int64_t columns) { return ceil_div(columns, WIDTH); }

int64_t packed_columns(int64_t columns, int64_t hidden) {
  return ceil_div(columns, LANES) * LANES * entries_of(4 * padded(hidden));
}

// A block has WIDTH columns, the last one fewer vectors; k is a gate's unit, padding included.
void pack_columns(const float* kernel, int64_t columns, int64_t hidden, int64_t begin, int64_t end,
                  float* packed) {
  int64_t units = padded(hidden), last = least(end * WIDTH, columns);
  for (int64_t first = begin * WIDTH; first < last; first += PASS * LANES) {
    int64_t count = least(PASS * LANES, columns - first), width = ceil_div(count, LANES) * LANES;
    float* to = packed + first * entries_of(4 * units);
    for (int gate = 0; gate < 4; ++gate) {
      for (int64_t unit = 0; unit < units; unit += PAD, to += entries_of(PAD) * width) {
        // PAD units of all columns at a time, so that whole cache lines are read and written
        int64_t known = least(PAD, hidden - unit);
        for (int64_t column = 0; column < width; ++column) {
          const float* from = kernel + (first + column) * 4 * hidden + gate * hidden + unit;
          float numbers[PAD] = {}, to_round[PAD];
          if (column < count) copy(from, known, numbers);
          const float* all = row_entries(numbers, PAD, to_round);
          for (int64_t k = 0; k < entries_of(PAD); ++k) to[k * width + column] = all[k];
        }
      }
    }
  }
}

// Call run(Size<R>, Size<G>, first row, first column, block) for all tiles of a[rows] * packed.
template <class Run>
INLINE void over_columns(int64_t rows, int64_t columns, int64_t depth, const float* packed,
                         Run run) {
  for (int64_t column = 0; column < columns; column += WIDTH) {
    const float* block = packed + column * depth;
    with_size<GROUP>(ceil_div(least(WIDTH, columns - column), LANES), [&](auto vectors) {
      in_tiles(rows, [&](auto tile, int64_t row) { run(tile, vectors, row, column, block); });
    });
  }
}

// ---- forward ----

int64_t steps_at_once(const Dims& dims, int64_t rows) {
  return least(dims.time, most(1, CHUNK / rows));
}

struct ForwardScratch {
  float *zero, *cells, *unsaved;  // a row of zeros; c of each row; z of a chunk if it is not saved
  const float **x_rows, **h_now;
  float** z_rows;
  float *x_entries, *h_entries;  // of those rows that have to be converted
  // of the rows that run a step: h_{t-1}; the kernel's row of the id, null for none; z, replaced by
  // the activations; c; and where results go
  const float **h, **of_id;
  float **z, **c, **c_before, **output;

  ForwardScratch(Scratch& scratch, const Forward& call, int64_t rows) {
    int64_t units = padded(call.dims.hidden), chunk = steps_at_once(call.dims, rows) * rows;
    zero = scratch.floats(units);
    cells = scratch.floats(rows * units);
    unsaved = scratch.floats(call.gates ? 0 : chunk * 4 * units);
    x_entries = scratch.floats(call.x ? chunk * room(call.dims.features) : 0);
    h_entries = scratch.floats(rows * room(call.dims.hidden));
    x_rows = scratch.pointers<const float*>(chunk);
    z_rows = scratch.pointers<float*>(chunk);
    h_now = scratch.pointers<const float*>(rows);
    h = scratch.pointers<const float*>(rows);
    of_id = scratch.pointers<const float*>(rows);
    z = scratch.pointers<float*>(rows);
    c = scratch.pointers<float*>(rows);
    c_before = scratch.pointers<float*>(rows);
    output = scratch.pointers<float*>(rows);
  }
};

INLINE void load_bias(const Forward& call, int64_t unit, Vec (&bias)[4]) {
  int64_t hidden = call.dims.hidden;
  for (int gate = 0; gate < 4; ++gate) {
    bias[gate] = load_some(call.bias + gate * hidden + unit, most(0, hidden - unit));
  }
}

// sums = x_t * kernel_ih + bias, which is ready in z, or for an id bias and a row of kernel_ih.
template <int R>
INLINE void load_inputs(const Forward& call, const ForwardScratch& cells, int64_t row,
                        int64_t block, Vec (&sums)[R][4]) {
  int64_t units = padded(call.dims.hidden), unit = block * LANES;
  Vec bias[4];
  if (call.ids) load_bias(call, unit, bias);
  for (int r = 0; r < R; ++r) {
    const float* of_id = cells.of_id[row + r];
    const float* packed = of_id ? of_id + block * call.dims.features * WIDTH : nullptr;
    auto of_gate = [&](int gate) { return load(packed + in_block(call.dims.features, 0, gate)); };
    for (int gate = 0; gate < 4; ++gate) {
      if (!call.ids) {
        sums[r][gate] = load(cells.z[row + r] + gate * units + unit);
      } else {
        Vec entries = packed ? of_gate(gate) : splat(__builtin_nanf(""));
        sums[r][gate] = bias[gate] + entries;
      }
    }
  }
}

// One step of some rows, for the units of a block: c and h from z + h_{t-1} * kernel_hh.
template <int R>
INLINE void forward_tile(const Forward& call, const ForwardScratch& cells, int64_t row, int64_t block) {
  int64_t hidden = call.dims.hidden, units = padded(hidden), unit = block * LANES;
  Vec sums[R][4];
  load_inputs(call, cells, row, block, sums);
  int64_t depth = entries_of(hidden);
  multiply<R, 4>(sums, cells.h + row, call.packed_hh + block * depth * WIDTH, depth);
  for (int r = 0; r < R; ++r) {
    Vec i = sigmoid(sums[r][0]), f = sigmoid(sums[r][1]);
    Vec g = tanh(sums[r][2]), o = sigmoid(sums[r][3]);
    float* c = cells.c[row + r] + unit;
    Vec before = load(c), after = f * before + i * g;
    store(c, after);
    store_some(cells.output[row + r] + unit, o * tanh(after), hidden - unit);
    if (call.gates) {
      float* gates = cells.z[row + r] + unit;
      store(gates, i);
      store(gates + units, f);
      store(gates + 2 * units, g);
      store(gates + 3 * units, o);
      store(cells.c_before[row + r] + unit, before);
    }
  }
}

void forward(const Forward& call, int64_t begin, int64_t end, float* memory) {
  auto [time, batch, features, hidden] = call.dims;
  int64_t units = padded(hidden), rows = end - begin, blocks = gate_blocks(hidden);
  int64_t chunk = steps_at_once(call.dims, rows);
  Scratch scratch{memory};
  ForwardScratch own(scratch, call, rows);
  fill_zero(own.zero, units);
  fill_zero(own.cells, rows * units);
  for (int64_t r = 0; r < rows; ++r) {
    copy(call.c_first + (begin + r) * hidden, hidden, own.cells + r * units);
    own.h_now[r] = call.h_first + (begin + r) * hidden;
  }
  for (int64_t first = 0; first < time; first += chunk) {
    int64_t steps = least(chunk, time - first);
    for (int64_t s = 0; s < steps; ++s) {
      int64_t t = call.reverse ? time - 1 - first - s : first + s;
      for (int64_t r = 0; r < rows; ++r) {
        int64_t at = t * batch + begin + r, to = s * rows + r;
        own.x_rows[to] = call.x ? row_entries(call.x + at * features, features,
                                              own.x_entries + to * room(features))
                                : nullptr;
        own.z_rows[to] = call.gates ? call.gates + at * 4 * units : own.unsaved + to * 4 * units;
      }
    }
    for (int64_t block = 0; call.x && block < blocks; ++block) {
      int64_t unit = block * LANES;
      const float* packed_ih = call.packed_ih + block * entries_of(features) * WIDTH;
      Vec bias[4];
      load_bias(call, unit, bias);
      in_tiles(steps * rows, [&](auto size, int64_t row) {
        constexpr int R = decltype(size)::value;
        Vec sums[R][4];
        for (int r = 0; r < R; ++r) {
          for (int gate = 0; gate < 4; ++gate) sums[r][gate] = bias[gate];
        }
        multiply<R, 4>(sums, own.x_rows + row, packed_ih, entries_of(call.dims.features));
        for (int r = 0; r < R; ++r) {
          for (int gate = 0; gate < 4; ++gate) {
            store(own.z_rows[row + r] + gate * units + unit, sums[r][gate]);
          }
        }
      });
    }
    for (int64_t s = 0; s < steps; ++s) {
      int64_t t = call.reverse ? time - 1 - first - s : first + s, running = 0;
      for (int64_t r = 0; r < rows; ++r) {
        int64_t at = t * batch + begin + r;
        float* output = call.outputs + at * hidden;
        uint8_t flag = call.flags ? call.flags[at] : 0;
        if (flag & INVALID) {
          fill_zero(output, hidden);
          continue;
        }
        if (flag & RESET) {
          own.h_now[r] = own.zero;
          fill_zero(own.cells + r * units, units);
        }
        bool known = call.ids && is_feature(call.ids[at], call.dims);
        own.of_id[running] = known ? call.packed_ih + in_block(0, call.ids[at], 0) : nullptr;
        own.h[running] = row_entries(own.h_now[r], hidden, own.h_entries + running * room(hidden));
        own.z[running] = own.z_rows[s * rows + r];
        own.c[running] = own.cells + r * units;
        own.c_before[running] = call.c_before ? call.c_before + at * units : nullptr;
        own.output[running++] = output;
        own.h_now[r] = output;
      }
      for (int64_t block = 0; block < blocks; ++block) {
        in_tiles(running, [&](auto size, int64_t row) {
          forward_tile<decltype(size)::value>(call, own, row, block);
        });
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    copy(own.h_now[r], hidden, call.h_last + (begin + r) * hidden);
    copy(own.cells + r * units, hidden, call.c_last + (begin + r) * hidden);
  }
}

// ---- backward ----

struct BackwardScratch {
  float *d_h, *d_c;  // of the state after a step
  float* dz_entries;
  const float** dz_rows;
  float** d_h_rows;

  BackwardScratch(Scratch& scratch, const Backward& call, int64_t rows) {
    int64_t units = padded(call.dims.hidden);
    d_h = scratch.floats(rows * units);
    d_c = scratch.floats(rows * units);
    dz_entries = scratch.floats(rows * room(4 * units));
    dz_rows = scratch.pointers<const float*>(rows);
    d_h_rows = scratch.pointers<float*>(rows);
  }
};

// Scale an array to the bound if its norm is above it, as `clip_cotangent_norm` does.
void clip_norm(float* d, int64_t size, float bound) {
  constexpr float LARGEST = 0x1.fffffep127f, TINY = 0x1p-126f;
  float scale = 0;
  bool infinite = false;
  for (int64_t k = 0; k < size; ++k) {
    float magnitude = __builtin_fabsf(d[k]);
    infinite |= magnitude > LARGEST;
    scale = magnitude > scale ? magnitude : scale;
  }
  scale = scale > LARGEST / 4 ? LARGEST / 4 : scale < 4 * TINY ? 4 * TINY : scale;
  // infinities become their signs, and finite numbers 0 next to them; a NaN makes the sum NaN
  auto scaled = [&](float x) {
    return !infinite ? x / scale : x > LARGEST ? 1.0f : x < -LARGEST ? -1.0f : x != x ? x : 0.0f;
  };
  float square = 0;
  for (int64_t k = 0; k < size; ++k) square += scaled(d[k]) * scaled(d[k]);
  float root = __builtin_sqrtf(square);
  if (!(scale * root > bound)) return;
  float factor = bound / (root > 0 ? root : 1);
  for (int64_t k = 0; k < size; ++k) d[k] = scaled(d[k]) * factor;
}

struct Activations {
  Vec i, f, g, o, before, tanh_c;
};

INLINE Activations activations(const float* gates, const float* c_before, int64_t units) {
  Activations a{load(gates), load(gates + units), load(gates + 2 * units),
                load(gates + 3 * units), load(c_before), Vec{}};
  a.tanh_c = tanh(a.f * a.before + a.i * a.g);
  return a;
}

INLINE Vec cell_cotangent(const Activations& a, Vec d_h, Vec d_c) {
  return d_c + d_h * a.o * (1.0f - a.tanh_c * a.tanh_c);
}

struct GateCotangents {
  Vec i, f, g, o;
};

INLINE GateCotangents gate_cotangents(const Activations& a, Vec d_h, Vec d_c) {
  return {d_c * a.g * (a.i * (1.0f - a.i)), d_c * a.before * (a.f * (1.0f - a.f)),
          d_c * a.i * (1.0f - a.g * a.g), d_h * a.tanh_c * (a.o * (1.0f - a.o))};
}

// Store dz of some units, of which `known` exist. The padding is 0: NaN there would reach all units.
INLINE void store_cotangents(GateCotangents d, float* gates, int64_t units, int64_t known) {
  if (known < LANES) d = {keep(d.i, known), keep(d.f, known), keep(d.g, known), keep(d.o, known)};
  store(gates, d.i);
  store(gates + units, d.f);
  store(gates + 2 * units, d.g);
  store(gates + 3 * units, d.o);
}

struct Row {
  float* gates;            // replaced by dz
  const float* c_before;
  const float* d_output;
  float* d_h;              // of the state after the step; the clip replaces it
  float* d_c;              // of the state after the step, then of the one before
};

template <bool CLIPPED>
void backward_row(const Row& row, int64_t hidden, const float* bounds) {
  int64_t units = padded(hidden);
  auto clipped = [&](Vec d, int of) {
    return CLIPPED ? clamp(d, splat(bounds[2 * of]), splat(bounds[2 * of + 1])) : d;
  };
  for (int64_t u = 0; u < units; u += LANES) {
    Activations a = activations(row.gates + u, row.c_before + u, units);
    Vec d_h = load(row.d_h + u) + load_some(row.d_output + u, most(0, hidden - u));
    d_h = clipped(d_h, 0);
    Vec d_c = clipped(cell_cotangent(a, d_h, load(row.d_c + u)), 1);
    GateCotangents d = gate_cotangents(a, d_h, d_c);
    d = {clipped(d.i, 2), clipped(d.f, 2), clipped(d.g, 2), clipped(d.o, 2)};
    store_cotangents(d, row.gates + u, units, hidden - u);
    store(row.d_c + u, d_c * a.f);
  }
}

// A norm needs all units of a row before the next formula can begin.
void backward_row_with_norms(const Row& row, int64_t hidden, const float* bounds) {
  int64_t units = padded(hidden);
  for (int64_t u = 0; u < units; u += LANES) {
    store(row.d_h + u, load(row.d_h + u) + load_some(row.d_output + u, most(0, hidden - u)));
  }
  clip_norm(row.d_h, hidden, bounds[1]);
  for (int64_t u = 0; u < units; u += LANES) {
    Activations a = activations(row.gates + u, row.c_before + u, units);
    store(row.d_c + u, cell_cotangent(a, load(row.d_h + u), load(row.d_c + u)));
  }
  clip_norm(row.d_c, hidden, bounds[3]);
  for (int64_t u = 0; u < units; u += LANES) {
    Activations a = activations(row.gates + u, row.c_before + u, units);
    Vec d_c = load(row.d_c + u);
    store_cotangents(gate_cotangents(a, load(row.d_h + u), d_c), row.gates + u, units, hidden - u);
    store(row.d_c + u, d_c * a.f);
  }
  clip_norm(row.gates, 4 * units, bounds[5]);
}

void backward(const Backward& call, int64_t begin, int64_t end, float* memory) {
  auto [time, batch, features, hidden] = call.dims;
  int64_t units = padded(hidden), rows = end - begin;
  Scratch scratch{memory};
  BackwardScratch own(scratch, call, rows);
  fill_zero(own.d_h, rows * units);
  fill_zero(own.d_c, rows * units);
  for (int64_t r = 0; r < rows; ++r) {
    copy(call.d_h_last + (begin + r) * hidden, hidden, own.d_h + r * units);
    copy(call.d_c_last + (begin + r) * hidden, hidden, own.d_c + r * units);
  }
  for (int64_t s = time - 1; s >= 0; --s) {
    int64_t t = call.reverse ? time - 1 - s : s, running = 0;
    for (int64_t r = 0; r < rows; ++r) {
      int64_t at = t * batch + begin + r;
      uint8_t flag = call.flags ? call.flags[at] : 0;
      Row row{call.gates + at * 4 * units, call.c_before + at * units,
              call.d_outputs + at * hidden, own.d_h + r * units, own.d_c + r * units};
      if (flag & INVALID) {
        fill_zero(row.gates, 4 * units);
        continue;
      }
      switch (call.clip) {
        case Clip::NONE: backward_row<false>(row, hidden, call.bounds); break;
        case Clip::ENTRIES: backward_row<true>(row, hidden, call.bounds); break;
        case Clip::NORM: backward_row_with_norms(row, hidden, call.bounds); break;
      }
      if (flag & RESET) fill_zero(row.d_c, units);
      if (flag & (RESET | DETACH)) {
        fill_zero(row.d_h, units);
        continue;
      }
      own.dz_rows[running] =
          row_entries(row.gates, 4 * units, own.dz_entries + running * room(4 * units));
      own.d_h_rows[running++] = row.d_h;
    }
    over_columns(running, hidden, entries_of(4 * units), call.packed_hh_t,
                 [&](auto tile, auto vectors, int64_t row, int64_t column, const float* block) {
                   constexpr int R = decltype(tile)::value, G = decltype(vectors)::value;
                   Vec sums[R][G] = {};
                   multiply<R, G>(sums, own.dz_rows + row, block, entries_of(4 * units));
                   for (int r = 0; r < R; ++r) {
                     for (int v = 0; v < G; ++v) {
                       store(own.d_h_rows[row + r] + column + v * LANES, sums[r][v]);
                     }
                   }
                 });
  }
  for (int64_t r = 0; r < rows; ++r) {
    copy(own.d_h + r * units, hidden, call.d_h_first + (begin + r) * hidden);
    copy(own.d_c + r * units, hidden, call.d_c_first + (begin + r) * hidden);
  }
}

// ---- gradients of inputs and weights ----

struct InputScratch {
  float* dz_entries;

  InputScratch(Scratch& scratch, const InputGradient& call, int64_t rows) {
    dz_entries = scratch.floats(least(rows, CHUNK) * room(4 * padded(call.dims.hidden)));
  }
};

void input_gradient(const InputGradient& call, int64_t begin, int64_t end, float* memory) {
  int64_t features = call.dims.features, columns = 4 * padded(call.dims.hidden);
  int64_t depth = entries_of(columns);
  Scratch scratch{memory};
  InputScratch own(scratch, call, end - begin);
  for (int64_t first = begin; first < end; first += CHUNK) {
    int64_t rows = least(CHUNK, end - first);
    const float* dz_rows[CHUNK];
    for (int64_t r = 0; r < rows; ++r) {
      dz_rows[r] = row_entries(call.dz + (first + r) * columns, columns,
                               own.dz_entries + r * room(columns));
    }
    over_columns(rows, features, depth, call.packed_ih_t,
                 [&](auto tile, auto vectors, int64_t row, int64_t column, const float* block) {
                   constexpr int R = decltype(tile)::value, G = decltype(vectors)::value;
                   Vec sums[R][G] = {};
                   multiply<R, G>(sums, dz_rows + row, block, depth);
                   for (int r = 0; r < R; ++r) {
                     for (int v = 0; v < G; ++v) {
                       int64_t at = column + v * LANES;
                       store_some(call.d_x + (first + row + r) * features + at, sums[r][v],
                                  features - at);
                     }
                   }
                 });
  }
}

// Blocks whose sums stay in the cache while the rows of x, h and dz pass by.
int64_t blocks_at_once(const Dims& dims) {
  constexpr int64_t FLOATS = PARTS << 16;  // the rows are paired anew for as many blocks
  return most(1, FLOATS / ((dims.features + dims.hidden + 1) * WIDTH));
}

struct WeightScratch {
  float *zero, *sums, *dz;  // a row of zeros; sums of the inputs, of h and of the bias
  float* of_ids;            // sums of the inputs over the rows since they were last added to `sums`
  float *x_entries, *h_entries;
  const float **x_rows, **h_rows;  // of the factors of dz, PARTS rows in one

  WeightScratch(Scratch& scratch, const WeightGradient& call, int64_t blocks) {
    auto [time, batch, features, hidden] = call.dims;
    zero = scratch.floats(most(features, hidden));
    sums = scratch.floats(least(blocks, blocks_at_once(call.dims)) * (features + hidden + 1) * WIDTH);
    dz = scratch.floats(DEPTH * WIDTH);
    of_ids = scratch.floats(call.ids ? least(blocks, blocks_at_once(call.dims)) * features * WIDTH : 0);
    x_entries = scratch.floats(call.x ? entries_of(DEPTH) * pair_room(features) : 0);
    h_entries = scratch.floats(entries_of(DEPTH) * pair_room(hidden));
    x_rows = scratch.pointers<const float*>(DEPTH);
    h_rows = scratch.pointers<const float*>(DEPTH);
  }
};

// The h that a row read in a step.
INLINE const float* h_before(const WeightGradient& call, int64_t at, const float* zero) {
  auto [time, batch, features, hidden] = call.dims;
  int64_t t = at / batch, row = at % batch, before = call.reverse ? t + 1 : t - 1;
  if (call.flags && call.flags[at] & RESET) return zero;
  bool first = before < 0 || before >= time;
  if (first || (call.flags && call.flags[before * batch + row] & INVALID)) {
    return call.h_first + row * hidden;
  }
  return call.outputs + (before * batch + row) * hidden;
}

// sums[m] += sum over k of rows[k][m] * dz[k], for R of the m; sums [R, WIDTH], dz a packed block.
template <int R, int FIRST = 0>
__attribute__((noinline)) void add_outer_products(const float* const* rows, int64_t first,
                                                  const float* dz, int64_t depth, float* result) {
  Vec sums[R][PASS] = {};
  const float* part = dz + in_block(depth, 0, FIRST);
  for (int64_t k = 0; k < depth; ++k, part += PASS * LANES) {
    const float* entries = rows[k] + first;
    __builtin_prefetch(entries + 16);  // of the next tiles: hardware does not follow this pattern
    Vec factors[PASS];
    for (int v = 0; v < PASS; ++v) factors[v] = load(part + v * LANES);
    for (int r = 0; r < R; ++r) {
      Vec entry = splat(entries[r]);
      for (int v = 0; v < PASS; ++v) sums[r][v] = add_product(sums[r][v], entry, factors[v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < PASS; ++v) {
      float* sum = result + r * WIDTH + (FIRST + v) * LANES;
      store(sum, load(sum) + sums[r][v]);
    }
  }
  if constexpr (FIRST + PASS < GROUP) {
    add_outer_products<R, FIRST + PASS>(rows, first, dz, depth, result);
  }
}

INLINE void add_vectors(const float* from, int64_t size, float* to) {
  for (int64_t k = 0; k < size; k += LANES) store(to + k, load(to + k) + load(from + k));
}

// Make the entries of pairs of rows from `depth` rows, of which the last may be alone.
INLINE void pair_rows(const float** rows, int64_t depth, int64_t size, const float* zero, float* to) {
  if constexpr (PARTS == 1) return;
  for (int64_t k = 0; k < depth; k += 2, to += pair_room(size)) {
    const float *first = rows[k], *second = k + 1 < depth ? rows[k + 1] : zero;
    for (int64_t m = 0; m < size; m += LANES) {
      store(to + m, paired(load_some(first + m, size - m), load_some(second + m, size - m)));
    }
    rows[k / 2] = to;
  }
}

// Add the products of some rows to the sums of a block.
void add_rows(const WeightGradient& call, const WeightScratch& own, int64_t first, int64_t depth,
              int64_t block, float* sums, float* of_ids) {
  auto [time, batch, features, hidden] = call.dims;
  int64_t columns = 4 * padded(hidden), length = entries_of(depth);
  const float* dz = call.dz + first * columns + block * WIDTH;
  Vec bias[GROUP] = {};
  for (int64_t k = 0; k < depth; k += PARTS) {
    for (int v = 0; v < GROUP; ++v) {
      Vec part = load(dz + k * columns + v * LANES), next{};
      bias[v] += part;
      if (PARTS > 1 && k + 1 < depth) next = load(dz + (k + 1) * columns + v * LANES);
      if (PARTS > 1) bias[v] += next;
      store(own.dz + in_block(length, k / PARTS, v), PARTS == 1 ? part : paired(part, next));
    }
  }
  auto add = [&](const float* const* rows, int64_t count, float* to) {
    in_tiles(count, [&](auto size, int64_t m) {
      add_outer_products<decltype(size)::value>(rows, m, own.dz, length, to + m * WIDTH);
    });
  };
  if (call.x) add(own.x_rows, features, sums);
  for (int64_t k = 0; call.ids && k < depth; ++k) {
    int32_t id = call.ids[first + k];
    if (!is_feature(id, call.dims)) continue;
    add_vectors(dz + k * columns, WIDTH, of_ids + id * WIDTH);
  }
  add(own.h_rows, hidden, sums + features * WIDTH);
  for (int v = 0; v < GROUP; ++v) {
    float* sum = sums + (features + hidden) * WIDTH + v * LANES;
    store(sum, load(sum) + bias[v]);
  }
}

// Copy the sums of a block to the gradients, without the padding.
void store_sums(const WeightGradient& call, int64_t block, const float* sums) {
  auto [time, batch, features, hidden] = call.dims;
  for (int v = 0; v < GROUP; ++v) {  // a vector is within one gate: padded(hidden) % LANES is 0
    int64_t column = block * WIDTH + v * LANES, unit = column % padded(hidden);
    if (unit >= hidden) continue;
    int64_t at = column / padded(hidden) * hidden + unit;
    for (int64_t m = 0; m <= features + hidden; ++m) {
      float* to = m < features            ? call.d_kernel_ih + m * 4 * hidden
                  : m < features + hidden ? call.d_kernel_hh + (m - features) * 4 * hidden
                                          : call.d_bias;
      store_some(to + at, load(sums + m * WIDTH + v * LANES), hidden - unit);
    }
  }
}

void weight_gradient(const WeightGradient& call, int64_t begin, int64_t end, float* memory) {
  auto [time, batch, features, hidden] = call.dims;
  int64_t size = (features + hidden + 1) * WIDTH, all = time * batch, for_ids = features * WIDTH;
  Scratch scratch{memory};
  WeightScratch own(scratch, call, end - begin);
  fill_zero(own.zero, most(features, hidden));
  while (begin < end) {
    int64_t blocks = least(blocks_at_once(call.dims), end - begin);
    fill_zero(own.sums, blocks * size);
    if (call.ids) fill_zero(own.of_ids, blocks * for_ids);
    for (int64_t first = 0; first < all; first += DEPTH) {
      int64_t depth = least(DEPTH, all - first);
      for (int64_t k = 0; k < depth; ++k) {
        own.x_rows[k] = call.x ? call.x + (first + k) * features : nullptr;
        own.h_rows[k] = h_before(call, first + k, own.zero);
      }
      if (call.x) pair_rows(own.x_rows, depth, features, own.zero, own.x_entries);
      pair_rows(own.h_rows, depth, hidden, own.zero, own.h_entries);
      for (int64_t block = 0; block < blocks; ++block) {
        float *sums = own.sums + block * size, *of_ids = own.of_ids + block * for_ids;
        add_rows(call, own, first, depth, begin + block, sums, of_ids);
        bool ends = first + depth == all || first / DEPTH % DEPTHS == DEPTHS - 1;
        if (call.ids && ends) {
          add_vectors(of_ids, for_ids, sums);
          fill_zero(of_ids, for_ids);
        }
      }
    }
    for (int64_t block = 0; block < blocks; ++block) {
      store_sums(call, begin + block, own.sums + block * size);
    }
    begin += blocks;
  }
}

// ---- activations alone ----

template <Vec (*F)(Vec)>
void apply(const float* x, int64_t size, float* y) {
  for (int64_t k = 0; k < size; k += LANES) {
    store_some(y + k, F(load_some(x + k, size - k)), size - k);
  }
}

}  // namespace

extern const Kernels TABLE;
const Kernels TABLE = {
    NAME,
    gate_blocks,
    packed_gates,
    pack_gates,
    column_blocks,
    packed_columns,
    pack_columns,
    scratch_size<ForwardScratch, Forward>,
    forward,
    scratch_size<BackwardScratch, Backward>,
    backward,
    scratch_size<InputScratch, InputGradient>,
    input_gradient,
    scratch_size<WeightScratch, WeightGradient>,
    weight_gradient,
    apply<tanh>,
    apply<sigmoid>,
};

}  // namespace lstm_optax
