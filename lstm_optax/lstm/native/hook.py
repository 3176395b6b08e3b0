"""Build hook of hatchling: compiles the native library for a wheel, if there is a compiler.

Without one, or with LSTM_OPTAX_NATIVE=0, the wheel is made without the library, for any platform.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import (  # pyright: ignore[reportMissingImports]
    BuildHookInterface,
)

HERE = Path(__file__).parent


def _load_build():
    spec = importlib.util.spec_from_file_location("lstm_optax_build", HERE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeLibrary(BuildHookInterface):
    """Adds the library to a wheel, and the platform to its tag."""

    def dependencies(self) -> list[str]:
        """Return what the compilation needs: XLA's headers, and zig if it is asked for."""
        if self.target_name != "wheel" or self._reason_to_skip():
            return []
        zig = os.environ.get("LSTM_OPTAX_BUILD") == "zig"
        return ["jaxlib>=0.10", *(["ziglang>=0.14"] if zig else [])]

    def initialize(self, version: str, build_data: dict) -> None:
        """Compile the library; a failure leaves a wheel without it, and says so in one line."""
        if self.target_name != "wheel":
            return
        if reason := self._reason_to_skip():
            return self._say(reason)
        build = _load_build()
        target = os.environ.get("LSTM_OPTAX_TARGET")
        self._work = tempfile.TemporaryDirectory()
        try:
            library = build.build(Path(self._work.name), build.find_compiler(), target)
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            if target or os.environ.get("LSTM_OPTAX_BUILD"):
                raise  # it was asked for
            return self._say(f"it did not compile: {getattr(error, 'stderr', None) or error}")
        build_data["force_include"][str(library)] = f"lstm_optax/lstm/native/{build.LIBRARY}"
        build_data["pure_python"] = False
        platform = target or sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def _reason_to_skip(self) -> str | None:
        if os.environ.get("LSTM_OPTAX_NATIVE") == "0":
            return "LSTM_OPTAX_NATIVE is 0"
        if _load_build().find_compiler() is None:
            return "no C++ compiler was found, or the platform is not Linux on x86-64 or AArch64"
        return None

    def _say(self, reason: str) -> None:
        print(f"lstm_optax: installed without the native CPU backend: {reason}", file=sys.stderr)
