"""Write a picture to a file, whole or not at all."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from lstm_optax.records import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of the path's suffix; a symbolic link is not followed."""
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    write_atomically(path, content.getvalue())
