"""Flags: absurd numbers and misspelt names are one clear line, and help fits the terminal."""

import dataclasses
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import lstm_optax
from lstm_optax.cli import Bench, Explain, Sample, Train, main
from lstm_optax.cli_flags import speak_of_flags

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)
COMMANDS = {"train": Train, "sample": Sample, "bench": Bench, "explain sgd": Explain}
ABSURD = {
    int: ("-1", str(-(10**30)), str(2**64), "9" * 400),
    float: ("-1", "nan", "inf", "-inf", "1e39", "-1e300"),
}


def numeric_flags(kind) -> list[tuple[str, type]]:
    """The flags of a command that take a number, and its type."""
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


def test_every_command_has_numbers():
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
def test_absurd_numbers_are_one_clear_line(work, capsys, command, flag, value):
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
        ("train --lr .1", "--lr is no option: did you mean --learning-rate?"),
        ("train --lr=.1", "--lr is no option: did you mean --learning-rate?"),
        ("train --wd .1", "--wd is no option: did you mean --weight-decay?"),
        ("train --resume --lr .1", "--lr is no option: did you mean --learning-rate?"),
        ("explain sgd --lr .1", "--lr is no option: did you mean --learning-rate?"),
    ],
)
def test_initials_hint_at_the_flag(work, capsys, arguments, message):
    assert main(arguments.split()) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


@pytest.mark.parametrize("flag", ["--run", "--text", "--optimizer", "--hidden"])
@pytest.mark.parametrize("form", ["{} ", "{}="])
def test_empty_values_are_refused(work, capsys, flag, form):
    assert main(["train", *form.format(flag).split(" ")]) == 2
    assert capsys.readouterr() == ("", f"error: {flag} is empty: give it a value\n")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["", "train", "sample", "explain", "bench"])
def test_help_wraps_at_the_width_of_the_terminal(monkeypatch, capsys, columns, command):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert columns - 5 <= max(map(len, lines)) <= columns


def test_a_reader_that_closes_the_pipe_is_no_error(work):
    code = "import sys; from lstm_optax.cli import main; sys.exit(main(['train', '--help']))"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 141)


def test_library_errors_are_said_with_flags():
    message = "take a smaller `batch`, as with `encoding='cp1252'`, but not `x` or a`batch b`"
    expected = "take a smaller --batch, as with --encoding cp1252, but not `x` or a`batch b`"
    assert speak_of_flags(message) == expected


def test_no_library_error_speaks_of_flags():
    """What names flags are the rooms of the command line."""
    root = Path(lstm_optax.__file__).parent
    for room in ("data", "gates", "lstm", "models", "optimizers", "presets", "training"):
        for path in (root / room).rglob("*.py"):
            assert not re.search(r"[ (]--[a-z]+", path.read_text()), path
