"""The correlation is what its definition says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks need the extra 'train'")
from siammask.network.heads import Branch, Correlation, Refine  # noqa: E402


def test_correlation_slides_each_kernel_over_its_own_channel():
    torch.manual_seed(0)
    pixels, kernel = torch.randn(2, 3, 7, 6), torch.randn(2, 3, 3, 2)
    have = Correlation()(pixels, kernel)
    want = np.zeros((2, 3, 5, 5), np.float32)
    for n, c, i, j in np.ndindex(want.shape):
        want[n, c, i, j] = float((pixels[n, c, i : i + 3, j : j + 2] * kernel[n, c]).sum())
    np.testing.assert_allclose(have, want, atol=1e-5)


def test_a_cell_of_a_branch_sees_only_its_own_window():
    torch.manual_seed(0)
    branch = Branch(4, 10).eval()
    kernel, search = branch.kernel(torch.randn(1, 4, 7, 7)), torch.randn(1, 4, 31, 31)
    changed = search.clone()
    changed[:, :, 20, 20] += 5
    with torch.inference_mode():
        touched = (branch(kernel, search) != branch(kernel, changed)).any(1)[0]
    rows, columns = touched.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (14, 20, 14, 20)  # 7 x 7 cells under one kernel


def test_refine_gives_the_size_it_is_told():
    refine = Refine(8, (4, 8, 12), (20, 10, 5), 41).eval()
    with torch.inference_mode():
        drawn = refine(torch.rand(2, 8), torch.rand(2, 4, 20, 20), torch.rand(2, 8, 10, 10), torch.rand(2, 12, 5, 5))
    assert drawn.shape == (2, 41, 41)
