"""The command `lstm-optax prepare`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from lstm_optax.data.tokens import Kind
from lstm_optax.runs.constraints import OptionError, check_fields, whole_numbers

if TYPE_CHECKING:
    from lstm_optax.data import PreparedText

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE…")]


@dataclass(frozen=True)
class Prepare:
    """Write a text of any size as a file of tokens; `lstm-optax train --text DIR` trains on it.

    Reads text files piece by piece, so the memory does not depend on their size. Either one text is
    cut into parts for training, validation and test, or the files of each part are given apart.
    """

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE…")] = ()
    """Text files that are cut into parts, one after another."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(required)")] = (
        None
    )
    """Folder for tokens.bin, vocabulary.json and tokens.json."""

    train: Files = ()
    """Text files for training, if they are given apart."""

    valid: Files = ()
    """Text files for validation, if they are given apart."""

    test: Files = ()
    """Text files for the test, if they are given apart."""

    shares: Annotated[tuple[float, float, float], tyro.conf.arg(metavar="TRAIN VALID TEST")] = (
        0.9,
        0.05,
        0.05,
    )
    """Shares of training, validation and test of one text; their sum is 1."""

    kind: Kind = "characters"
    """What a token is; words are separated by white space, subwords need `tokenizers`."""

    vocabulary: Annotated[int | None, tyro.conf.arg(metavar="INT"), whole_numbers(2)] = None
    """Largest number of words, by default 50,000, or of subwords, by default 8,192."""

    encoding: Annotated[str, tyro.conf.arg(metavar="NAME")] = "utf-8"
    """Encoding of the files, as Python names it."""

    keep_line_ends: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the line ends of characters or subwords; by default each becomes a newline character."""

    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace the prepared text in the folder."""

    def run(self, console: Console) -> int:
        """Write the folder, and print what it has; return the exit status."""
        from lstm_optax.data import TextError, prepare_tokens

        train, out = self._check()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        bar = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        with bar:
            task, label = bar.add_task(""), ""

            def show(new: str, done: int, total: int) -> None:
                nonlocal label
                if new != label:
                    label = new
                    bar.reset(task, total=total, description=new)
                    if not console.is_terminal:
                        console.print(new)
                bar.update(task, completed=done)

            try:
                prepared = prepare_tokens(
                    train,
                    out,
                    valid=self.valid,
                    test=self.test,
                    shares=self.shares,
                    kind=self.kind,
                    vocabulary=self.vocabulary,
                    encoding=self.encoding,
                    keep_line_ends=self.keep_line_ends,
                    overwrite=self.overwrite,
                    on_progress=show,
                )
            except TextError:
                raise
            except ValueError as error:
                raise OptionError(str(error)) from None
            except OSError as error:
                place, why = error.filename or out, error.strerror or error
                raise OptionError(
                    f"{place} cannot be written: {why}; free some space, or choose another folder "
                    "with --out"
                ) from error
        _show_result(console, prepared)
        return 0

    def _check(self) -> tuple[tuple[Path, ...], Path]:
        """Return the files to train on and the folder; raise OptionError for an invalid option."""
        check_fields(self)
        if self.out is None:
            raise OptionError("--out DIR is missing: name a folder for the prepared text")
        apart = [f"--{name}" for name in ("train", "valid", "test") if getattr(self, name)]
        if self.files and apart:
            raise OptionError(
                f"{self.files[0]} is to be cut into parts, and {apart[0]} has files of its own: "
                "pass all files with --train, --valid and --test, or none"
            )
        if not self.files and not (self.train and self.valid):
            raise OptionError(
                f"{' '.join(apart)} is not enough: pass both --train and --valid"
                if apart
                else "no text: pass one or more files, or --train and --valid"
            )
        return self.files or self.train, self.out


def _show_result(console: Console, prepared: "PreparedText") -> None:
    from lstm_optax.runs.tables import plan_table

    facts, unit = prepared.description, prepared.vocabulary.unit
    rows = [(part, f"{len(tokens):,} {unit}s") for part, tokens in prepared.parts.items()]
    rows.append(("vocabulary", f"{len(prepared.vocabulary):,} {unit}s"))
    if facts["unknown"]:
        share = facts["unknown"] / facts["tokens"]
        rows.append(("unknown", f"{facts['unknown']:,} {unit}s, {share:.2%}, are <unk>"))
    rows.append(("folder", str(prepared.path)))
    rows.append(("train", f"lstm-optax train --text {shlex.quote(str(prepared.path))}"))
    console.print(plan_table(rows), soft_wrap=not console.is_terminal)
