#include "conelayers/kept_memory.hpp"

#include <cstring>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "check.hpp"

using namespace conelayers;

using Block = KeptMemory::Block;
constexpr std::size_t kLarge = KeptMemory::kLarge, kMost = KeptMemory::kMost;

static void a_kept_block_serves_again() {
    KeptMemory memory;
    const Block first = memory.take(kLarge);
    memory.give_back(first);
    const Block second = memory.take(kLarge);
    CHECK(second.data == first.data);
    const Block third = memory.take(kLarge);  // the first is in use
    CHECK(third.data != second.data);
    memory.give_back(second);
    memory.give_back(third);
}

static void only_blocks_of_about_the_size_serve() {
    KeptMemory memory;
    const Block five = memory.take(5 * kLarge), four = memory.take(4 * kLarge), three = memory.take(3 * kLarge);
    const Block less = memory.take(2 * kLarge - 1);
    for (const Block& block : {five, four, three, less}) memory.give_back(block);
    const Block nearest = memory.take(2 * kLarge), next = memory.take(2 * kLarge);
    CHECK(nearest.data == three.data);
    CHECK(nearest.bytes == 3 * kLarge);  // so that giving it back counts all of it
    CHECK(next.data == four.data);
    const Block fresh = memory.take(2 * kLarge);  // one is too small, more than half of the other would be wasted
    CHECK(fresh.data != five.data && fresh.data != less.data);
    for (const Block& block : {nearest, next, fresh}) memory.give_back(block);
}

// What is kept is bounded: of four blocks of half of kMost the last two are, the rest is freed (else LeakSanitizer says so).
static void the_oldest_go_first() {
    KeptMemory memory;
    std::vector<Block> blocks;
    for (int i = 0; i < 4; ++i) blocks.push_back(memory.take(kMost / 2));
    const void* last = blocks[3].data;
    const void* before = blocks[2].data;
    for (const Block& block : blocks) memory.give_back(block);
    const Block a = memory.take(kMost / 2), b = memory.take(kMost / 2);
    CHECK(a.data == before);
    CHECK(b.data == last);
    memory.give_back(a);
    memory.give_back(b);
    const Block huge = memory.take(kMost + 1);
    memory.give_back(huge);
    memory.give_back(memory.take(0));
}

// Blocks in use at one time never share a byte, whichever threads take them and give them back.
static void blocks_in_use_are_apart() {
    KeptMemory memory;
    bool apart[3] = {true, true, true};
    std::vector<std::thread> workers;
    for (int worker = 0; worker < 3; ++worker)
        workers.emplace_back([&memory, &good = apart[worker], worker] {
            std::mt19937 random(worker);
            std::deque<std::pair<Block, int>> used;
            for (int round = 0; round < 300; ++round) {
                const Block block = memory.take(kLarge / 2 + random() % (2 * kLarge));
                const int mark = static_cast<int>(random() % 256);
                std::memset(block.data, mark, block.bytes);
                used.push_back({block, mark});
                if (used.size() < 6) continue;
                const auto [oldest, expected] = used.front();
                const auto* bytes = static_cast<const unsigned char*>(oldest.data);
                for (std::size_t i = 0; i < oldest.bytes; i += 509) good = good && bytes[i] == expected;
                memory.give_back(oldest);
                used.pop_front();
            }
            for (const auto& [block, mark] : used) memory.give_back(block);
        });
    for (std::thread& worker : workers) worker.join();
    for (bool good : apart) CHECK(good);
}

int main() {
    a_kept_block_serves_again();
    only_blocks_of_about_the_size_serve();
    the_oldest_go_first();
    blocks_in_use_are_apart();
    return report();
}
