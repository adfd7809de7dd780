"""Where the weights are: in the package (`weights/<variant>/`), or where the user says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from siammask.errors import WeightsError

SHIPPED = Path(__file__).with_name("weights")
CHECKPOINT = "weights.safetensors"
CERTIFICATE = "certificate.json"
SEARCH = "search.json"  # how these weights want to be searched with, where that is not what the variant's row says


def shipped() -> tuple[str, ...]:
    """Names of the variants whose weights are in this package."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{CERTIFICATE}")))


def folder(variant: str, given: Path | None = None) -> Path:
    """The folder with the exported graphs of a variant; raise WeightsError, saying what to do, where there is none."""
    path = SHIPPED / variant if given is None else Path(given)
    if path.is_dir():
        return path
    raise WeightsError(_missing(variant, path, given, "a folder with exported graphs (*.xml)"))


def checkpoint(variant: str, given: Path | None = None) -> Path:
    """The checkpoint of a variant: `weights.safetensors` in its folder, or the very file that is `given`."""
    path = SHIPPED / variant if given is None else Path(given)
    file = path / CHECKPOINT if path.is_dir() or given is None else path
    if file.is_file():
        return file
    raise WeightsError(_missing(variant, file, given, "a checkpoint (.safetensors), or a folder that holds one"))


def search(variant: str, given: Path | None = None) -> dict[str, Any]:
    """Search settings by name that belong to the weights of a variant (see `Variant.searching`); empty for most.

    Raises WeightsError for a file that is damaged.
    """
    path = SHIPPED / variant if given is None else Path(given)
    file = (path.parent if path.is_file() else path) / SEARCH
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
        return {str(name): value for name, value in settings.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{file} holds no search settings ({error}); import the checkpoint again.") from error


def write_search(folder: Path, preset: str, settings: dict[str, float]) -> None:
    """Say in a weights folder with which settings its weights are searched, and after which preset."""
    (folder / SEARCH).write_text(json.dumps({"preset": preset, "settings": settings}, indent=2) + "\n", "utf-8")


def _missing(variant: str, looked_for: Path, given: Path | None, wanted: str) -> str:
    if given is not None:
        return f"No weights of {variant!r} at {looked_for}; give the path of {wanted}."
    names = ", ".join(shipped()) or "none"
    return (
        f"The package holds no weights of {variant!r} for this engine (looked for {looked_for}; models shipped with "
        f"weights: {names}); give the path of {wanted}."
    )
