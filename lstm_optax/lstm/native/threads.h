// A loop whose parts run on the threads of XLA's pool and on the thread that calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace lstm_optax {

// Parts of a range, each claimed once by a thread that then runs it.
class Parts {
 public:
  using Run = std::function<void(int64_t begin, int64_t end)>;

  Parts(int64_t size, int64_t count, Run run) : size_(size), count_(count), run_(std::move(run)) {}

  // Run parts that no thread has claimed until there are none.
  void work() {
    for (int64_t part; (part = next_.fetch_add(1)) < count_;) {
      std::exception_ptr error;
      try {
        run_(size_ * part / count_, size_ * (part + 1) / count_);
      } catch (...) {
        error = std::current_exception();
      }
      std::lock_guard<std::mutex> lock(mutex_);
      if (error) error_ = error;
      if (++done_ == count_) all_done_.notify_all();
    }
  }

  // Wait for the parts that other threads have claimed; these threads run, so this ends. Throws
  // what a part has thrown.
  void wait() {
    for (int spin = 0; spin < 1000 && done_ < count_; ++spin) std::this_thread::yield();
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_ >= count_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t size_, count_;
  const Run run_;
  std::atomic<int64_t> next_{0}, done_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
  std::exception_ptr error_;
};

// Run run(begin, end) for `count` parts of [0, size), and throw what one of them has thrown.
//
// The caller takes parts too, so the loop ends even if no thread of the pool is ever free. A task
// that begins after the end finds no part, and touches nothing but `parts`, which it shares.
template <class Pool>
void in_parallel(Pool& pool, int64_t size, int64_t count, Parts::Run run) {
  count = std::min(count, size);
  if (count <= 1) return count == 1 ? run(0, size) : void();
  auto parts = std::make_shared<Parts>(size, count, std::move(run));
  for (int64_t task = 1; task < count; ++task) pool.Schedule([parts] { parts->work(); });
  parts->work();
  parts->wait();
}

}  // namespace lstm_optax
