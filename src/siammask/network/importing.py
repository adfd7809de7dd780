"""From others' checkpoints to a weights folder: the authors' .pth files and PySOT's, read strictly and safely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from siammask import weights
from siammask.errors import InputError
from siammask.network import checkpoint, siamese
from siammask.network.export import export
from siammask.variants import PRESETS, variant

# The authors' files are tuned one by one; others are searched with as the variant's row says.
_PRESET_OF_FILE = {"siammask_vot": "vot", "siammask_vot_ld": "vot18_ld", "siammask_davis": "davis"}
_PRESET_OF_PYSOT = "vot18_ld"  # what the configuration beside its siammask_r50_l3 says


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import."""

    folder: Path
    tensors: int
    preset: str


def import_checkpoint(file: Path, name: str, out: Path, preset: str | None = None) -> Imported:
    """Write the weights folder `out` of the model `name` from a checkpoint; torch is not needed to run it.

    It holds weights.safetensors (as they were), the exported graphs with their certificate, and search.json with the
    preset: the one given, else the one that belongs to the file (see `preset_for`). Only tensors are read, nothing in
    the file is executed. Raises WeightsError, naming the keys, for a checkpoint of another model or a damaged one (and
    then writes nothing), InputError for a model or preset there is not.
    """
    row = variant(name)
    if row.mask == "guided":
        raise InputError(f"{row} is this project's own; there are no others' checkpoints of it.")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"No preset is called {preset!r}; choose from {', '.join(PRESETS)}.")
    tensors, _ = checkpoint.read(file)
    network = siamese.build(row)
    checkpoint.load_state(network, tensors, str(file))
    chosen = preset or preset_for(file, checkpoint.is_pysot(tensors))
    export(siamese.graph_specs(network, row), out)
    checkpoint.save(network, out / weights.CHECKPOINT, {"variant": row.name, "origin": file.name})
    weights.write_search(out, chosen, PRESETS[chosen])
    return Imported(out, len(tensors), chosen)


def preset_for(file: Path, pysot: bool = False) -> str:
    """The preset that belongs to a checkpoint, by the authors' file names or PySOT's layout; else "default".

    >>> preset_for(Path("SiamMask_VOT_LD.pth")), preset_for(Path("checkpoint_e20.pth"))
    ('vot18_ld', 'default')
    """
    return _PRESET_OF_FILE.get(file.stem.lower(), _PRESET_OF_PYSOT if pysot else "default")
