// A loop whose parts run on the threads of XLA's pool and on the thread that calls.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

namespace lstm_optax {

// Memory of a thread, kept for its next call; aligned for the widest vectors.
class Arena {
 public:
  enum Use { PACKED, SCRATCH };  // of the thread that calls, and of each thread that takes a part

  template <Use USE>
  static float* of_this_thread(int64_t floats) {
    thread_local Arena arena;
    if (floats > arena.size_) {
      arena.reset();
      arena.data_ = static_cast<float*>(::operator new(floats * sizeof(float), ALIGNED));
      arena.size_ = floats;
    }
    return arena.data_;
  }
  ~Arena() { reset(); }

 private:
  static constexpr std::align_val_t ALIGNED{64};
  void reset() {
    if (data_) ::operator delete(data_, ALIGNED);
    data_ = nullptr;
    size_ = 0;
  }
  float* data_ = nullptr;
  int64_t size_ = 0;
};

// Parts of a range, each claimed once by a thread that then runs it.
class Parts {
 public:
  using Run = std::function<void(int64_t begin, int64_t end)>;

  Parts(int64_t size, int64_t count, Run run) : size_(size), count_(count), run_(std::move(run)) {}

  // Run parts that no thread has claimed until there are none.
  void work() {
    for (int64_t part; (part = next_.fetch_add(1)) < count_;) {
      try {
        run_(size_ * part / count_, size_ * (part + 1) / count_);
      } catch (const std::bad_alloc&) {
        failed_ = true;
      }
      if (done_.fetch_add(1) + 1 == count_) {
        std::lock_guard<std::mutex> lock(mutex_);
        all_done_.notify_all();
      }
    }
  }

  // Wait for the parts that other threads have claimed; these threads run, so this ends.
  bool wait() {
    for (int spin = 0; spin < 1000 && done_ < count_; ++spin) std::this_thread::yield();
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_ >= count_; });
    return !failed_;
  }

 private:
  const int64_t size_, count_;
  const Run run_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
};

// Run run(begin, end) for `count` parts of [0, size); false if memory ran out.
//
// The caller takes parts too, so the loop ends even if no thread of the pool is ever free. A task
// that begins after the end finds no part, and touches nothing but `parts`, which it shares.
template <class Pool>
bool in_parallel(Pool& pool, int64_t size, int64_t count, Parts::Run run) {
  if (count > size) count = size;
  if (count < 1) return true;
  auto parts = std::make_shared<Parts>(size, count, std::move(run));
  for (int64_t task = 1; task < count; ++task) pool.Schedule([parts] { parts->work(); });
  parts->work();
  return parts->wait();
}

}  // namespace lstm_optax
