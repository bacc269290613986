// Memory of large results, kept when Python lets go of it: fresh pages cost as much as filling them.
#pragma once

#include <cstddef>
#include <mutex>
#include <new>
#include <vector>

namespace conelayers {

// Blocks of at least kLarge bytes are kept, the latest ones up to kMost bytes in all; smaller ones are the allocator's business.
class KeptMemory {
  public:
    static constexpr std::size_t kLarge = std::size_t{1} << 17, kMost = std::size_t{1} << 27;

    struct Block {
        void* data;
        std::size_t bytes;  // all that it holds, which may be more than was asked for
    };

    KeptMemory() { idle_.reserve(kMost / kLarge); }  // so that give_back never allocates
    KeptMemory(const KeptMemory&) = delete;
    KeptMemory& operator=(const KeptMemory&) = delete;
    ~KeptMemory() {
        for (const Block& block : idle_) ::operator delete(block.data);
    }

    static KeptMemory& instance() {
        static KeptMemory* memory = new KeptMemory;  // never destroyed: arrays may outlive static objects
        return *memory;
    }

    // The smallest idle block that serves without wasting more than half of itself, or a new one.
    Block take(std::size_t bytes) {
        if (bytes >= kLarge) {
            std::lock_guard<std::mutex> lock(mutex_);
            std::size_t best = idle_.size();
            for (std::size_t i = 0; i < idle_.size(); ++i)
                if (idle_[i].bytes >= bytes && idle_[i].bytes / 2 <= bytes &&
                    (best == idle_.size() || idle_[i].bytes < idle_[best].bytes))
                    best = i;
            if (best < idle_.size()) return remove(best);
        }
        return {::operator new(bytes > 0 ? bytes : 1), bytes};
    }

    void give_back(const Block& block) noexcept {
        if (block.bytes < kLarge || block.bytes > kMost) return ::operator delete(block.data);
        std::lock_guard<std::mutex> lock(mutex_);
        while (held_ + block.bytes > kMost) ::operator delete(remove(0).data);
        idle_.push_back(block);
        held_ += block.bytes;
    }

  private:
    Block remove(std::size_t i) {
        const Block block = idle_[i];
        idle_.erase(idle_.begin() + static_cast<std::ptrdiff_t>(i));
        held_ -= block.bytes;
        return block;
    }

    std::mutex mutex_;
    std::vector<Block> idle_;  // the oldest first
    std::size_t held_ = 0;
};

}  // namespace conelayers
