// A CUDA driver for tests, built as libcuda.so.1: the functions that the launcher calls through the bindings, on a host
// whose kernels are emulated. It holds the launcher to the driver's rules, and answers with its error codes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kInvalidContext = 201, kInvalidHandle = 400, kNotFound = 500;
constexpr int kProcessors = 3, kShared = 100 * 1024, kSharedPerBlock = 99 * 1024;
constexpr int kDevices = 2;
// Numbers of the driver's attributes.
constexpr int kSharedOfProcessor = 81, kSharedOfBlock = 97, kLimit = 8;

struct Context {
    int device;
};
struct Function {
    std::string name;
    int team;
    const Context* context;
    int limit = 48 * 1024;  // dynamic shared memory of a block
};
struct Module {
    int team;
    const Context* context;
    std::map<std::string, Function> functions;
};
using Emulate = int (*)(const char*, const void*, const void*, const void*, int, int);

void log(const std::string& line) {
    std::FILE* file = std::fopen(std::getenv("FAKE_DRIVER_LOG"), "a");
    std::fprintf(file, "%s\n", line.c_str());
    std::fclose(file);
}

Emulate emulate(int team) {
    const std::string path = std::getenv(team == 1 ? "FAKE_DRIVER_THREADS" : "FAKE_DRIVER_WARPS");
    return reinterpret_cast<Emulate>(dlsym(dlopen(path.c_str(), RTLD_NOW), "emulate"));
}

// Of this thread: nothing runs on one that has none, and nothing of one runs in another.
thread_local std::vector<Context*> contexts;

int cuInit(unsigned flags) { return flags == 0 ? kSuccess : kInvalidValue; }

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < kDevices ? kSuccess : kInvalidValue;
}

int cuDevicePrimaryCtxRetain(Context** context, int device) {
    static Context primary[kDevices] = {{0}, {1}};
    *context = &primary[device];
    return kSuccess;
}

int cuCtxPushCurrent(Context* context) {
    contexts.push_back(context);
    return kSuccess;
}

int cuCtxPopCurrent(Context** context) {
    if (contexts.empty()) return kInvalidContext;
    *context = contexts.back();
    contexts.pop_back();
    return kSuccess;
}

int check(const Function* function) {
    if (contexts.empty()) return kInvalidContext;
    return function->context == contexts.back() ? kSuccess : kInvalidHandle;
}

int cuModuleLoadData(Module** module, const void* image) {  // the tests' code: "code of team N"
    if (contexts.empty()) return kInvalidContext;
    const char* text = static_cast<const char*>(image);
    if (std::strncmp(text, "code of team ", 13) != 0) return kInvalidValue;
    *module = new Module{std::atoi(text + 13), contexts.back(), {}};
    return kSuccess;
}

int cuModuleGetFunction(Function** function, Module* module, const char* name) {
    if (std::strncmp(name, "conelayers_", 11) != 0) return kNotFound;
    *function = &(module->functions[name] = {name + 11, module->team, module->context});
    log("function " + (*function)->name);
    return kSuccess;
}

int cuFuncSetAttribute(Function* function, int attribute, int value) {
    if (check(function) != kSuccess) return check(function);
    if (attribute != kLimit || value > kSharedPerBlock) return kInvalidValue;
    function->limit = value;
    return kSuccess;
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (device < 0 || device >= kDevices || (attribute != kSharedOfProcessor && attribute != kSharedOfBlock)) return kInvalidValue;
    *value = attribute == kSharedOfBlock ? kSharedPerBlock : kShared;
    return kSuccess;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function* function, int threads, std::size_t shared) {
    if (threads != 32 || static_cast<int>(shared) > function->limit) return kInvalidValue;
    if (check(function) != kSuccess) return check(function);
    *blocks = 2;
    return kSuccess;
}

int cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** parameters, void** extra) {
    if (check(function) != kSuccess) return check(function);
    if (gx == 0 || gx > 2 * kProcessors || gy * gz * by * bz != 1 || bx != 32 || extra != nullptr) return kInvalidValue;
    if (static_cast<int>(shared) > function->limit) return kInvalidValue;
    const bool solve = function->name == "solve";
    log("launch " + function->name + " " + std::to_string(function->team) + " stream " +
        std::to_string(reinterpret_cast<long long>(stream)) + (shared ? " shared" : ""));
    const int done = emulate(function->team)(function->name.c_str(), parameters[0], parameters[solve ? 1 : 0],
                                             parameters[solve ? 2 : 1], static_cast<int>(gx), static_cast<int>(bx));
    return done == 0 ? kSuccess : kInvalidValue;
}

int cuGetErrorString(int error, const char** text) {
    *text = error == kInvalidValue ? "invalid argument" : error == kInvalidContext ? "invalid device context" : "other";
    return kSuccess;
}

}  // namespace

// How the bindings find everything else.
extern "C" int cuGetProcAddress_v2(const char* symbol, void** function, int, unsigned long long, int* status) {
    const std::map<std::string, void*> known = {
        {"cuModuleLoadData", reinterpret_cast<void*>(&cuModuleLoadData)},
        {"cuModuleGetFunction", reinterpret_cast<void*>(&cuModuleGetFunction)},
        {"cuFuncSetAttribute", reinterpret_cast<void*>(&cuFuncSetAttribute)},
        {"cuInit", reinterpret_cast<void*>(&cuInit)},
        {"cuDeviceGet", reinterpret_cast<void*>(&cuDeviceGet)},
        {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(&cuDevicePrimaryCtxRetain)},
        {"cuCtxPushCurrent", reinterpret_cast<void*>(&cuCtxPushCurrent)},
        {"cuCtxPopCurrent", reinterpret_cast<void*>(&cuCtxPopCurrent)},
        {"cuDeviceGetAttribute", reinterpret_cast<void*>(&cuDeviceGetAttribute)},
        {"cuOccupancyMaxActiveBlocksPerMultiprocessor",
         reinterpret_cast<void*>(&cuOccupancyMaxActiveBlocksPerMultiprocessor)},
        {"cuLaunchKernel", reinterpret_cast<void*>(&cuLaunchKernel)},
        {"cuGetErrorString", reinterpret_cast<void*>(&cuGetErrorString)},
        {"cuGetProcAddress", reinterpret_cast<void*>(&cuGetProcAddress_v2)},
    };
    const auto found = known.find(symbol);
    *function = found == known.end() ? nullptr : found->second;
    if (status != nullptr) *status = found == known.end() ? 1 : 0;
    return found == known.end() ? kNotFound : kSuccess;
}
