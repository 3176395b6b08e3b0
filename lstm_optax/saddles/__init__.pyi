from .descents import descent_path as descent_path
from .escape_theory import EscapeLaw as EscapeLaw
from .escape_theory import escape_law as escape_law
from .escapes import escape_steps as escape_steps
from .escapes import saddle_markdown as saddle_markdown
from .escapes import saddle_table as saddle_table
from .surface_plot import saddle_figure as saddle_figure
from .surface_plot import surface_figure as surface_figure
