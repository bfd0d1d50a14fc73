"""Our own kernels for one CPU thread: what lies between the matrix products of a small transformer.

Below a few million parameters a step spends more time there than multiplying: attention over short contexts, rotations,
norms, SwiGLU and the softmax of the logits, each read from and written to memory several times. torch.compile fuses the
element-wise part, at 10 to 180 s a shape; these serve all shapes, take 3 s to build once a machine, and also do the
attention, which torch.compile leaves to a kernel made for long contexts. Their speed is in ``benchmarks/README.md``.

``attention.py``, ``norm.py`` and ``swiglu.py`` give each its gradient, and ``cross_entropy.py`` is one. Everything
else, and every other device, runs on PyTorch's kernels.
"""

from trainer.models.kernels.cross_entropy import cross_entropy
from trainer.models.kernels.library import available, in_use, used

__all__ = ["available", "cross_entropy", "in_use", "used"]
