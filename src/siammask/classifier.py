"""A linear classifier of a target's own: what tells it, on its first frame, from what stands around it.

Ridge regression of the mask on the features, in closed form. Related: R2D2 (Bertinetto et al., ICLR 2019); what D3S
(Lukezic et al., CVPR 2020) and FRTM (Robinson et al., CVPR 2020) fit to the first frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from siammask.geometry import Float32


def fit(features: Float32, mask: Float32, ridge: float) -> Float32:
    """Weights (..., C + 1), the last a bias: their product with features is near 1 on the target, near -1 around it.

    `features` are (..., M, C) at M positions, `mask` is (..., M) in [0, 1]. Target and surroundings count alike,
    however many positions each has. `ridge`, above 0, weighs the squares of the weights, each in units of its
    channel's deviation, against the mean squared error.
    """
    y = mask.astype(np.float32)
    x = np.concatenate((features, np.ones_like(features[..., :1])), -1, dtype=np.float32)
    sides = [side / (2.0 * side.sum(-1, keepdims=True) + 1e-6) for side in (y, 1.0 - y)]
    weighed = (x * (sides[0] + sides[1])[..., None]).swapaxes(-1, -2)
    gram: NDArray[np.float64] = (weighed @ x).astype(np.float64)
    firm = ridge * (x.var(-2) + 1e-4)
    firm[..., -1] = 1e-6  # the bias is free
    gram[..., range(x.shape[-1]), range(x.shape[-1])] += firm
    return np.linalg.solve(gram, weighed @ (2.0 * y - 1.0)[..., None])[..., 0].astype(np.float32)
