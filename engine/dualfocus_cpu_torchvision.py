"""Lets the package index's torchvision, built for CUDA, be imported beside a CPU build of torch.

Its compiled half can't be loaded there and is not missed: the operators in it find objects in pictures, while models'
processors resize them with torch's own. But importing torchvision tells torch about two of these operators, and fails
where nobody has declared them; so they are declared just before. vLLM imports torchvision before it loads a plugin, and
also in a process that only inspects a model, so the installer has every Python of the environment `watch()` (a `.pth`
file beside the packages). It stands outside of `dualfocus_engine`, whose import no such start should pay for, and
imports nothing itself until torchvision is.

Leans on torchvision 0.28: `torchvision._meta_registrations` describes the operators, after its extension was tried.
"""

import sys

_DESCRIBES_OPERATORS = "torchvision._meta_registrations"
_OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# What torch was told is forgotten with the object that told it.
_declared: list[object] = []


def watch() -> None:
    """Declare torchvision's operators once it is imported, where it has none of its own by then."""
    if _watcher not in sys.meta_path:  # the `.pth` files of a virtual environment are read twice
        sys.meta_path.insert(0, _watcher)


class _Watcher:
    """A finder that finds nothing: it is asked about every import, first of all finders."""

    def find_spec(self, name: str, path: object = None, target: object = None, /) -> None:
        """Declare the operators when torchvision is about to describe them, and be gone."""
        if name == _DESCRIBES_OPERATORS:
            # Another list: the import that asks is going through this one, and would miss the next finder.
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
            _declare_missing()


_watcher = _Watcher()


def _declare_missing() -> None:
    import torch

    # A fragment: the library itself may still be defined by whoever brings the operators.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _OPERATORS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + schema)
            _declared.append(library)
