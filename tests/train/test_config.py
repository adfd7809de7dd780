"""A config says what it means or fails at once, naming the option."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from siammask.errors import InputError
from siammask.train import config as configs
from siammask.train.config import OptimConfig
from siammask.variants import VARIANTS, variant

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))
LEAST = 'variant = "guided"\noutput = "out"\n[data]\nroot = "data"\nsources = ["a", "b"]\n'


def read(folder: Path, text: str) -> configs.TrainConfig:
    file = folder / "run.toml"
    file.write_text(text)
    return configs.read(file)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configs_read(file: Path) -> None:
    c = configs.read(file)
    assert file.stem.startswith(("guided", f"{c.variant}", f"published_{c.variant}"))
    assert variant(c.variant).name == c.variant
    assert c.data.sources
    assert not Path(c.data.root).is_absolute()
    assert set(c.data.clips.weights) <= set(c.data.sources)
    assert c.optim.warmup < c.optim.steps


def test_there_are_shipped_configs() -> None:
    names = {configs.read(file).variant for file in CONFIGS}
    assert names == set(VARIANTS) - {"guided_light"}


def test_stages_follow_the_weights() -> None:
    folder = CONFIGS[0].parent
    names = [file.stem for file in configs.stages(folder / "guided_firm.toml")]
    assert names == ["guided_head", "guided", "guided_tight", "guided_settle", "guided_firm"]
    assert configs.stages(folder / "guided_head.toml") == (folder / "guided_head.toml",)


def test_a_file_extends_another(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "shared.toml").write_text(LEAST + "[optim]\nlr = 0.1\nsteps = 7\n")
    c = read(tmp_path, 'extends = "below/shared.toml"\noutput = "mine"\n[optim]\nsteps = 9\n')
    assert (c.variant, c.output, c.optim.lr, c.optim.steps) == ("guided", "mine", 0.1, 9)


def test_sources_of_its_own_have_weights_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "below.toml").write_text(LEAST + "[data.clips]\npart = 0.5\nweights = { a = 2, b = 3 }\n")
    assert read(tmp_path, 'extends = "below.toml"\nseed = 3\n').data.clips.weights == {"a": 2.0, "b": 3.0}
    data = read(tmp_path, 'extends = "below.toml"\n[data]\nsources = ["c"]\nmore = ["d"]\n').data
    assert (data.root, data.sources, data.more) == ("data", ("c",), ("d",))
    assert (data.clips.part, data.clips.weights) == (0.5, {})
    c = read(tmp_path, 'extends = "below.toml"\n[data]\nsources = ["a"]\n[data.clips.weights]\na = 4\n')
    assert c.data.clips.weights == {"a": 4.0}
    with pytest.raises(InputError, match="data is 3; expected a table"):
        read(tmp_path, 'extends = "below.toml"\ndata = 3\n')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('extends = "none.toml"', r"none\.toml cannot be read"),
        ('extends = "run.toml"', r"run\.toml extends itself"),
        ("extends = 3", r"run\.toml: extends is 3; expected the path"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(tmp_path, text)


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    c = read(tmp_path, LEAST)
    assert c.data.sources == ("a", "b")
    assert c.optim == OptimConfig()
    assert c.threads is None


def test_values_take_the_type_of_their_field(tmp_path: Path) -> None:
    clips = "[data.clips]\nwindow = [1, 2.5]\nweights = { a = 2 }\n[search]\nfollow = 'box'\npatience = 2\n"
    c = read(tmp_path, f"threads = 2\n{LEAST}{clips}[optim]\nlr = 1\nteacher = [0.5, 0]")
    assert c.threads == 2
    assert c.data.clips.window == (1.0, 2.5)
    assert c.data.clips.weights == {"a": 2.0}
    assert c.search == {"follow": "box", "patience": 2}
    assert isinstance(c.optim.lr, float)
    assert c.optim.teacher == (0.5, 0.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LEAST + "[optim]\nstep = 5", r"optim: unknown option 'step'; there are steps, batch"),
        ("colour = 1\n" + LEAST, "unknown option 'colour'; there are variant, output"),
        (LEAST.replace('output = "out"\n', ""), "option 'output' is missing"),
        (LEAST.replace('root = "data"\n', ""), "data: option 'root' is missing"),
        (LEAST + "[optim]\nlr = 'fast'", "optim: lr is 'fast'; expected float"),
        (LEAST + "[optim]\nsteps = 1.5", "optim: steps is 1.5; expected int"),
        (LEAST + "[optim]\nsteps = true", "optim: steps is True; expected int"),
        (LEAST + "[optim]\nteacher = [0.5]", r"optim: teacher is \[0.5\]; expected a list of 2"),
        (LEAST + "[optim]\nmethod = 'adam'", "optim: method is 'adam'; choose adamw or muon or sgd"),
        (LEAST + "[siamese]\nstage = 'fine'", "siamese: stage is 'fine'; choose all or refine"),
        (LEAST.replace('["a", "b"]', '"a"'), "data: sources is 'a'; expected a list"),
        ('variant = "guided"\noutput = "out"\ndata = 3', "data is 3; expected a table"),
        ("variant = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read(tmp_path, text)
    assert "run.toml" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml cannot be read: No such file"):
        configs.read(tmp_path / "none.toml")


def test_another_seed_has_a_folder_of_its_own() -> None:
    c = configs.read(next(file for file in CONFIGS if file.stem == "siamfc_light"))
    again = configs.seeded(c, 2)
    assert (again.seed, again.output) == (2, "runs/siamfc_light-seed2")
    assert dataclasses.replace(again, seed=c.seed, output=c.output) == c
