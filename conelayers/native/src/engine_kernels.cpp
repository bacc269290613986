// Compiled once per instruction set (see CMakeLists.txt).
#include "from_start.hpp"
#include "worker.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

template <class Real>
long long scratch(const EngineProblem& problem) {
    return WorkerSizes<Real>(problem).total() * lanes<Real>;
}

template <class Real>
void solve(const EngineProblem& problem, std::atomic<int>& next, double* memory) {
    const WorkerSizes<Real> sizes(problem);
    Worker<Real>(problem, sizes, reinterpret_cast<Real*>(memory)).run(next);
}

template <class Real>
void from_start(const EngineProblem& problem, std::atomic<int>& next, double* memory) {
    solve_from_start<Real>(problem, next, reinterpret_cast<Real*>(memory));
}

#if defined(__AVX512F__)
using Wide = pack<8>;
#else
using Wide = pack<4>;
#endif

}  // namespace

extern const EngineKernels engine_pack, engine_single;
const EngineKernels engine_pack = {lanes<Wide>, &scratch<Wide>, &solve<Wide>, &from_start<Wide>};
const EngineKernels engine_single = {1, &scratch<double>, &solve<double>, &from_start<double>};

}  // namespace CONELAYERS_KERNELS
}  // namespace conelayers
