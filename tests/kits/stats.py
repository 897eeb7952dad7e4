"""Statistics for tests of randomness, in numpy only."""

import math

import numpy as np


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in np.ravel(x)])


def ks(uniforms):
    """Kolmogorov's statistic sqrt(n) D of values that should be uniform in (0, 1); over 1.95 has probability .001."""
    values = np.sort(np.ravel(uniforms))
    n = len(values)
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max(np.max(values - steps[:-1]), np.max(steps[1:] - values))
