// Compiled loops that end when the process is interrupted.
//
// Python's signal handlers run when its main thread asks for them, and that thread may be in a loop for long. It asks now and
// then; all threads of the loop see the answer, and what a handler raised is raised when they are done.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace conelayers {

class Interruptible {
  public:
    // Whether the loop is to end. Only the thread that made this object asks Python, for which it takes the GIL.
    bool ends() {
        if (ended_.load(std::memory_order_relaxed)) return true;
        if (std::this_thread::get_id() != caller_ || Clock::now() < next_) return false;
        nanobind::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) ended_.store(true, std::memory_order_relaxed);
        next_ = Clock::now() + kEvery;
        return ended_.load(std::memory_order_relaxed);
    }
    static bool ends(void* self) { return static_cast<Interruptible*>(self)->ends(); }

    // Raise what a handler raised; on the thread that made this object, with the GIL.
    void raise() const {
        if (ended_.load(std::memory_order_relaxed)) throw nanobind::python_error();
    }

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds kEvery{50};

    const std::thread::id caller_ = std::this_thread::get_id();
    Clock::time_point next_ = Clock::now() + kEvery;
    std::atomic<bool> ended_{false};
};

}  // namespace conelayers
