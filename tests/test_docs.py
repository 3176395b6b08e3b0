"""The pages of the docs and the README: their Python runs, what it prints is what they show."""

import contextlib
import importlib.util
import inspect
import io
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lstm_optax
from lstm_optax import Checkpoints
from lstm_optax.bench import bench_markdown, read_bench
from lstm_optax.bench.tables import bench_means, bench_rows
from lstm_optax.commands.main import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SKIP = re.compile(r"<!-- not run: .+ -->\s*\Z")
NEEDS = re.compile(r"<!-- needs (\w+) -->\s*\Z")
FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\S*)\n(?P<body>.*?)^(?P=fence)$", re.S | re.M)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    body: str
    line: int  # of its first line in the page, counted from 0
    skipped: bool  # by a comment before it that says why, or names a module that is missing
    needs_module: bool  # a comment before it names one
    follows: bool  # only blank lines separate it from the block before


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    end = 0
    for match in FENCE.finditer(text):
        before = text[end : match.start()]
        line = text.count("\n", 0, match.start("body"))
        needs = NEEDS.search(before)
        missing = needs and importlib.util.find_spec(needs[1]) is None
        skipped = bool(SKIP.search(before) or missing)
        follows = not before.strip()
        yield Block(match["language"], match["body"], line, skipped, bool(needs), follows)
        end = match.end()


def run_page(page: Path) -> None:
    """Run the Python of a page in one namespace; a text block after one is what it prints."""
    names = {"__name__": "__main__"}
    printed = None
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "text" and block.follows and printed is not None:
            assert printed.rstrip() == block.body.rstrip(), f"{page.name}, line {block.line}"
        printed = None
        if block.language == "python" and not block.skipped:
            code = compile("\n" * block.line + block.body, str(page), "exec")
            output = io.StringIO()
            with contextlib.redirect_stdout(output), warnings.catch_warnings():
                if block.needs_module:
                    warnings.simplefilter("ignore")  # those of the other library
                exec(code, names)
            printed = output.getvalue()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.name == "README.md" else [pytest.mark.slow])
        for page in PAGES
    ],
    ids=lambda page: page.name,
)
def test_page_prints_its_output(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        run_page(page)


def test_wrong_output_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n3\n```\n")
    with pytest.raises(AssertionError, match="page.md"):
        run_page(page)


def test_skipped_block_needs_reason(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it would fail -->\n```python\n1 / 0\n```\n")
    run_page(page)


def test_block_needs_module(tmp_path):
    page = tmp_path / "page.md"
    block = "<!-- needs {} -->\n```python\nprint(1)\n```\n\n```text\n2\n```\n"
    page.write_text(block.format("no_such_module"))
    run_page(page)
    page.write_text(block.format("jax"))
    with pytest.raises(AssertionError, match="page.md"):
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_of_the_repository(page):
    """Not to the copies that a build of the site makes: the pages are read without a build, too."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
    missing = [link for link in targets if not (page.parent / link).is_file()]
    assert not missing and not any(link.startswith("notebooks/") for link in targets)


def test_gallery_shows_each_picture():
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    shown = re.findall(r"^!\[.+\]\((\S+)\)$", text, re.M)
    assert sorted(shown) == sorted(path.name for path in DOCS.glob("*.png"))
    assert len(re.findall(r"^```bash$", text, re.M)) == len(shown)


def public_paths() -> list[str]:
    """The path to import of each public name: the root's if the root exports it, else the room's.

    Rooms, the presets and the states have no entries of their own: `presets.md` and one
    `automodule` in `api.md` list the latter two.
    """
    paths = set()
    for room in sorted(set(lstm_optax.__all__) - {"presets"}):
        module = getattr(lstm_optax, room)
        if inspect.ismodule(module):
            for name in module.__all__:
                home = "" if name in lstm_optax.__all__ else f".{room}"
                paths.add(f"lstm_optax{home}.{name}")
    is_state = re.compile(r"lstm_optax\.transforms\.\w+State")
    return sorted(path for path in paths if not is_state.fullmatch(path))


def test_reference_lists_each_public_name_once():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    directive = r"^\.\. (?:py:data|auto(?!module)\w+):: (lstm_optax\.\S+)$"
    assert sorted(re.findall(directive, text, re.M)) == public_paths()
    assert ".. automodule:: lstm_optax.transforms\n   :members:" in text


def test_presets_page_lists_each_source():
    text = (DOCS / "presets.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\.\. automodule:: lstm_optax\.presets\.(\w+)$", text, re.M)
    assert sorted(listed) == sorted(lstm_optax.presets.__all__)


def test_getting_started_lists_all_flags(capsys):
    flags = set()
    for command in ("train", "sample", "explain", "advise", "bench"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        flags |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    text = (DOCS / "getting_started.md").read_text(encoding="utf-8")
    named = {f.replace("--no-", "--") for f in re.findall(r"--[a-z][a-z-]+", text)}
    assert named == {f for f in flags if not f.startswith("--no-")} | {"--help", "--version"}


@pytest.mark.parametrize(
    "page, records", [("speed", "bench"), ("speed_second_cpu", "bench_second_cpu")]
)
def test_speed_page_matches_records(page, records):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert bench_markdown(read_bench(DOCS / "records" / f"{records}.jsonl")) in text, (
        f"rewrite it: lstm-optax bench --show --out docs/records/{records}.jsonl "
        f"--page docs/{page}.md"
    )


def test_readme_has_ratios_of_records():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    first = read_bench(DOCS / "records" / "bench.jsonl")
    layers = [row for row in bench_rows(first) if row.facts["kind"] == "layer"]
    flax, torch = (
        sorted(ratio[1] for row in layers if (ratio := row.ratio("step", name)))
        for name in ("flax-nnx", "torch")
    )
    means = bench_means(first)
    second = bench_means(read_bench(DOCS / "records" / "bench_second_cpu.jsonl"))
    assert len(layers) == len(flax) == len(torch) == 9
    assert f"it was {flax[0]:.1f} to {flax[-1]:.1f} times as fast as Flax's" in text
    assert f"({means['layer', 'step', 'flax-nnx']:.1f} in the geometric mean" in text
    assert f"{torch[0]:.2f} to {torch[-1]:.1f} times as fast as PyTorch's" in text
    assert f"`nn.LSTM` ({means['layer', 'step', 'torch']:.1f})" in text
    both = [f"{second['layer', 'step', name]:.1f}" for name in ("flax-nnx", "torch")]
    assert f"the means were {both[0]} and {both[1]}" in text
    gpu = bench_means(first, "gpu")
    both = [f"{gpu['layer', 'step', name]:.1f}" for name in ("flax-nnx", "torch")]
    assert f"on an H100, without C++, {both[0]} and {both[1]}." in text


def test_second_cpu_has_means_of_records():
    text = " ".join((DOCS / "speed_second_cpu.md").read_text(encoding="utf-8").split())
    found = bench_means(read_bench(DOCS / "records" / "bench_second_cpu.jsonl"))
    layer, train = (
        {
            (measure, contender): f"{value:.2f}"
            for (kind, measure, contender), value in found.items()
            if kind == wanted
        }
        for wanted in ("layer", "train")
    )
    assert f"{layer['step', 'flax-nnx']} times as fast in the geometric mean with one step" in text
    assert f"and {layer['steps', 'flax-nnx']} with eight" in text
    assert f"{layer['step', 'torch']} and {layer['steps', 'torch']} times" in text
    assert f"as each is used: {train['used', 'flax-nnx']} times as fast as Flax" in text
    assert f"{train['used', 'torch']} times as fast as PyTorch" in text
    assert f"for all, {train['steps', 'flax-nnx']} and {train['steps', 'torch']}." in text


def test_the_changelog_begins_with_this_version():
    text = (DOCS / "changelog.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", text, re.M)
    assert newest and newest[1] == version("lstm_optax")


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="needs sha256sum")
def test_sha256sum_accepts_a_manifest(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(3, {"w": jnp.arange(4.0), "n": np.int32(1)})
    command = "cd checkpoints && sha256sum -c *.sha256"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command in (DOCS / "checkpoints.md").read_text(encoding="utf-8")
