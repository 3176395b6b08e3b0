"""The published study of saddles: its command, its records, and the page made of them."""

from pathlib import Path

import pytest
from matplotlib import image

from lstm_optax.saddles import saddle_markdown
from lstm_optax.saddles.saddle_study import main, read_saddles
from lstm_optax.studies import StudyError

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_command_writes_no_records(tmp_path, capsys):
    out, picture = tmp_path / "deep" / "saddles.jsonl", tmp_path / "saddles.png"
    flags = ["--out", str(out), "--picture", str(picture), "--optimizers", "sgd", "adam"]
    assert main(flags) == 0
    records = read_saddles(out)
    assert capsys.readouterr().out == saddle_markdown(records) + "\n"
    assert {record["optimizer"] for record in records} == {"sgd", "adam"}
    published = read_saddles(DOCS / "records" / "saddles.jsonl")
    quiet = [r for r in published if r["optimizer"] in ("sgd", "adam") and not r["noise"]]
    assert [record for record in records if not record["noise"]] == quiet
    assert image.imread(picture).shape[:2] == (600, 1400)


def test_page_differs_from_records():
    text = (DOCS / "saddles.md").read_text(encoding="utf-8")
    assert saddle_markdown(read_saddles(DOCS / "records" / "saddles.jsonl")) in text
    assert (DOCS / "saddles.png").stat().st_size < 200_000


def test_command_accepts_unknown_optimizer(capsys):
    assert main(["--optimizers", "sgd", "addam"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown optimizer 'addam'; the nearest is ")


@pytest.mark.parametrize("text", ["", '{"study": "other"}\n', '{"study": "saddles"}\n]\n'])
def test_other_file_is_read(text, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(text)
    with pytest.raises(StudyError) as error:
        read_saddles(path)
    assert str(error.value) == f"{path} holds no records of the study of saddles: run it again"
