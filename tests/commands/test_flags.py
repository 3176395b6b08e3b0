"""Flags: one-line errors for absurd numbers and misspelt names, and the width of the help."""

import dataclasses
import os
import re
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints
from unittest.mock import Mock

import pytest

import lstm_optax
from lstm_optax import runs
from lstm_optax.commands.flags import replace_arguments_by_flags
from lstm_optax.commands.main import main
from lstm_optax.commands.program import Bench, Explain, Sample, Train

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)
COMMANDS = {"train": Train, "sample": Sample, "bench": Bench, "explain sgd": Explain}
ABSURD = {
    int: ("-1", str(-(10**30)), str(2**64), "9" * 400),
    float: ("-1", "nan", "inf", "-inf", "1e39", "-1e300"),
}


def numeric_flags(kind) -> list[tuple[str, type]]:
    """Return the numeric flags of a command and their types."""
    found, hints = [], get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name == "config":
            found += numeric_flags(field.default_factory)
            continue
        hint = hints[field.name]
        kinds = (
            [k for k in get_args(hint) if k is not type(None)]
            if (isinstance(hint, types.UnionType))
            else [hint]
        )
        if kinds[0] in ABSURD:
            found.append((f"--{field.name.replace('_', '-')}", kinds[0]))
    return found


CASES = [
    (command, flag, value)
    for command, kind in COMMANDS.items()
    for flag, number in numeric_flags(kind)
    for value in ABSURD[number]
]


def test_every_command_has_numeric_flags():
    flags = {(command, flag) for command, flag, _ in CASES}
    assert {("train", "--hidden"), ("train", "--epochs"), ("sample", "--length")} <= flags
    assert {("bench", "--rounds"), ("explain sgd", "--learning-rate")} <= flags
    assert len(flags) > 25


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command, flag, value", CASES)
def test_absurd_numbers_are_one_line_errors(work, capsys, command, flag, value):
    text = ["--text", "text.txt", "--batch", "2", "--window", "8"] if command == "train" else []
    run = ["--run", "run"] if command in ("train", "sample") else []
    assert main([*command.split(), *text, *run, f"{flag}={value}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and len(err) < 300
    assert err.startswith(f"error: {flag} ")
    assert [path.name for path in work.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("train --lr .1", "--lr is not an option: did you mean --learning-rate?"),
        ("train --lr=.1", "--lr is not an option: did you mean --learning-rate?"),
        ("train --wd .1", "--wd is not an option: did you mean --weight-decay?"),
        ("train --resume --lr .1", "--lr is not an option: did you mean --learning-rate?"),
        ("train --batch-size 3", "--batch-size is not an option: did you mean --batch?"),
        ("train --rate 3", "--rate is not an option: did you mean --learning-rate?"),
        ("explain sgd --lr .1", "--lr is not an option: did you mean --learning-rate?"),
    ],
)
def test_misspelt_flag_gets_hint(work, capsys, arguments, message):
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    "arguments",
    ["--train t.txt", "--valid=t.txt", "--text t.txt --test t.txt", "--resume --train t.txt"],
)
def test_files_apart_get_hint(work, capsys, arguments):
    flag = re.search("--(train|valid|test)", arguments)[0]
    assert main(["train", *arguments.split()]) == 2
    assert capsys.readouterr() == (
        "",
        f"error: {flag} is not an option of train: write files that are given apart to a folder "
        "with `lstm-optax prepare --train FILE… --valid FILE… --test FILE… --out DIR`, and train "
        "with --text DIR\n",
    )


@pytest.mark.parametrize("flag", ["--run", "--text", "--optimizer", "--hidden"])
@pytest.mark.parametrize("form", ["{} ", "{}="])
def test_empty_values_are_rejected(work, capsys, flag, form):
    assert main(["train", *form.format(flag).split(" ")]) == 2
    assert capsys.readouterr() == ("", f"error: {flag} is empty: pass a value\n")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["", "train", "sample", "explain", "bench"])
def test_help_wraps_at_terminal_width(monkeypatch, capsys, columns, command):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert columns - 5 <= max(map(len, lines)) <= columns
    cells = [re.fullmatch(r"│ ( {15,})(\S.*?) *│", line) for line in lines]
    for cell, following in pairwise(cells):
        if cell and following and cell[1] == following[1] and cell[2][-1] not in ".)":
            first = following[2].split(" ")[0]  # a word that did not fit
            assert len(cell[1] + cell[2] + first) + 5 > columns - 4, cell[2]


def test_closed_pipe_is_no_error(work):
    code = (
        "import sys; from lstm_optax.commands.main import main; sys.exit(main(['train', '--help']))"
    )
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_library_errors_name_flags():
    message = "take a smaller `batch`, as with `encoding='cp1252'`, but not `x` or a`batch b`"
    expected = "take a smaller --batch, as with --encoding cp1252, but not `x` or a`batch b`"
    assert replace_arguments_by_flags(message) == expected


def test_library_source_names_no_flags():
    """Only the rooms of the command line name flags."""
    root = Path(lstm_optax.__file__).parent
    for room in ("data", "gates", "lstm", "models", "optimizers", "presets", "training"):
        for path in (root / room).rglob("*.py"):
            assert not re.search(r"[ (]--[a-z]+", path.read_text()), path


SIZES = "--hidden 8 --embedding 4 --batch 2 --window 8 --steps 4 --eval-every 2".split()


@pytest.mark.slow
def test_resume_of_piped_text(work, capsys, monkeypatch):
    monkeypatch.setattr(runs, "loss_figure", Mock())

    def pipe() -> list[str]:
        read, write = os.pipe()
        os.write(write, TEXT.encode())
        os.close(write)
        return ["--text", f"/dev/fd/{read}"]

    assert main(["train", *pipe(), *SIZES, "--schedule", "constant", "--run", "run"]) == 0
    capsys.readouterr()
    resume = ["train", "--resume", "--run", "run", "--steps", "6"]
    assert main(resume) == 2
    assert re.fullmatch(
        r"error: --resume: the run read its text from a pipe, /dev/fd/\d+, which cannot be read "
        r"again: pass a file with the same text with --text FILE, or pipe it in again with "
        r"--text /dev/stdin\n",
        capsys.readouterr().err,
    )
    assert main([*resume, *pipe()]) == 0
    assert main([*resume[:-1], "8", "--text", "text.txt"]) == 0
    assert "resumed     after step 6 of 8" in capsys.readouterr().out


def test_steps_and_epochs_exclude_each_other(work, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--text", "text.txt", "--steps", "400", "--epochs", "2"])
    assert "--steps and --epochs are not allowed together" in capsys.readouterr().err


def test_early_failure_leaves_no_folder(work, capsys):
    assert main(["train", "--text", "text.txt", *SIZES, "--optimizer", "optax.lbfgs"]) == 2
    assert "optax.lbfgs cannot be used here" in capsys.readouterr().err
    assert [path.name for path in work.iterdir()] == ["text.txt"]
