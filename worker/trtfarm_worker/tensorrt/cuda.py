"""The few CUDA runtime calls a benchmark needs, with errors raised."""

from __future__ import annotations

from typing import Any

from trtfarm.errors import ConfigurationError, TrtFarmError


class CudaError(TrtFarmError):
    """CUDA refused a call."""

    code = "CUDA_ERROR"


class Cuda:
    """cuda-python's runtime bindings; every call checked."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise ConfigurationError(
                "cuda-python is not installed.", hint="pip install 'trtfarm[gpu]'"
            ) from error
        self.api: Any = runtime

    def __call__(self, name: str, *arguments: Any) -> Any:
        """``cuda("EventCreate")`` calls cudaEventCreate; returns its result, a tuple of several, or None.

        Raises:
            CudaError.
        """
        status, *results = getattr(self.api, f"cuda{name}")(*arguments)
        if status != self.api.cudaError_t.cudaSuccess:
            _, text = self.api.cudaGetErrorString(status)
            message = text.decode() if isinstance(text, bytes) else str(text)
            raise CudaError(f"cuda{name}: {message} ({status.name}).")
        if not results:
            return None
        return results[0] if len(results) == 1 else tuple(results)

    def copy_async(self, destination: int, source: int, size_bytes: int, stream: Any) -> None:
        kind = self.api.cudaMemcpyKind.cudaMemcpyDefault
        self("MemcpyAsync", destination, source, size_bytes, kind, stream)

    def multiprocessors(self) -> int:
        attribute = self.api.cudaDeviceAttr.cudaDevAttrMultiProcessorCount
        return int(self("DeviceGetAttribute", attribute, self("GetDevice")))
