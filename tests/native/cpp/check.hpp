// The few lines that the unit tests need: CHECK(condition) counts and reports failures, report() ends main.
#pragma once

#include <cstdio>

inline int failures = 0;

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            if (++failures < 20) std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                            \
    } while (false)

inline int report() {
    if (failures > 0) std::printf("%d checks failed\n", failures);
    return failures > 0 ? 1 : 0;
}
