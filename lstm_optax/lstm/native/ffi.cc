// The calls that XLA makes: they check shapes, choose the kernels and split the work over threads.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "instructions.h"
#include "memory.h"
#include "threads.h"
#include "xla/ffi/api/c_api.h"

// The interface that JAX 0.10 has. Later headers ask for later versions of it, which JAX 0.10 would
// refuse, but nothing here needs them.
#undef XLA_FFI_API_MINOR
#define XLA_FFI_API_MINOR 3

#include "xla/ffi/api/ffi.h"

namespace lstm_optax {
namespace {

namespace ffi = xla::ffi;

const Kernels* best() {
  for (const Kernels* kernels : ALL) {
    if (runs_here(kernels)) return kernels;
  }
  return nullptr;
}

std::atomic<const Kernels*> chosen{nullptr};

// The kernels in use; with `bfloat16` those that round the factors of products, if there are any.
const Kernels& kernels(bool bfloat16 = false) {
  if (!chosen) chosen = best();
  const Kernels* rounding = bfloat16 ? in_bfloat16(chosen) : nullptr;
  return rounding ? *rounding : *chosen;
}

using Floats = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::U8>;
using Result = ffi::Result<Floats>;
using Shape = std::initializer_list<int64_t>;

// x [time, rows, features], or ids [time, rows] of features.
struct Input {
  const float* x = nullptr;
  const int32_t* ids = nullptr;
  int64_t time = 0, rows = 0, features = 0;

  // `kernel_ih` [features, 4 * hidden], or its gradient.
  Input(ffi::AnyBuffer buffer, Floats kernel_ih) {
    auto dims = buffer.dimensions();
    if (kernel_ih.dimensions().size() != 2) return;
    if (buffer.element_type() == ffi::F32 && dims.size() == 3) {
      x = static_cast<const float*>(buffer.untyped_data());
      features = dims[2];
    } else if (buffer.element_type() == ffi::S32 && dims.size() == 2) {
      ids = static_cast<const int32_t*>(buffer.untyped_data());
      features = kernel_ih.dimensions()[0];
    } else {
      return;
    }
    time = dims[0], rows = dims[1];
  }
  // Whether the buffer is one of both.
  bool known() const { return x || ids; }
};

// Shapes that differ from the expected ones, collected over all arrays of a call.
class Shapes {
 public:
  template <class Array>
  Shapes& check(const char* name, Array& array, Shape expected) {
    auto dims = array.dimensions();
    if (std::equal(dims.begin(), dims.end(), expected.begin(), expected.end())) return *this;
    wrong_ += std::string(wrong_.empty() ? "" : "; ") + name + " has shape " + text(dims) +
              ", expected " + text(expected);
    return *this;
  }
  ffi::Error error() const {
    return wrong_.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(wrong_);
  }

 private:
  template <class Sizes>
  static std::string text(const Sizes& sizes) {
    std::string text;
    for (int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return "[" + text + "]";
  }
  std::string wrong_;
};

// Ask for huge pages before the first write: a large new array is then mapped in few page faults.
void map_in_huge_pages(float* data, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 1 << 21;
  uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + PAGE - 1) & ~(PAGE - 1);
  uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) & ~(PAGE - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

const uint8_t* flags_or_null(Bytes flags) {
  return flags.dimensions()[0] ? flags.typed_data() : nullptr;
}

// A call without exceptions, which XLA does not catch.
template <auto CALL>
struct Safe;
template <class... Arguments, ffi::Error (*CALL)(Arguments...)>
struct Safe<CALL> {
  static ffi::Error call(Arguments... arguments) {
    try {
      return CALL(arguments...);
    } catch (const std::bad_alloc&) {
      return ffi::Error(ffi::ErrorCode::kResourceExhausted, "out of memory");
    } catch (const std::exception& error) {
      return ffi::Error::Internal(error.what());
    }
  }
};

// Operations of a part of some work: to wake a thread takes as long as about this many.
constexpr double MULTIPLY_ADDS = 1e6, MOVED = 5e5;

// One part for each thread, unless there are fewer than `grain` operations for it.
int64_t parts_of(ffi::ThreadPool& pool, double operations, double grain) {
  int64_t threads = std::max<int64_t>(1, pool.num_threads());
  return std::max<int64_t>(1, std::min<int64_t>(threads, operations / grain));
}

ffi::Error forward_call(ffi::ThreadPool pool, ffi::AnyBuffer x, Floats kernel_ih, Floats kernel_hh,
                        Floats bias, Floats h, Floats c, Bytes flags, Result outputs, Result h_last,
                        Result c_last, Result gates, Result c_before, bool reverse,
                        bool bfloat16) {
  Input input(x, kernel_ih);
  if (!input.known() || h.dimensions().size() != 2) {
    return ffi::Error::InvalidArgument("x or h has a wrong rank or type");
  }
  int64_t time = input.time, rows = input.rows, features = input.features;
  int64_t hidden = h.dimensions()[1], units = padded(hidden);
  int64_t flagged = flags.element_count() ? time : 0, saved = gates->element_count() ? time : 0;
  auto error = Shapes()
                   .check("kernel_ih", kernel_ih, {features, 4 * hidden})
                   .check("kernel_hh", kernel_hh, {hidden, 4 * hidden})
                   .check("bias", bias, {4 * hidden})
                   .check("h", h, {rows, hidden})
                   .check("c", c, {rows, hidden})
                   .check("flags", flags, {flagged, rows})
                   .check("outputs", *outputs, {time, rows, hidden})
                   .check("h_last", *h_last, {rows, hidden})
                   .check("c_last", *c_last, {rows, hidden})
                   .check("gates", *gates, {saved, rows, 4, units})
                   .check("c_before", *c_before, {saved, rows, units})
                   .error();
  if (error.failure()) return error;
  map_in_huge_pages(outputs->typed_data(), outputs->size_bytes());
  map_in_huge_pages(gates->typed_data(), gates->size_bytes());
  map_in_huge_pages(c_before->typed_data(), c_before->size_bytes());

  const Kernels& kernel = kernels(bfloat16);
  int64_t for_ih = kernel.packed_gates(features, hidden, input.ids);
  Buffer packed(for_ih + kernel.packed_gates(hidden, hidden, false));
  float *packed_ih = packed.data(), *packed_hh = packed_ih + for_ih;
  double weights = 4.0 * hidden * (features + hidden);
  double products = 4.0 * hidden * ((input.x ? features : 0) + hidden);
  auto pack = [&](int64_t begin, int64_t end) {
    kernel.pack_gates(kernel_ih.typed_data(), features, hidden, input.ids, begin, end, packed_ih);
    kernel.pack_gates(kernel_hh.typed_data(), hidden, hidden, false, begin, end, packed_hh);
  };
  in_parallel(pool, kernel.gate_blocks(hidden), parts_of(pool, weights, MOVED), pack);
  Forward call{{time, rows, features, hidden}, reverse, input.x, input.ids, h.typed_data(),
               c.typed_data(), bias.typed_data(), flags_or_null(flags), packed_ih, packed_hh,
               outputs->typed_data(), h_last->typed_data(), c_last->typed_data(),
               saved ? gates->typed_data() : nullptr, saved ? c_before->typed_data() : nullptr};
  auto run = [&](int64_t begin, int64_t end) {
    Buffer scratch(kernel.forward_scratch(call, end - begin));
    kernel.forward(call, begin, end, scratch.data());
  };
  in_parallel(pool, rows, parts_of(pool, products * time * rows, MULTIPLY_ADDS), run);
  return ffi::Error::Success();
}

ffi::Error backward_call(ffi::ThreadPool pool, Floats gates, Floats c_before, Floats kernel_hh,
                         Floats d_outputs, Floats d_h_last, Floats d_c_last, Bytes flags,
                         Floats bounds, Result dz, Result d_h_first, Result d_c_first,
                         bool reverse, bool bfloat16, int64_t clip) {
  if (d_outputs.dimensions().size() != 3) {
    return ffi::Error::InvalidArgument("d_outputs has a wrong rank");
  }
  int64_t time = d_outputs.dimensions()[0], rows = d_outputs.dimensions()[1];
  int64_t hidden = d_outputs.dimensions()[2], units = padded(hidden);
  int64_t flagged = flags.element_count() ? time : 0;
  auto error = Shapes()
                   .check("gates", gates, {time, rows, 4, units})
                   .check("c_before", c_before, {time, rows, units})
                   .check("kernel_hh", kernel_hh, {hidden, 4 * hidden})
                   .check("d_h_last", d_h_last, {rows, hidden})
                   .check("d_c_last", d_c_last, {rows, hidden})
                   .check("flags", flags, {flagged, rows})
                   .check("bounds", bounds, {6})
                   .check("dz", *dz, {time, rows, 4, units})
                   .check("d_h_first", *d_h_first, {rows, hidden})
                   .check("d_c_first", *d_c_first, {rows, hidden})
                   .error();
  if (error.failure()) return error;
  if (clip < 0 || clip > 2) return ffi::Error::InvalidArgument("clip is not 0, 1 or 2");
  if (dz->typed_data() != gates.typed_data()) {
    std::memcpy(dz->typed_data(), gates.typed_data(), gates.size_bytes());
  }

  const Kernels& kernel = kernels(bfloat16);
  Buffer packed(kernel.packed_columns(hidden, hidden));
  double weights = 4.0 * hidden * hidden;
  auto pack = [&](int64_t begin, int64_t end) {
    kernel.pack_columns(kernel_hh.typed_data(), hidden, hidden, begin, end, packed.data());
  };
  in_parallel(pool, kernel.column_blocks(hidden), parts_of(pool, weights, MOVED), pack);
  Backward call{{time, rows, 0, hidden}, reverse, c_before.typed_data(), d_outputs.typed_data(),
                d_h_last.typed_data(), d_c_last.typed_data(), flags_or_null(flags), packed.data(),
                static_cast<Clip>(clip), bounds.typed_data(), dz->typed_data(),
                d_h_first->typed_data(), d_c_first->typed_data()};
  auto run = [&](int64_t begin, int64_t end) {
    Buffer scratch(kernel.backward_scratch(call, end - begin));
    kernel.backward(call, begin, end, scratch.data());
  };
  in_parallel(pool, rows, parts_of(pool, weights * time * rows, MULTIPLY_ADDS), run);
  return ffi::Error::Success();
}

ffi::Error input_gradient_call(ffi::ThreadPool pool, Floats dz, Floats kernel_ih, Result d_x,
                               bool bfloat16) {
  if (kernel_ih.dimensions().size() != 2 || d_x->dimensions().size() != 3) {
    return ffi::Error::InvalidArgument("kernel_ih or d_x has a wrong rank");
  }
  int64_t time = d_x->dimensions()[0], rows = d_x->dimensions()[1];
  int64_t features = d_x->dimensions()[2], hidden = kernel_ih.dimensions().back() / 4;
  auto error = Shapes()
                   .check("dz", dz, {time, rows, 4, padded(hidden)})
                   .check("kernel_ih", kernel_ih, {features, 4 * hidden})
                   .error();
  if (error.failure()) return error;
  map_in_huge_pages(d_x->typed_data(), d_x->size_bytes());

  const Kernels& kernel = kernels(bfloat16);
  Buffer packed(kernel.packed_columns(features, hidden));
  double weights = 4.0 * hidden * features;
  auto pack = [&](int64_t begin, int64_t end) {
    kernel.pack_columns(kernel_ih.typed_data(), features, hidden, begin, end, packed.data());
  };
  in_parallel(pool, kernel.column_blocks(features), parts_of(pool, weights, MOVED), pack);
  InputGradient call{
      {time, rows, features, hidden}, dz.typed_data(), packed.data(), d_x->typed_data()};
  auto run = [&](int64_t begin, int64_t end) {
    Buffer scratch(kernel.input_scratch(call, end - begin));
    kernel.input_gradient(call, begin, end, scratch.data());
  };
  in_parallel(pool, time * rows, parts_of(pool, weights * time * rows, MULTIPLY_ADDS), run);
  return ffi::Error::Success();
}

ffi::Error weight_gradient_call(ffi::ThreadPool pool, ffi::AnyBuffer x, Floats h, Floats outputs,
                                Bytes flags, Floats dz, Result d_kernel_ih, Result d_kernel_hh,
                                Result d_bias, bool reverse, bool bfloat16) {
  Input input(x, *d_kernel_ih);
  if (!input.known() || h.dimensions().size() != 2) {
    return ffi::Error::InvalidArgument("x or h has a wrong rank or type");
  }
  int64_t time = input.time, rows = input.rows, features = input.features;
  int64_t hidden = h.dimensions()[1], flagged = flags.element_count() ? time : 0;
  auto error = Shapes()
                   .check("h", h, {rows, hidden})
                   .check("outputs", outputs, {time, rows, hidden})
                   .check("flags", flags, {flagged, rows})
                   .check("dz", dz, {time, rows, 4, padded(hidden)})
                   .check("d_kernel_ih", *d_kernel_ih, {features, 4 * hidden})
                   .check("d_kernel_hh", *d_kernel_hh, {hidden, 4 * hidden})
                   .check("d_bias", *d_bias, {4 * hidden})
                   .error();
  if (error.failure()) return error;

  const Kernels& kernel = kernels(bfloat16);
  WeightGradient call{{time, rows, features, hidden}, reverse, input.x, input.ids, h.typed_data(),
                      outputs.typed_data(), flags_or_null(flags), dz.typed_data(),
                      d_kernel_ih->typed_data(), d_kernel_hh->typed_data(), d_bias->typed_data()};
  double operations = 4.0 * hidden * ((input.x ? features : 0) + hidden) * time * rows;
  auto run = [&](int64_t begin, int64_t end) {
    Buffer scratch(kernel.weight_scratch(call, end - begin));
    kernel.weight_gradient(call, begin, end, scratch.data());
  };
  in_parallel(pool, kernel.gate_blocks(hidden), parts_of(pool, operations, MULTIPLY_ADDS), run);
  return ffi::Error::Success();
}

}  // namespace
}  // namespace lstm_optax

using lstm_optax::Bytes, lstm_optax::Floats, lstm_optax::Safe;

#pragma GCC visibility push(default)

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_optax_forward, Safe<lstm_optax::forward_call>::call,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Bytes>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("reverse")
                                  .Attr<bool>("bfloat16"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_optax_backward, Safe<lstm_optax::backward_call>::call,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Bytes>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("reverse")
                                  .Attr<bool>("bfloat16")
                                  .Attr<int64_t>("clip"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_optax_input_gradient,
                              Safe<lstm_optax::input_gradient_call>::call,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("bfloat16"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(lstm_optax_weight_gradient,
                              Safe<lstm_optax::weight_gradient_call>::call,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<Floats>()
                                  .Arg<Floats>()
                                  .Arg<Bytes>()
                                  .Arg<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Ret<Floats>()
                                  .Attr<bool>("reverse")
                                  .Attr<bool>("bfloat16"));

extern "C" {

// The fingerprint of the sources, by build.py.
const char* lstm_optax_sources() { return SOURCES; }

// The name of the instructions in use.
const char* lstm_optax_instructions() { return lstm_optax::kernels().name; }

// Whether these multiply in bfloat16.
bool lstm_optax_bfloat16() { return lstm_optax::in_bfloat16(&lstm_optax::kernels()); }

// Use these instructions from now on; false if there are none of this name, or not on this CPU.
bool lstm_optax_use(const char* name) {
  for (const lstm_optax::Kernels* kernels : lstm_optax::ALL) {
    if (std::strcmp(kernels->name, name) == 0 && lstm_optax::runs_here(kernels)) {
      lstm_optax::chosen = kernels;
      return true;
    }
  }
  return false;
}

void lstm_optax_tanh(const float* x, int64_t size, float* y) {
  lstm_optax::kernels().tanh(x, size, y);
}

void lstm_optax_sigmoid(const float* x, int64_t size, float* y) {
  lstm_optax::kernels().sigmoid(x, size, y);
}

}  // extern "C"

#pragma GCC visibility pop
