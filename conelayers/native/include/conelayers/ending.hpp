// The early end of a solve for which nobody waits any more, because the process was interrupted.
#pragma once

#include "engine_layout.hpp"
#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Asked between iterations and packs; what is found from then on is thrown away. A GPU's threads are never asked.
CL_INLINE bool ended(const EngineSettings& settings) {
#if defined(CONELAYERS_DEVICE)
    return false;
#else
    return settings.ends != nullptr && settings.ends(settings.caller);
#endif
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers
