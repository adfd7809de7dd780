"""Where that is kept which can be made again, such as compiled networks: the user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "SIAMMASK_CACHE"  # a folder of the user's choice, or "off"


def cache_folder(part: str) -> Path | None:
    """The folder `part` of this package's cache, made where it is missing.

    It is $SIAMMASK_CACHE, else the platform's: $XDG_CACHE_HOME or ~/.cache (Linux and others), ~/Library/Caches
    (macOS), %LOCALAPPDATA% (Windows). None where the variable is "off", or where nothing can be written: a cache saves
    time, and doing without it is no error.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen == "off":
        return None
    try:
        folder = (Path(chosen) if chosen else _platform() / "siammask") / part
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    return folder if os.access(folder, os.W_OK) else None


def _platform() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
