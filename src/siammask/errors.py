"""The errors a user can meet. Each message names the value that is wrong and the cure."""


class SiamMaskError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one sentence."""


class InputError(SiamMaskError, ValueError):
    """A frame, box, mask or option that cannot be used."""


class MediaError(SiamMaskError, OSError):
    """A video, picture or folder that cannot be read or written."""


class WeightsError(SiamMaskError):
    """Weights that are missing, damaged or of another architecture."""


class MissingExtra(SiamMaskError, ImportError):  # noqa: N818 - the field says "missing extra"
    """A part of the package whose optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'siammask[{extra}]'.")
