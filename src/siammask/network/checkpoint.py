"""Weights on disk: safetensors with a few words about them, and the authors' .pth files; always loaded strictly."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from siammask.errors import WeightsError

# The authors' names of the parts, and ours.
_RELEASED = {
    "features.features.": "backbone.",
    "features.downsample.downsample.": "neck.",
    "rpn_model.cls.": "score.",
    "rpn_model.loc.": "box.",
    "mask_model.mask.": "mask.",
    "refine_model.": "refine.",
}
# Those of PySOT's siammask_r50_l3; its backbone is called as ours.
_PYSOT = {
    "neck.downsample.downsample.": "neck.",
    "neck.downsample.": "neck.",
    "rpn_head.cls.": "score.",
    "rpn_head.loc.": "box.",
    "mask_head.": "mask.",
    "refine_head.": "refine.",
}


def save(network: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """Write the weights as safetensors; `about` (variant, licence, ...) becomes the file's metadata."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, dict(about))


def load(network: nn.Module, path: Path) -> dict[str, str]:
    """Load a file into `network`, strictly, and return what the file says about itself.

    Raises WeightsError, naming the keys, where the file is not of this very architecture.
    """
    tensors, about = read(path)
    load_state(network, tensors, str(path))
    return about


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file, or of a .pth file (tensors only: nothing in it is executed)."""
    if not path.is_file():
        raise WeightsError(f"No checkpoint at {path}.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged, or no checkpoint of tensors ({error}); get it again.") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state_dict of tensors; give a checkpoint's state_dict.")
    return state, {}


def load_state(network: nn.Module, tensors: Mapping[str, Tensor], origin: str = "These weights") -> None:
    """Copy tensors into `network` under our names, the released ones or PySOT's, with or without a leading `module.`.

    Raises WeightsError, before anything is copied, naming keys that are unknown or missing and shapes that differ.
    """
    given = {ours(key): value for key, value in tensors.items()}
    if len(given) < len(tensors):
        twice = [key for key in tensors if ours(key) != key and ours(key) in tensors]
        raise WeightsError(f"{origin}: the same weights under two names: {_some(twice)}; give a file of one layout.")
    wanted = network.state_dict()
    # only a counter of training steps; checkpoints of torch before 0.4.1 have none
    missing = [key for key in wanted if key not in given and not key.endswith(".num_batches_tracked")]
    unknown = [key for key in given if key not in wanted]
    if missing or unknown:
        raise WeightsError(
            f"{origin}: of another architecture; missing: {_some(missing)}; unknown: {_some(unknown)}. "
            "Choose the model that the weights were made for."
        )
    wrong = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in given.items()
        if value.shape != wanted[key].shape
    ]
    if wrong:
        raise WeightsError(f"{origin}: of another architecture; shapes: {_some(wrong)}.")
    network.load_state_dict({**wanted, **given}, strict=True)


def fitting(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors, with those of another variant wherever name and shape agree; says how many did."""
    own, given = network.state_dict(), {ours(key): value for key, value in tensors.items()}
    taken = {key: value for key, value in given.items() if key in own and value.shape == own[key].shape}
    print(f"{len(taken)} of the network's {len(own)} tensors are taken from the checkpoint's {len(tensors)}.")
    return own | taken


def ours(key: str) -> str:
    """Our name of a tensor.

    >>> ours("module.rpn_model.cls.head.3.weight")
    'score.head.3.weight'
    """
    key = key.removeprefix("module.")
    for theirs, name in (_RELEASED | _PYSOT).items():
        if key.startswith(theirs):
            return name + key.removeprefix(theirs)
    return key


def is_pysot(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of PySOT's models."""
    return any(key.removeprefix("module.").startswith("rpn_head.") for key in tensors)


def _some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
