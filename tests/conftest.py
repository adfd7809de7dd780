"""What all tests share: one thread, hypothesis without a clock (a busy machine is no failure), nothing left at home."""

from __future__ import annotations

import os

import cv2
from hypothesis import settings

cv2.setNumThreads(1)
os.environ["SIAMMASK_CACHE"] = "off"
settings.register_profile("siammask", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("siammask")
