"""Compile the programs of the tests in less time: XLA takes more than half of it otherwise.

A test runs its programs once, so they need not be fast. `JAX_DISABLE_MOST_OPTIMIZATIONS=0 pytest`
compiles as for users; `.ci/run` does so once. The variables also reach the processes that tests
start. A test of the compiled program itself uses `compiled.optimized`.
"""

import os
from importlib.metadata import version

OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
"""The compiler's options that compile one program as for users."""

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and version("jaxlib").startswith("0.10."):
    # the generator of code before MLIR's; later versions have no such flag, and end at unknown ones
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_use_fusion_emitters" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()
    OPTIMIZED["xla_cpu_use_fusion_emitters"] = True
