"""What all tests share: one thread, and hypothesis without a clock (a busy machine is no failure)."""

from __future__ import annotations

import cv2
from hypothesis import settings

cv2.setNumThreads(1)
settings.register_profile("siammask", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("siammask")
