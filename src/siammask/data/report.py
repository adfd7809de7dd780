"""What is wrong with data, file by file, and how much there is of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Progress = Callable[[str], None]  # called with the name of every clip or picture that is done


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file."""

    file: Path
    what: str  # a sentence
    fatal: bool = True  # it cannot be used, or would be learnt wrongly; False: worth a look

    @classmethod
    def of(cls, file: Path, error: Exception) -> Problem:
        """A fatal one, in the words of an error, which need not name the file again."""
        return cls(file, str(error).replace(f"Picture {file}", "It").replace(f"Mask {file}", "It"))

    def __str__(self) -> str:
        return f"{self.file}: {self.what}{'' if self.fatal else ' (note)'}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found good, and the problems in the order of their files."""

    clips: int  # video sequences
    stills: int
    pictures: int  # of both
    objects: int  # an object counts once in a clip
    problems: tuple[Problem, ...]

    @property
    def fatal(self) -> int:
        """Number of problems that are."""
        return sum(problem.fatal for problem in self.problems)

    def __str__(self) -> str:
        found = f"{self.clips} clips and {self.stills} stills: {self.pictures} pictures, {self.objects} objects"
        return f"{found}; {self.fatal} errors, {len(self.problems) - self.fatal} notes."

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        problems = [asdict(problem) | {"file": str(problem.file)} for problem in self.problems]
        return asdict(self) | {"problems": problems, "fatal": self.fatal}


def by_file(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sorted by file; those of one file stay in order."""
    return tuple(sorted(problems, key=lambda problem: str(problem.file)))
