"""Pictures and tables of what a run has recorded; this room reads plain dicts and numbers only."""

from lstm_optax.report.plots import draw_losses, loss_figure
from lstm_optax.report.progress import TrainScreen
from lstm_optax.report.tables import loss_table, plan_table

__all__ = ["TrainScreen", "draw_losses", "loss_figure", "loss_table", "plan_table"]
