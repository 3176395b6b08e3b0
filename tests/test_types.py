"""What a type checker sees of the package from outside."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lstm_optax

CONSUMER = """
import lstm_optax as lo

reveal_type(lo.nadam(1e-3))
reveal_type(lo.presets.torch.NAdam())
reveal_type(lo.__version__)
lo.no_such
lo.presets.no_such
"""


@pytest.fixture(scope="module")
def messages(tmp_path_factory) -> list[tuple[str, str]]:
    """Severity and text of each message about `CONSUMER`."""
    if not importlib.util.find_spec("pyright"):
        pytest.skip("pyright is not installed: pip install 'lstm_optax[dev]'")
    folder = tmp_path_factory.mktemp("consumer")
    (folder / "consumer.py").write_text(CONSUMER)
    root = str(Path(lstm_optax.__file__).parents[1])
    settings = {"extraPaths": [root], "typeCheckingMode": "strict", "pythonPath": sys.executable}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "consumer.py"], cwd=folder, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [(message["severity"], message["message"]) for message in found]


@pytest.mark.slow
def test_consumers_see_types(messages):
    revealed = [text.split('"')[3] for severity, text in messages if severity == "information"]
    assert revealed == ["GradientTransformationExtraArgs"] * 2 + ["str"]


@pytest.mark.slow
def test_unknown_names_are_errors(messages):
    errors = [text.split("\n")[0] for severity, text in messages if severity == "error"]
    unknown = [text for text in errors if text.startswith('"no_such" is not a known attribute')]
    assert len(unknown) == 2, errors
