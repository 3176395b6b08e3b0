"""Pictures: written whole, not through a link, in the format of their suffix."""

import pytest

from lstm_optax.commands.pictures import save_picture


class Figure:
    """Writes its format, and may fail after that."""

    def __init__(self, error: Exception | None = None):
        self.error = error

    def savefig(self, file, format):
        file.write(format.encode())
        if self.error:
            raise self.error


def test_picture_is_written_through_a_link(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / "loss.svg").symlink_to(tmp_path / "target")
    save_picture(Figure(), tmp_path / "loss.svg")
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / "loss.svg").read_text() == "svg"


def test_failed_picture_replaces_the_old(tmp_path):
    (tmp_path / "loss.png").write_text("old")
    with pytest.raises(ValueError, match="no font"):
        save_picture(Figure(ValueError("no font")), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1
