#include "conelayers/threads.hpp"

#include <atomic>
#include <thread>
#include <vector>

#include "approximately.hpp"

using namespace conelayers;

static void every_index_once(int count, int threads) {
    std::vector<std::atomic<int>> hits(count);
    for (auto& hit : hits) hit = 0;
    std::atomic<bool> good{true};
    ThreadPool::run(count, threads, [&](int index, int worker) {
        ++hits[index];
        if (worker < 0 || worker >= threads) good = false;
    });
    for (auto& hit : hits) CHECK(hit == 1);
    CHECK(good);
}

int main() {
    for (int round = 0; round < 300; ++round)
        for (int threads : {1, 2, 4}) every_index_once(round % 17, threads);
    std::vector<std::thread> callers;  // simultaneous loops from several threads
    for (int c = 0; c < 3; ++c)
        callers.emplace_back([] {
            for (int round = 0; round < 200; ++round) every_index_once(9, 3);
        });
    for (auto& caller : callers) caller.join();
    return report();
}
