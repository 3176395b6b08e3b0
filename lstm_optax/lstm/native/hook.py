"""Build hook of hatchling: compiles the native library for a wheel, where there is a compiler.

Without one, or with LSTM_OPTAX_NATIVE=0, the wheel has no library, runs on any platform, and
contains the reason, which `library.py` repeats to whoever asks for the library. An editable
installation compiles it into the source checkout.
"""

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import (  # pyright: ignore[reportMissingImports]
    BuildHookInterface,
)

HERE = Path(__file__).parent
SWITCH = "LSTM_OPTAX_NATIVE"


def _load_build() -> Any:
    """Return build.py, which is not yet installed."""
    spec = importlib.util.spec_from_file_location("lstm_optax_build", HERE / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class NativeLibrary(BuildHookInterface):
    """Adds the library to a wheel, and the platform to its tag."""

    def dependencies(self) -> list[str]:
        """Return what the compilation needs: XLA's headers, and zig if it is asked for."""
        build = _load_build()
        try:
            command = _find_compiler(build).command
        except build.BuildError:
            return []
        return ["jaxlib>=0.10", *(["ziglang>=0.17"] if "ziglang" in command else [])]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library, or add the reason why there is none.

        Raises:
          BuildError: there is none, and LSTM_OPTAX_NATIVE=1 or LSTM_OPTAX_BUILD asks for it.
        """
        build, editable = _load_build(), version == "editable"
        self._work = tempfile.TemporaryDirectory()
        folder = HERE if editable else Path(self._work.name)
        try:
            compiler = _find_compiler(build)
            added = build.build(folder, compiler)
        except build.BuildError as error:
            if os.environ.get(SWITCH) == "1" or os.environ.get(build.CHOICE):
                raise
            reason, *details = str(error).splitlines()
            for line in (f"lstm_optax without its native backend: {reason}", *details[-10:]):
                self.app.display_warning(line)
            added = Path(self._work.name, build.REASON)
            added.write_text(f"{reason}\n", encoding="utf-8")
        else:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{compiler.platform}"
        if not editable:
            build_data["force_include"][str(added)] = f"lstm_optax/lstm/native/{added.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete what is now in the wheel."""
        self._work.cleanup()


def _find_compiler(build: Any) -> Any:
    if os.environ.get(SWITCH) == "0":
        raise build.BuildError(f"{SWITCH} was 0 when it was installed")
    return build.find_compiler()
