// Many loops of threads.h at once, with buffers of memory.h: all end, each part runs once, and no
// two parts share memory. For the thread sanitizer; exit status 0 if all is right.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <future>
#include <stdexcept>
#include <vector>

#include "memory.h"
#include "threads.h"

using lstm_optax::Buffer, lstm_optax::in_parallel;

namespace {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int k = 0; k < threads; ++k) threads_.emplace_back([this] { run(); });
  }
  ~Pool() {  // runs what is still scheduled
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  void Schedule(std::function<void()> task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_one();
  }

 private:
  void run() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool ending_ = false;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("%s\n", what);
  std::exit(1);
}

// A call as XLA makes it: memory of the call, and memory of each part.
void call(Pool& pool, int64_t size) {
  Buffer result(size);
  std::fill_n(result.data(), size, 0.0f);
  in_parallel(pool, size, 4, [&](int64_t begin, int64_t end) {
    Buffer scratch(end - begin);
    for (int64_t k = begin; k < end; ++k) scratch.data()[k - begin] = static_cast<float>(k);
    for (int64_t k = begin; k < end; ++k) result.data()[k] += scratch.data()[k - begin];
  });
  for (int64_t k = 0; k < size; ++k) require(result.data()[k] == k, "a part did not run once");
}

void calls(Pool& pool, int count) {
  for (int k = 0; k < count; ++k) call(pool, 1 + 37 * k % 500);
}

void from_other_threads(Pool& pool) {
  std::vector<std::thread> threads;
  for (int k = 0; k < 8; ++k) threads.emplace_back([&] { calls(pool, 125); });
  for (auto& thread : threads) thread.join();
}

// All threads of the pool wait for something else until the calls have ended.
void while_the_pool_is_busy() {
  std::promise<void> ended;
  std::shared_future<void> wait = ended.get_future().share();
  Pool pool(2);
  for (int k = 0; k < 2; ++k) pool.Schedule([wait] { wait.wait(); });
  from_other_threads(pool);
  ended.set_value();
}

// The pool's own threads make the calls, all at once.
void from_the_pool() {
  std::atomic<int> ended{0};
  {
    Pool pool(4);
    for (int k = 0; k < 1000; ++k) {
      pool.Schedule([&] {
        call(pool, 300);
        ++ended;
      });
    }
  }
  require(ended == 1000, "a call did not end");
}

void with_an_error() {
  Pool pool(2);
  for (int k = 0; k < 200; ++k) {
    bool thrown = false;
    try {
      in_parallel(pool, 8, 8, [&](int64_t begin, int64_t) {
        if (begin == k % 8) throw std::runtime_error("of a part");
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    require(thrown, "the error of a part was lost");
  }
}

}  // namespace

int main() {
  alarm(60);  // a deadlock ends here
  {
    Pool pool(3);
    from_other_threads(pool);
  }
  while_the_pool_is_busy();
  from_the_pool();
  with_an_error();
  std::printf("all calls ended\n");
}
