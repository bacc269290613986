// Which instruction set the kernels run with. Each `src/*_kernels.cpp` is compiled once per set; `best_arch` picks
// the widest one that this machine has. CONELAYERS_MAX_ARCH=0|1|2 in the environment lowers the choice (tests).
#pragma once

#include <cstdlib>
#include <new>

namespace conelayers {

enum Arch : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

inline Arch best_arch() {
    static const Arch arch = [] {
        int best = kPortable;
#if defined(CONELAYERS_X86)
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
            best = kAvx2;
            if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vl"))
                best = kAvx512;
        }
        if (const char* limit = std::getenv("CONELAYERS_MAX_ARCH")) {
            const int wanted = std::atoi(limit);
            if (wanted >= 0 && wanted < best) best = wanted;
        }
#endif
        return static_cast<Arch>(best);
    }();
    return arch;
}

// That for so many items: half-empty packs of eight lanes take about twice the time of full ones of four.
inline Arch arch_for(long long items) {
    const Arch best = best_arch();
    return best == kAvx512 && items <= 4 ? kAvx2 : best;
}

// Uninitialised doubles aligned for every pack.
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(std::size_t count)
        : data_(static_cast<double*>(::operator new[](count * sizeof(double) + 64, std::align_val_t(64)))) {}
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;
    AlignedBuffer(AlignedBuffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
        double* mine = data_;
        data_ = other.data_;
        other.data_ = mine;
        return *this;
    }
    ~AlignedBuffer() {
        if (data_ != nullptr) ::operator delete[](data_, std::align_val_t(64));
    }
    double* get() const { return data_; }

  private:
    double* data_ = nullptr;
};

}  // namespace conelayers
