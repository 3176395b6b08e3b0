// Memory of a call, taken from what earlier calls have returned.
#pragma once

#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

namespace lstm_optax {

// Floats aligned for the widest vectors, not initialized. There are as many buffers as were in use
// at one time, so their number does not grow with the threads of a pool that take turns.
class Buffer {
 public:
  // Throws std::bad_alloc.
  explicit Buffer(int64_t floats) : memory_(Free::list().take(floats)) {
    if (memory_.size >= floats) return;
    if (memory_.data) ::operator delete(memory_.data, ALIGNED);
    memory_ = {};
    memory_.data = static_cast<float*>(::operator new(floats * sizeof(float), ALIGNED));
    memory_.size = floats;
  }
  ~Buffer() {
    if (memory_.data) Free::list().give(memory_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  float* data() const { return memory_.data; }

 private:
  static constexpr std::align_val_t ALIGNED{64};

  struct Memory {
    float* data = nullptr;
    int64_t size = 0;
  };

  class Free {
   public:
    static Free& list() {
      static Free* list = new Free;  // never deleted: threads may outlive static objects
      return *list;
    }
    // The smallest that has `floats`, or else the largest, or else nothing.
    Memory take(int64_t floats) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (memory_.empty()) return {};
      size_t best = 0;
      for (size_t k = 1; k < memory_.size(); ++k) {
        int64_t size = memory_[k].size, found = memory_[best].size;
        if (found < floats ? size > found : size >= floats && size < found) best = k;
      }
      Memory taken = memory_[best];
      memory_[best] = memory_.back();
      memory_.pop_back();
      return taken;
    }
    void give(Memory memory) {
      std::lock_guard<std::mutex> lock(mutex_);
      memory_.push_back(memory);
    }

   private:
    std::mutex mutex_;
    std::vector<Memory> memory_;
  };

  Memory memory_;
};

}  // namespace lstm_optax
