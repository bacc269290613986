// A small pool of worker threads for loops over packs. Host code.
//
// Workers are started on first use and kept; they sleep between loops. After fork() the child starts its own.
// One loop runs on the pool at a time; a loop that finds it busy (a caller in another Python thread) runs on its
// own thread alone.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#ifdef _WIN32
#include <process.h>
#define CL_GETPID _getpid
#else
#include <unistd.h>
#define CL_GETPID getpid
#endif

namespace conelayers {

class ThreadPool {
  public:
    // task(index, worker) for every index in [0, count), on at most `threads` threads; worker < threads.
    // Tasks must not throw. Once ends(caller), which is asked between tasks and while the caller waits, no more are begun.
    using Ends = bool (*)(void*);
    static void run(int count, int threads, const std::function<void(int, int)>& task, Ends ends = nullptr,
                    void* caller = nullptr) {
        threads = std::min(threads, count);
        if (threads > 1) {
            ThreadPool& pool = instance();
            std::unique_lock<std::mutex> owner(pool.owner_, std::try_to_lock);
            if (owner.owns_lock()) return pool.loop(count, threads, task, {ends, caller});
        }
        const Stop stop{ends, caller};
        for (int i = 0; i < count && !stop(); ++i) task(i, 0);
    }

  private:
    struct Stop {
        Ends ends;
        void* caller;
        bool operator()() const { return ends != nullptr && ends(caller); }
    };

    // Deliberately never destroyed: workers may outlive static destruction at interpreter exit.
    static ThreadPool& instance() {
        static std::mutex guard;
        static ThreadPool* pool = nullptr;
        std::lock_guard<std::mutex> lock(guard);
        if (pool == nullptr || pool->process_ != CL_GETPID()) pool = new ThreadPool;
        return *pool;
    }

    void loop(int count, int threads, const std::function<void(int, int)>& task, const Stop& stop) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            while (static_cast<int>(workers_) < threads - 1) start();
            task_ = &task;
            stop_ = stop;
            count_ = count;
            next_.store(0);
            wanted_ = threads - 1;
            joined_ = 0;
            running_ = 0;
            ++generation_;
        }
        wake_.notify_all();
        for (int i; (i = next_.fetch_add(1)) < count && !stop();) task(i, 0);
        std::unique_lock<std::mutex> lock(mutex_);
        wanted_ = joined_;  // workers that have not woken yet are not needed any more
        while (!done_.wait_for(lock, std::chrono::milliseconds(50), [&] { return running_ == 0; })) {
            lock.unlock();
            stop();
            lock.lock();
        }
        task_ = nullptr;
    }

    void start() {
        ++workers_;
        std::thread([this] { work(); }).detach();
    }

    void work() {
        unsigned long seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && task_ != nullptr && joined_ < wanted_; });
            seen = generation_;
            const int worker = ++joined_;
            ++running_;
            const auto* task = task_;
            const int count = count_;
            const Stop stop = stop_;
            lock.unlock();
            for (int i; (i = next_.fetch_add(1)) < count && !stop();) (*task)(i, worker);
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }

    const long process_ = CL_GETPID();
    std::mutex owner_, mutex_;
    std::condition_variable wake_, done_;
    const std::function<void(int, int)>* task_ = nullptr;
    Stop stop_{nullptr, nullptr};
    std::atomic<int> next_{0};
    int count_ = 0, wanted_ = 0, joined_ = 0, running_ = 0;
    int workers_ = 0;
    unsigned long generation_ = 0;
};

}  // namespace conelayers
