"""The presets run through the contracts of the rules, whose tests lie beside this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "transforms"))
