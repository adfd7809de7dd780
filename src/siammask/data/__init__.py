"""Training data: `import_folder` brings known layouts into that of the training pool, `check_folder` is its doctor.

The pool's layout is what `siammask.train.pool` reads; nothing here needs torch.
"""

from siammask.data.check import check_folder
from siammask.data.importing import KINDS, import_folder
from siammask.data.report import Problem, Report

__all__ = ["KINDS", "Problem", "Report", "check_folder", "import_folder"]
