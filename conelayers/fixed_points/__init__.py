"""Fixed points z = f(z, theta): the equation, the iterations that solve it, the modes that differentiate it."""

from conelayers.fixed_points.certificates import (
    ActivationCertificate,
    FixedPointCertificate,
    SplittingCertificate,
    certify_activation,
    certify_fixed_point,
    certify_splitting,
    regular_over_box,
)
from conelayers.fixed_points.equation import FixedPointEquation
from conelayers.fixed_points.iterations import (
    Anderson,
    BoundSplitting,
    Broyden,
    FixedPointResult,
    FixedPointSolver,
    FixedPointStatus,
    ForwardBackward,
    MonotoneSplitting,
    NewtonKrylov,
    PeacemanRachford,
    Picard,
    search_step,
)
from conelayers.fixed_points.modes import ImplicitAdjoint, OneStep, PhantomGradient, Piggyback, Unrolled
from conelayers.fixed_points.resolvent import AdjointInfo

__all__ = [
    "ActivationCertificate",
    "AdjointInfo",
    "Anderson",
    "BoundSplitting",
    "Broyden",
    "FixedPointCertificate",
    "FixedPointEquation",
    "FixedPointResult",
    "FixedPointSolver",
    "FixedPointStatus",
    "ForwardBackward",
    "ImplicitAdjoint",
    "MonotoneSplitting",
    "NewtonKrylov",
    "OneStep",
    "PeacemanRachford",
    "PhantomGradient",
    "Picard",
    "Piggyback",
    "SplittingCertificate",
    "Unrolled",
    "certify_activation",
    "certify_fixed_point",
    "certify_splitting",
    "regular_over_box",
    "search_step",
]
