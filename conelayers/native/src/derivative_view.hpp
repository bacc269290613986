// What the engine's bindings need of a Python `Differentiator`.
#pragma once

#include <nanobind/nanobind.h>

#include "conelayers/derivative_layout.hpp"

namespace conelayers {

// The object's view, which lives as long as the object. Raises TypeError if it is no Differentiator.
const DerivativeView& derivative_view(nanobind::handle differentiator);

}  // namespace conelayers
