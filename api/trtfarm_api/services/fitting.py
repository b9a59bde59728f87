"""What people call a GPU in a list → the targets or products that are meant."""

from __future__ import annotations

from trtfarm.catalogue import Capability, Catalogue
from trtfarm.contract.target import capability_target
from trtfarm.errors import UnknownGpuError


def fitting(catalogue: Catalogue, text: str | None) -> tuple[str, ...]:
    """A product and its capability: ``NVIDIA L4`` → ``l4``, ``cc-8.9``. None: every target.

    A name that the catalogue does not know is taken as it is: the farm may have had such a worker.
    """
    if not text:
        return ()
    try:
        found = catalogue.resolve(text)
    except UnknownGpuError:
        return (text,)
    if isinstance(found, Capability):
        return (found.slug,)
    return (found.slug, capability_target(found.compute_capability))


def measured_on(catalogue: Catalogue, text: str | None) -> tuple[str, ...]:
    """A product; or every product of a capability, since one measures on products alone."""
    if not text:
        return ()
    try:
        found = catalogue.resolve(text)
    except UnknownGpuError:
        return (text,)
    if isinstance(found, Capability):
        number = found.compute_capability
        return tuple(each.slug for each in catalogue.entries if each.compute_capability == number)
    return (found.slug,)
