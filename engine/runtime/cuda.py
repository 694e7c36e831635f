"""As much of the CUDA driver as running a plan takes: memory, copies, a stream and graphs of what it was given.

The driver is there wherever a GPU is, so nothing has to be installed for it. Every call is checked.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xmr.engine.errors import XmrError

LIBRARY = "libcuda.so.1"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do is no part of the graph


class CudaError(XmrError):
    """A call of the driver that failed."""


class Device:
    """A GPU in its primary context, which TensorRT uses too, and a stream of its own."""

    def __init__(self, number: int) -> None:
        try:
            self._driver = ctypes.CDLL(LIBRARY)
        except OSError:
            raise CudaError("no driver of NVIDIA is installed here; install one, or use --device cpu") from None
        self._handle, self._context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._held: set[int] = set()  # addresses of memory
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._handle), number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._handle)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(self._stream), NON_BLOCKING)

    @property
    def stream(self) -> int:
        return self._stream.value or 0

    def enter(self) -> None:
        """Make it the device of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, n_bytes: int) -> int:
        """The address of memory on the device."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(n_bytes, 1)))
        self._held.add(address.value)
        return address.value

    def free(self, address: int) -> None:
        self._held.remove(address)
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def close(self, first: Callable[[], None] = lambda: None) -> None:
        """Give back what `first` knows of, then memory, stream and context; from any thread, whatever its device is.

        Nothing is checked: whatever keeps the driver from it has taken all of it already.
        """
        self._driver.cuCtxPushCurrent_v2(self._context)
        first()
        for address in self._held:
            self._driver.cuMemFree_v2(ctypes.c_uint64(address))
        self._held.clear()
        self._driver.cuStreamDestroy_v2(self._stream)
        self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        self._driver.cuDevicePrimaryCtxRelease_v2(self._handle)

    def upload(self, array: NDArray[Any], address: int) -> None:
        """Copy a C-contiguous array to the device, in the order of the stream."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, ctypes.c_size_t(array.nbytes), self._stream
        )

    def download(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array of what stands on the device; it is filled once `wait` has returned."""
        array = np.empty(shape, dtype)
        target = ctypes.c_void_p(array.ctypes.data)
        self._call(
            "cuMemcpyDtoHAsync_v2", target, ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes), self._stream
        )
        return array

    def wait(self) -> None:
        """Until the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def begin_capture(self) -> None:
        """What the stream is given from now on is not done but noted down."""
        self._call("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)

    def end_capture(self) -> int | None:
        """A graph of what was noted down, ready to launch; None where that cannot be made into one."""
        graph, launchable = ctypes.c_void_p(), ctypes.c_void_p()
        if self._driver.cuStreamEndCapture(self._stream, ctypes.byref(graph)) or not graph.value:
            return None
        failed = self._driver.cuGraphInstantiateWithFlags(ctypes.byref(launchable), graph, ctypes.c_ulonglong(0))
        self._driver.cuGraphDestroy(graph)
        return None if failed else launchable.value

    def launch(self, graph: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), self._stream)

    def destroy(self, graph: int) -> None:
        """Unchecked, as what closes a device is."""
        self._driver.cuGraphExecDestroy(ctypes.c_void_p(graph))

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._driver, name)(*arguments):
            said = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(said))
            reason = said.value.decode() if said.value else f"error {code}"
            raise CudaError(f"CUDA: {reason} ({name}); free the GPU or mend its driver, or use --device cpu")
