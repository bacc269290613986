"""The compiled engine on a GPU: its headers compiled at run time, torch tensors in and out.

`toolkit` says whether that is possible here, `compilation` makes machine code of the kernels beside it (``*.cu``) and
keeps it on disk, `plan` lays a batch out, `launcher` runs code on torch's current stream, and `kernels` holds what
callers use.
"""

from conelayers.native.cuda.kernels import DeviceDifferentiator, DeviceEngine
from conelayers.native.cuda.toolkit import unavailable

__all__ = ["DeviceDifferentiator", "DeviceEngine", "unavailable"]
