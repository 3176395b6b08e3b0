// What the kernels compute, and the table of functions that each instruction set has of its own.
//
// Arrays are float32 and row-major, gates in the order i, f, g, o. `hidden` is padded to a multiple
// of PAD in private arrays (gates, cells, scratch), with zeros in the padding; the arrays of the
// caller are not padded.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace lstm_optax {

constexpr int64_t PAD = 16;  // the most lanes of a vector

constexpr int64_t padded(int64_t size) { return (size + PAD - 1) / PAD * PAD; }

struct Dims {
  int64_t time, rows, features, hidden;
};

// An id that is no feature stands for an input of NaN.
inline bool is_feature(int32_t id, const Dims& dims) { return id >= 0 && id < dims.features; }

// Bits of a row's flags in one step. The valid steps of a row are its first, in the order of time.
enum Flag : uint8_t { RESET = 1, INVALID = 2, DETACH = 4 };

struct Forward {
  Dims dims;
  bool reverse;
  const float* x;         // [time, rows, features]; null if there are ids
  const int32_t* ids;     // [time, rows] or null: one feature is 1 and the others are 0
  const float* h_first;   // [rows, hidden]
  const float* c_first;   // [rows, hidden]
  const float* bias;      // [4 * hidden]
  const uint8_t* flags;   // [time, rows], or null if no flag is set
  const float* packed_ih; // by pack_gates
  const float* packed_hh; // by pack_gates
  float* outputs;         // [time, rows, hidden]
  float* h_last;          // [rows, hidden]
  float* c_last;          // [rows, hidden]
  float* gates;           // [time, rows, 4, padded(hidden)]; null: nothing is saved
  float* c_before;        // [time, rows, padded(hidden)]: the cell that the step read; or null
};

enum class Clip : int64_t { NONE = 0, ENTRIES = 1, NORM = 2 };

struct Backward {
  Dims dims;
  bool reverse;
  const float* c_before;    // [time, rows, padded(hidden)]
  const float* d_outputs;   // [time, rows, hidden]
  const float* d_h_last;    // [rows, hidden]
  const float* d_c_last;    // [rows, hidden]
  const uint8_t* flags;     // [time, rows] or null
  const float* packed_hh_t; // by pack_transposed
  Clip clip;
  const float* bounds;      // low and high of h, of c and of gates; with Clip::NORM high alone counts
  float* gates;             // [time, rows, 4, padded(hidden)]: read, then overwritten by dz
  float* d_h_first;         // [rows, hidden]
  float* d_c_first;         // [rows, hidden]
};

struct InputGradient {
  Dims dims;
  const float* dz;          // [time, rows, 4, padded(hidden)]
  const float* packed_ih_t; // by pack_transposed
  float* d_x;               // [time, rows, features]
};

struct WeightGradient {
  Dims dims;
  bool reverse;
  const float* x;        // [time, rows, features]; null if there are ids
  const int32_t* ids;    // [time, rows] or null, as in Forward
  const float* h_first;  // [rows, hidden]
  const float* outputs;  // [time, rows, hidden]
  const uint8_t* flags;  // [time, rows] or null
  const float* dz;       // [time, rows, 4, padded(hidden)]
  float* d_kernel_ih;    // [features, 4 * hidden]
  float* d_kernel_hh;    // [hidden, 4 * hidden]
  float* d_bias;         // [4 * hidden]
};

// The functions of one instruction set. Those with a range [begin, end) run it on one thread; sizes
// are in floats.
struct Kernels {
  const char* name;
  // A [depth, 4 * hidden] kernel in blocks: a block holds all gates of LANES units.
  int64_t (*gate_blocks)(int64_t hidden);
  // An id selects a row, which is not rounded.
  int64_t (*packed_gates)(int64_t depth, int64_t hidden, bool for_ids);
  void (*pack_gates)(const float* kernel, int64_t depth, int64_t hidden, bool for_ids, int64_t begin,
                     int64_t end, float* packed);
  // The transpose of a [columns, 4 * hidden] kernel, in blocks of columns.
  int64_t (*column_blocks)(int64_t columns);
  int64_t (*packed_columns)(int64_t columns, int64_t hidden);
  void (*pack_columns)(const float* kernel, int64_t columns, int64_t hidden, int64_t begin,
                       int64_t end, float* packed);
  // Rows [begin, end) of the batch, all steps.
  int64_t (*forward_scratch)(const Forward&, int64_t rows);
  void (*forward)(const Forward&, int64_t begin, int64_t end, float* scratch);
  int64_t (*backward_scratch)(const Backward&, int64_t rows);
  void (*backward)(const Backward&, int64_t begin, int64_t end, float* scratch);
  // Rows [begin, end) of time * rows.
  int64_t (*input_scratch)(const InputGradient&, int64_t rows);
  void (*input_gradient)(const InputGradient&, int64_t begin, int64_t end, float* scratch);
  // Blocks [begin, end) of the columns of dz, as many as gate_blocks.
  int64_t (*weight_scratch)(const WeightGradient&, int64_t blocks);
  void (*weight_gradient)(const WeightGradient&, int64_t begin, int64_t end, float* scratch);
  // For the tests of their errors.
  void (*tanh)(const float* x, int64_t size, float* y);
  void (*sigmoid)(const float* x, int64_t size, float* y);
};

extern const Kernels BASELINE, AVX2, AVX512, NEON;  // defined for the machine that is compiled for

// Rounds the factors of all products to bfloat16, and adds them up in float32. At address 0 where
// the compiler did not have the instructions.
extern const Kernels AVX512_BF16 __attribute__((weak));

}  // namespace lstm_optax
