"""A device that is the CPU under another name: what goes there and comes back is counted."""

import numpy as np


class Elsewhere:
    name = "elsewhere"

    def __init__(self):
        self.sent, self.back = 0, 0

    def put(self, array):
        self.sent += 1
        return np.array(array)

    def get(self, array):
        self.back += 1
        return np.array(array)

    def empty(self, shape):
        return np.empty(shape, np.float32)
