"""The command `lstm-optax report`."""

import pytest
from made_records import made_study, study_record, write_study

from lstm_optax.commands.main import main


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path / "my study", made_study("sweep", optimizers={"nadam": 1e-2}))


def test_report_needs_a_study(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    message = "has no records.jsonl: name the folder of a sweep or a compare"
    assert f"error: {tmp_path} {message}\n" in capsys.readouterr().err


def test_report_refuses_a_reproduction(tmp_path, capsys):
    folder = write_study(tmp_path / "other", [study_record("reproduce")])
    assert main(["report", str(folder)]) == 2
    message = "holds a study of the kind reproduce, but a report needs a sweep or a compare"
    assert f"error: {folder} {message}" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["records.jsonl"]


@pytest.mark.slow
def test_report_needs_an_empty_export_folder(folder, capsys):
    pytest.importorskip("tensorboardX")
    assert main(["report", str(folder), "--tensorboard", str(folder)]) == 2
    assert f"error: {folder} is a file or not empty" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_report_names_what_cannot_be_written(folder, capsys):
    (folder / "plots").write_text("a file")
    assert main(["report", str(folder)]) == 2
    assert "plots cannot be written: File exists; check the folder" in capsys.readouterr().err


@pytest.mark.slow
def test_report_says_where_the_page_is(folder, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    events = tmp_path / "events"
    assert main(["report", str(folder), "--tensorboard", str(events)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"exported 10 trials to {events}", f"saved {folder / 'report.html'}"]
    assert (folder / "report.html").is_file() and len(list(events.iterdir())) == 10
    plots = list((folder / "plots").glob("*.svg"))
    assert len(plots) == 9 and not any("NaN" in plot.read_text("utf-8") for plot in plots)
