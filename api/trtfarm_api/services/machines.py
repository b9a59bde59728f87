"""What a machine says of itself → the words of the farm."""

from __future__ import annotations

from trtfarm.catalogue import Capability, Catalogue
from trtfarm.contract.machine import Machine, MachineRequest
from trtfarm.contract.target import Runtime, gpu_slug, parse_capability
from trtfarm.errors import InvalidRequestError, UnknownGpuError, UnknownRuntimeError


def machine_of(catalogue: Catalogue, said: MachineRequest) -> Machine:
    """Of a GPU that the catalogue does not have, its name and capability are taken as they are.

    Raises:
        UnknownGpuError, UnknownRuntimeError: nobody knows of such a thing.
        InvalidRequestError: it says too little, or contradicts itself.
    """
    runtime = Runtime.parse(said.runtime)
    if not runtime.version:
        raise UnknownRuntimeError(
            f"A plan is bound to a version of TensorRT: {runtime} does not say which.",
            hint=f"State the whole version, as {runtime}-10.16.1.11: python -c "
            "'import tensorrt; print(tensorrt.__version__)'",
        )
    capability = parse_capability(said.compute_capability) if said.compute_capability else None
    if said.compute_capability and capability is None:
        raise InvalidRequestError(f"{said.compute_capability!r} is no compute capability; write 8.9.")
    gpu, known = _gpu(catalogue, said.gpu, capability)
    if capability and known and capability != known:
        raise InvalidRequestError(
            f"{gpu or said.gpu} has compute capability {known}, and not {capability}.",
            hint="Leave the compute capability out.",
        )
    found = known or capability
    if found is None:
        raise InvalidRequestError(
            "Which GPU does the machine have?", hint="State gpu, as rtx-4090, or compute_capability, as 8.9."
        )
    return Machine(
        gpu=gpu,
        compute_capability=found,
        runtime=str(runtime),
        driver=said.driver,
        platform=said.platform,
    )


def _gpu(catalogue: Catalogue, text: str | None, capability: str | None) -> tuple[str | None, str | None]:
    """(slug, capability), as far as they are known."""
    if text is None:
        return None, None
    try:
        found = catalogue.resolve(text)
    except UnknownGpuError:
        if capability is None:
            raise
        return gpu_slug(text), None
    if isinstance(found, Capability):
        return None, found.compute_capability
    return found.slug, found.compute_capability
