"""The common style of the pictures: colours, and figures that need no display."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# The palette of Okabe and Ito, whose colours differ for every type of colour vision.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
VERMILION, SKY_BLUE, YELLOW, BLACK = "#D55E00", "#56B4E9", "#F0E442", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY_BLUE, YELLOW, BLACK)
GREY, GRID_GREY = "#555555", "#dddddd"


def new_figure(width: float, height: float, title: str | None = None) -> Figure:
    """Return an empty figure of 100 dots per inch, with its title at the top left.

    Args:
      width: in inches.
      height: in inches.
      title: None leaves no space for one.
    """
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    if title is not None:
        figure.suptitle(title, fontsize=14, x=0.01, horizontalalignment="left")
    return figure


def add_grid(axes: Axes) -> None:
    """Draw a light grid, and remove the top and the right spine."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID_GREY, linewidth=0.6)
